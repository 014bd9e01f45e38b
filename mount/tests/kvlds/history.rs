//! What was asked about one key and what was answered, and whether one order explains it.
//!
//! An order explains a history if each request has an instant between when it was asked and when it was
//! answered, and the answers are those of the requests carried out one after another at these instants;
//! and if the requests that change, asked over one connection, stand in the order in which they were
//! asked. What was never answered may have been carried out at any instant after it was asked, or not.
//!
//! The search is Wing's and Gong's: whatever may be next is tried, with a memory of (what was carried
//! out, value) that led nowhere. What its answer shows to have changed nothing is tried in one way
//! only: as soon as it may come it does, which rules out nothing that comes later.

use kivafs_mount::kvlds::message::Request;
use std::collections::HashSet;

/// A key's value; `None`: there is none.
pub type State = Option<Vec<u8>>;

/// An answer about one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    Done(bool),
    Value(State),
}

/// What was asked about one key, without the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Asked {
    Set(Vec<u8>),
    Cas(Vec<u8>, Vec<u8>),
    Add(Vec<u8>),
    Modify(Vec<u8>),
    Delete,
    Cad(Vec<u8>),
    Get,
}

impl Asked {
    /// As it is asked of a server.
    pub fn about<'a>(&'a self, key: &'a [u8]) -> Request<'a> {
        match self {
            Asked::Set(value) => Request::Set { key, value },
            Asked::Cas(old, value) => Request::Cas { key, old, value },
            Asked::Add(value) => Request::Add { key, value },
            Asked::Modify(value) => Request::Modify { key, value },
            Asked::Delete => Request::Delete { key },
            Asked::Cad(old) => Request::Cad { key, old },
            Asked::Get => Request::Get { key },
        }
    }

    /// What the protocol says: the value afterwards, and the answer.
    pub fn carried_out(&self, state: &State) -> (State, Answer) {
        let holds = match self {
            Asked::Get => return (state.clone(), Answer::Value(state.clone())),
            Asked::Set(_) | Asked::Delete => true,
            Asked::Cas(old, _) | Asked::Cad(old) => state.as_ref() == Some(old),
            Asked::Add(_) => state.is_none(),
            Asked::Modify(_) => state.is_some(),
        };
        let after = match self {
            Asked::Set(value) | Asked::Cas(_, value) | Asked::Add(value) | Asked::Modify(value) => Some(value.clone()),
            Asked::Delete | Asked::Cad(_) | Asked::Get => None,
        };
        (if holds { after } else { state.clone() }, Answer::Done(holds))
    }
}

/// A request and its answer.
#[derive(Clone, Debug)]
pub struct Event {
    /// Over which connection.
    pub connection: usize,
    pub asked: Asked,
    /// None: the connection was lost before.
    pub answer: Option<Answer>,
    /// An instant before it was asked.
    pub from: u64,
    /// One after it was answered.
    pub to: u64,
}

impl Event {
    /// Whenever it was carried out.
    fn changed_nothing(&self) -> bool {
        matches!(self.answer, Some(Answer::Value(_) | Answer::Done(false)))
    }
}

/// An order that explains what was asked about one key, which had no value before; as indices. Of
/// what was not answered, only what was carried out is in it.
pub fn explained(mut history: Vec<Event>) -> Option<Vec<Event>> {
    history.sort_by_key(|event| event.from);
    let mut search = Search { history: &history, dead_ends: HashSet::new(), order: Vec::new() };
    let found = search.goes_on(&mut vec![false; history.len()], &None);
    let order = search.order;
    found.then(|| order.into_iter().map(|index| history[index].clone()).collect())
}

struct Search<'a> {
    /// In the order in which they were asked.
    history: &'a [Event],
    dead_ends: HashSet<(Vec<bool>, State)>,
    order: Vec<usize>,
}

impl Search<'_> {
    /// Can all that is not `done` come after it? If not, all is as before.
    fn goes_on(&mut self, done: &mut [bool], state: &State) -> bool {
        let (before, mut next) = (self.order.len(), self.next(done, state));
        while let Some((index, _)) = next.iter().find(|(index, _)| self.history[*index].changed_nothing()) {
            self.carry_out(done, *index);
            next = self.next(done, state);
        }
        let all_answered = |(event, done): (&Event, &bool)| *done || event.answer.is_none();
        if self.history.iter().zip(&*done).all(all_answered) {
            return true;
        }
        let here = (done.to_vec(), state.clone());
        if !self.dead_ends.contains(&here) {
            for (index, after) in next {
                self.carry_out(done, index);
                if self.goes_on(done, &after) {
                    return true;
                }
                self.take_back(done, self.order.len() - 1);
            }
            self.dead_ends.insert(here);
        }
        self.take_back(done, before);
        false
    }

    fn carry_out(&mut self, done: &mut [bool], index: usize) {
        done[index] = true;
        self.order.push(index);
    }

    fn take_back(&mut self, done: &mut [bool], length: usize) {
        self.order.drain(length..).for_each(|index| done[index] = false);
    }

    /// What may come next, and the value after it.
    fn next(&self, done: &[bool], state: &State) -> Vec<(usize, State)> {
        let open = || self.history.iter().enumerate().filter(|(index, _)| !done[*index]);
        let first_end = open().map(|(_, event)| event.to).min().unwrap_or(u64::MAX);
        let mut waits: HashSet<usize> = HashSet::new();
        let mut next = Vec::new();
        for (index, event) in open() {
            if event.from > first_end {
                break;
            }
            let is_first = event.asked == Asked::Get || waits.insert(event.connection);
            let (after, answer) = event.asked.carried_out(state);
            if is_first && event.answer.as_ref().is_none_or(|answered| *answered == answer) {
                next.push((index, after));
            }
        }
        // First what must come soonest; what was never answered most likely came to nothing.
        next.sort_by_key(|(index, _)| self.history[*index].to);
        next
    }
}

