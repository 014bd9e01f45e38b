//! Clients at once, over few keys, with many requests in flight; some vanish in the midst of them. One
//! order must explain what each key was asked and answered (`history.rs`).
//!
//! A seed gives what each client asks. How the clients meet is up to the machine.

use crate::Served;
use crate::history::{Answer, Asked, Event, State, explained};
use crate::random::{Random, for_each_seed};
use kivafs_mount::kvlds::client::Client;
use kivafs_mount::kvlds::message::{Request, decode_done, decode_pairs, decode_value};
use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

const CLIENTS: u64 = 4;
/// What each asks in all.
const REQUESTS: usize = 300;
const BURST_MAX: usize = 12;
/// Most that are in flight when a connection is lost.
const LOST_MAX: usize = 6;
const KEYS: [&[u8]; 3] = [b"a", b"b", b"c"];
/// RANGEs begin and end at and between keys; an empty end is none.
const EDGES: [&[u8]; 7] = [b"", b"a", b"aa", b"b", b"bb", b"c", b"cc"];

/// No clock: an order of instants, the same for all.
#[derive(Default)]
struct Ticks(AtomicU64);

impl Ticks {
    fn next(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst)
    }
}

/// What is in flight.
enum Pending {
    About { key: usize, asked: Asked, from: u64 },
    Range { start: &'static [u8], end: &'static [u8], from: u64 },
}

/// What happened to each key.
type Histories = [Vec<Event>; KEYS.len()];

struct Worker<'a> {
    served: &'a Served,
    ticks: &'a Ticks,
    connections: &'a AtomicUsize,
    random: Random,
    client: Client,
    connection: usize,
    pending: HashMap<u64, Pending>,
    /// The newest value that this client knows of each key: what a CAS is likely to meet.
    known: [Vec<u8>; KEYS.len()],
    happened: Histories,
}

