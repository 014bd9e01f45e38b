//! Answers that storage may owe for longer than anybody is to wait for them.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Takes the answer.
type Taker<T> = Box<dyn FnOnce(T) + Send>;

/// When somebody has to be answered, and a number to tell them apart.
type Turn = (Instant, u64);

/// How often the thread looks up when nobody waits.
const IDLE: Duration = Duration::from_secs(60);

struct State<T> {
    waiting: BTreeMap<Turn, Taker<T>>,
    next: u64,
    /// When the thread will look.
    looks_at: Instant,
    ending: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    changed: Condvar,
}

/// Everybody who waits. Each is answered once: in time, or by a thread when the time is over.
pub struct Patience<T> {
    shared: Arc<Shared<T>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An answer that is owed. Dropped without one, it is answered when the time is over.
pub struct Owed<T> {
    shared: Arc<Shared<T>>,
    turn: Turn,
}

impl<T: Send + 'static> Patience<T> {
    /// Starts the thread: who has waited for too long gets what `too_late` says.
    pub fn start(too_late: impl Fn() -> T + Send + 'static) -> std::io::Result<Patience<T>> {
        let state = State { waiting: BTreeMap::new(), next: 0, looks_at: Instant::now(), ending: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), changed: Condvar::new() });
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("patience".into()).spawn(move || its.run(&too_late))?;
        Ok(Patience { shared, thread: Mutex::new(Some(thread)) })
    }

    /// From now on `taker` waits, until then at most. It runs on the thread that gives the answer, with no
    /// lock held, and must not wait.
    pub fn wait(&self, until: Instant, taker: Taker<T>) -> Owed<T> {
        let mut state = self.shared.state.lock();
        let turn = (until, state.next);
        state.next += 1;
        state.waiting.insert(turn, taker);
        if until < state.looks_at {
            self.shared.changed.notify_all();
        }
        Owed { shared: self.shared.clone(), turn }
    }

    /// Ends the thread. Who still waits then has to be answered in time.
    pub fn stop(&self) {
        self.shared.state.lock().ending = true;
        self.shared.changed.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            thread.join().expect("a panic ends the process, not a thread");
        }
    }
}

impl<T> Owed<T> {
    /// Gives the answer, unless the time is over.
    pub fn give(self, answer: T) {
        if let Some(taker) = self.take() {
            taker(answer);
        }
    }

    /// It was answered in another way.
    pub fn forget(self) {
        drop(self.take());
    }

    fn take(&self) -> Option<Taker<T>> {
        self.shared.state.lock().waiting.remove(&self.turn)
    }
}

impl<T> Shared<T> {
    fn run(&self, too_late: &dyn Fn() -> T) {
        let mut state = self.state.lock();
        while !state.ending {
            let now = Instant::now();
            let next = state.waiting.first_key_value().map_or(now + IDLE, |((until, _), _)| *until);
            if next > now {
                state.looks_at = next;
                self.changed.wait_until(&mut state, next);
                continue;
            }
            let (_, taker) = state.waiting.pop_first().expect("it was just there");
            drop(state);
            taker(too_late());
            state = self.state.lock();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    fn soon() -> Instant {
        Instant::now() + Duration::from_millis(30)
    }

    #[test]
    fn everybody_is_answered_once() {
        let (sender, receiver) = mpsc::channel();
        let patience = Patience::start(|| "too late").unwrap();
        let hour = Duration::from_secs(3600);
        let wait = |who: u32, until: Instant| {
            let sender = sender.clone();
            patience.wait(until, Box::new(move |answer| sender.send((who, answer)).unwrap()))
        };
        wait(0, Instant::now() + hour).give("in time");
        assert_eq!(receiver.recv().unwrap(), (0, "in time"));
        // Whoever has less time comes first, whenever they came.
        let patient = wait(1, Instant::now() + hour);
        let (second, third) = (wait(2, soon()), wait(3, soon()));
        drop(wait(4, soon()));
        wait(5, Instant::now() + hour).forget();
        let mut late: Vec<_> = receiver.iter().take(3).collect();
        late.sort_unstable();
        assert_eq!(late, [(2, "too late"), (3, "too late"), (4, "too late")]);
        second.give("not heard");
        wait(6, Instant::now() + hour).give("in time");
        third.give("not heard");
        patient.give("in time");
        assert_eq!([receiver.recv().unwrap(), receiver.recv().unwrap()], [(6, "in time"), (1, "in time")]);
        assert!(patience.shared.state.lock().waiting.is_empty(), "nobody is kept");
        patience.stop();
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn after_the_end_answers_still_come() {
        let (sender, receiver) = mpsc::channel();
        let patience = Patience::start(|| "too late").unwrap();
        let until = Instant::now() + Duration::from_secs(3600);
        let owed = patience.wait(until, Box::new(move |answer| sender.send(answer).unwrap()));
        patience.stop();
        owed.give("in time");
        assert_eq!(receiver.recv().unwrap(), "in time");
    }
}
