//! Waiting for storage no longer.

use super::{Core, Store, StoreError};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

/// How long the writer lock is waited for. Who holds it for longer waits for storage itself.
const LOCK_WAIT_MAX: Duration = Duration::from_millis(100);

impl Store {
    /// Gives up waiting for storage, for good: the store is poisoned with this cause, and whoever
    /// waits for room, a sync, a checkpoint or the end of [`Store::close`] is told at once. Reads
    /// that wait for storage end when it answers or when their own time is over; nobody waits for
    /// them: `close` returns, and drops what it would have waited for.
    ///
    /// What was acknowledged and is not durable yet may still become so, as after a sync that was
    /// not answered (C5). The store's lock may be held until this process ends.
    ///
    /// For who has to end while storage does not answer. Any thread may call it, at any time.
    pub fn abandon(&self, cause: &str) {
        self.core.abandon(cause);
    }
}

impl Core {
    fn abandon(self: &Arc<Self>, cause: &str) {
        self.abandoned.store(true, Ordering::Relaxed);
        if self.read_only {
            self.log.give_up();
            return;
        }
        self.log.abandon(cause.to_owned());
        let failure = self.check_failure().err().unwrap_or_else(|| StoreError::Poisoned(cause.into()));
        let mut waiters = Vec::new();
        if let Some(mut writer) = self.writer.try_lock_for(LOCK_WAIT_MAX) {
            waiters.append(&mut writer.waiters);
        }
        // Those of a commit that is being stored.
        waiters.append(&mut self.in_flight.lock().waiters);
        self.room.notify_all();
        self.signals.send_askers_away();
        for waiter in waiters {
            waiter(Err(failure.clone()));
        }
    }
}