mod tests {
    use super::*;

    fn value(text: &str) -> Vec<u8> {
        text.into()
    }

    fn event(connection: usize, asked: Asked, answer: Option<Answer>, (from, to): (u64, u64)) -> Event {
        Event { connection, asked, answer, from, to }
    }

    fn set(connection: usize, text: &str, time: (u64, u64)) -> Event {
        event(connection, Asked::Set(value(text)), Some(Answer::Done(true)), time)
    }

    fn get(connection: usize, found: Option<&str>, time: (u64, u64)) -> Event {
        event(connection, Asked::Get, Some(Answer::Value(found.map(value))), time)
    }

    fn lost_set(connection: usize, text: &str, from: u64) -> Event {
        event(connection, Asked::Set(value(text)), None, (from, u64::MAX))
    }

    #[track_caller]
    fn right(history: &[Event]) {
        assert!(explained(history.to_vec()).is_some(), "{history:#?}");
    }

    #[track_caller]
    fn wrong(history: &[Event]) {
        assert!(explained(history.to_vec()).is_none(), "{history:#?}");
    }

    #[test]
    fn right_histories_are_explained() {
        right(&[]);
        right(&[set(1, "a", (1, 2)), get(2, Some("a"), (3, 4))]);
        // At the same time: either order, also seen from elsewhere.
        right(&[set(1, "a", (1, 9)), set(2, "b", (2, 8)), get(3, Some("b"), (3, 4)), get(3, Some("a"), (5, 6))]);
        right(&[set(1, "a", (1, 9)), get(2, None, (2, 3)), get(2, Some("a"), (4, 5))]);
        // What changes nothing now may do so later.
        let again = [set(1, "a", (1, 2)), set(1, "a", (3, 20)), set(2, "b", (4, 5))];
        right(&[&again[..], &[get(3, Some("b"), (6, 7)), get(3, Some("a"), (8, 9))]].concat());
        let lost_add = event(1, Asked::Add(value("c")), None, (3, u64::MAX));
        let delete = event(2, Asked::Delete, Some(Answer::Done(true)), (4, 5));
        right(&[set(1, "a", (1, 2)), lost_add, delete, get(2, None, (6, 7)), get(2, Some("c"), (8, 9))]);
        // Never answered: at once, late, or not at all.
        right(&[lost_set(1, "a", 1), get(2, None, (2, 3)), get(2, Some("a"), (4, 5))]);
        right(&[lost_set(1, "a", 1), get(2, None, (2, 3)), get(2, None, (4, 5))]);
        let cas = event(2, Asked::Cas(value("a"), value("b")), Some(Answer::Done(true)), (3, 9));
        right(&[set(1, "a", (1, 2)), cas, get(1, Some("a"), (4, 5)), get(1, Some("b"), (6, 7))]);
    }

    #[test]
    fn wrong_histories_are_not() {
        wrong(&[get(1, Some("a"), (1, 2))]);
        // Stale, lost, from the future, back again.
        wrong(&[set(1, "a", (1, 2)), get(2, None, (3, 4))]);
        wrong(&[set(1, "a", (1, 2)), set(1, "b", (3, 4)), get(2, Some("a"), (5, 6))]);
        wrong(&[get(2, Some("a"), (1, 2)), set(1, "a", (3, 4))]);
        wrong(&[set(1, "a", (1, 9)), get(2, Some("a"), (2, 3)), get(2, None, (4, 5))]);
        // Seen in two orders.
        let both = [set(1, "a", (1, 20)), set(2, "b", (2, 20))];
        let seen = |connection, first, then, at| {
            [get(connection, Some(first), (at, at + 1)), get(connection, Some(then), (at + 2, at + 3))]
        };
        wrong(&[&both[..], &seen(3, "a", "b", 3), &seen(4, "b", "a", 7)].concat());
        // Two that exclude each other.
        let add = |connection| event(connection, Asked::Add(value("a")), Some(Answer::Done(true)), (1, 9));
        wrong(&[add(1), add(2)]);
        let cas = |connection| {
            let asked = Asked::Cas(value("a"), value("b"));
            event(connection, asked, Some(Answer::Done(true)), (3, 9))
        };
        wrong(&[set(1, "a", (1, 2)), cas(2), cas(3)]);
        let modify = event(2, Asked::Modify(value("b")), Some(Answer::Done(false)), (3, 4));
        wrong(&[set(1, "a", (1, 2)), modify]);
        // Came and went again without anybody's doing.
        wrong(&[lost_set(1, "a", 1), get(2, Some("a"), (2, 3)), get(2, None, (4, 5))]);
    }

    #[test]
    fn one_connection_keeps_the_order_of_what_changes() {
        let both = |second| [set(1, "a", (1, 9)), set(second, "b", (2, 8)), get(3, Some("a"), (10, 11))];
        right(&both(2));
        wrong(&both(1));
        // Not even if neither was answered.
        let lost = |second| [lost_set(1, "a", 1), lost_set(second, "b", 2)];
        let seen = [get(3, Some("b"), (3, 4)), get(3, Some("a"), (5, 6))];
        right(&[&lost(2)[..], &seen].concat());
        wrong(&[&lost(1)[..], &seen].concat());
    }
}
