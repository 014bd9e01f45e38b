//! The writer: writes, flushes and frees, whoever has it: the storage thread, or who does its work (`desk`).
//!
//! One message enum. Data parts are written as they come; a commit is *prepared* only when it is
//! begun, so that everything gathered until then goes into it (group commit by laziness).
//!
//! A commit's order (R1): prepare; write the parts handed over until then; flush if anything that it refers to
//! was written since the last flush; write the commit; flush; answer. The two flushes are one where a
//! commit refers to no new data: to pages only a checkpoint's own commit does, and those before it flush what
//! has been written of them.
//!
//! Shutdown order: the store stops its other threads, sends a last commit, then `Close`: a clean
//! superblock is written and flushed, and the thread ends. Only then is the file's lock dropped.

use super::desk::Desk;
use super::ring::Ring;
use super::superblock::{Start, Superblock};
use crate::backend::Disk;
use crate::log::commit::Commit;
use crate::log::geometry::{BLOCK, Geometry};
use crate::log::message::{Claim, Done, Message, Prepare};
use crate::log::pointer::{SegmentNo, Sequence};
use crate::log::streams::Part;
use crate::log::{LogError, RESERVATION_STEP, Shared, now_ns};
use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

/// Data is flushed when so much was written since the last time.
const UNSYNCED_BYTES_MAX: u64 = 8 << 20;

/// The state of the log's end, owned by whoever is at work.
pub struct Writer {
    pub disk: Arc<dyn Disk>,
    pub shared: Arc<Shared>,
    pub geometry: Geometry,
    pub size_limit: u64,
    pub store: [u8; 16],
    pub epoch: u64,
    pub epoch_id: [u8; 16],
    /// Number of the next commit within the epoch.
    pub number: u64,
    pub ring: Ring,
    /// How much of it a superblock says to be in use.
    pub ring_part: u64,
    /// Newest commit and its checksum.
    pub last: Sequence,
    pub last_checksum: u128,
    /// Start records of the commits that a superblock may come to name, oldest first.
    pub starts: VecDeque<Start>,
    pub redo_from: Sequence,
    pub checkpoint_in: Sequence,
    /// Serial of the newest superblock.
    pub serial: u64,
    /// First position that each of the two superblocks on disk needs.
    pub superblock_starts: [u64; 2],
    /// A superblock was written and not flushed: which, and the position that it needs.
    pub superblock_unsynced: Option<(usize, u64)>,
    /// How many parts have been dealt with.
    pub parts_written: u64,
    /// Bytes of segments written since the last flush.
    pub unsynced: u64,
    /// Something is among them that any commit may refer to.
    pub is_data_unsynced: bool,
    /// Commits that found the ring too full: they go on once the checkpoint under way is done.
    pub deferred: Vec<(Prepare, Done)>,
}

impl Writer {
    /// Does what one message asks for; false if that was to end.
    pub fn serve(&mut self, message: Message, desk: &Desk) -> bool {
        match message {
            Message::Write(part) => self.write_part(part),
            Message::Commit { prepare, done, claim } => {
                if claim == Claim::Ordinary && self.ring_is_tight() && self.shared.failure().is_none() {
                    // If that fails, the commit says so.
                    if self.catch_up().is_ok() && self.ring_is_tight() {
                        self.deferred.push((prepare, done));
                        return true;
                    }
                }
                let result = self.commit(prepare, claim, desk);
                done(result);
            }
            Message::Retry(outcome) => {
                for (prepare, done) in self.deferred.drain(..).rev() {
                    match &outcome {
                        Some(error) => done(Err(self.shared.check_failure().err().unwrap_or(error.clone()))),
                        None => desk.put_first(Message::Commit { prepare, done, claim: Claim::Ordinary }),
                    }
                }
            }
            Message::Free { numbers, since_ns: _, freed } => {
                self.free(&numbers);
                freed(&numbers);
            }
            Message::LengthenRing(part) => self.lengthen_ring(part),
            // Who has gone away needs no answer.
            Message::Reached(answer) => drop(answer.send(())),
            Message::Close { give_back, done } => {
                let result = self.close(give_back);
                done(result);
                return false;
            }
        }
        true
    }

