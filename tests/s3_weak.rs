//! A weak bucket is enough (C7): every request fails in every way, connections that lie, machines that
//! die, are parted, come back, and are taken over, a thousand times. Nothing acknowledged is lost, no name
//! ever has two contents.
//!
//! Every request is held to `support/bucket/rules` as well. The model and the crash tests run on strong
//! and weak buckets in `model` and `crash`.

mod support;

use kivafs::store::{CreateOptions, OpenError, OpenOptions, Store, StoreError};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};
use support::bucket::{Bucket, Cut, Delivery, Fault, Filter, Handle, How, Listing, OnTheWay, Point, Weakness, What};
use support::crash_disk::Effort;
use support::crash_run::CrashRun;
use support::machine::{Machine, answer, eager, final_state, new_store, taking_over};
use support::medium::{Medium, WeakBucket};
use support::random::{Random, for_each_seed, scaled};
use support::store::{Change, SMALL, State, TINY, apply, commit, difference, random_changes, read_state};

/// A store with something in it, whose writer was killed, and what it holds.
fn filled_store(seed: u64) -> (Bucket, State) {
    let bucket = new_store(TINY);
    let machine = Machine::start(&bucket);
    let mut random = Random::new(seed);
    let mut state = State::new();
    for step in 0..30 {
        let changes = random_changes(&mut random, TINY);
        commit(&machine.store, &changes).unwrap();
        apply(&mut state, &changes);
        if step % 4 == 0 {
            answer(&machine.begin_sync()).unwrap();
        }
    }
    answer(&machine.begin_sync()).unwrap();
    machine.kill(OnTheWay::Lost);
    (bucket, state)
}

/// Takes a filled store over and works on it while one request fails. Whether that was reached.
fn work_with_fault(filled: &Bucket, state: &State, seed: u64, fault: Fault) -> bool {
    let context = format!("{fault:?}, seed {seed}");
    let bucket = filled.copy();
    let handle = bucket.handle();
    handle.arm(fault);
    let mut state = state.clone();
    // Nothing stays cached, so that reading goes to the bucket.
    let options = OpenOptions { cache_bytes: 32 << 10, ..taking_over() };
    let machine = match Machine::open_by(handle.clone(), &options) {
        Ok(machine) => machine,
        // What is not allowed is told at once; it is not done either.
        Err(OpenError::Io { .. }) if fault.how == How::Refused => {
            let found = final_state(&bucket);
            assert!(found == state, "{context}: {}", difference(&found, &state));
            return true;
        }
        // Who sees no store at all says so.
        Err(OpenError::NotFound(_)) if fault.how == How::Missing => return true,
        Err(error) => panic!("{context}: open: {error}"),
    };
    let mut random = Random::new(seed);
    for step in 0..25 {
        let changes = random_changes(&mut random, TINY);
        let done = match commit(&machine.store, &changes) {
            // Reading is not tried again when it is not allowed.
            Err(StoreError::Io(_)) if fault.how == How::Refused => commit(&machine.store, &changes),
            done => done,
        };
        done.unwrap_or_else(|error| panic!("{context}: step {step}: {error}"));
        apply(&mut state, &changes);
        if step % 3 == 2 {
            answer(&machine.begin_sync()).unwrap_or_else(|error| panic!("{context}: step {step}: {error}"));
        }
        if step % 12 == 7 {
            let found = match read_state(&machine.store) {
                Err(StoreError::Io(_)) if fault.how == How::Refused => read_state(&machine.store),
                found => found,
            };
            let found = found.unwrap_or_else(|error| panic!("{context}: step {step}: read: {error}"));
            assert!(found == state, "{context}: step {step}: {}", difference(&found, &state));
        }
    }
    machine.store.checkpoint().unwrap_or_else(|error| panic!("{context}: {error}"));
    answer(&machine.begin_sync()).unwrap_or_else(|error| panic!("{context}: {error}"));
    if seed.is_multiple_of(2) {
        machine.close();
    } else {
        machine.kill(OnTheWay::Late);
    }
    let found = final_state(&bucket);
    assert!(found == state, "{context}: {}", difference(&found, &state));
    handle.happened() > 0
}

