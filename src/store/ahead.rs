//! Fetching: what is missing comes into memory once, however many ask for it; and what will be asked
//! for, beforehand.
//!
//! A *flight* is what is read from storage in one go. Each page and unit is in at most one flight at
//! a time: who needs what another fetches waits for that. Fetches ahead are queued flights, which a
//! few threads carry out; who needs something of a flight that still waits takes it over, so that
//! nobody waits for a queue. Pages are few, and tell what is to be fetched next: they go before units, and where
//! all threads are busy one more takes those that wait, and ends. In a bucket, what is fetched ahead ends
//! where a segment ends: asked for in steps that do not, each segment would come in two GETs.
//!
//! Errors belong to who asked. A flight that failed says nothing about each of its pages and units;
//! who waited for one reads what is its own, and is told what comes of that. Fetches ahead tell
//! nobody.
//!
//! Bounds (C6): at most [`QUEUE_BYTES_MAX`] stored bytes wait in the queue, as pointers only; what
//! does not fit is left out. Each thread holds the bodies of one flight, and what it has taken out of
//! them where that is no part of them: twice [`FLIGHT_BYTES_MAX`] at most. The cache keeps as much less meanwhile.

use super::cache::Cache;
use super::{Core, Era, Miss, StoreError};
use crate::log::Pointer;
use crate::tree::{Node, Value};
use parking_lot::{Condvar, Mutex};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

/// Stored bytes of a fetch ahead that are read in one go. From a bucket: one GET, if they are neighbours
/// in a segment, of which it then is all. From a disk: what is quickly there.
const FLIGHT_BYTES_MAX: u64 = 8 << 20;
const DISK_FLIGHT_BYTES_MAX: u64 = 2 << 20;
/// Less is worth no flight of its own.
const FEW_BYTES: u64 = 1 << 20;
/// Stored bytes of all that waits.
const QUEUE_BYTES_MAX: u64 = 80 << 20;
/// Threads that fetch ahead from a bucket; and from a disk, which they keep busy sooner.
const THREADS_MAX: usize = 8;
const DISK_THREADS_MAX: usize = 4;
/// A thread without work ends.
const IDLE: Duration = Duration::from_secs(10);

type Outcome = Result<(), StoreError>;

/// Read from storage in one go.
struct Flight {
    pages: Vec<Pointer>,
    units: Vec<Pointer>,
    outcome: OnceLock<Outcome>,
    /// Keeps what is to be read where it is (R2).
    _era: Option<Era>,
}

impl Flight {
    fn new(pages: Vec<Pointer>, units: Vec<Pointer>, era: Option<Era>) -> Arc<Flight> {
        Arc::new(Flight { pages, units, outcome: OnceLock::new(), _era: era })
    }

    fn pointers(&self) -> impl Iterator<Item = &Pointer> {
        self.pages.iter().chain(&self.units)
    }

    fn bytes(&self) -> u64 {
        self.pointers().map(|at| u64::from(at.length)).sum()
    }
}

/// All flights, and the threads that fetch ahead.
#[derive(Default)]
pub struct Ahead {
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    /// Something was queued, or the end has come.
    queued: Condvar,
    /// A flight has ended.
    landed: Condvar,
    /// A thread has ended.
    ended: Condvar,
}

#[derive(Default)]
struct State {
    /// Those that wait or are under way, by what they bring.
    flights: HashMap<Pointer, Arc<Flight>>,
    queue: VecDeque<Arc<Flight>>,
    queued_bytes: u64,
    /// Threads that take from the queue, and those of them that wait for something to take.
    threads: usize,
    idle: usize,
    /// Beside them there is one for pages.
    has_page_thread: bool,
    /// Threads that hold the store.
    alive: usize,
    stopped: bool,
}

/// Who does what about a miss.
#[derive(Default)]
struct Claim {
    /// Ours to carry out: first a new one, then those that waited in the queue.
    ours: Vec<Arc<Flight>>,
    /// Under way.
    others: Vec<Arc<Flight>>,
}

impl State {
    fn begin(&mut self, flight: &Arc<Flight>) {
        self.flights.extend(flight.pointers().map(|at| (*at, flight.clone())));
    }

    fn take_from_queue(&mut self, flight: &Arc<Flight>) -> bool {
        let position = self.queue.iter().position(|queued| Arc::ptr_eq(queued, flight));
        position.and_then(|position| self.queue.remove(position)).is_some_and(|flight| {
            self.queued_bytes -= flight.bytes();
            true
        })
    }