    /// Whether an ordinary commit would leave too little room for what must always fit: the two
    /// commits of a checkpoint; and, if a crash comes between those, the first commit of the next
    /// mount and its checkpoint.
    fn ring_is_tight(&self) -> bool {
        let commit_max = self.geometry.commit_bytes_max();
        self.ring.room(commit_max) < 3 * commit_max
    }

    fn write_part(&mut self, part: Part) {
        let length = part.bytes.len() as u64;
        if self.shared.failure().is_none() {
            let offset = self.geometry.slots_offset()
                + u64::from(part.place) * u64::from(self.geometry.segment_bytes)
                + u64::from(part.offset);
            if let Err(error) = self.disk.write_at(offset, &part.bytes) {
                self.fail("writing data", error);
            }
            self.unsynced += length;
            self.is_data_unsynced |= !part.is_of_pages;
            self.shared.counters.data_bytes.add(length);
            // So that a commit never has much more than this left to flush.
            if self.unsynced >= UNSYNCED_BYTES_MAX && self.shared.failure().is_none() {
                self.sync_data();
            } else {
                // So that the disk is at work while more is put together, and does not begin with the flush.
                self.disk.will_sync(offset, length);
            }
        }
        self.parts_written += 1;
        // After a failure parts stay readable in memory: reads go on (C5).
        if self.shared.failure().is_none() {
            self.shared.streams.lock().written(part.segment, part.offset);
        }
        self.shared.flow.store(length);
    }

    fn sync_data(&mut self) {
        if let Err(error) = self.sync() {
            self.fail("flushing data", error);
        }
    }

