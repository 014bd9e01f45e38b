//! Commits: what goes into one, and who is told.
//!
//! At most one commit message is queued at a time; it is prepared when its turn comes and takes
//! everything that is pending then: callers who ask for durability meanwhile share it (group
//! commit).

use super::checkpoint::FreezeRequest;
use super::writer::Writer;
use super::{Core, StoreError, redo};
use crate::log::{Checkpoint, Claim, LogError, Prepared, Sequence, Stream};
use crate::tree::{Root, Value};
use parking_lot::MutexGuard;
use std::sync::Arc;

/// What a commit may have beside its redo.
pub const COMMIT_OVERHEAD: u64 = 1000;

/// Told when what it waits for is durable, or cannot become so.
pub type Waiter = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The commit that the storage thread is writing.
#[derive(Default)]
pub struct InFlight {
    pub waiters: Vec<Waiter>,
    /// The state that it makes durable.
    root: Option<Root>,
}

/// What a commit does beside carrying redo.
pub enum Errand {
    /// Nothing.
    None,
    /// It is the first of its epoch: made even if nothing is pending.
    Claim,
    /// It is the one up to which a checkpoint holds everything: freezes the tree.
    Freeze(FreezeRequest),
    /// It makes a checkpoint the one to recover from.
    Complete(Checkpoint),
}

impl Core {
    pub(super) fn sync_then(self: &Arc<Self>, done: Waiter) {
        if self.read_only {
            return done(Ok(()));
        }
        let failure = {
            let mut writer = self.writer.lock();
            match self.check_failure() {
                Ok(()) if writer.closed => StoreError::Poisoned("it was closed".into()),
                Ok(()) => {
                    writer.waiters.push(done);
                    self.request_commit(&mut writer);
                    return;
                }
                Err(failure) => failure,
            }
        };
        done(Err(failure));
    }

    /// Queues a commit, unless one is queued already.
    pub(super) fn request_commit(self: &Arc<Self>, writer: &mut Writer) {
        if !writer.commit_queued {
            writer.commit_queued = true;
            self.queue_commit(Errand::None, Box::new(|_| ()));
        }
    }

    /// Queues a commit with an errand; `done` gets the result.
    pub(super) fn queue_commit(self: &Arc<Self>, errand: Errand, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        let claim = match errand {
            Errand::None => Claim::Ordinary,
            Errand::Claim | Errand::Freeze(_) => Claim::Early,
            Errand::Complete(_) => Claim::Last,
        };
        let (preparer, finisher) = (self.clone(), self.clone());
        self.log.commit(
            Box::new(move |sequence, bytes_max| preparer.prepare(sequence, bytes_max, errand)),
            Box::new(move |result| {
                let result = finisher.finish(claim, result);
                done(result);
            }),
            claim,
        );
    }

    /// Freezes what is pending. On the storage thread.
    fn prepare(self: &Arc<Self>, sequence: Sequence, bytes_max: u64, errand: Errand) -> Option<Prepared> {
        // A freeze of the tree must not come between an append and the change that refers to it:
        // the segment would look dead.
        let placing = matches!(errand, Errand::Freeze(_)).then(|| self.placing.lock());
        let mut writer = match placing {
            Some(_) => self.lock_with_nothing_raw(),
            None => self.lock_with_little_raw(),
        };
        let is_optional = matches!(errand, Errand::None);
        if is_optional {
            writer.commit_queued = false;
        }
        if matches!(errand, Errand::Freeze(_))
            && (writer.pending_bytes + writer.raw_bytes) as u64 + COMMIT_OVERHEAD > bytes_max
        {
            // The request ends here, and who sent it is told by that.
            return None;
        }
        writer.is_stuck = false;
        let (births, next_segment) = self.log.take_births();
        for birth in &births {
            if writer.table.get(birth.number).is_none() {
                writer.table.born(*birth);
            }
        }
        let (frozen, raw) = writer.freeze();
        self.account_raw(-(raw as i64));
        self.log.cut(Stream::Data);
        let checkpoint = match errand {
            Errand::None | Errand::Claim => None,
            // Without space for what is raw, the freeze is given up, and who asked for it is told
            // by the request's end.
            Errand::Freeze(_) if writer.has_raw() => None,
            Errand::Freeze(request) => {
                request.freeze(sequence, &mut writer, self.log.open_segments());
                None
            }
            Errand::Complete(checkpoint) => {
                self.log.cut(Stream::Pages);
                Some(checkpoint)
            }
        };
        {
            let mut in_flight = self.in_flight.lock();
            in_flight.waiters.append(&mut writer.waiters);
            in_flight.root = Some(writer.tree.root());
        }
        drop(writer);
        drop(placing);
        self.room.notify_all();
        // Other errands need a commit of their own.
        if is_optional && frozen.is_empty() && births.is_empty() {
            return None;
        }
        let changed_bytes = frozen.iter().map(|(key, value)| (key.len() + value.as_ref().map_or(0, Value::len)) as u64);
        let (changes, changed_bytes) = (frozen.len() as u64, changed_bytes.sum());
        Some(Prepared { body: redo::encode(frozen.iter()), births, next_segment, checkpoint, changes, changed_bytes })
    }

    /// The writer lock, at a moment when no more raw bytes are pending than a commit takes.
    fn lock_with_little_raw(&self) -> MutexGuard<'_, Writer> {
        loop {
            self.place_excess();
            let writer = self.writer.lock();
            if writer.raw_bytes <= self.limits.raw_inside || self.log.failure().is_some() {
                return writer;
            }
        }
    }

    /// A commit is durable, or has failed. On the storage thread.
    fn finish(self: &Arc<Self>, claim: Claim, result: Result<Sequence, LogError>) -> Result<(), StoreError> {
        let result = result.map(|_| ()).map_err(StoreError::from);
        let InFlight { mut waiters, root } = std::mem::take(&mut *self.in_flight.lock());
        if let (Ok(()), Some(root)) = (&result, root) {
            *self.committed.write() = root;
        }
        {
            let mut writer = self.writer.lock();
            let is_poisoned = self.log.failure().is_some();
            if result.is_err() && (is_poisoned || claim == Claim::Ordinary) {
                // It was not prepared, and either nothing will be any more, or there is no room for
                // it: whoever waits is told. Without poison the changes are still pending.
                waiters.append(&mut writer.waiters);
                writer.commit_queued = false;
                writer.is_stuck = true;
                self.room.notify_all();
            } else if self.checkpoint_is_due(&writer) {
                self.want_checkpoint(&mut writer);
            }
        }
        self.bury();
        for waiter in waiters {
            waiter(result.clone());
        }
        result
    }
}