    fn land(&mut self, flight: &Flight, outcome: &Outcome) {
        for at in flight.pointers() {
            self.flights.remove(at);
        }
        assert!(flight.outcome.set(outcome.clone()).is_ok(), "a flight lands once");
    }

    /// Those of `wanted` that are neither under way nor in memory.
    fn missing(
        &self,
        wanted: &[Pointer],
        is_here: impl Fn(&Pointer) -> bool,
        mut under_way: impl FnMut(&Arc<Flight>),
    ) -> Vec<Pointer> {
        let mut seen = HashSet::with_capacity(wanted.len());
        let mut missing = Vec::new();
        for at in wanted {
            // What lands is in memory before it is no longer under way.
            match self.flights.get(at) {
                Some(flight) => under_way(flight),
                None if is_here(at) || !seen.insert(*at) => {}
                None => missing.push(*at),
            }
        }
        missing
    }
}

impl Shared {
    fn claim(&self, cache: &Cache, miss: &Miss) -> Claim {
        let mut state = self.state.lock();
        let mut claim = Claim::default();
        let mut known: Vec<Arc<Flight>> = Vec::new();
        let mut under_way = |flight: &Arc<Flight>| {
            if !known.iter().any(|other| Arc::ptr_eq(other, flight)) {
                known.push(flight.clone());
            }
        };
        let pages = state.missing(&miss.pages, |at| cache.has_page(at), &mut under_way);
        let units = state.missing(&miss.units, |at| cache.has_unit(at), &mut under_way);
        if !pages.is_empty() || !units.is_empty() {
            let flight = Flight::new(pages, units, None);
            state.begin(&flight);
            claim.ours.push(flight);
        }
        for flight in known {
            if state.take_from_queue(&flight) { claim.ours.push(flight) } else { claim.others.push(flight) }
        }
        claim
    }

    fn land(&self, flight: &Flight, outcome: &Outcome) {
        self.state.lock().land(flight, outcome);
        self.landed.notify_all();
    }

    /// Waits for all of them: the first error, or false when that takes longer than until the
    /// deadline.
    fn wait(&self, flights: &[Arc<Flight>], until: Option<Instant>) -> Result<bool, StoreError> {
        let mut state = self.state.lock();
        for flight in flights {
            while flight.outcome.get().is_none() {
                match until {
                    Some(until) if self.landed.wait_until(&mut state, until).timed_out() => return Ok(false),
                    Some(_) => {}
                    None => self.landed.wait(&mut state),
                }
            }
        }
        drop(state);
        let mut outcomes = flights.iter().filter_map(|flight| flight.outcome.get());
        outcomes.find(|outcome| outcome.is_err()).cloned().unwrap_or(Ok(())).map(|()| true)
    }

    /// The next flight for the thread for pages; none: it has to end.
    fn next_pages(&self) -> Option<Arc<Flight>> {
        let mut state = self.state.lock();
        let waits = state.queue.front().is_some_and(|flight| !flight.pages.is_empty());
        let flight = waits.then(|| state.queue.pop_front()).flatten();
        match &flight {
            Some(flight) => state.queued_bytes -= flight.bytes(),
            None => state.has_page_thread = false,
        }
        flight
    }

    /// The next flight of the queue; none: the thread has to end.
    fn next(&self) -> Option<Arc<Flight>> {
        let mut state = self.state.lock();
        let until = Instant::now() + IDLE;
        let mut is_late = false;
        loop {
            if !state.stopped
                && let Some(flight) = state.queue.pop_front()
            {
                state.queued_bytes -= flight.bytes();
                return Some(flight);
            }
            if state.stopped || is_late {
                state.threads -= 1;
                return None;
            }
            state.idle += 1;
            is_late = self.queued.wait_until(&mut state, until).timed_out();
            state.idle -= 1;
        }
    }
}

impl Ahead {
    /// Drops what waits; no more is fetched ahead.
    pub fn stop(&self) {
        let mut state = self.shared.state.lock();
        state.stopped = true;
        let closed = Err(StoreError::Io("the store was closed".into()));
        while let Some(flight) = state.queue.pop_front() {
            state.queued_bytes -= flight.bytes();
            state.land(&flight, &closed);
        }
        drop(state);
        self.shared.landed.notify_all();
        self.shared.queued.notify_all();
    }