    fn commit(&mut self, prepare: Prepare, claim: Claim, desk: &Desk) -> Result<Sequence, LogError> {
        self.shared.check_failure()?;
        let sequence = Sequence(self.last.0 + 1);
        let commit_max = self.geometry.commit_bytes_max();
        // Beside a `Last`, one more block: the first commit of the next mount, if this one ends here.
        let early = |ring: &Ring| ring.room(commit_max).saturating_sub(commit_max + BLOCK);
        if claim == Claim::Early && early(&self.ring) < commit_max {
            // Else a freeze might be too short for what is pending, and the ring for the commits that would free it.
            self.catch_up()?;
        }
        let early = early(&self.ring);
        if claim == Claim::Early && early < BLOCK {
            return Err(LogError::NoSpace);
        }
        let bytes_max = if claim == Claim::Early { early.min(commit_max) } else { commit_max };
        let prepared = prepare(sequence, bytes_max);
        self.shared.check_failure()?;
        let Some(prepared) = prepared else { return Ok(self.last) };
        // R1: whatever the frozen changes refer to was handed over before they were frozen.
        let handed_over = self.shared.streams.lock().parts_handed_over();
        while self.parts_written < handed_over {
            self.write_part(desk.take_part().expect("a part is put there when it is handed over"));
        }
        // R4: a write or flush of those may have failed; then nothing is flushed again.
        self.shared.check_failure()?;
        if self.is_data_unsynced || prepared.checkpoint.is_some() && self.unsynced > 0 {
            self.sync_data();
        }
        self.shared.check_failure()?;
        let reservation = self.shared.streams.lock().next_number() + RESERVATION_STEP;
        let redo_from = prepared.checkpoint.as_ref().map_or(self.redo_from, |c| Sequence(c.as_of.0 + 1));
        let mut commit = Commit {
            store: self.store,
            epoch: self.epoch,
            epoch_id: self.epoch_id,
            number: self.number,
            sequence,
            position: 0,
            predecessor: self.last_checksum,
            time_ns: now_ns(),
            redo_from,
            checkpoint_in: if prepared.checkpoint.is_some() { sequence } else { self.checkpoint_in },
            reservation,
            checkpoint: prepared.checkpoint,
            remote: None,
            births: prepared.births,
            body: prepared.body,
        };
        let (mut bytes, checksum) = commit.encode(|length| self.ring.position_for(length));
        let length = bytes.len() as u64;
        assert!(length <= self.geometry.commit_bytes_max(), "a commit of {length} bytes");
        if !self.ring.fits(length) {
            // Ordinary commits have been deferred for long: checkpoints failed again and again.
            self.shared.poison("the log is full, and no checkpoint could be completed".into());
            self.shared.check_failure()?;
        }
        bytes.resize(bytes.len().next_multiple_of(BLOCK as usize), 0);
        if let Err(error) = self.disk.write_at(self.ring.offset_of(commit.position), &bytes) {
            self.fail("writing a commit", error);
        } else if let Err(error) = self.sync() {
            self.fail("flushing a commit", error);
        }
        self.shared.check_failure()?;
        self.starts.push_back(Start { sequence, position: commit.position, predecessor: self.last_checksum });
        self.ring.advance(commit.position, length);
        (self.last, self.last_checksum) = (sequence, checksum);
        self.number += 1;
        self.redo_from = redo_from;
        self.shared.streams.lock().reservation = reservation;
        self.shared.counters.commits.add(1);
        self.shared.counters.commit_bytes.add(bytes.len() as u64);
        if commit.checkpoint.is_some() {
            self.checkpoint_in = sequence;
            self.forget_tail()?;
        } else if self.superblock_unsynced.is_none() && self.superblock_starts[0] != self.superblock_starts[1] {
            // The newer superblock became durable with this commit: the older one follows, and
            // what only it needed comes free with the next flush, which costs nothing extra.
            self.write_superblock(false)?;
        }
        self.shared.ring_used.store(self.ring.used(), Ordering::Relaxed);
        let tail = self.starts.front().map_or(0, |start| self.ring.bytes_from(start.position));
        self.shared.tail_bytes.store(tail, Ordering::Relaxed);
        Ok(sequence)
    }

    /// A checkpoint is durable: recovery may start behind what it holds.
    fn forget_tail(&mut self) -> Result<(), LogError> {
        while self.starts.front().is_some_and(|start| start.sequence < self.redo_from) {
            self.starts.pop_front();
        }
        self.write_superblock(false)?;
        // The older superblock still holds the tail before. Where that is much, another checkpoint would seem due.
        if self.ring.used() >= self.ring.part() / 4 { self.catch_up() } else { Ok(()) }
    }

    /// Takes so much of the ring into use; it is written in full, but not flushed. Does nothing while the log's end is in
    /// the turn after its start's (the next checkpoint asks again).
    fn lengthen_ring(&mut self, part: u64) {
        if self.shared.failure().is_some() || part <= self.ring.part() {
            return;
        }
        // What only the older superblock needs may lie in the turn before.
        if self.catch_up().is_err() || !self.ring.can_lengthen() {
            return;
        }
        if let Err(error) = self.sync() {
            return self.fail("flushing the ring", error);
        }
        // L4.
        self.ring_part = part;
        for _ in 0..2 {
            if self.write_superblock(false).and_then(|()| self.sync_superblock()).is_err() {
                return;
            }
        }
        self.ring.lengthen(part);
        self.shared.ring_part.store(part, Ordering::Relaxed);
        tracing::debug!("{} MiB of the ring are in use", part >> 20);
    }

    /// Has both superblocks name the newest start: what only an older one needed of the ring comes free.
    fn catch_up(&mut self) -> Result<(), LogError> {
        if self.superblock_unsynced.is_some() {
            self.sync_superblock()?;
        }
        if self.superblock_starts[0] != self.superblock_starts[1] {
            self.write_superblock(false)?;
            self.sync_superblock()?;
        }
        Ok(())
    }

