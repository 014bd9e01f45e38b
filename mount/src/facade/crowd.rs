//! The thread that has the kernel let go of nodes when it holds too many (C6).
//!
//! The kernel keeps what it was told of for as long as it has memory, and we must know of each node
//! that it keeps. Beyond the limit the thread asks it to give back those that it has not asked about
//! for longest. There are two ways to ask:
//!
//! * By number (since Linux 6.18, FUSE_NOTIFY_PRUNE): the kernel lets go of those that nothing uses.
//!   What is open, a working directory, a place where something is mounted, or has something below
//!   that is held, is left alone. So directories follow what is in them.
//! * By name, before that. A name that becomes invalid is taken away whether or not it is in use:
//!   getcwd(2) fails in such a directory, and what is mounted in it *is unmounted*. Therefore never
//!   the name of a directory, nor of a file that is open (/proc would call it deleted): older
//!   kernels keep directories for as long as they like.
//!
//! Nobody waits for this thread, and it holds no lock while it asks: for a name, the kernel waits
//! until nobody is in the directory, which may mean until another request is answered. The kernel's
//! answers are "forget" requests, which come later.

use crate::facade::outlet::Outlet;
use crate::fs::{FileSystem, Ino};
use parking_lot::{Condvar, Mutex};
use std::io::ErrorKind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Asked for at a time: as many numbers as the kernel takes in one go.
const BATCH: usize = 512;

/// Of so many nodes allowed, one is given back in addition, so that not every lookup beyond the
/// limit makes work.
const SPARE: usize = 16;

/// How long the kernel's answers may take before it is asked for others.
const ANSWERS_MAX: Duration = Duration::from_millis(20);

/// How long the kernel is left alone when it was asked for all nodes and still holds too many.
const IN_USE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    called: bool,
    ending: bool,
    outlet: Option<Outlet>,
}

struct Shared {
    state: Mutex<State>,
    changed: Condvar,
    held_max: usize,
    /// The thread waits until the kernel has let go of so many.
    hoped: AtomicUsize,
}

impl Shared {
    fn target(&self) -> usize {
        self.held_max - self.held_max / SPARE
    }

    /// Until the kernel has let go of as many nodes as are hoped for, or the time is over.
    fn pause(&self, time: Duration) -> Pause {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.ending && self.hoped.load(Ordering::Relaxed) > 0 {
            if self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        let missing = self.hoped.swap(0, Ordering::Relaxed);
        if state.ending { Pause::Ending } else { Pause::Over { missing } }
    }
}

enum Pause {
    /// So many are still hoped for.
    Over {
        missing: usize,
    },
    Ending,
}

/// Sees when the thread has something to do.
#[derive(Clone)]
pub struct Watch(Arc<Shared>);

impl Watch {
    /// The kernel may hold more than before.
    pub fn after_lookup(&self, fs: &FileSystem) {
        if fs.held() > self.0.held_max {
            let mut state = self.0.state.lock();
            if !state.called {
                state.called = true;
                self.0.changed.notify_one();
            }
        }
    }

    /// The kernel has let go of a node.
    pub fn after_forget(&self) {
        let hoped = &self.0.hoped;
        let one_less = hoped.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |count| count.checked_sub(1));
        if one_less == Ok(1) {
            // Under the lock, so that the thread is not just about to wait.
            let _state = self.0.state.lock();
            self.0.changed.notify_one();
        }
    }
}

/// The thread.
pub struct Crowd {
    shared: Arc<Shared>,
}

impl Crowd {
    /// Starts it.
    pub fn start(fs: Arc<FileSystem>, held_max: usize) -> std::io::Result<Crowd> {
        let (state, changed, hoped) = (Mutex::default(), Condvar::new(), AtomicUsize::new(0));
        let shared = Arc::new(Shared { state, changed, held_max, hoped });
        let its = shared.clone();
        std::thread::Builder::new().name("crowd".into()).spawn(move || run(&its, &fs))?;
        Ok(Crowd { shared })
    }