    /// After a stop: waits for the end of what is under way, but not for long.
    pub fn wait_for_end(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.shared.state.lock();
        while state.alive > 0 && !self.shared.ended.wait_until(&mut state, until).timed_out() {}
    }
}

impl Core {
    /// Brings what was missing into memory. Waits for storage: for what others read until the deadline
    /// at most; then it answers false.
    pub(super) fn fetch_data(&self, miss: &Miss, until: Option<Instant>) -> Result<bool, StoreError> {
        loop {
            let Claim { ours, others } = self.ahead.shared.claim(&self.cache, miss);
            self.carry_out(&ours, miss)?;
            match self.ahead.shared.wait(&others, until) {
                Ok(is_done) => return Ok(is_done),
                Err(error) if self.is_of_all(&error) => return Err(error),
                // It may be about what we did not ask for. Nobody fetches ours any more: we do.
                Err(_) => {}
            }
        }
    }

    /// Reads flights in one go. If that fails, each part of the miss by itself: the first must come,
    /// the others may have been read in advance.
    fn carry_out(&self, ours: &[Arc<Flight>], miss: &Miss) -> Outcome {
        if ours.is_empty() {
            return Ok(());
        }
        let pages: Vec<Pointer> = ours.iter().flat_map(|flight| &flight.pages).copied().collect();
        let units: Vec<Pointer> = ours.iter().flat_map(|flight| &flight.units).copied().collect();
        let outcome = self.bring(&pages, &units);
        let asked = match &outcome {
            Err(error) if pages.len() + units.len() > 1 && !self.is_of_all(error) => {
                let ours: HashSet<&Pointer> = pages.iter().chain(&units).collect();
                self.bring_each(miss, |at| ours.contains(at))
            }
            outcome => outcome.clone(),
        };
        for flight in ours {
            self.ahead.shared.land(flight, &outcome);
        }
        asked
    }

    fn bring_each(&self, miss: &Miss, is_ours: impl Fn(&Pointer) -> bool) -> Outcome {
        let first = miss.pages.first().or(miss.units.first());
        let needed = |at: &Pointer, outcome: Outcome| if Some(at) == first { outcome } else { Ok(()) };
        for at in miss.pages.iter().filter(|at| is_ours(at)) {
            needed(at, self.bring(std::slice::from_ref(at), &[]))?;
        }
        for at in miss.units.iter().filter(|at| is_ours(at)) {
            needed(at, self.bring(&[], std::slice::from_ref(at)))?;
        }
        Ok(())
    }

    /// Reads these into the cache.
    fn bring(&self, pages: &[Pointer], units: &[Pointer]) -> Outcome {
        let expected = self.cache.expect(units.iter().map(|at| u64::from(at.length)).sum());
        let mut payloads = self.log.read_all(&[pages, units].concat())?;
        drop(expected);
        self.cache.put_units(units.iter().copied().zip(payloads.split_off(pages.len())));
        // The first is needed, the others may be: it must be the last to be forgotten.
        for (at, payload) in pages.iter().zip(payloads).rev() {
            let page = Node::decode(&payload, *at)
                .map_err(|error| StoreError::Damaged(format!("page at {at}: {error}").into()))?;
            self.cache.put_page(*at, Arc::new(page));
        }
        Ok(())
    }

    /// Whether the error would be the same for any page or unit: a bucket does not answer.
    fn is_of_all(&self, error: &StoreError) -> bool {
        self.log.bucket().is_some() && matches!(error, StoreError::Io(_))
    }

    /// How many of these values to fetch, from the first, if about `wanted` are asked for and the others will be, and
    /// more behind them if it `goes_on`. In a bucket, up to where a segment ends, if that is not far: so each comes
    /// with one GET.
    pub(super) fn worth_fetching_now(&self, values: &[Value], wanted: usize, goes_on: bool) -> usize {
        let wanted = wanted.min(values.len());
        if self.log.bucket().is_none() {
            return wanted;
        }
        let segment_of = |value: &Value| match value {
            Value::Extent(extent) => Some(extent.unit.segment),
            Value::Bytes(_) => None,
        };
        let is_end = |at: &usize| match values.get(*at) {
            Some(next) => segment_of(next) != segment_of(&values[at - 1]),
            None => !goes_on,
        };
        let bytes = |values: &[Value]| values.iter().map(|value| value.len() as u64).sum::<u64>();
        let before = (1..=wanted).rev().find(is_end).filter(|at| bytes(&values[..*at]) >= FLIGHT_BYTES_MAX / 2);
        let behind = (wanted + 1..=values.len()).find(is_end);
        before.or(behind).unwrap_or(wanted)
    }

