//! The background threads: the keeper places raw values and commits in time; the checkpoint thread
//! lets leaves catch up that are behind when a store is opened (`replay`), and makes checkpoints; the cleaner cleans.

use super::checkpoint::{StoredTable, frees_some};
use super::{Core, StoreError};
use parking_lot::{Condvar, Mutex};
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const TICK_MIN: Duration = Duration::from_millis(20);
const TICK_MAX: Duration = Duration::from_secs(1);

/// How the threads are told what there is to do.
pub struct Signals {
    state: Mutex<State>,
    changed: Condvar,
    commit_interval: Duration,
}

/// Who waits for a checkpoint. Dropped without an answer, it learns that the store has ended.
type Asker = Sender<Result<(), StoreError>>;

#[derive(Default)]
struct State {
    keeper: bool,
    checkpoint: bool,
    cleaner: bool,
    /// Who waits for a checkpoint that begins from now on.
    askers: Vec<Asker>,
    /// Who waits for the one under way.
    served: Vec<Asker>,
    stop: bool,
}

impl Signals {
    /// Nothing to do yet.
    pub fn new(commit_interval: Duration) -> Signals {
        Signals { state: Mutex::default(), changed: Condvar::new(), commit_interval }
    }

    /// Whether each transaction is committed at once.
    pub fn commits_at_once(&self) -> bool {
        self.commit_interval.is_zero()
    }

    /// Whether a change from then has to become durable now, or so soon that it may as well be now.
    pub fn is_overdue(&self, since: Instant) -> bool {
        since.elapsed() + TICK_MAX / 2 >= self.commit_interval
    }

    /// Whether somebody waits for a checkpoint.
    pub fn checkpoint_is_asked_for(&self) -> bool {
        let state = self.state.lock();
        !state.askers.is_empty() || !state.served.is_empty()
    }

    /// There are more raw values than a commit takes.
    pub fn wake_keeper(&self) {
        let mut state = self.state.lock();
        if !state.keeper {
            state.keeper = true;
            self.changed.notify_all();
        }
    }

    /// A checkpoint is due.
    pub fn want_checkpoint(&self) {
        self.state.lock().checkpoint = true;
        self.changed.notify_all();
    }

    /// There is something to clean.
    pub fn want_cleaning(&self) {
        let mut state = self.state.lock();
        if !state.cleaner {
            state.cleaner = true;
            self.changed.notify_all();
        }
    }

    /// Waits for that; false: the thread shall end.
    fn wait_for_cleaning(&self) -> bool {
        let mut state = self.state.lock();
        while !state.cleaner && !state.stop {
            self.changed.wait(&mut state);
        }
        state.cleaner = false;
        !state.stop
    }

    /// Nobody waits for checkpoints any more.
    pub fn send_askers_away(&self) {
        let mut state = self.state.lock();
        state.askers.clear();
        state.served.clear();
    }

    /// Waits for so long, or until the threads shall end.
    pub fn pause(&self, time: Duration) {
        let until = Instant::now() + time;
        let mut state = self.state.lock();
        while !state.stop && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    /// Whether the threads shall end.
    pub fn are_to_stop(&self) -> bool {
        self.state.lock().stop
    }

    /// The threads shall end.
    pub fn stop(&self) {
        self.state.lock().stop = true;
        self.changed.notify_all();
    }
}

impl Core {
    /// Makes a checkpoint and waits for it, until the deadline at most.
    pub(super) fn checkpoint(&self, until: Option<Instant>) -> Result<(), StoreError> {
        if self.read_only {
            return Err(StoreError::ReadOnly);
        }
        let (answer, answered) = std::sync::mpsc::channel();
        {
            let mut state = self.signals.state.lock();
            self.check_failure()?;
            if !state.stop {
                state.checkpoint = true;
                state.askers.push(answer);
            }
        }
        self.signals.changed.notify_all();
        let answer = match until {
            None => answered.recv().map_err(|_| RecvTimeoutError::Disconnected),
            Some(until) => answered.recv_timeout(until.saturating_duration_since(Instant::now())),
        };
        match answer {
            Ok(result) => result,
            Err(RecvTimeoutError::Timeout) => Err(StoreError::Io("storage did not answer in time".into())),
            Err(RecvTimeoutError::Disconnected) => {
                self.check_failure()?;
                Err(StoreError::Poisoned("the store was closed".into()))
            }
        }
    }