    /// For who tells the kernel of nodes.
    pub fn watch(&self) -> Watch {
        Watch(self.shared.clone())
    }

    /// Where the kernel is asked.
    pub fn notify_by(&self, outlet: Outlet) {
        self.shared.state.lock().outlet = Some(outlet);
    }

    /// Has it end, and does not wait for that: the kernel may keep it until the connection ends,
    /// which may be when this process does.
    pub fn stop(self) {
        self.shared.state.lock().ending = true;
        self.shared.changed.notify_all();
    }
}

fn run(shared: &Shared, fs: &FileSystem) {
    let mut asking = None;
    let mut state = shared.state.lock();
    loop {
        while !state.called && !state.ending {
            shared.changed.wait(&mut state);
        }
        if state.ending {
            return;
        }
        state.called = false;
        asking = asking.or_else(|| state.outlet.take().map(|outlet| Asking { outlet, by_number: true }));
        drop(state);
        if let Some(asking) = &mut asking {
            thin_out(shared, fs, asking);
        }
        state = shared.state.lock();
    }
}

/// Asks until few enough are held, or nothing helps.
fn thin_out(shared: &Shared, fs: &FileSystem, asking: &mut Asking) {
    let target = shared.target();
    let before = fs.held();
    let (mut passed, mut factor) = (0, 1);
    loop {
        let held = fs.held();
        if held <= target {
            if before > target {
                tracing::debug!("the kernel holds {held} nodes, {before} before it was asked to let go of some");
            }
            return;
        }
        let wanted = (held - target).saturating_mul(factor).min(held);
        let mut nodes = Vec::with_capacity(wanted);
        for at in (0..wanted).step_by(BATCH) {
            nodes.extend(fs.oldest_held(BATCH.min(wanted - at)));
        }
        shared.hoped.store(nodes.len(), Ordering::Relaxed);
        if !nodes.chunks(BATCH).all(|nodes| asking.ask_for(fs, nodes)) {
            return;
        }
        let Pause::Over { missing } = shared.pause(ANSWERS_MAX) else { return };
        // Many in a row may be in use: they are passed over in ever greater steps.
        let in_vain = nodes.is_empty() || missing > nodes.len() / 2;
        (passed, factor) = if in_vain { (passed + wanted, factor * 2) } else { (0, 1) };
        if passed > 2 * held {
            tracing::debug!("the kernel holds {held} nodes, and uses all that it was asked to let go");
            shared.hoped.store(usize::MAX, Ordering::Relaxed);
            shared.pause(IN_USE);
            return;
        }
    }
}

/// How the kernel is asked.
struct Asking {
    outlet: Outlet,
    by_number: bool,
}

impl Asking {
    /// Asks the kernel to let go of these. False: there is no kernel that listens any more.
    fn ask_for(&mut self, fs: &FileSystem, nodes: &[Ino]) -> bool {
        if self.by_number {
            match self.outlet.let_go(nodes) {
                Ok(()) => return true,
                Err(error) if error.kind() == ErrorKind::InvalidInput => {
                    tracing::debug!("this kernel gives back nodes by name only, and so no directories");
                    self.by_number = false;
                }
                Err(error) => return refused(&error),
            }
        }
        nodes.iter().all(|node| self.ask_for_name(fs, *node))
    }

    fn ask_for_name(&self, fs: &FileSystem, node: Ino) -> bool {
        match fs.store().patiently(|| fs.name_held(node)) {
            Ok(Some((dir, name))) => match self.outlet.forget_name(dir, &name) {
                Ok(_) => true,
                Err(error) => refused(&error),
            },
            Ok(None) => true,
            // Whoever asks for what is stored there is told.
            Err(error) => {
                tracing::debug!("{node}: {error}");
                true
            }
        }
    }
}

fn refused(error: &std::io::Error) -> bool {
    tracing::debug!("the kernel was not asked to let go of nodes: {error}");
    false
}