    /// Begins to fetch the units of values of a state of that era.
    pub(super) fn prefetch(self: &Arc<Self>, values: &[Value], era: &Era) {
        let units: Vec<Pointer> = values
            .iter()
            .filter_map(|value| match value {
                Value::Extent(extent) => Some(extent.unit),
                Value::Bytes(_) => None,
            })
            .collect();
        self.fetch_soon(Miss { units, _era: Some(era.clone()), ..Miss::default() });
    }

    /// Begins to fetch what was missing, as far as there is room in the queue.
    pub(super) fn fetch_soon(self: &Arc<Self>, miss: Miss) {
        let (threads_max, bytes_max) = match self.log.bucket() {
            Some(_) => (THREADS_MAX, FLIGHT_BYTES_MAX),
            None => (DISK_THREADS_MAX, DISK_FLIGHT_BYTES_MAX),
        };
        let shared = &self.ahead.shared;
        let mut state = shared.state.lock();
        let pages = state.missing(&miss.pages, |at| self.cache.has_page(at), |_| ());
        let units = state.missing(&miss.units, |at| self.cache.has_unit(at), |_| ());
        let flights = [pages]
            .into_iter()
            .filter(|pages| !pages.is_empty())
            .map(|pages| Flight::new(pages, Vec::new(), miss._era.clone()))
            .chain(cut(units, bytes_max).into_iter().map(|units| Flight::new(Vec::new(), units, miss._era.clone())));
        for flight in flights {
            if state.stopped || state.queued_bytes + flight.bytes() > QUEUE_BYTES_MAX {
                return;
            }
            state.begin(&flight);
            state.queued_bytes += flight.bytes();
            let has_pages = !flight.pages.is_empty();
            match has_pages {
                true => state.queue.push_front(flight),
                false => state.queue.push_back(flight),
            }
            if state.queue.len() > state.idle && state.threads < threads_max {
                state.threads += usize::from(self.start_thread(&mut state, Shared::next));
            } else if has_pages && state.idle == 0 && !state.has_page_thread {
                state.has_page_thread = self.start_thread(&mut state, Shared::next_pages);
            } else {
                shared.queued.notify_one();
            }
        }
    }

    /// Whether there is one more, which carries out what `next` gives it.
    fn start_thread(self: &Arc<Self>, state: &mut State, next: fn(&Shared) -> Option<Arc<Flight>>) -> bool {
        let (core, shared) = (self.clone(), self.ahead.shared.clone());
        let work = move || {
            while let Some(flight) = next(&shared) {
                let outcome = core.bring(&flight.pages, &flight.units);
                shared.land(&flight, &outcome);
            }
            // Who waits for the end wants the store's file unlocked then.
            drop(core);
            shared.state.lock().alive -= 1;
            shared.ended.notify_all();
        };
        let started = std::thread::Builder::new().name("kivafs-ahead".into()).spawn(work);
        match &started {
            Ok(_) => state.alive += 1,
            // Without a thread, who needs what is queued takes it from there.
            Err(error) => tracing::debug!("nothing is fetched ahead: {error}"),
        }
        started.is_ok()
    }
}

/// Cuts units into flights: neighbours together, since they come with one read; a segment's with another
/// one's only if they are few.
fn cut(mut units: Vec<Pointer>, bytes_max: u64) -> Vec<Vec<Pointer>> {
    units.sort_unstable_by_key(|at| (at.segment, at.offset));
    let mut flights: Vec<Vec<Pointer>> = Vec::new();
    let mut bytes = 0;
    for at in units {
        match flights.last_mut() {
            Some(flight)
                if bytes + u64::from(at.length) <= bytes_max
                    && (bytes < FEW_BYTES || flight.last().is_some_and(|last| last.segment == at.segment)) =>
            {
                bytes += u64::from(at.length);
                flight.push(at);
            }
            _ => {
                bytes = u64::from(at.length);
                flights.push(vec![at]);
            }
        }
    }
    flights
}