    /// Starts the threads. `stored`: what is stored of the segment table.
    pub(super) fn start_threads(self: &Arc<Self>, stored: StoredTable) -> std::io::Result<Vec<JoinHandle<()>>> {
        let (keeper, checkpointer, cleaner) = (self.clone(), self.clone(), self.clone());
        Ok(vec![
            std::thread::Builder::new().name("kivafs-keeper".into()).spawn(move || keeper.keep())?,
            std::thread::Builder::new()
                .name("kivafs-checkpoint".into())
                .spawn(move || checkpointer.checkpoint_when_wanted(stored))?,
            std::thread::Builder::new().name("kivafs-cleaner".into()).spawn(move || cleaner.clean_when_wanted())?,
        ])
    }

    fn keep(self: Arc<Self>) {
        let mut tail = 0;
        loop {
            {
                let mut state = self.signals.state.lock();
                if !state.keeper && !state.stop {
                    // Often enough that a change is committed close to its time; an idle store wakes up
                    // for nothing but this, and writes nothing.
                    let tick = (self.signals.commit_interval / 5).clamp(TICK_MIN, TICK_MAX);
                    self.signals.changed.wait_for(&mut state, tick);
                }
                state.keeper = false;
                if state.stop {
                    return;
                }
            }
            self.place_excess();
            {
                let mut writer = self.writer.lock();
                if writer.oldest_change().is_some_and(|since| self.signals.is_overdue(since)) {
                    self.request_commit(&mut writer);
                }
                // After a failure only for whoever has to be told of it.
                let is_of_use = self.log.failure().is_none() || !writer.waiters.is_empty();
                let tail_before = std::mem::replace(&mut tail, self.log.tail_bytes());
                let is_idle = writer.oldest_change().is_none() && tail == tail_before;
                if is_of_use && (self.checkpoint_is_due(&writer) || is_idle && frees_some(&writer)) {
                    self.want_checkpoint(&mut writer);
                }
                if self.log.failure().is_none() && self.cleaning_is_due(&writer) {
                    self.signals.want_cleaning();
                }
            }
            self.bury();
        }
    }

    fn clean_when_wanted(self: Arc<Self>) {
        while self.signals.wait_for_cleaning() {
            match self.clean_when_due() {
                Ok(()) => {}
                // It is tried again when more has died; and who ends the store says so.
                Err(error @ (StoreError::NoSpace | StoreError::Poisoned(_))) => {
                    tracing::debug!("cleaning has ended early: {error}");
                }
                Err(error) => tracing::warn!("cleaning has ended early: {error}"),
            }
        }
    }

    /// Whoever waits for the commit of a checkpoint that will not be made any more (W4).
    fn tell_of_failure(&self) {
        let Err(failure) = self.check_failure() else { return };
        let waiters = std::mem::take(&mut self.writer.lock().waiters);
        for waiter in waiters {
            waiter(Err(failure.clone()));
        }
    }

    fn checkpoint_when_wanted(self: Arc<Self>, mut stored: StoredTable) {
        if self.log.bucket().is_none()
            && let Err(error) = self.catch_up()
        {
            tracing::debug!("replaying the log has ended early: {error}");
        }
        loop {
            {
                let mut state = self.signals.state.lock();
                while !state.checkpoint && !state.stop {
                    self.signals.changed.wait(&mut state);
                }
                if state.stop {
                    // Who asked learns it from that.
                    state.askers.clear();
                    drop(state);
                    self.tell_of_failure();
                    return;
                }
                state.checkpoint = false;
                state.served = std::mem::take(&mut state.askers);
            }
            let result = self.run_checkpoint(&mut stored);
            if let Err(error) = &result {
                tracing::warn!("a checkpoint was given up: {error}");
            }
            let served = std::mem::take(&mut self.signals.state.lock().served);
            for asker in served {
                // An asker that has gone away does not need the answer.
                drop(asker.send(result.clone()));
            }
        }
    }
}
