//! Commits: what goes into one, and who is told.
//!
//! At most one commit message is queued at a time; it is prepared when its turn comes and takes
//! everything that is pending then: callers who ask for durability meanwhile share it (group
//! commit).

use super::checkpoint::FreezeRequest;
use super::durable::Held;
use super::pending::{Pended, Taken};
use super::writer::Writer;
use super::{Core, StoreError, redo};
use crate::log::{Checkpoint, Claim, Done, LogError, Prepare, Prepared, RootKind, Sequence, Stream};
use crate::tree::{Root, Value};
use parking_lot::MutexGuard;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// What a commit may have beside its redo.
pub const COMMIT_OVERHEAD: u64 = 1000;

/// Told when what it waits for is durable, or cannot become so.
pub type Waiter = Box<dyn FnOnce(Result<(), StoreError>) + Send>;

/// The commit that is being written.
#[derive(Default)]
pub struct InFlight {
    pub waiters: Vec<Waiter>,
    /// The changes that it makes durable: should it fail, what was before them is what a crash leaves.
    pub changes: Arc<Taken>,
    /// The state that it makes durable, where that is not all that the tree had when it was prepared (W4).
    root: Option<Root>,
    /// How many transactions had begun then, if it makes all of them durable.
    begun: Option<u64>,
}

impl InFlight {
    /// Whether there is one that makes durable all that the tree had when it was prepared.
    pub fn brings_all(&self) -> bool {
        self.begun.is_some()
    }
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

/// Who makes a commit.
#[derive(Clone, Copy)]
pub enum Who {
    /// The storage thread: the caller does not wait.
    StorageThread,
    /// The caller, if nothing else is being stored: as soon as it holds no lock.
    Caller,
}

impl Core {
    pub(super) fn sync_then(self: &Arc<Self>, who: Who, done: Waiter) {
        if self.read_only {
            return done(Ok(()));
        }
        let mut writer = self.writer.lock();
        let failure = match self.check_failure() {
            Ok(()) if writer.closed => StoreError::Poisoned("it was closed".into()),
            Ok(()) => {
                writer.waiters.push(done);
                writer.is_quiet = false;
                // What comes from here on gets its redo, unless a checkpoint has to come first.
                writer.skips_redo = writer.skipped_since.is_some();
                // Asked for under the lock, so that it comes before the store's end.
                let work = self.request_commit_by(who, &mut writer);
                drop(writer);
                if let Some(work) = work {
                    work();
                }
                return;
            }
            Err(failure) => failure,
        };
        drop(writer);
        done(Err(failure));
    }

    /// Queues a commit, unless one is queued already; or asks for the checkpoint that has to do its
    /// work (W4).
    pub(super) fn request_commit(self: &Arc<Self>, writer: &mut Writer) {
        let work = self.request_commit_by(Who::StorageThread, writer);
        assert!(work.is_none(), "it is left to the storage thread");
    }

    /// The same. What it answers, the caller does without the lock.
    fn request_commit_by(self: &Arc<Self>, who: Who, writer: &mut Writer) -> Option<Box<dyn FnOnce() + '_>> {
        if writer.has_skipped() {
            self.want_checkpoint(writer);
        } else if !std::mem::replace(&mut writer.commit_queued, true) {
            let (prepare, done) = self.commit_for(Errand::None, Claim::Ordinary, Box::new(|_| ()));
            match who {
                Who::StorageThread => self.log.commit(prepare, done, Claim::Ordinary),
                Who::Caller => return self.log.commit_here(prepare, done, Claim::Ordinary),
            }
        }
        None
    }

    /// Queues a commit with an errand; `done` gets the result.
    pub(super) fn queue_commit(self: &Arc<Self>, errand: Errand, done: Box<dyn FnOnce(Result<(), StoreError>) + Send>) {
        let claim = match errand {
            Errand::None => Claim::Ordinary,
            Errand::Claim | Errand::Freeze(_) => Claim::Early,
            Errand::Complete(_) => Claim::Last,
        };
        let (prepare, done) = self.commit_for(errand, claim, done);
        self.log.commit(prepare, done, claim);
    }

    fn commit_for(
        self: &Arc<Self>,
        errand: Errand,
        claim: Claim,
        done: Box<dyn FnOnce(Result<(), StoreError>) + Send>,
    ) -> (Prepare, Done) {
        let (preparer, finisher) = (self.clone(), self.clone());
        let prepare = Box::new(move |sequence, bytes_max| preparer.prepare(sequence, bytes_max, errand));
        let done = Box::new(move |result| {
            let result = finisher.finish(claim, result);
            done(result);
        });
        (prepare, done)
    }

