//! A bucket in memory, and everything that can go wrong with one.
//!
//! A [`Bucket`] is what lies in the cloud: it goes on when machines die. A [`Handle`] is the
//! connection of one *peer*: one opening of a store, as if on a machine of its own. Any number of
//! peers share a bucket; each can be weak, fail, and be cut off, while the others go on.
//!
//! Files, in reading order: `call` (requests), `contents` (what is stored), `rules` (what nobody may
//! ever ask), `weak` (how a connection is weak, fails or ends), `way` (the way of a request through
//! all of it), `pool` (requests carried out by other threads), `gate` (holding requests back),
//! `journal` (crash images), `damage`; and here the bucket and the connections.
#![allow(unused_imports, reason = "each test program uses its part")]

mod call;
mod contents;
mod damage;
mod gate;
mod journal;
mod pool;
mod rules;
mod way;
mod weak;

pub use call::{COMMIT_MAGIC, Call, Place, SEAL_MAGIC, What, commit_name, data_name, place_of};
pub use contents::{Conditional, Listing};
pub use damage::Damage;
pub use gate::{Filter, Gate, Held, Late, Point};
pub use journal::Fate;
pub use weak::{Cut, Fault, How, OnTheWay, Weakness};

use super::crash_disk::{Effort, Tried};
use bytes::Bytes;
use call::Reply;
use contents::Contents;
use gate::Stop;
use journal::Left;
use kivafs::backend::{Done, ObjectError, Objects, Usage};
use pool::Pool;
use rules::Rules;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;
use way::Shared;
use weak::Connection;

/// A bucket in memory. Clones are the same bucket.
#[derive(Clone)]
pub struct Bucket {
    shared: Arc<Shared>,
}

/// Who carries out requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The caller: it has its answer before the call has returned.
    AtOnce,
    /// Other threads, in any order, each after a while.
    Pool { threads: usize, latency: Duration, seed: u64 },
}

impl Bucket {
    pub fn new() -> Bucket {
        Bucket::with(Conditional::Atomic)
    }

    /// An empty bucket on such a server.
    pub fn with(conditional: Conditional) -> Bucket {
        let contents = Contents::on(conditional);
        Bucket::of(Left { contents, rules: Rules::default(), late: Vec::new() }, 0, 0)
    }

    fn of(left: Left, peers: usize, seed: u64) -> Bucket {
        super::store::end_with_the_store();
        Bucket { shared: Arc::new(Shared::new(left, peers, seed)) }
    }

    /// A new peer's connection.
    pub fn handle(&self) -> Arc<Handle> {
        let mut state = self.shared.state.lock();
        let peer = state.connections.len();
        state.connections.push(Connection::new(peer as u64));
        state.usages.push(Usage::default());
        Arc::new(Handle { shared: self.shared.clone(), peer })
    }

    /// From now on requests are carried out like this.
    pub fn deliver(&self, delivery: Delivery) {
        let pool = match delivery {
            Delivery::AtOnce => None,
            Delivery::Pool { threads, latency, seed } => Some(Pool::start(&self.shared, threads, latency, seed)),
        };
        self.shared.state.lock().pool = pool;
    }

    /// Another bucket with the same objects, whose peers are gone; what is late is still on its way.
    pub fn copy(&self) -> Bucket {
        let state = self.shared.state.lock();
        let left = Left { contents: state.contents.clone(), rules: state.rules.clone(), late: Vec::new() };
        let copy = Bucket::of(left, state.connections.len(), 0);
        copy.shared.state.lock().adopt_late(&state);
        copy
    }

    /// How many events there have been, for changes: the loss of all machines now is the cut of this
    /// number.
    pub fn position(&self) -> usize {
        self.shared.state.lock().journal.position()
    }

    /// Shows `visit` the crash images of the journal so far: cut, fate and bucket. `demand` tells
    /// what an image of that cut is held to.
    pub fn for_each_image(
        &self,
        effort: Effort,
        demand: impl Fn(usize) -> u64,
        mut visit: impl FnMut(usize, Fate, Bucket),
    ) -> Tried {
        let (journal, peers) = {
            let state = self.shared.state.lock();
            (state.journal.clone(), state.connections.len())
        };
        journal.for_each_image(effort, demand, |cut, fate, left| {
            visit(cut, fate, Bucket::of(left, peers, effort.seed + cut as u64));
        })
    }

    /// The bucket as it was after so many events.
    pub fn at(&self, cut: usize) -> Bucket {
        let state = self.shared.state.lock();
        Bucket::of(state.journal.at(cut), state.connections.len(), 0)
    }

    /// Holds requests back from now on.
    pub fn gate(&self, filter: Filter, point: Point) -> Gate {
        let mut state = self.shared.state.lock();
        state.arrived_count += 1;
        let number = state.arrived_count;
        state.stops.push(Stop { number, filter, point, queue: VecDeque::new() });
        Gate { bucket: self.clone(), number }
    }

    /// Carries out everything that is late. How much of it changed something.
    pub fn land_late(&self) -> usize {
        let mut state = self.shared.state.lock();
        let late = std::mem::take(&mut state.late);
        late.into_iter().map(|late| state.carry_out_late(late)).filter(|changed| *changed).count()
    }

