//! Writers one after another, each taking the store over from the one before, however that ended.
//!
//! What a writer finds must be the state after one of the transactions of the one before, none that was
//! acknowledged as durable missing (C1, C2); and since that holds also for what is acknowledged while
//! the next one has the store already, nobody who was taken over is told so any more (C4).

use super::machine::{eager, final_state, taking_over};
use super::medium::Medium;
use super::random::Random;
use super::store::{State, TINY, apply, commit, difference, random_changes, read_state};
use kivafs::backend::Objects;
use kivafs::store::{OpenError, OpenOptions, Store, StoreError};
use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How a writer's time ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// It closes the store.
    Closed,
    /// It is dropped between two requests.
    Dropped,
    /// It is cut off at a change, and dropped; what was on its way may be lost, done, or late.
    Killed,
    /// It is cut off at a change, and comes back when somebody else has the store.
    Parted,
    /// It goes on, though somebody else has taken the store.
    GoesOn,
}

impl Ending {
    fn draw(random: &mut Random) -> Ending {
        match random.within(0..10) {
            0 => Ending::Closed,
            1 => Ending::Dropped,
            2..6 => Ending::Killed,
            6..9 => Ending::Parted,
            _ => Ending::GoesOn,
        }
    }

    /// Whether the network ends it.
    pub fn is_cut(self) -> bool {
        matches!(self, Ending::Killed | Ending::Parted)
    }
}

/// One machine's connection to the bucket.
pub trait Line: Objects + 'static {
    /// Whether it is cut off.
    fn is_cut(&self) -> bool;

    /// Returns after a moment, or when it is cut off.
    fn wait_a_moment(&self);

    /// The network is back.
    fn heal(&self);

    /// Its machine is dead: nothing comes from it any more. What is on its way may arrive all the same.
    fn sever(&self);
}

/// What lies between machines and their bucket.
pub trait Network: Medium + Send {
    type Line: Line;

    /// How long who may be cut off while it opens the store tries to.
    const PATIENCE_WHEN_CUT: Duration;

    /// A new machine's connection. One that [`Ending::is_cut`] is cut off by itself, some time.
    fn connect(&self, ending: Ending, random: &mut Random) -> Arc<Self::Line>;

    /// Nothing is on its way any more.
    fn settle(&self);
}

/// What a writer did.
struct Deeds {
    /// After each transaction; the first is what it found.
    states: Vec<State>,
    /// How many transactions it was told are durable.
    durable: usize,
    /// How often it was told that.
    acknowledged: usize,
    /// Whether it was told that the store is no longer its own.
    is_fenced: bool,
}

impl Deeds {
    fn begin(found: State) -> Deeds {
        Deeds { states: vec![found], durable: 0, acknowledged: 0, is_fenced: false }
    }

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
struct Worker<L> {
    line: Arc<L>,
    store: Arc<Store>,
    ending: Ending,
    steps: Arc<AtomicUsize>,
    thread: JoinHandle<Deeds>,
}

impl<L: Line> Worker<L> {
    fn start(line: Arc<L>, store: Store, found: State, ending: Ending, seed: u64) -> Worker<L> {
        let (store, steps) = (Arc::new(store), Arc::new(AtomicUsize::new(0)));
        let (used, counter) = (store.clone(), steps.clone());
        let thread = std::thread::spawn(move || work(&used, found, ending, seed, &counter));
        Worker { line, store, ending, steps, thread }
    }

    /// Waits until it has done enough to be left to itself.
    fn wait(&self, steps: usize) {
        let deadline = Instant::now() + Duration::from_secs(60);
        while !self.thread.is_finished() {
            if self.line.is_cut() {
                if self.ending.is_cut() {
                    return;
                }
                self.line.heal();
            }
            if self.ending == Ending::GoesOn && self.steps.load(Ordering::Acquire) >= steps {
                return;
            }
            assert!(Instant::now() < deadline, "{:?}: it does not get on", self.ending);
            self.line.wait_a_moment();
        }
    }