    fn sync_superblock(&mut self) -> Result<(), LogError> {
        if let Err(error) = self.sync() {
            self.fail("flushing a superblock", error);
        }
        self.shared.check_failure()
    }

    fn write_superblock(&mut self, clean: bool) -> Result<(), LogError> {
        let start = *self.starts.front().expect("the commit that made the checkpoint is in the tail");
        assert_eq!(start.sequence, self.redo_from, "recovery starts at the redo");
        self.serial += 1;
        let superblock = Superblock {
            store: self.store,
            geometry: self.geometry,
            ring_part: self.ring_part,
            size_limit: self.size_limit,
            serial: self.serial,
            start,
            durable: self.last,
            reserve: self.shared.streams.lock().slots().reserve_slot(),
            clean,
        };
        let which = (self.serial % 2) as usize;
        if let Err(error) = self.disk.write_at(which as u64 * BLOCK, &superblock.encode()) {
            self.fail("writing a superblock", error);
            self.shared.check_failure()?;
        }
        // R6: until this superblock is durable, the one that it overwrites might still be there
        // after a crash, torn: then recovery starts at the other one.
        assert!(self.superblock_unsynced.is_none_or(|(unsynced, _)| unsynced == which), "one superblock at a time");
        self.superblock_unsynced = Some((which, start.position));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.disk.sync()?;
        self.shared.counters.syncs.add(1);
        (self.unsynced, self.is_data_unsynced) = (0, false);
        if let Some((which, position)) = self.superblock_unsynced.take() {
            self.superblock_starts[which] = position;
            let tail = self.superblock_starts[0].min(self.superblock_starts[1]);
            self.ring.forget_before(tail);
        }
        Ok(())
    }

    fn free(&mut self, numbers: &[SegmentNo]) {
        for number in numbers {
            if self.shared.failure().is_some() {
                return;
            }
            let slot_bytes = u64::from(self.geometry.segment_bytes);
            let (slot, offset) = {
                let mut streams = self.shared.streams.lock();
                let slot = streams.forget(*number);
                if streams.slots().keep(slot) {
                    continue;
                }
                (slot, streams.slots().offset_of(slot))
            };
            match self.disk.punch(offset, slot_bytes) {
                Ok(()) => self.shared.streams.lock().slots().give_back(slot),
                // Nothing is lost but space: the slot stays out of use until the next mount.
                Err(error) => tracing::warn!("cannot give back the space of {number:?} at {offset:#x}: {error}"),
            }
        }
    }

    fn close(&mut self, give_back: bool) -> Result<(), LogError> {
        self.shared.check_failure()?;
        let mut unused = if give_back { self.shared.streams.lock().drain_unused() } else { Vec::new() };
        let (part, ready) = (self.ring.part(), self.shared.ring_ready.load(Ordering::Relaxed));
        if part < ready {
            // It was made ready, and never taken into use.
            unused.push((self.ring.offset_of(0) + part, ready - part));
        }
        for (offset, length) in unused {
            if let Err(error) = self.disk.punch(offset, length) {
                tracing::warn!("cannot give back unused space at {offset:#x}: {error}");
            }
        }
        if self.superblock_unsynced.is_some()
            && let Err(error) = self.sync()
        {
            self.fail("flushing a superblock", error);
        }
        self.shared.check_failure()?;
        // Both: that the last commit is the last is known twice then, so that one damaged block
        // cannot take the other's place unnoticed.
        for _ in 0..2 {
            self.write_superblock(true)?;
            if let Err(error) = self.sync() {
                self.fail("flushing the last superblocks", error);
            }
            self.shared.check_failure()?;
        }
        Ok(())
    }

    /// The first failure is final (R4): what the disk holds is unknown from here on.
    fn fail(&mut self, doing: &str, error: io::Error) {
        tracing::error!("{doing} failed: {error}; nothing more is written");
        self.shared.poison(format!("{doing} failed: {error}"));
    }
}
