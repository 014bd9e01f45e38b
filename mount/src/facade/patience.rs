//! Answers that storage may owe for longer than anybody is to wait for them.

use parking_lot::{Condvar, Mutex};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Takes the answer.
type Taker<T> = Box<dyn FnOnce(T) + Send>;

struct State<T> {
    /// By number: whoever came first has to be answered first.
    waiting: BTreeMap<u64, (Instant, Taker<T>)>,
    next: u64,
    ending: bool,
}

struct Shared<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
}

/// Everybody who waits. Each is answered once: in time, or by a thread when the time is over.
pub struct Patience<T> {
    shared: Arc<Shared<T>>,
    time: Duration,
    thread: Mutex<Option<JoinHandle<()>>>,
}

/// An answer that is owed. Dropped without one, it is answered when the time is over.
pub struct Owed<T> {
    shared: Arc<Shared<T>>,
    number: u64,
}

impl<T: Send + 'static> Patience<T> {
    /// Starts the thread: who has waited for `time` gets what `too_late` says.
    pub fn start(time: Duration, too_late: impl Fn() -> T + Send + 'static) -> std::io::Result<Patience<T>> {
        let state = State { waiting: BTreeMap::new(), next: 0, ending: false };
        let shared = Arc::new(Shared { state: Mutex::new(state), ended: Condvar::new() });
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("patience".into()).spawn(move || its.run(time, &too_late))?;
        Ok(Patience { shared, time, thread: Mutex::new(Some(thread)) })
    }

    /// From now on `taker` waits. It runs on the thread that gives the answer and must not wait.
    pub fn wait(&self, taker: Taker<T>) -> Owed<T> {
        let mut state = self.shared.state.lock();
        let number = state.next;
        state.next += 1;
        // Under the lock, so that the order of times is that of numbers.
        let until = Instant::now() + self.time;
        state.waiting.insert(number, (until, taker));
        Owed { shared: self.shared.clone(), number }
    }

    /// Ends the thread. Who still waits then has to be answered in time.
    pub fn stop(&self) {
        self.shared.state.lock().ending = true;
        self.shared.ended.notify_all();
        if let Some(thread) = self.thread.lock().take() {
            thread.join().expect("a panic ends the process, not a thread");
        }
    }
}

impl<T> Owed<T> {
    /// Gives the answer, unless the time is over.
    pub fn give(self, answer: T) {
        let waiting = self.shared.state.lock().waiting.remove(&self.number);
        if let Some((_, taker)) = waiting {
            taker(answer);
        }
    }
}

impl<T> Shared<T> {
    fn run(&self, time: Duration, too_late: &dyn Fn() -> T) {
        let mut state = self.state.lock();
        while !state.ending {
            let now = Instant::now();
            // Nobody who comes later has to be answered before that, so nobody need wake us.
            let next = state.waiting.first_key_value().map_or(now + time, |(_, (until, _))| *until);
            if next > now {
                self.ended.wait_until(&mut state, next);
                continue;
            }
            let (_, (_, taker)) = state.waiting.pop_first().expect("it was just there");
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

    #[test]
    fn everybody_is_answered_once() {
        let (sender, receiver) = mpsc::channel();
        let patience = Patience::start(Duration::from_millis(30), || "too late").unwrap();
        let wait = |who: u32| {
            let sender = sender.clone();
            patience.wait(Box::new(move |answer| sender.send((who, answer)).unwrap()))
        };
        wait(0).give("in time");
        assert_eq!(receiver.recv().unwrap(), (0, "in time"));
        let (first, second) = (wait(1), wait(2));
        drop(wait(3));
        let mut late: Vec<_> = receiver.iter().take(3).collect();
        late.sort_unstable();
        assert_eq!(late, [(1, "too late"), (2, "too late"), (3, "too late")]);
        first.give("not heard");
        wait(4).give("in time");
        second.give("not heard");
        assert_eq!(receiver.recv().unwrap(), (4, "in time"));
        assert!(patience.shared.state.lock().waiting.is_empty(), "nobody is kept");
        patience.stop();
        assert!(receiver.try_recv().is_err());
    }

    #[test]
    fn after_the_end_answers_still_come() {
        let (sender, receiver) = mpsc::channel();
        let patience = Patience::start(Duration::from_secs(3600), || "too late").unwrap();
        let owed = patience.wait(Box::new(move |answer| sender.send(answer).unwrap()));
        patience.stop();
        owed.give("in time");
        assert_eq!(receiver.recv().unwrap(), "in time");
    }
}