/// Most of the time is spent in pauses between attempts: so many wait side by side.
const SIDE_BY_SIDE: usize = 12;

/// Fails the first request of that kind, then the second, until none is left.
fn fail_each(how: How, kinds: &[What]) {
    for_each_seed(2, |seed| {
        let (filled, state) = filled_store(seed);
        for what in kinds {
            let try_nth = |nth| {
                let fault = Fault { what: Some(*what), nth, count: 1, how };
                work_with_fault(&filled, &state, seed, fault)
            };
            let mut count = 0;
            loop {
                let reached = std::thread::scope(|scope| {
                    let threads: Vec<_> =
                        (1..=SIDE_BY_SIDE).map(|more| scope.spawn(move || try_nth(count + more))).collect();
                    let results =
                        threads.into_iter().map(|thread| thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
                    results.filter(|reached| *reached).count()
                });
                count += reached;
                if reached < SIDE_BY_SIDE {
                    break;
                }
            }
            println!("{how:?} {what:?}: {count} requests");
            assert!(count > 0 || *what == What::Seal, "no request of that kind: {what:?}");
        }
    });
}

const WRITES: [What; 5] = [What::Claim, What::Commit, What::Seal, What::Data, What::Delete];
const ALL: [What; 7] = [What::Claim, What::Commit, What::Seal, What::Data, What::Delete, What::Get, What::List];

#[test]
fn every_request_is_lost_once() {
    fail_each(How::Undone, &ALL);
}

#[test]
fn every_reply_is_lost_once() {
    fail_each(How::LostReply, &ALL);
}

#[test]
fn every_change_is_late_once() {
    fail_each(How::Late, &WRITES);
}

#[test]
fn every_request_is_slowed_down_once() {
    fail_each(How::Slow, &ALL);
}

#[test]
fn every_request_is_refused_once() {
    fail_each(How::Refused, &ALL);
}

#[test]
fn every_look_misses_what_is_there_once() {
    fail_each(How::Missing, &[What::Get]);
}

#[test]
fn every_request_of_creating_fails_once() {
    for how in [How::Undone, How::LostReply, How::Late, How::Slow, How::Refused] {
        for nth in 1.. {
            let bucket = Bucket::new();
            let handle = bucket.handle();
            handle.arm(Fault { what: None, nth, count: 1, how });
            let created = Store::create_in(handle.clone(), &CreateOptions::default());
            bucket.land_late();
            match &created {
                Ok(()) => {}
                Err(OpenError::Io { .. }) if how == How::Refused => {}
                // It cannot be told from somebody else's who was quicker.
                Err(error) => panic!("{how:?} {nth}: {error}"),
            }
            match Machine::open(&bucket, &taking_over()) {
                Ok(machine) => assert!(machine.state().is_empty(), "{how:?} {nth}"),
                Err(OpenError::NotFound(_)) => assert!(created.is_err(), "{how:?} {nth}: created, and not there"),
                Err(error) => panic!("{how:?} {nth}: {error}"),
            }
            if handle.happened() == 0 {
                println!("{how:?}: {} requests", nth - 1);
                break;
            }
        }
    }
}

/// Weak now and then; a failed attempt costs a pause.
fn mild() -> Weakness {
    Weakness {
        lost_reply: 40,
        undone: 50,
        slow: 90,
        late: 60,
        missing_for: 1,
        deleted_for: 2,
        listing: Listing::HidesNewest(2),
    }
}

/// Crashes of a writer whose connection is weak, each recovered over a weak connection.
#[test]
fn crash_anywhere_in_a_weak_bucket() {
    for_each_seed(3, |seed| {
        let mut run = CrashRun::create_on(WeakBucket::new(mild(), seed), TINY);
        let store = run.work(seed, TINY, 60, &eager());
        run.close(store).unwrap();
        let effort = Effort { cuts_max: scaled(25), fates_max: scaled(6), shuffled: 2, seed };
        let mut recovered = 0;
        println!("{:?}", run.verify(effort, &eager(), |_, _| recovered += 1));
        assert!(recovered > 0);
    });
}

/// Parted from its bucket a writer waits, and goes on when the bucket is back.
#[test]
fn an_outage_ends_and_everything_goes_on() {
    for on_the_way in [OnTheWay::Lost, OnTheWay::Done, OnTheWay::Late, OnTheWay::Seeded] {
        let bucket = new_store(SMALL);
        bucket.deliver(Delivery::Pool { threads: 3, latency: Duration::from_micros(200), seed: 1 });
        let machine = Machine::start(&bucket);
        let mut random = Random::new(1);
        let mut state = State::new();
        for outage in 0..5 {
            let changes = random_changes(&mut random, SMALL);
            commit(&machine.store, &changes).unwrap();
            apply(&mut state, &changes);
            machine.handle.cut_after(outage % 3, Cut::killed(on_the_way));
            let synced = machine.begin_sync();
            let waits = |synced: &std::sync::mpsc::Receiver<_>| match synced.recv_timeout(Duration::from_millis(30)) {
                Err(RecvTimeoutError::Timeout) => true,
                Ok(Ok(())) => false,
                other => panic!("{on_the_way:?}: {other:?}"),
            };
            assert!(waits(&synced) == machine.handle.is_cut(), "{on_the_way:?} {outage}");
            machine.put("during the outage", &format!("{outage}"));
            state.insert(b"during the outage".to_vec(), format!("{outage}").into_bytes());
            let found = machine.state();
            assert!(found == state, "{on_the_way:?}: {}", difference(&found, &state));
            machine.handle.heal();
            answer(&machine.begin_sync()).unwrap();
        }
        machine.close();
        let found = final_state(&bucket);
        assert!(found == state, "{on_the_way:?}: {}", difference(&found, &state));
    }
}

/// How a writer's time ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ending {
    /// It closes the store.
    Closed,
    /// It is dropped.
    Dropped,
    /// It is parted from the bucket at a change; what was on its way may be lost, done, or late; and
    /// comes back when somebody else has the store.
    Parted,
    /// It goes on, though somebody else has taken the store.
    GoesOn,
}

