//! Every request and its fate, counts of them, and whether a name was written with two contents.

use crate::request::{Asked, Kind};
use parking_lot::{Condvar, Mutex};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The log keeps the newest so many.
const ENTRIES_MAX: usize = 100_000;
const VIOLATIONS_MAX: usize = 1_000;

/// One request, in the order of arrival.
#[derive(Clone, Debug)]
pub struct Entry {
    /// 1 is the first.
    pub number: u64,
    pub kind: Kind,
    /// The object's name below the bucket; of a LIST the prefix; of a DELETE of many the first.
    pub name: String,
    /// The Range header.
    pub range: Option<String>,
    /// Through which it came; 0 is the proxy's own.
    pub door: usize,
    /// At which it came: 0 is 127.0.0.1.
    pub address: usize,
    /// Since the proxy's start.
    pub began: Duration,
    /// When it was answered in full, or its connection broke; None while it is under way.
    pub ended: Option<Duration>,
    /// What the client sent, once all of it has come.
    pub body: Option<BodySum>,
    /// Some of it was sent to the server.
    pub reached: bool,
    /// What the server answered.
    pub server: Option<u16>,
    /// What the client was told; None while it is under way.
    pub told: Option<Told>,
    /// The words of the faults that it met.
    pub faults: Vec<&'static str>,
    /// Stuck, until [`crate::Proxy::release`].
    pub held: bool,
}

/// What the client was told, if it was still there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// That status; perhaps not all of the body.
    Status(u16),
    /// Nothing.
    Nothing,
}

/// Length and checksum of a body (XXH3-128), and what it begins with.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct BodySum {
    pub length: u64,
    pub checksum: u128,
    /// Zeros where it is shorter.
    pub head: [u8; 8],
}

impl fmt::Debug for BodySum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} bytes, {:032x}", self.length, self.checksum)
    }
}

/// Requests since the proxy's start, whatever became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// PUT of objects without If-None-Match.
    pub puts: u64,
    /// PUT of objects with it.
    pub creates: u64,
    pub gets: u64,
    pub heads: u64,
    pub lists: u64,
    /// DELETE requests; one may name many objects.
    pub deletes: u64,
    pub others: u64,
    /// Those of which the server got at least a part.
    pub reached: u64,
    /// Bytes of bodies from the client, and to it.
    pub bytes_up: u64,
    pub bytes_down: u64,
    /// Most requests under way at once.
    pub most_at_once: u64,
    /// Connections from the client.
    pub connections: u64,
    /// How often each fault happened, by its word.
    pub faults: BTreeMap<&'static str, u64>,
}

impl Counts {
    /// All requests.
    pub fn requests(&self) -> u64 {
        self.puts + self.creates + self.gets + self.heads + self.lists + self.deletes + self.others
    }

    fn of(&mut self, kind: Kind) -> &mut u64 {
        match kind {
            Kind::Put => &mut self.puts,
            Kind::Create => &mut self.creates,
            Kind::Get => &mut self.gets,
            Kind::Head => &mut self.heads,
            Kind::List => &mut self.lists,
            Kind::Delete | Kind::DeleteMany => &mut self.deletes,
            Kind::Other => &mut self.others,
        }
    }
}

/// A name was written with two contents (C7). Attempts count, whatever became of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A PUT without If-None-Match, with another body than an object or an earlier such PUT of that name.
    Overwritten { name: String, before: BodySum, now: BodySum },
    /// The server took two creates of one name with different bodies.
    CreatedTwice { name: String, before: BodySum, now: BodySum },
    /// One writer tried to create a name with two bodies. Writers are told apart by doors, each its own;
    /// the proxy's own door may be anybody's.
    Rebuilt { name: String, door: usize, before: BodySum, now: BodySum },
}

pub(crate) struct Record {
    start: Instant,
    /// Each frame of each body is counted here.
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
    kept: Mutex<Kept>,
    changed: Condvar,
}

