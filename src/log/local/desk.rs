//! The desk: what is asked of storage lies there in order, and whoever has the writer works it off.
//!
//! That is the storage thread, or a caller who waits for storage anyway and finds nobody at work
//! ([`Desk::put_or_begin`]). For a lone fsync this saves two threads' waking each other on another processor, which
//! took 40 us of 200 and again 40, beside 100 of fdatasync. While a caller works, what others put there gathers, as
//! while the storage thread does; it is the storage thread that goes on with it.

use super::writer::Writer;
use crate::log::message::Message;
use crate::log::streams::Part;
use parking_lot::{Condvar, Mutex};
use std::collections::VecDeque;

/// Where messages to the writer lie.
pub struct Desk {
    state: Mutex<State>,
    arrived: Condvar,
}

struct State {
    messages: VecDeque<Message>,
    writer: Seat,
    /// Nothing more will be put there.
    is_complete: bool,
}

enum Seat {
    /// Nobody works.
    Vacant(Box<Writer>),
    /// Somebody does, and sees what comes.
    Taken,
    /// The log was closed, or dropped.
    Gone,
}

impl Desk {
    /// A desk with nothing on it.
    pub fn new(writer: Writer) -> Desk {
        let state = State { messages: VecDeque::new(), writer: Seat::Vacant(Box::new(writer)), is_complete: false };
        Desk { state: Mutex::new(state), arrived: Condvar::new() }
    }

    /// Puts a message there; given back if nobody will work any more.
    pub fn put(&self, message: Message) -> Result<(), Message> {
        let mut state = self.state.lock();
        if let Seat::Gone = state.writer {
            return Err(message);
        }
        state.messages.push_back(message);
        if let Seat::Vacant(_) = state.writer {
            self.arrived.notify_one();
        }
        Ok(())
    }

    /// The same; or, if nobody is at work and nothing else lies there, answers what has to be done at once: by a
    /// thread that can wait for the disk, and holds no lock then. What is put meanwhile comes after it.
    pub fn put_or_begin(&self, message: Message) -> Result<Option<impl FnOnce() + '_>, Message> {
        let turn = {
            let mut state = self.state.lock();
            if state.messages.is_empty() { Turn::take(self, &mut state) } else { None }
        };
        match turn {
            None => self.put(message).map(|()| None),
            Some(mut turn) => Ok(Some(move || turn.serve(message))),
        }
    }

    /// Puts a message before all others. For who is at work.
    pub fn put_first(&self, message: Message) {
        self.state.lock().messages.push_front(message);
    }

    /// Takes the oldest part away that is to be written. For who is at work.
    pub fn take_part(&self) -> Option<Part> {
        let mut state = self.state.lock();
        let at = state.messages.iter().position(|message| matches!(message, Message::Write(_)))?;
        match state.messages.remove(at) {
            Some(Message::Write(part)) => Some(part),
            _ => unreachable!("it is at that place"),
        }
    }

    /// Works until the log is closed, or nothing more will come. For the storage thread.
    pub fn work(&self) {
        loop {
            let (mut turn, mut message) = {
                let mut state = self.state.lock();
                loop {
                    let is_over = state.is_complete && state.messages.is_empty();
                    match state.writer {
                        Seat::Gone => return,
                        Seat::Vacant(_) if is_over => return,
                        _ => {}
                    }
                    if !state.messages.is_empty()
                        && let Some(turn) = Turn::take(self, &mut state)
                    {
                        break (turn, state.messages.pop_front());
                    }
                    self.arrived.wait(&mut state);
                }
            };
            while let Some(next) = message {
                turn.serve(next);
                message = self.state.lock().messages.pop_front();
            }
        }
    }

    /// Nothing more will be put there.
    pub fn expect_no_more(&self) {
        self.state.lock().is_complete = true;
        self.arrived.notify_one();
    }
}

/// Being at work: the writer goes back to the desk when this is dropped.
struct Turn<'a> {
    desk: &'a Desk,
    writer: Option<Box<Writer>>,
}

impl<'a> Turn<'a> {
    fn take(desk: &'a Desk, state: &mut State) -> Option<Turn<'a>> {
        match std::mem::replace(&mut state.writer, Seat::Taken) {
            Seat::Vacant(writer) => Some(Turn { desk, writer: Some(writer) }),
            other => {
                state.writer = other;
                None
            }
        }
    }

    fn serve(&mut self, message: Message) {
        let Some(mut writer) = self.writer.take() else { return };
        // Gone if it ended, or panicked: what lies there then ends, too. (Who waits for a commit that panicked is not
        // told: a panic ends the process, but in a test.)
        self.writer = writer.serve(message, self.desk).then_some(writer);
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        let mut state = self.desk.state.lock();
        state.writer = match self.writer.take() {
            Some(writer) => Seat::Vacant(writer),
            None => Seat::Gone,
        };
        if let Seat::Gone = state.writer {
            // What nobody does any more ends with its senders' being told so.
            let left = std::mem::take(&mut state.messages);
            self.desk.arrived.notify_one();
            drop(state);
            drop(left);
        } else if state.is_complete || !state.messages.is_empty() {
            self.desk.arrived.notify_one();
        }
    }
}