    /// It dies here and now. Its thread only learns that nothing will be answered.
    fn kill(self) -> Deeds {
        self.line.sever();
        self.store.abandon("killed");
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }

    /// Its network is back; it ends by itself, if only because somebody else has the store.
    fn end(self) -> Deeds {
        self.line.heal();
        while !self.thread.is_finished() {
            // That it is cut off may come only now.
            if self.line.is_cut() {
                self.line.heal();
            }
            self.line.wait_a_moment();
        }
        self.thread.join().unwrap_or_else(|panic| resume_unwind(panic))
    }
}

/// Transactions and syncs, until it is fenced or has done enough.
fn work(store: &Store, found: State, ending: Ending, seed: u64, counter: &AtomicUsize) -> Deeds {
    let mut random = Random::new(seed);
    let mut deeds = Deeds::begin(found);
    let limit = match ending {
        Ending::Closed | Ending::Dropped => 3 + random.within(0..20),
        Ending::Killed | Ending::Parted | Ending::GoesOn => 500,
    };
    for _ in 0..limit {
        let changes = random_changes(&mut random, TINY);
        match commit(store, &changes) {
            Ok(()) => {
                let mut state = deeds.states[deeds.states.len() - 1].clone();
                apply(&mut state, &changes);
                deeds.states.push(state);
            }
            Err(StoreError::Poisoned(cause)) => return Deeds { is_fenced: is_of_fenced(&cause), ..deeds },
            // Of a reader whose bucket does not answer in time.
            Err(StoreError::Io(_)) => {}
            Err(error) => panic!("{ending:?}, seed {seed}: {error}"),
        }
        if random.one_in(3) {
            let count = deeds.states.len() - 1;
            match store.sync() {
                Ok(()) => (deeds.durable, deeds.acknowledged) = (count, deeds.acknowledged + 1),
                Err(StoreError::Poisoned(cause)) => return Deeds { is_fenced: is_of_fenced(&cause), ..deeds },
                Err(error) => panic!("{ending:?}, seed {seed}: {error}"),
            }
        }
        counter.fetch_add(1, Ordering::Release);
    }
    if ending == Ending::Closed && store.close().is_ok() {
        deeds.durable = deeds.states.len() - 1;
    }
    deeds
}

fn is_of_fenced(cause: &str) -> bool {
    cause.contains("taken over")
}

/// What came of a succession.
#[derive(Clone, Copy, Debug, Default)]
pub struct Outcome {
    /// Writers that had the store.
    pub opened: usize,
    pub transactions: usize,
    /// Syncs that were answered with success.
    pub acknowledged: usize,
    /// Writers that learned that somebody else has the store.
    pub fenced: usize,
}

impl Outcome {
    pub fn and(self, other: Outcome) -> Outcome {
        Outcome {
            opened: self.opened + other.opened,
            transactions: self.transactions + other.transactions,
            acknowledged: self.acknowledged + other.acknowledged,
            fenced: self.fenced + other.fenced,
        }
    }

