//! The thread that does what removals left to do, in bounded steps.

use crate::fs::FileSystem;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

/// Removals come in crowds: one pause for all of a crowd spares a wake-up for each.
const PAUSE: Duration = Duration::from_millis(20);

/// Also without a call there is a look now and then: views of directories grow old.
const IDLE: Duration = Duration::from_secs(5);

#[derive(Default)]
struct State {
    called: bool,
    ending: bool,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Calls the thread.
#[derive(Clone)]
pub struct Bell(Arc<Shared>);

impl Bell {
    /// There is something to do.
    pub fn ring(&self) {
        let mut state = self.0.state.lock();
        if !state.called {
            state.called = true;
            self.0.changed.notify_one();
        }
    }
}

/// The thread.
pub struct Deferred {
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

impl Deferred {
    /// Starts it; the first thing it does is what an earlier mount left to do.
    pub fn start(fs: Arc<FileSystem>) -> std::io::Result<Deferred> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        let thread = std::thread::Builder::new().name("deferred".into()).spawn(move || run(&its, &fs))?;
        Ok(Deferred { shared, thread })
    }

    /// For who has something to do.
    pub fn bell(&self) -> Bell {
        Bell(self.shared.clone())
    }

    /// Ends it after the step that it is at: the rest is left to the next mount.
    pub fn stop(self) {
        self.shared.state.lock().ending = true;
        self.shared.changed.notify_one();
        self.thread.join().expect("a panic ends the process, not a thread");
    }
}

fn run(shared: &Shared, fs: &FileSystem) {
    let mut told = String::new();
    loop {
        while match fs.store().patiently(|| fs.deferred_step()) {
            Ok(more) => more,
            Err(error) => {
                // It stays recorded; the next call or the next mount tries again. A store that
                // takes no more changes says the same each time: once is enough.
                let why = error.to_string();
                if why != told {
                    tracing::warn!("what removals left to do must wait: {why}");
                    told = why;
                }
                false
            }
        } {
            if shared.state.lock().ending {
                return;
            }
        }
        let mut state = shared.state.lock();
        if !state.called && !state.ending {
            shared.changed.wait_for(&mut state, IDLE);
        }
        if state.ending {
            return;
        }
        if state.called {
            // Ended early only by `stop`: the bell is silent while `called` is set.
            shared.changed.wait_for(&mut state, PAUSE);
            state.called = false;
        }
    }
}
