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
use std::sync::mpsc::RecvTimeoutError;
use std::time::Duration;
use support::bucket::{Bucket, Cut, Delivery, Fault, Filter, Handle, How, Listing, OnTheWay, Point, Weakness, What};
use support::crash_disk::Effort;
use support::crash_run::CrashRun;
use support::machine::{Machine, answer, eager, final_state, new_store, taking_over};
use support::medium::WeakBucket;
use support::random::{Random, for_each_seed, scaled};
use support::store::{SMALL, State, TINY, apply, commit, create_in, difference, random_changes, read_state};
use support::succession::{Ending, Line, Network, side_by_side};

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

/// C7: a 404 from before the store was made must not have been asked for by who makes it.
#[test]
fn a_new_store_is_seen_at_once() {
    let bucket = Bucket::new();
    let handle = bucket.handle();
    handle.weaken(Weakness { missing_for: usize::MAX, listing: Listing::Refused, ..Weakness::default() }, 1);
    create_in(handle.clone(), TINY).unwrap();
    let machine = Machine::open_by(handle, &eager()).unwrap_or_else(|error| panic!("open: {error}"));
    assert!(machine.state().is_empty());
    machine.close();
    assert!(matches!(create_in(bucket.handle(), TINY), Err(OpenError::Exists(_))));
}

/// C7: who looked for a store before somebody made it finds it afterwards, though a 404 was cached.
#[test]
fn a_new_store_is_seen_by_who_looked_too_early() {
    let bucket = Bucket::new();
    let handle = bucket.handle();
    handle.weaken(Weakness { missing_for: 3, ..Weakness::default() }, 1);
    assert!(matches!(Machine::open_by(handle.clone(), &eager()), Err(OpenError::NotFound(_))));
    create_in(bucket.handle(), TINY).unwrap();
    Machine::open_by(handle, &eager()).unwrap_or_else(|error| panic!("open: {error}")).close();
}

/// Crashes of a writer whose connection is weak, each recovered over a weak connection.
#[test]
fn crash_anywhere_in_a_weak_bucket() {
    for_each_seed(3, |seed| {
        let mut run = CrashRun::create_on(WeakBucket::new(Weakness::mild(), seed), TINY);
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

impl Line for Handle {
    fn is_cut(&self) -> bool {
        self.is_cut()
    }

    fn wait_a_moment(&self) {
        std::thread::yield_now();
    }

    fn heal(&self) {
        self.heal();
    }

    fn sever(&self) {
        self.cut(Cut::killed(OnTheWay::Seeded));
    }
}

impl Network for Bucket {
    type Line = Handle;

    const PATIENCE_WHEN_CUT: Duration = Duration::from_secs(1);

    /// A connection that may be weak, to a bucket that may answer in another way from now on.
    fn connect(&self, ending: Ending, random: &mut Random) -> Arc<Handle> {
        if random.one_in(20) {
            self.deliver(match random.within(0..2) {
                0 => Delivery::AtOnce,
                _ => Delivery::Pool { threads: 3, latency: Duration::from_micros(100), seed: random.next() },
            });
        }
        let handle = self.handle();
        if random.one_in(5) {
            handle.weaken(if random.one_in(4) { Weakness::severe() } else { Weakness::mild() }, random.next());
        }
        if ending.is_cut() {
            handle.cut_after(1 + random.within(0..25) as u64, Cut::killed(OnTheWay::Seeded));
        }
        handle
    }

    fn settle(&self) {
        self.land_late();
    }
}

/// A thousand rounds, in chains side by side.
#[test]
fn a_thousand_writers_are_taken_over_and_nothing_acknowledged_is_lost() {
    for_each_seed(1, |seed| {
        let (outcome, buckets) = side_by_side(seed, 8, scaled(1000), |_| new_store(TINY));
        println!("{outcome:?}");
        for bucket in buckets {
            let (names, twice) = bucket.count_contents();
            assert!(names > 125 && twice == 0, "{names} names, {twice} with two contents");
        }
        assert!(outcome.fenced > 0);
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
