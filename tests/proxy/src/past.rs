//! What objects were, and what each address has shown of it: the stuff of stale answers.
//!
//! Bounded: of names the newest [`NAMES_MAX`], of each the newest [`STATES_MAX`] states, and of bodies
//! so many bytes as the proxy was told.

use bytes::Bytes;
use hyper::header::{HeaderName, HeaderValue};
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};

const NAMES_MAX: usize = 100_000;
const STATES_MAX: usize = 4;

/// An object as it was written.
#[derive(Clone, Debug)]
pub(crate) struct Object {
    pub(crate) etag: HeaderValue,
    /// An HTTP date.
    pub(crate) modified: HeaderValue,
    /// Content-Type and what the writer said about it.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    pub(crate) length: u64,
    /// Kept while there is room.
    pub(crate) body: Option<Bytes>,
}

/// What a name stood for, and since when. None: for nothing.
struct State {
    since: Instant,
    object: Option<Object>,
}

/// What an address goes on showing, until when.
#[derive(Clone, Debug)]
pub(crate) enum Shown {
    Object(Object),
    Missing,
}

pub(crate) struct Past {
    bytes_max: usize,
    bytes: usize,
    names: HashMap<String, VecDeque<State>>,
    /// The names, in the order in which they were first seen.
    order: VecDeque<String>,
    /// The names of kept bodies, from the oldest.
    bodies: VecDeque<String>,
    /// When an address first found 404 for a name, of late.
    missed: HashMap<(usize, String), Instant>,
    shown: HashMap<(usize, String), (Shown, Instant)>,
}

impl Past {
    pub(crate) fn new(bytes_max: usize) -> Past {
        Past {
            bytes_max,
            bytes: 0,
            names: HashMap::new(),
            order: VecDeque::new(),
            bodies: VecDeque::new(),
            missed: HashMap::new(),
            shown: HashMap::new(),
        }
    }

    /// The server has taken an object of that name.
    pub(crate) fn written(&mut self, name: &str, object: Object) {
        if let Some(body) = &object.body {
            self.bytes += body.len();
            self.bodies.push_back(name.to_owned());
        }
        self.push(name, Some(object));
        while self.bytes > self.bytes_max {
            let oldest = self.bodies.pop_front().expect("bytes are those of kept bodies");
            let states = self.names.get_mut(&oldest).into_iter().flatten();
            if let Some(body) = states.filter_map(|state| state.object.as_mut()?.body.take()).next() {
                self.bytes -= body.len();
            }
        }
    }

    /// The server has deleted what had that name.
    pub(crate) fn deleted(&mut self, name: &str) {
        let states = self.names.get(name);
        if states.is_some_and(|states| states.back().is_some_and(|state| state.object.is_some())) {
            self.push(name, None);
        }
    }

    /// An address has answered 404, as the server told it.
    pub(crate) fn missed(&mut self, address: usize, name: &str) {
        if self.missed.len() >= NAMES_MAX {
            self.missed.clear();
        }
        // What was cached long ago is asked for anew.
        self.missed.insert((address, name.to_owned()), Instant::now());
    }

    fn push(&mut self, name: &str, object: Option<Object>) {
        if !self.names.contains_key(name) {
            self.names.insert(name.to_owned(), VecDeque::new());
            self.order.push_back(name.to_owned());
        }
        let states = self.names.get_mut(name).expect("it is there");
        states.push_back(State { since: Instant::now(), object });
        let mut gone: VecDeque<State> = VecDeque::new();
        if states.len() > STATES_MAX {
            gone.extend(states.pop_front());
        }
        if self.order.len() > NAMES_MAX {
            let oldest = self.order.pop_front().expect("there are many");
            gone.extend(self.names.remove(&oldest).into_iter().flatten());
        }
        for body in gone.into_iter().filter_map(|state| state.object?.body) {
            self.bytes -= body.len();
        }
    }

    /// What that address goes on showing for a name.
    pub(crate) fn shown(&mut self, address: usize, name: &str) -> Option<Shown> {
        if self.shown.is_empty() {
            return None;
        }
        let key = (address, name.to_owned());
        let (shown, until) = self.shown.get(&key)?;
        if *until > Instant::now() {
            return Some(shown.clone());
        }
        self.shown.remove(&key);
        None
    }

    /// The object that a name stood for until it was overwritten or deleted, if that was less than
    /// `lag` ago; the address goes on showing it.
    pub(crate) fn stale(&mut self, address: usize, name: &str, lag: Duration) -> Option<Object> {
        let states = self.names.get(name)?;
        let until = states.back()?.since + lag;
        let before = states.iter().rev().skip(1).filter_map(|state| state.object.clone());
        let object = before.into_iter().find(|object| object.body.is_some())?;
        self.show(address, name, Shown::Object(object.clone()), until).then_some(object)
    }

