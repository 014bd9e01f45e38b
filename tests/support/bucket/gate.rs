//! Holding requests back, and letting them go in an order that the test chooses.

use super::Bucket;
use super::call::{Call, Place, What, place_of};
use super::way::Shared;
use super::weak::{Effect, Plan, Told};
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Which requests a gate holds back.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    what: Option<What>,
    peer: Option<usize>,
    name: Option<String>,
    epoch: Option<u64>,
}

impl Filter {
    /// All requests.
    pub fn any() -> Filter {
        Filter::default()
    }

    pub fn of(what: What) -> Filter {
        Filter { what: Some(what), ..Filter::default() }
    }

    /// Only that peer's.
    pub fn by(self, peer: usize) -> Filter {
        Filter { peer: Some(peer), ..self }
    }

    /// Only for that name.
    pub fn named(self, name: &str) -> Filter {
        Filter { name: Some(name.to_owned()), ..self }
    }

    /// Only for commits and seals of that epoch.
    pub fn in_epoch(self, epoch: u64) -> Filter {
        Filter { epoch: Some(epoch), ..self }
    }

    pub(super) fn matches(&self, peer: usize, call: &Call) -> bool {
        self.what.is_none_or(|what| what == call.what())
            && self.peer.is_none_or(|wanted| wanted == peer)
            && self.name.as_ref().is_none_or(|name| name == call.name())
            && self.epoch.is_none_or(
                |wanted| matches!(place_of(call.name()), Some(Place::Commit { epoch, .. }) if epoch == wanted),
            )
    }
}

/// Where requests are held back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// On their way there: not carried out yet.
    Arrival,
    /// On their way back: carried out, not answered yet.
    Answer,
}

/// Holds back what its filter matches, from when it was made until it is opened or dropped.
pub struct Gate {
    pub(super) bucket: Bucket,
    pub(super) number: u64,
}

/// What the bucket keeps of a gate.
pub(super) struct Stop {
    pub number: u64,
    pub filter: Filter,
    pub point: Point,
    /// The requests that it holds back and nobody has taken.
    pub queue: VecDeque<u64>,
}

/// A request that is held back. Lost without an answer if this is dropped.
#[must_use]
pub struct Held {
    bucket: Bucket,
    number: Option<u64>,
    pub call: Call,
    pub peer: usize,
}

/// A change without an answer, which is carried out when the test says so, or never.
#[must_use]
pub struct Late {
    shared: Arc<Shared>,
    number: u64,
}

/// A gate at which nothing arrives within this time fails the test.
const PATIENCE: Duration = Duration::from_secs(60);

impl Gate {
    /// Waits until a request is held back.
    #[track_caller]
    pub fn wait(&self) -> Held {
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.bucket.shared.state.lock();
        loop {
            let number = state.stop_mut(self.number).and_then(|stop| stop.queue.pop_front());
            if let Some(number) = number {
                let request = state.held.get(&number).expect("held until somebody takes it");
                let (call, peer) = (request.call.clone(), request.peer);
                return Held { bucket: self.bucket.clone(), number: Some(number), call, peer };
            }
            let timed_out = self.bucket.shared.arrived.wait_until(&mut state, deadline).timed_out();
            assert!(!timed_out, "nothing has arrived at the gate");
        }
    }

    /// How many are held back that nobody has taken.
    pub fn len(&self) -> usize {
        let mut state = self.bucket.shared.state.lock();
        state.stop_mut(self.number).map_or(0, |stop| stop.queue.len())
    }

    /// Lets go what nobody has taken, in order, and holds nothing back any more.
    pub fn open(self) {}
}

impl Drop for Gate {
    fn drop(&mut self) {
        let queue = {
            let mut state = self.bucket.shared.state.lock();
            let index = state.stops.iter().position(|stop| stop.number == self.number);
            index.map_or(VecDeque::new(), |index| state.stops.remove(index).queue)
        };
        for number in queue {
            self.bucket.shared.resume(number, None);
        }
    }
}

impl Held {
    pub fn name(&self) -> &str {
        self.call.name()
    }

    /// It goes its way: whatever else becomes of it there, by weakness, say.
    pub fn go_on(self) {
        self.end(None);
    }

    /// It is carried out, even if its peer is cut off by now, and answered.
    pub fn carry_out(self) {
        self.end(Some(Plan::DONE));
    }

    /// It is carried out, and its answer is lost.
    pub fn lose_reply(self) {
        self.end(Some(Plan::LOST_REPLY));
    }

    /// It is never carried out, and there is no answer.
    pub fn lose(self) {
        self.end(Some(Plan::LOST));
    }

    /// There is no answer, but it is still on its way.
    pub fn time_out(mut self) -> Late {
        let number = self.number.take().expect("has not ended");
        let shared = self.bucket.shared.clone();
        shared.resume(number, Some(Plan { effect: Effect::Late(None), told: Told::Unknown }));
        Late { shared, number }
    }

    fn end(mut self, plan: Option<Plan>) {
        let number = self.number.take().expect("has not ended");
        self.bucket.shared.resume(number, plan);
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(number) = self.number.take() {
            self.bucket.shared.resume(number, Some(Plan::LOST));
        }
    }
}

impl Late {
    /// Now it is carried out. Whether it changed anything: a create for which it was too late does
    /// not.
    pub fn land(self) -> bool {
        let mut state = self.shared.state.lock();
        let late = state.take_late(self.number).expect("it has not been carried out");
        state.carry_out_late(late)
    }
}