/// What a writer did.
struct Deeds {
    /// After each transaction; the first is what it found.
    states: Vec<State>,
    /// How many transactions it was told are durable.
    durable: usize,
}

impl Deeds {
    /// Panics unless what the next one found is one of these states, with everything acknowledged.
    #[track_caller]
    fn assert_allow(&self, found: &State, context: &str) {
        if self.states[self.durable..].contains(found) {
            return;
        }
        let elsewhere = self.states.iter().position(|state| state == found);
        panic!(
            "{context}: {} of {} acknowledged, found is {}; against the acknowledged: {}",
            self.durable,
            self.states.len() - 1,
            elsewhere.map_or("none of them".to_owned(), |index| format!("{index}")),
            difference(found, &self.states[self.durable])
        );
    }
}

/// A writer on a thread of its own.
struct Worker {
    handle: Arc<Handle>,
    steps: Arc<AtomicUsize>,
    thread: JoinHandle<Deeds>,
}

impl Worker {
    fn start(machine: Machine, found: State, ending: Ending, seed: u64) -> Worker {
        let (handle, steps) = (machine.handle.clone(), Arc::new(AtomicUsize::new(0)));
        let counter = steps.clone();
        let thread = std::thread::spawn(move || work(machine, found, ending, seed, &counter));
        Worker { handle, steps, thread }
    }

    /// Waits until it has done enough to be left to itself.
    fn wait(&self, ending: Ending, steps: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        let is_enough = || match ending {
            Ending::Closed | Ending::Dropped => false,
            Ending::Parted => self.handle.is_cut(),
            Ending::GoesOn => self.steps.load(Ordering::Acquire) >= steps,
        };
        while !self.thread.is_finished() && !is_enough() {
            assert!(Instant::now() < deadline, "{ending:?}: it does not get on");
            std::thread::yield_now();
        }
    }

