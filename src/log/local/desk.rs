//! What is asked of the log's end, and who does it: the storage thread; or who asks for a commit and has to wait for it
//! anyway.
//!
//! To wake a thread and be woken by it takes about as long as a flush of a good disk. So the [`Writer`] is no thread's
//! own: it lies here while there is nothing to do, and who finds it here may take it and make the commit that
//! it asked for (not where flushes take long: then it has other things to do). While somebody is at work,
//! what is asked waits here, and is found by that one: nobody is woken.
//!
//! * K1 There is one writer, and who has taken it is alone at the log's end (L1).
//! * K2 Who lays it back looks for what was asked meanwhile under the same lock, and does it or wakes the storage
//!   thread: nothing is forgotten.
//! * K3 What is asked is done in order, but for parts of segments, which a commit fetches before its turn (R1).

use super::writer::Writer;
use crate::log::message::Message;
use crate::log::streams::Part;
use parking_lot::{Condvar, Mutex, MutexGuard};
use std::collections::VecDeque;
use std::sync::Arc;

/// Shared by all who ask, and the storage thread.
pub struct Desk {
    state: Mutex<State>,
    /// There is something for the storage thread.
    changed: Condvar,
}

struct State {
    asked: VecDeque<Message>,
    /// None: somebody is at work, or it has ended.
    writer: Option<Box<Writer>>,
    /// After a close.
    has_ended: bool,
    /// Nobody can ask any more: the log was dropped, perhaps without a close. What was asked is still done.
    is_abandoned: bool,
}

/// How far to go.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Until {
    /// Nothing is left to do.
    Nothing,
    /// A commit was made: it was that of who asked, or it holds as much.
    Commit,
}

impl Desk {
    /// With nothing to do.
    pub fn new(writer: Writer) -> Arc<Desk> {
        let state =
            State { asked: VecDeque::new(), writer: Some(Box::new(writer)), has_ended: false, is_abandoned: false };
        Arc::new(Desk { state: Mutex::new(state), changed: Condvar::new() })
    }

    /// The storage thread.
    pub fn serve(&self) {
        loop {
            let mut state = self.state.lock();
            let writer = loop {
                if state.has_ended || (state.is_abandoned && state.asked.is_empty()) {
                    return;
                }
                if !state.asked.is_empty()
                    && let Some(writer) = state.writer.take()
                {
                    break writer;
                }
                self.changed.wait(&mut state);
            };
            self.work(state, writer, Until::Nothing);
        }
    }

    /// Asks for something. `wakes`: else the caller calls [`Desk::help`] as soon as it holds no lock.
    fn ask(&self, message: Message, wakes: bool) {
        let mut state = self.state.lock();
        if state.has_ended {
            // Nothing is asked after a close, but by who waits for space and has not heard of it.
            assert!(matches!(message, Message::Reached(_)), "the storage thread has ended");
            return;
        }
        state.asked.push_back(message);
        if wakes && state.writer.is_some() {
            self.changed.notify_one();
        }
    }

    /// If nobody is at work, and it is quickly done: does what was asked, until a commit was made. The caller holds no
    /// lock.
    fn help(&self) {
        let mut state = self.state.lock();
        if state.asked.is_empty() {
            return;
        }
        match state.writer.take() {
            Some(writer) if writer.is_quick() => self.work(state, writer, Until::Commit),
            Some(writer) => {
                state.writer = Some(writer);
                self.changed.notify_one();
            }
            None => {}
        }
    }

    fn work<'a>(&'a self, mut state: MutexGuard<'a, State>, mut writer: Box<Writer>, until: Until) {
        let guard = Guard(self);
        let mut has_committed = false;
        while !(has_committed && until == Until::Commit)
            && let Some(message) = state.asked.pop_front()
        {
            has_committed |= matches!(message, Message::Commit { .. });
            drop(state);
            let goes_on = writer.carry_out(message, self);
            state = self.state.lock();
            if !goes_on {
                state.has_ended = true;
                self.changed.notify_one();
                break;
            }
        }
        if !state.has_ended {
            state.writer = Some(writer);
            if !state.asked.is_empty() {
                self.changed.notify_one();
            }
        }
        std::mem::forget(guard);
    }

    /// The next part that was handed over: a commit needs it before its turn.
    pub fn next_part(&self) -> Option<Part> {
        let mut state = self.state.lock();
        let at = state.asked.iter().position(|message| matches!(message, Message::Write(_)))?;
        match state.asked.remove(at) {
            Some(Message::Write(part)) => Some(part),
            _ => unreachable!("just seen"),
        }
    }

    /// Has something done before all else.
    pub fn put_first(&self, message: Message) {
        self.state.lock().asked.push_front(message);
    }
}

/// Who works is not to panic. If it does, those who wait must not wait for ever.
struct Guard<'a>(&'a Desk);

impl Drop for Guard<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.has_ended = true;
        let asked = std::mem::take(&mut state.asked);
        self.0.changed.notify_one();
        drop(state);
        drop(asked);
    }
}

/// Where it is asked. When it is dropped, nobody can ask any more.
pub struct Door(Arc<Desk>);

impl Door {
    /// There is one of a desk.
    pub fn of(desk: Arc<Desk>) -> Door {
        Door(desk)
    }

    /// Asks for something, and sees to it that it gets done.
    pub fn send(&self, message: Message) {
        self.0.ask(message, true);
    }

    /// Asks for something; [`Door::help`] has to follow.
    pub fn lay_down(&self, message: Message) {
        self.0.ask(message, false);
    }

    /// Does what was asked, on this thread, if no other is at it. The caller holds no lock.
    pub fn help(&self) {
        self.0.help();
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        self.0.state.lock().is_abandoned = true;
        self.0.changed.notify_one();
    }
}