impl<'a> Worker<'a> {
    fn new(served: &'a Served, ticks: &'a Ticks, connections: &'a AtomicUsize, seed: u64) -> Worker<'a> {
        let connection = connections.fetch_add(1, Ordering::Relaxed);
        Worker {
            served,
            ticks,
            connections,
            random: Random::new(seed),
            client: served.client(),
            connection,
            pending: HashMap::new(),
            known: Default::default(),
            happened: Default::default(),
        }
    }

    fn work(mut self) -> Histories {
        let mut asked = 0;
        while asked < REQUESTS {
            let burst = self.random.within(1..BURST_MAX + 1);
            for _ in 0..burst {
                self.ask();
            }
            asked += burst;
            self.client.flush().unwrap();
            if self.random.one_in(30) {
                self.vanish();
            }
            let stay = self.random.within(0..BURST_MAX);
            while self.pending.len() > stay {
                self.receive();
            }
        }
        while !self.pending.is_empty() {
            self.receive();
        }
        self.happened
    }

    fn ask(&mut self) {
        let from = self.ticks.next();
        if self.random.one_in(10) {
            let [start, end] = [0; 2].map(|_| EDGES[self.random.within(0..EDGES.len())]);
            // Most do not fit: at least one pair comes all the same.
            let bytes_max = self.random.within(0..40) as u32;
            let id = self.client.ask(&Request::Range { bytes_max, start, end });
            self.pending.insert(id, Pending::Range { start, end, from });
            return;
        }
        let key = self.random.within(0..KEYS.len());
        let asked = self.choose(key, from);
        let id = self.client.ask(&asked.about(KEYS[key]));
        self.pending.insert(id, Pending::About { key, asked, from });
    }

    fn choose(&mut self, key: usize, from: u64) -> Asked {
        // Mostly a value that nobody else sets: whoever sees it shows whose it is.
        let value = if self.random.one_in(8) { Vec::new() } else { from.to_be_bytes().to_vec() };
        let old = self.known[key].clone();
        let asked = match self.random.within(0..10) {
            0 => Asked::Set(value),
            1 => Asked::Add(value),
            2 => Asked::Modify(value),
            3 | 4 => Asked::Cas(old, value),
            5 => Asked::Cad(old),
            6 => Asked::Delete,
            _ => Asked::Get,
        };
        if let Asked::Set(value) | Asked::Cas(_, value) | Asked::Modify(value) = &asked {
            self.known[key].clone_from(value);
        }
        asked
    }

    fn receive(&mut self) {
        let (id, record) = self.client.receive().unwrap();
        let to = self.ticks.next();
        let pending = self.pending.remove(&id).expect("what was asked is answered, and once");
        match pending {
            Pending::About { key, asked: Asked::Get, from } => {
                let value = decode_value(&record).unwrap().map(<[u8]>::to_vec);
                self.saw(key, value, (from, to));
            }
            Pending::About { key, asked, from } => {
                let answer = Some(Answer::Done(decode_done(&record).unwrap()));
                self.happened[key].push(Event { connection: self.connection, asked, answer, from, to });
            }
            Pending::Range { start, end, from } => self.saw_range(start, end, &record, (from, to)),
        }
    }

    /// A RANGE is a GET of each key that it covers.
    fn saw_range(&mut self, start: &[u8], end: &[u8], record: &[u8], time: (u64, u64)) {
        let (next, pairs) = decode_pairs(record).unwrap();
        assert!(pairs.is_sorted_by(|(one, _), (other, _)| one < other), "{pairs:?}");
        let is_before = |key: &[u8], end: &[u8]| end.is_empty() || key < end;
        let is_covered = |key: &[u8]| key >= start && is_before(key, end) && is_before(key, next);
        for (key, _) in &pairs {
            assert!(KEYS.contains(key) && is_covered(key), "{key:?} is not from {start:?} to {end:?}, {next:?}");
        }
        assert!(next.is_empty() || next == end || (KEYS.contains(&next) && !pairs.is_empty()), "{next:?}");
        for (index, key) in KEYS.iter().enumerate().filter(|(_, key)| is_covered(key)) {
            let pair = pairs.iter().find(|(found, _)| found == key);
            self.saw(index, pair.map(|(_, value)| value.to_vec()), time);
        }
    }

    fn saw(&mut self, key: usize, value: State, (from, to): (u64, u64)) {
        if let Some(value) = &value {
            self.known[key].clone_from(value);
        }
        let answer = Some(Answer::Value(value));
        self.happened[key].push(Event { connection: self.connection, asked: Asked::Get, answer, from, to });
    }

    /// Ends the connection with all that is in flight, and goes on over another.
    fn vanish(&mut self) {
        // Each that is lost multiplies the orders that are to be tried.
        while self.pending.len() > LOST_MAX {
            self.receive();
        }
        self.client = self.served.client();
        for (_, pending) in self.pending.drain() {
            let Pending::About { key, asked, from } = pending else { continue };
            if asked != Asked::Get {
                let lost = Event { connection: self.connection, asked, answer: None, from, to: u64::MAX };
                self.happened[key].push(lost);
            }
        }
        self.connection = self.connections.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn one_order_explains_all_answers() {
    for_each_seed(20, |seed| {
        let (served, ticks, connections) = (Served::new(), Ticks::default(), AtomicUsize::new(0));
        let histories: Vec<Histories> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..CLIENTS)
                .map(|client| {
                    let worker = Worker::new(&served, &ticks, &connections, seed * CLIENTS + client);
                    scope.spawn(|| worker.work())
                })
                .collect();
            workers.into_iter().map(|worker| worker.join().unwrap()).collect()
        });
        for (index, key) in KEYS.iter().enumerate() {
            let history: Vec<Event> = histories.iter().flat_map(|happened| happened[index].clone()).collect();
            if explained(history.clone()).is_none() {
                let mut lines: Vec<String> = history.iter().map(|event| format!("{event:?}\n")).collect();
                lines.sort();
                panic!("no order explains what happened to {key:?}:\n{}", lines.concat());
            }
        }
    });
}