    fn count(&mut self, deeds: &Deeds) {
        self.transactions += deeds.states.len() - 1;
        self.acknowledged += deeds.acknowledged;
        self.fenced += usize::from(deeds.is_fenced);
    }
}

/// Does that by a machine that dies if it is cut off meanwhile (true), should that be its end; else the
/// network comes back.
fn watched<L: Line, T: Send>(line: &Arc<L>, ending: Ending, act: impl FnOnce() -> T + Send) -> (T, bool) {
    std::thread::scope(|scope| {
        let actor = scope.spawn(act);
        let mut is_dead = false;
        while !actor.is_finished() && !is_dead {
            if !line.is_cut() {
                line.wait_a_moment();
            } else if ending.is_cut() {
                line.sever();
                is_dead = true;
            } else {
                line.heal();
            }
        }
        (actor.join().unwrap_or_else(|panic| resume_unwind(panic)), is_dead)
    })
}

/// So many writers of a tiny store, which is there and empty.
fn take_over_again_and_again<N: Network>(network: &N, seed: u64, rounds: usize) -> Outcome {
    let mut random = Random::new(seed);
    let mut before: Option<Worker<N::Line>> = None;
    let mut last = Deeds::begin(State::new());
    let mut outcome = Outcome::default();
    for round in 0..rounds {
        let ending = Ending::draw(&mut random);
        let context = format!("seed {seed}, round {round}, {ending:?}");
        let line = network.connect(ending, &mut random);
        let grace = Duration::from_secs(if random.one_in(3) { 3600 } else { 0 });
        let timeout = if ending.is_cut() { N::PATIENCE_WHEN_CUT } else { taking_over().timeout };
        let options = OpenOptions { timeout, grace, ..taking_over() };
        let (opened, died_opening) = watched(&line, ending, || Store::open_in(line.clone(), &options));
        let store = match opened {
            Ok(store) => store,
            Err(OpenError::Io { .. }) if ending.is_cut() => continue,
            Err(error) => panic!("{context}: {error}"),
        };
        outcome.opened += 1;
        let (found, died_reading) = watched(&line, ending, || read_state(&store));
        // Only now, so that what it does meanwhile races with the taking over.
        if let Some(worker) = before.take() {
            last = worker.end();
            outcome.count(&last);
        }
        let found = match found {
            Ok(found) => found,
            Err(StoreError::Io(_)) if ending.is_cut() => continue,
            Err(error) => panic!("{context}: read: {error}"),
        };
        last.assert_allow(&found, &context);
        last = Deeds::begin(found.clone());
        if died_opening || died_reading {
            continue;
        }
        let worker = Worker::start(line, store, found, ending, random.next());
        worker.wait(random.within(1..12));
        match ending {
            Ending::Parted | Ending::GoesOn => {
                before = Some(worker);
                continue;
            }
            Ending::Killed => last = worker.kill(),
            Ending::Closed | Ending::Dropped => last = worker.end(),
        }
        outcome.count(&last);
    }
    let store = network.open(&eager()).unwrap_or_else(|error| panic!("seed {seed}, at the end: {error}"));
    let found = read_state(&store).unwrap_or_else(|error| panic!("seed {seed}, at the end: {error}"));
    if let Some(worker) = before.take() {
        last = worker.end();
        outcome.count(&last);
    }
    last.assert_allow(&found, &format!("seed {seed}, at the end"));
    drop(store);
    network.settle();
    let found_again = final_state(network);
    assert!(found_again == found, "seed {seed}: {}", difference(&found_again, &found));
    outcome
}

/// So many writers in all, of stores side by side.
pub fn side_by_side<N: Network>(
    seed: u64,
    stores: usize,
    writers: usize,
    network: impl Fn(u64) -> N + Sync,
) -> (Outcome, Vec<N>) {
    let chain = |number: usize| {
        let seed = 100 * seed + number as u64;
        let network = network(seed);
        let outcome = take_over_again_and_again(&network, seed, writers / stores);
        (outcome, network)
    };
    std::thread::scope(|scope| {
        let chain = &chain;
        let chains: Vec<_> = (0..stores).map(|number| scope.spawn(move || chain(number))).collect();
        let joined = chains.into_iter().map(|chain| chain.join().unwrap_or_else(|panic| resume_unwind(panic)));
        let (outcome, networks) =
            joined.fold((Outcome::default(), Vec::new()), |(sum, mut networks), (outcome, network)| {
                networks.push(network);
                (sum.and(outcome), networks)
            });
        // The others were cut off before they had it.
        assert!(outcome.opened > writers / 2, "seed {seed}: only {} of {writers} could open", outcome.opened);
        (outcome, networks)
    })
}