    /// How many changes are late.
    pub fn late_count(&self) -> usize {
        self.shared.state.lock().late.len()
    }

    /// How often such requests have arrived, lost ones included.
    pub fn arrived(&self, what: What) -> u64 {
        self.shared.state.lock().arrived.get(&what).copied().unwrap_or(0)
    }

    pub fn names(&self) -> Vec<String> {
        self.shared.state.lock().contents.names()
    }

    pub fn body(&self, name: &str) -> Option<Bytes> {
        self.shared.state.lock().contents.body(name).cloned()
    }

    /// The number of an epoch's seal, if it is sealed.
    pub fn seal_of(&self, epoch: u64) -> Option<u64> {
        self.shared.state.lock().contents.seal_of(epoch)
    }

    /// Numbers of the commits and the seal of an epoch that are there, in order.
    pub fn commits_of(&self, epoch: u64) -> Vec<u64> {
        let state = self.shared.state.lock();
        let mut numbers: Vec<u64> = state.contents.commits_of(epoch).map(|(number, _)| number).collect();
        numbers.reverse();
        numbers
    }

    /// The newest epoch.
    pub fn epoch(&self) -> u64 {
        let state = self.shared.state.lock();
        (1..).take_while(|epoch| state.contents.body(&commit_name(*epoch, 1)).is_some()).last().unwrap_or(0)
    }

    /// Names under which something was stored, and how many of them held different contents, one after
    /// the other. (A commit that was deleted by the rules, and in its place the seal of a stale taker, who
    /// cannot know, are not counted: R8.)
    pub fn count_contents(&self) -> (usize, usize) {
        self.shared.state.lock().rules.count_contents()
    }

    /// Panics unless every object is one of the log's.
    pub fn assert_layout(&self) {
        rules::assert_layout(&self.shared.state.lock().contents);
    }
}

/// Begins a request and waits for its outcome.
pub fn ask<T: Send + 'static>(begin: impl FnOnce(Done<T>)) -> Result<T, ObjectError> {
    let (answer, answered) = std::sync::mpsc::channel();
    // Who asked may be gone, where a test goes on without the answer.
    begin(Box::new(move |result| drop(answer.send(result))));
    answered.recv().expect("every request is answered")
}

/// One peer's connection to a bucket.
pub struct Handle {
    shared: Arc<Shared>,
    /// Its number, as [`Filter::by`] and the rules have it.
    pub peer: usize,
}

impl Handle {
    fn with<T>(&self, act: impl FnOnce(&mut Connection) -> T) -> T {
        act(&mut self.shared.state.lock().connections[self.peer])
    }

    /// From now on the connection is weak like this.
    pub fn weaken(&self, weakness: Weakness, seed: u64) {
        self.with(|connection| connection.weaken(weakness, seed));
    }

    /// Has a request fail; counting begins now. Several may be armed.
    pub fn arm(&self, fault: Fault) {
        self.with(|connection| connection.arm(fault));
    }

    /// How many requests have failed by what was armed.
    pub fn happened(&self) -> usize {
        self.with(|connection| connection.happened)
    }

    /// Cuts it off, until it is healed. What a gate holds back is still the test's to decide.
    pub fn cut(&self, cut: Cut) {
        self.with(|connection| connection.cut_after(0, cut));
    }

    /// Cuts it off when so many more changes of this peer have been carried out, before the answer
    /// to the last of them.
    pub fn cut_after(&self, effects: u64, cut: Cut) {
        self.with(|connection| connection.cut_after(effects, cut));
    }

    /// Ends a cut, as when a network comes back, and any that is still to come.
    pub fn heal(&self) {
        self.with(Connection::heal);
    }

    pub fn is_cut(&self) -> bool {
        self.with(|connection| connection.cut.is_some())
    }

    /// Changes that were carried out, creates included that came too late.
    pub fn effects(&self) -> u64 {
        self.with(|connection| connection.effects)
    }
}

impl Objects for Handle {
    fn create(&self, name: &str, body: Bytes, done: Done<()>) {
        self.shared.begin(self.peer, Call::Create { name: name.into(), body }, Reply::Done(done));
    }

    fn put(&self, name: &str, body: Bytes, done: Done<()>) {
        self.shared.begin(self.peer, Call::Put { name: name.into(), body }, Reply::Done(done));
    }

    fn get(&self, name: &str, range: Option<Range<u64>>, done: Done<Bytes>) {
        self.shared.begin(self.peer, Call::Get { name: name.into(), range }, Reply::Body(done));
    }

    fn list(&self, prefix: &str, max: u32, done: Done<Vec<String>>) {
        self.shared.begin(self.peer, Call::List { prefix: prefix.into(), max }, Reply::Names(done));
    }

    fn delete(&self, names: Vec<String>, done: Done<()>) {
        self.shared.begin(self.peer, Call::Delete { names }, Reply::Done(done));
    }

    fn usage(&self) -> Usage {
        self.shared.state.lock().usages[self.peer]
    }

    fn name(&self) -> &str {
        "s3://bucket/in-memory"
    }
}