    /// Its network is back; it ends by itself, if only because somebody else has the store.
    fn end(self) -> Deeds {
        self.handle.heal();
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Transactions and syncs, until it is fenced or has done enough.
fn work(machine: Machine, found: State, ending: Ending, seed: u64, counter: &AtomicUsize) -> Deeds {
    let mut random = Random::new(seed);
    let mut deeds = Deeds { states: vec![found], durable: 0 };
    let limit = match ending {
        Ending::Closed | Ending::Dropped => 3 + random.within(0..20),
        Ending::Parted | Ending::GoesOn => 500,
    };
    for _ in 0..limit {
        let changes = random_changes(&mut random, TINY);
        match commit(&machine.store, &changes) {
            Ok(()) => {
                let mut state = deeds.states[deeds.states.len() - 1].clone();
                apply(&mut state, &changes);
                deeds.states.push(state);
            }
            Err(StoreError::Poisoned(_)) => return deeds,
            // Of a reader whose bucket does not answer in time.
            Err(StoreError::Io(_)) => {}
            Err(error) => panic!("{ending:?}, seed {seed}: {error}"),
        }
        if random.one_in(3) {
            let count = deeds.states.len() - 1;
            match machine.store.sync() {
                Ok(()) => deeds.durable = count,
                Err(StoreError::Poisoned(_)) => return deeds,
                Err(error) => panic!("{ending:?}, seed {seed}: {error}"),
            }
        }
        counter.fetch_add(1, Ordering::Release);
    }
    if ending == Ending::Closed && machine.store.close().is_ok() {
        deeds.durable = deeds.states.len() - 1;
    }
    deeds
}

/// Writers one after another, each taking over from the one before, however that ended.
fn take_over_again_and_again(seed: u64, rounds: usize) -> (usize, usize) {
    let mut random = Random::new(seed);
    let bucket = new_store(TINY);
    let mut before: Option<Worker> = None;
    let mut last = Deeds { states: vec![State::new()], durable: 0 };
    let mut opened = 0;
    for round in 0..rounds {
        let context = format!("seed {seed}, round {round}");
        if random.one_in(20) {
            bucket.deliver(match random.within(0..2) {
                0 => Delivery::AtOnce,
                _ => Delivery::Pool { threads: 3, latency: Duration::from_micros(100), seed: random.next() },
            });
        }
        let handle = bucket.handle();
        let is_weak = random.one_in(5);
        if is_weak {
            handle.weaken(if random.one_in(4) { Weakness::severe() } else { mild() }, random.next());
        }
        let ending = match random.within(0..8) {
            0 => Ending::Closed,
            1 | 2 => Ending::Dropped,
            3..6 => Ending::Parted,
            _ => Ending::GoesOn,
        };
        let mut timeout = Duration::from_secs(20);
        if ending == Ending::Parted {
            handle.cut_after(1 + random.within(0..25) as u64, Cut::killed(OnTheWay::Seeded));
            // Also in the middle of opening, which then gives up.
            timeout = Duration::from_millis(if is_weak { 1000 } else { 200 });
        }
        let grace = Duration::from_secs(if random.one_in(3) { 3600 } else { 0 });
        let options = OpenOptions { timeout, grace, ..taking_over() };
        let machine = match Machine::open_by(handle.clone(), &options) {
            Ok(machine) => machine,
            Err(OpenError::Io { .. }) if handle.is_cut() || (is_weak && ending == Ending::Parted) => continue,
            Err(error) => panic!("{context}: {error}"),
        };
        opened += 1;
        let found = match read_state(&machine.store) {
            Ok(found) => Some(found),
            Err(StoreError::Io(_)) if handle.is_cut() || (is_weak && ending == Ending::Parted) => None,
            Err(error) => panic!("{context}: read: {error}"),
        };
        // Only now, so that what it does meanwhile races with the taking over.
        if let Some(worker) = before.take() {
            last = worker.end();
        }
        let Some(found) = found else { continue };
        last.assert_allow(&found, &context);
        last = Deeds { states: vec![found.clone()], durable: 0 };
        let worker = Worker::start(machine, found, ending, random.next());
        worker.wait(ending, random.within(1..12));
        before = Some(worker);
    }
    let machine = Machine::take_over(&bucket);
    let found = machine.state();
    if let Some(worker) = before.take() {
        last = worker.end();
    }
    last.assert_allow(&found, &format!("seed {seed}, at the end"));
    machine.kill(OnTheWay::Lost);
    bucket.land_late();
    let found_again = final_state(&bucket);
    assert!(found_again == found, "seed {seed}: {}", difference(&found_again, &found));
    assert!(opened > rounds / 2, "seed {seed}: only {opened} of {rounds} could open");
    bucket.count_contents()
}

/// A thousand rounds, in chains side by side.
#[test]
fn a_thousand_writers_are_taken_over_and_nothing_acknowledged_is_lost() {
    const CHAINS: usize = 8;
    for_each_seed(1, |seed| {
        let counts = std::thread::scope(|scope| {
            let chain = |chain| move || take_over_again_and_again(100 * seed + chain as u64, scaled(1000) / CHAINS);
            let chains: Vec<_> = (0..CHAINS).map(|number| scope.spawn(chain(number))).collect();
            let joined = chains.into_iter().map(|chain| chain.join().unwrap_or_else(|panic| resume_unwind(panic)));
            joined.fold((0, 0), |sum, (names, twice)| (sum.0 + names, sum.1 + twice))
        });
        println!("{} names", counts.0);
        assert!(counts.0 > 1000 && counts.1 == 0, "{counts:?}: names, and names with two contents");
    });
}

/// Requests of an idle store, and of many syncs at once.
#[test]
fn an_idle_store_sends_nothing_and_waiting_syncs_share_a_commit() {
    let bucket = new_store(SMALL);
    let machine = Machine::start(&bucket);
    machine.save_many("w", 5);
    let arrived = || What::ALL.map(|what| bucket.arrived(what));
    let before = arrived();
    for _ in 0..20 {
        answer(&machine.begin_sync()).unwrap();
    }
    assert_eq!(arrived(), before, "there was nothing to commit");
    // While one commit is on its way everything else gathers for the next.
    let gate = bucket.gate(Filter::of(What::Commit), Point::Arrival);
    machine.put("first", "w");
    let mut syncs = vec![machine.begin_sync()];
    let first = gate.wait();
    for number in 0..50 {
        machine.put(&format!("gathers {number}"), "w");
        syncs.push(machine.begin_sync());
    }
    first.carry_out();
    gate.wait().carry_out();
    gate.open();
    syncs.iter().for_each(|synced| answer(synced).unwrap());
    assert_eq!(bucket.arrived(What::Commit), before[What::Commit as usize] + 2);
}

/// A weak bucket, and then a small store against a map, on it.
#[test]
fn a_store_in_a_weak_bucket_reads_and_checks_as_on_any_other() {
    for_each_seed(2, |seed| {
        let medium = WeakBucket::new(Weakness::severe(), seed);
        medium.create(SMALL).unwrap();
        let mut random = Random::new(seed);
        let mut state = State::new();
        for _ in 0..3 {
            let store = medium.open(&eager()).unwrap();
            for _ in 0..15 {
                let changes: Vec<Change> = random_changes(&mut random, SMALL);
                commit(&store, &changes).unwrap();
                apply(&mut state, &changes);
            }
            store.close().unwrap();
            drop(store);
            let store = medium.open(&OpenOptions { read_only: true, ..eager() }).unwrap();
            // Readers may lag: what a LIST hides is not searched for.
            drop(store);
        }
        let found = final_state(&medium.bucket);
        assert!(found == state, "{}", difference(&found, &state));
    });
}