#[derive(Default)]
struct Kept {
    entries: VecDeque<Entry>,
    /// The number of the newest entry.
    newest: u64,
    under_way: u64,
    counts: Counts,
    names: HashMap<String, Written>,
    violations: Vec<Violation>,
}

/// What was written under one name.
#[derive(Default)]
struct Written {
    /// The body of the first PUT without If-None-Match.
    put: Option<BodySum>,
    /// The body of the first create that the server took.
    created: Option<BodySum>,
    /// The first body with which each door tried to create it, but the proxy's own.
    tried: Vec<(usize, BodySum)>,
}

impl Kept {
    fn entry(&mut self, number: u64) -> Option<&mut Entry> {
        let oldest = self.newest + 1 - self.entries.len() as u64;
        self.entries.get_mut(usize::try_from(number.checked_sub(oldest)?).ok()?)
    }

    fn note(&mut self, violation: Violation) {
        if self.violations.len() < VIOLATIONS_MAX {
            self.violations.push(violation);
        }
    }
}

impl Record {
    pub(crate) fn new() -> Record {
        Record {
            start: Instant::now(),
            bytes_up: AtomicU64::new(0),
            bytes_down: AtomicU64::new(0),
            kept: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    /// A request has come.
    pub(crate) fn begin(self: &Arc<Record>, asked: &Asked, door: usize, address: usize) -> Ticket {
        let mut kept = self.kept.lock();
        kept.newest += 1;
        let number = kept.newest;
        kept.under_way += 1;
        *kept.counts.of(asked.kind) += 1;
        kept.counts.most_at_once = kept.counts.most_at_once.max(kept.under_way);
        if kept.entries.len() == ENTRIES_MAX {
            kept.entries.pop_front();
        }
        kept.entries.push_back(Entry {
            number,
            kind: asked.kind,
            name: asked.name.clone(),
            range: asked.range.clone(),
            door,
            address,
            began: self.start.elapsed(),
            ended: None,
            body: None,
            reached: false,
            server: None,
            told: None,
            faults: Vec::new(),
            held: false,
        });
        drop(kept);
        self.changed.notify_all();
        Ticket { record: self.clone(), number }
    }

    pub(crate) fn connected(&self) {
        self.kept.lock().counts.connections += 1;
    }

    pub(crate) fn count_up(&self, bytes: usize) {
        self.bytes_up.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    pub(crate) fn count_down(&self, bytes: usize) {
        self.bytes_down.fetch_add(bytes as u64, Ordering::Relaxed);
    }

    /// Changes the entry of that number, if it is still kept.
    pub(crate) fn update(&self, number: u64, change: impl FnOnce(&mut Entry)) {
        self.kept.lock().entry(number).map(change);
        self.changed.notify_all();
    }

    pub(crate) fn reached(&self, number: u64) {
        self.kept.lock().counts.reached += 1;
        self.update(number, |entry| entry.reached = true);
    }

    /// The whole body of a PUT has come.
    pub(crate) fn tried(&self, kind: Kind, name: &str, door: usize, now: BodySum) {
        let mut kept = self.kept.lock();
        let written = kept.names.entry(name.to_owned()).or_default();
        let name = name.to_owned();
        if kind == Kind::Put {
            let known = [written.put, written.created];
            written.put.get_or_insert(now);
            if let Some(before) = known.into_iter().flatten().find(|before| *before != now) {
                kept.note(Violation::Overwritten { name, before, now });
            }
        } else if door != 0 {
            match written.tried.iter().find(|(tried, _)| *tried == door) {
                None => written.tried.push((door, now)),
                Some((_, before)) if *before == now => {}
                Some((_, before)) => {
                    let before = *before;
                    kept.note(Violation::Rebuilt { name, door, before, now });
                }
            }
        }
    }

    /// The server has taken a create.
    pub(crate) fn created(&self, name: &str, now: BodySum) {
        let mut kept = self.kept.lock();
        let written = kept.names.entry(name.to_owned()).or_default();
        let known = written.created.or(written.put);
        written.created.get_or_insert(now);
        if let Some(before) = known.filter(|before| *before != now) {
            kept.note(Violation::CreatedTwice { name: name.to_owned(), before, now });
        }
    }

    pub(crate) fn log(&self) -> Vec<Entry> {
        self.kept.lock().entries.iter().cloned().collect()
    }

    pub(crate) fn counts(&self) -> Counts {
        let counts = self.kept.lock().counts.clone();
        let (up, down) = (self.bytes_up.load(Ordering::Relaxed), self.bytes_down.load(Ordering::Relaxed));
        Counts { bytes_up: up, bytes_down: down, ..counts }
    }

    pub(crate) fn violations(&self) -> Vec<Violation> {
        self.kept.lock().violations.clone()
    }

    /// Waits until that is true of the log; false: it was not within `limit`.
    pub(crate) fn wait(&self, limit: Duration, mut is_so: impl FnMut(&[Entry]) -> bool) -> bool {
        let until = Instant::now() + limit;
        let mut kept = self.kept.lock();
        loop {
            if is_so(kept.entries.make_contiguous()) {
                return true;
            }
            if self.changed.wait_until(&mut kept, until).timed_out() {
                return is_so(kept.entries.make_contiguous());
            }
        }
    }
}

/// A request under way. When it is dropped the request has ended; if nothing was told by then, the
/// client was told nothing.
pub(crate) struct Ticket {
    record: Arc<Record>,
    number: u64,
}

impl Ticket {
    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    pub(crate) fn met(&self, words: &[&'static str]) {
        if words.is_empty() {
            return;
        }
        let mut kept = self.record.kept.lock();
        for word in words {
            *kept.counts.faults.entry(word).or_default() += 1;
        }
        drop(kept);
        self.record.update(self.number, |entry| entry.faults.extend(words));
    }

    pub(crate) fn told(&self, status: u16) {
        self.record.update(self.number, |entry| entry.told = Some(Told::Status(status)));
    }

    pub(crate) fn count_down(&self, bytes: usize) {
        self.record.count_down(bytes);
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let now = self.record.start.elapsed();
        self.record.kept.lock().under_way -= 1;
        self.record.update(self.number, |entry| {
            entry.ended = Some(now);
            entry.told.get_or_insert(Told::Nothing);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sum(checksum: u128) -> BodySum {
        BodySum { length: 1, checksum, head: [0; 8] }
    }

    #[test]
    fn one_name_with_two_contents_is_a_violation() {
        let record = Record::new();
        record.tried(Kind::Put, "d/1", 0, sum(1));
        record.tried(Kind::Put, "d/1", 0, sum(1));
        record.tried(Kind::Put, "d/2", 0, sum(2));
        assert_eq!(record.violations(), []);
        record.tried(Kind::Put, "d/1", 0, sum(2));
        let overwritten = Violation::Overwritten { name: "d/1".to_owned(), before: sum(1), now: sum(2) };
        assert_eq!(record.violations(), [overwritten]);
    }

    #[test]
    fn writers_may_race_to_create_and_one_may_not_rebuild() {
        let record = Record::new();
        record.tried(Kind::Create, "c1", 1, sum(1));
        record.tried(Kind::Create, "c1", 2, sum(2));
        record.created("c1", sum(2));
        record.tried(Kind::Create, "c1", 1, sum(1));
        record.tried(Kind::Create, "c1", 0, sum(5));
        record.tried(Kind::Create, "c1", 0, sum(6));
        assert_eq!(record.violations(), []);
        record.tried(Kind::Create, "c1", 2, sum(3));
        record.created("c1", sum(3));
        record.tried(Kind::Put, "c1", 3, sum(4));
        let name = || "c1".to_owned();
        assert_eq!(
            record.violations(),
            [
                Violation::Rebuilt { name: name(), door: 2, before: sum(2), now: sum(3) },
                Violation::CreatedTwice { name: name(), before: sum(2), now: sum(3) },
                Violation::Overwritten { name: name(), before: sum(2), now: sum(4) },
            ]
        );
    }
}