    /// Freezes what is pending. On the thread that stores it.
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
        match errand {
            // W4. Whoever waits is served by a checkpoint's commit.
            Errand::None if writer.has_skipped() => {
                self.want_checkpoint(&mut writer);
                return None;
            }
            // W4. It is up to the checkpoint's own commit to make this durable.
            Errand::Freeze(request) if writer.skipped_since.is_some() => {
                if !writer.has_raw() {
                    self.freeze_skipped(request, &mut writer);
                }
                return None;
            }
            // The request ends here, and who sent it is told by that.
            Errand::Freeze(_) if (writer.pending_bytes + writer.raw_bytes) as u64 + COMMIT_OVERHEAD > bytes_max => {
                return None;
            }
            _ => {}
        }
        writer.is_stuck = false;
        let lengths = self.log.take_lengths();
        let (births, next_segment) = self.log.take_births();
        for birth in &births {
            if writer.table.get(birth.number).is_none() {
                writer.table.born(*birth);
            }
        }
        for (number, bytes) in lengths {
            writer.table.ended(number, bytes);
        }
        let completes_skipped = match &errand {
            Errand::Complete(checkpoint) if writer.skipped_in_frozen.take().is_some() => {
                Some(Root::stored(checkpoint.root(RootKind::Tree)))
            }
            _ => None,
        };
        let frozen = match writer.skipped_since {
            None => {
                let (frozen, raw) = writer.freeze();
                self.account_raw(-(raw as i64));
                self.in_flight.lock().waiters.append(&mut writer.waiters);
                frozen
            }
            // W4: what came since the checkpoint was begun is left to the next.
            Some(_) => Taken::default(),
        };
        let frozen = Arc::new(frozen);
        {
            let mut in_flight = self.in_flight.lock();
            in_flight.changes = frozen.clone();
            in_flight.root = completes_skipped.filter(|_| writer.skipped_since.is_some());
            in_flight.begun = writer.skipped_since.is_none().then(|| self.begun.load(Ordering::SeqCst));
        }
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
                self.log.cut(Stream::Upper);
                Some(checkpoint)
            }
        };
        // Other errands need a commit of their own.
        let is_needed = !is_optional || !frozen.is_empty() || !births.is_empty();
        if is_needed {
            writer.last_commit = sequence;
        }
        drop(writer);
        drop(placing);
        self.room.notify_all();
        if !is_needed {
            return None;
        }
        let bytes_of = |Pended { key, value, .. }: &Pended| (key.len() + value.as_ref().map_or(0, Value::len)) as u64;
        let (changes, changed_bytes) = (frozen.len() as u64, frozen.iter().map(bytes_of).sum());
        let body = redo::encode(frozen.iter().map(|Pended { key, value, .. }| (key, value)));
        Some(Prepared { body, births, next_segment, checkpoint, changes, changed_bytes })
    }

    /// Freezes the tree with what no redo has. The newest commit is durable before the checkpoint's
    /// is, and nothing comes between them (W4).
    fn freeze_skipped(&self, request: FreezeRequest, writer: &mut Writer) {
        let goes_on = writer.waiters.is_empty()
            && !writer.closing
            && !writer.is_short_of_space()
            && writer.bytes_since_freeze >= self.limits.pending as u64;
        writer.is_stuck = false;
        self.log.cut(Stream::Data);
        request.freeze(writer.last_commit, writer, self.log.open_segments());
        writer.froze_skipped(goes_on);
        self.room.notify_all();
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

    /// A commit is durable, or has failed. On the thread that stored it.
    fn finish(self: &Arc<Self>, claim: Claim, result: Result<Sequence, LogError>) -> Result<(), StoreError> {
        let result = result.map(|_| ()).map_err(StoreError::from);
        let mut waiters = std::mem::take(&mut self.in_flight.lock().waiters);
        let (mut durable, mut held) = (InFlight::default(), None);
        {
            let mut writer = self.writer.lock();
            if result.is_ok() {
                durable = std::mem::take(&mut *self.in_flight.lock());
                if let Some(begun) = durable.begun {
                    self.durable.store(begun, Ordering::SeqCst);
                    held = writer.held.take();
                }
                if let Some(root) = durable.root.take() {
                    held = writer.held.replace(Held::stored(root));
                }
                // It could not begin while this was under way.
                if self.is_bulk_load(&writer) {
                    writer.skip_redo();
                    self.want_checkpoint(&mut writer);
                    self.room.notify_all();
                }
            }
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
        drop((durable, held));
        self.bury();
        for waiter in waiters {
            waiter(result.clone());
        }
        result
    }
}