    /// Whether the address found 404 for that name less than `lag` ago; it goes on showing that.
    pub(crate) fn stays_missing(&mut self, address: usize, name: &str, lag: Duration) -> bool {
        let Some(since) = self.missed.get(&(address, name.to_owned())) else { return false };
        let until = *since + lag;
        self.show(address, name, Shown::Missing, until)
    }

    /// Whether there is time left to show it.
    fn show(&mut self, address: usize, name: &str, shown: Shown, until: Instant) -> bool {
        if until <= Instant::now() {
            return false;
        }
        if self.shown.len() >= NAMES_MAX {
            self.shown.clear();
        }
        self.shown.insert((address, name.to_owned()), (shown, until));
        true
    }

    /// Whether that name stands for something, and did not `lag` ago.
    pub(crate) fn is_created_within(&self, name: &str, lag: Duration) -> bool {
        let Some(states) = self.names.get(name) else { return false };
        let existed = |state: &State| state.object.is_some() && state.since.elapsed() >= lag;
        let existed_then = states.iter().rev().find(|state| state.since.elapsed() >= lag).is_some_and(existed);
        states.back().is_some_and(|state| state.object.is_some()) && !existed_then
    }

    /// The names that begin with `prefix` and stood for something until it was deleted, less than
    /// `lag` ago; with what it was.
    pub(crate) fn deleted_within(&self, prefix: &str, lag: Duration) -> Vec<(String, Object)> {
        let with_prefix = self.names.iter().filter(|(name, _)| name.starts_with(prefix));
        let mut found: Vec<(String, Object)> = with_prefix
            .filter(|(_, states)| {
                states.back().is_some_and(|state| state.object.is_none() && state.since.elapsed() < lag)
            })
            .filter_map(|(name, states)| {
                Some((name.clone(), states.iter().rev().find_map(|state| state.object.clone())?))
            })
            .collect();
        found.sort_by(|(a, _), (b, _)| a.cmp(b));
        found
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    fn object(text: &str) -> Object {
        Object {
            etag: HeaderValue::from_str(text).unwrap(),
            modified: HeaderValue::from_static("now"),
            headers: Vec::new(),
            length: text.len() as u64,
            body: Some(Bytes::copy_from_slice(text.as_bytes())),
        }
    }

    fn text(object: Option<Object>) -> String {
        object.map_or(String::new(), |object| object.etag.to_str().unwrap().to_owned())
    }

    #[test]
    fn an_object_is_shown_after_it_was_overwritten_or_deleted() {
        let mut past = Past::new(100);
        assert_eq!(text(past.stale(0, "x", LONG)), "");
        past.written("x", object("one"));
        assert_eq!(text(past.stale(0, "x", LONG)), "");
        past.written("x", object("two"));
        assert_eq!(text(past.stale(0, "x", LONG)), "one");
        assert_eq!(text(past.stale(0, "x", Duration::ZERO)), "");
        past.deleted("x");
        assert_eq!(text(past.stale(1, "x", LONG)), "two");
        // Each address goes on with what it showed.
        assert!(matches!(past.shown(0, "x"), Some(Shown::Object(object)) if object.etag == "one"));
        assert!(matches!(past.shown(1, "x"), Some(Shown::Object(object)) if object.etag == "two"));
        assert!(past.shown(2, "x").is_none());
        assert_eq!(past.deleted_within("", LONG).len(), 1);
        assert!(past.deleted_within("y", LONG).is_empty());
        assert!(!past.is_created_within("x", LONG));
    }

    #[test]
    fn only_where_404_was_found_it_stays() {
        let mut past = Past::new(100);
        past.missed(1, "x");
        past.written("x", object("one"));
        assert!(!past.stays_missing(0, "x", LONG));
        assert!(!past.stays_missing(1, "x", Duration::ZERO));
        assert!(past.stays_missing(1, "x", LONG));
        assert!(matches!(past.shown(1, "x"), Some(Shown::Missing)));
        assert!(past.is_created_within("x", LONG));
        assert!(!past.is_created_within("x", Duration::ZERO));
    }

    #[test]
    fn memory_is_bounded() {
        let mut past = Past::new(10);
        for round in 0..100 {
            past.written(&format!("x{}", round % 7), object("four"));
            let kept: usize = past
                .names
                .values()
                .flatten()
                .filter_map(|state| Some(state.object.as_ref()?.body.as_ref()?.len()))
                .sum();
            assert_eq!(kept, past.bytes);
            assert!(past.bytes <= 10);
            assert!(past.names.values().all(|states| states.len() <= STATES_MAX));
        }
        assert_eq!(past.names.len(), 7);
        for number in 0..NAMES_MAX + 5 {
            past.written(&format!("y{number}"), object("four"));
        }
        assert_eq!(past.names.len(), NAMES_MAX);
        assert!(past.bytes <= 10);
    }
}
