//! The thread that does what removals left to do, in bounded steps.

use crate::fs::FileSystem;
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Removals come in crowds: one pause for all of a crowd spares a wake-up for each.
const PAUSE: Duration = Duration::from_millis(20);

/// Also without a call there is a look now and then: views of directories grow old.
const IDLE: Duration = Duration::from_secs(5);

/// How long the end waits for a step that waits for storage.
const STOP_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    called: bool,
    ending: bool,
    ended: bool,
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
}

impl Deferred {
    /// Starts it; the first thing it does is what an earlier mount left to do. A step waits no longer
    /// than `timeout` for storage.
    pub fn start(fs: Arc<FileSystem>, timeout: Duration) -> std::io::Result<Deferred> {
        let shared = Arc::new(Shared::default());
        let its = shared.clone();
        std::thread::Builder::new().name("deferred".into()).spawn(move || {
            run(&its, &fs, timeout);
            drop(fs);
            its.state.lock().ended = true;
            its.changed.notify_all();
        })?;
        Ok(Deferred { shared })
    }

    /// For who has something to do.
    pub fn bell(&self) -> Bell {
        Bell(self.shared.clone())
    }

    /// Ends it after the step that it is at: the rest is left to the next mount. A step that storage
    /// keeps waiting is not waited for: the store will refuse it.
    pub fn stop(self) {
        let until = Instant::now() + STOP_MAX;
        let mut state = self.shared.state.lock();
        state.ending = true;
        self.shared.changed.notify_all();
        while !state.ended {
            if self.shared.changed.wait_until(&mut state, until).timed_out() {
                tracing::warn!("what removals left to do waits for storage, and is left to the next mount");
                break;
            }
        }
    }
}

fn run(shared: &Shared, fs: &FileSystem, timeout: Duration) {
    let mut told = String::new();
    loop {
        while match fs.store().patiently_until(Instant::now() + timeout, || fs.deferred_step()) {
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
            told.clear();
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
