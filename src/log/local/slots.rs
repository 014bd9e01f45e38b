//! Where a local store's data segments lie: slots of one size behind the ring.
//!
//! A slot is allocated on disk before it is used, so that a later write into it does not find the
//! disk full (R7). One allocated slot is the *reserve*: it serves only work that the store has
//! accepted already, or that shrinks it.
//!
//! Where the store's size is limited, the *last* slot is left to the next mount, as its reserve: that one
//! cannot go on in the segments of this one (R3), and whatever this one has taken may be full.

use crate::backend::Disk;
use crate::log::{NEEDED_SEGMENTS, Need, READY_SEGMENTS};
use std::collections::BTreeSet;
use std::io;
use std::sync::Arc;

/// The slots of a store.
pub struct Slots {
    disk: Arc<dyn Disk>,
    offset: u64,
    slot_bytes: u64,
    /// Slots from 0 up to here exist in the file or are in use.
    count: u32,
    /// Most slots that the store may have.
    count_max: u32,
    /// Most slots in use, as far as data is concerned: work that shrinks the store gets its reserve also
    /// beyond.
    quota: u32,
    /// Below `count`, not in use, space given back.
    free: BTreeSet<u32>,
    /// Allocated on disk and free, beside the reserve. What they held may still be there.
    spare: Vec<u32>,
    reserve: Option<u32>,
    /// So many are to stand ready beside the reserve.
    wanted: u64,
    /// A slot was taken since the store was opened.
    is_begun: bool,
}

impl Slots {
    /// The slots of a file in which `used` are taken. `size_limit`: most bytes of the file; 0:
    /// no limit.
    pub fn new(
        disk: Arc<dyn Disk>,
        offset: u64,
        slot_bytes: u32,
        size_limit: u64,
        used: impl IntoIterator<Item = u32>,
    ) -> Slots {
        let used: BTreeSet<u32> = used.into_iter().collect();
        let count = used.last().map_or(0, |last| last + 1);
        let slot_bytes = u64::from(slot_bytes);
        let count_max = match size_limit {
            0 => u32::MAX,
            limit => slots_in(limit, offset, slot_bytes),
        };
        let free = (0..count).filter(|slot| !used.contains(slot)).collect();
        Slots {
            disk,
            offset,
            slot_bytes,
            count,
            count_max,
            quota: u32::MAX,
            free,
            spare: Vec::new(),
            reserve: None,
            wanted: READY_SEGMENTS,
            is_begun: false,
        }
    }

    /// From now on so many slots are to stand ready beside the reserve, if the store can have them.
    pub fn want_ready(&mut self, slots: u64) {
        self.wanted = slots;
    }

    /// From now on data takes no slot that would make the file occupy more bytes than that. It may do so
    /// already.
    pub fn set_quota(&mut self, bytes: u64) {
        self.quota = slots_in(bytes, self.offset, self.slot_bytes);
    }

    /// Where a slot begins in the file.
    pub fn offset_of(&self, slot: u32) -> u64 {
        self.offset + u64::from(slot) * self.slot_bytes
    }

    /// Slots that can still be had within the size limit and the quota, allocated or not (the disk may
    /// have room for fewer). The last within the limit is not for data.
    pub fn remaining(&self) -> u64 {
        let within_limit = self.unallocated().saturating_sub(1);
        let within_quota = u64::from(self.quota).saturating_sub(self.in_use());
        within_limit.min(within_quota) + self.spare.len() as u64
    }

    /// Slots within the size limit that are not allocated.
    fn unallocated(&self) -> u64 {
        u64::from(self.count_max.saturating_sub(self.count)) + self.free.len() as u64
    }

    /// Whether there is a size limit or a quota.
    pub fn is_limited(&self) -> bool {
        self.count_max.min(self.quota) < u32::MAX
    }

    /// Whether more slots are in use than the quota allows.
    pub fn is_beyond_quota(&self) -> bool {
        self.in_use() > u64::from(self.quota)
    }

    /// Slots that occupy space: those with data, the spare ones and the reserve.
    fn in_use(&self) -> u64 {
        u64::from(self.count) - self.free.len() as u64
    }

    /// How many slots are allocated and empty; with `Need::Reserve`, the reserve counts too.
    pub fn ready(&self, need: Need) -> u64 {
        self.spare.len() as u64 + u64::from(need == Need::Reserve && self.reserve.is_some())
    }

    /// Allocates one more slot; `StorageFull` when the disk, the size limit or the quota is reached. The
    /// reserve is filled first, and with `Need::Reserve` also beyond the quota. (Never for data: that
    /// takes the reserve at last, and would go on from one to the next.) The last slot within the limit is
    /// had only by a mount that has taken none yet.
    pub fn allocate(&mut self, need: Need) -> io::Result<()> {
        let is_for_reserve = need == Need::Reserve && !self.has_reserve();
        let is_full = !is_for_reserve && self.in_use() >= u64::from(self.quota);
        let is_last = self.unallocated() < 2 && (self.has_reserve() || self.is_begun);
        if is_full || is_last {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let slot = match self.free.first() {
            Some(slot) => *slot,
            None if self.count < self.count_max => self.count,
            None => return Err(io::ErrorKind::StorageFull.into()),
        };
        self.disk.allocate(self.offset_of(slot), self.slot_bytes)?;
        self.free.remove(&slot);
        self.count = self.count.max(slot + 1);
        match self.reserve {
            None => self.reserve = Some(slot),
            Some(_) => self.spare.push(slot),
        }
        Ok(())
    }

    /// Takes an allocated slot.
    pub fn take(&mut self, need: Need) -> Option<u32> {
        self.is_begun = true;
        match self.spare.pop() {
            Some(slot) => Some(slot),
            None if need == Need::Reserve => self.reserve.take(),
            None => None,
        }
    }

    /// Whether the reserve is there.
    pub fn has_reserve(&self) -> bool {
        self.reserve.is_some()
    }

    /// The slot set aside.
    pub fn reserve_slot(&self) -> Option<u32> {
        self.reserve
    }

    /// Sets aside the slot that was the reserve when the store was last closed, if it is still
    /// free: it is allocated already, which matters when the disk is full by now.
    pub fn adopt_reserve(&mut self, slot: u32) -> io::Result<()> {
        let known = slot < self.count;
        if self.reserve.is_some() || slot >= self.count_max || (known && !self.free.contains(&slot)) {
            return Ok(());
        }
        self.disk.allocate(self.offset_of(slot), self.slot_bytes)?;
        self.free.remove(&slot);
        self.free.extend(self.count..slot);
        self.count = self.count.max(slot + 1);
        self.reserve = Some(slot);
        Ok(())
    }

    /// Keeps a slot that came free, with what is in it, if the reserve or one of those is missing that are to stand ready;
    /// answers whether it did. (Given back to a disk that is full it would be somebody else's.) Not the last within
    /// the limit.
    pub fn keep(&mut self, slot: u32) -> bool {
        let is_missing = !self.has_reserve() || self.ready(Need::Growth) < self.ready_max() && !self.is_beyond_quota();
        // As if it had been given back, and were allocated.
        let is_last = self.unallocated() == 0 && (self.has_reserve() || self.is_begun);
        // What an earlier mount had not filled of it was given back then.
        if !is_missing || is_last || self.disk.allocate(self.offset_of(slot), self.slot_bytes).is_err() {
            return false;
        }
        match self.reserve {
            None => self.reserve = Some(slot),
            Some(_) => self.spare.push(slot),
        }
        true
    }

    /// How many are to stand ready beside the reserve: fewer in a store that may have hardly more than what it needs
    /// anyway.
    pub fn ready_max(&self) -> u64 {
        u64::from(self.count_max.min(self.quota)).saturating_sub(NEEDED_SEGMENTS).min(self.wanted)
    }

    /// Takes back a slot whose space has been given back to the disk (punched).
    pub fn give_back(&mut self, slot: u32) {
        assert!(slot < self.count, "slot {slot} does not exist");
        let fresh = self.free.insert(slot);
        assert!(fresh && !self.spare.contains(&slot) && self.reserve != Some(slot), "slot {slot} was free already");
    }

    /// Slots that are allocated but hold nothing: what to punch when the store is closed.
    pub fn drain_ready(&mut self) -> Vec<u32> {
        let ready: Vec<u32> = self.spare.drain(..).collect();
        for slot in &ready {
            self.free.insert(*slot);
        }
        ready
    }
}

/// How many slots a file of that many bytes has.
fn slots_in(bytes: u64, offset: u64, slot_bytes: u64) -> u32 {
    (bytes.saturating_sub(offset) / slot_bytes).min(u64::from(u32::MAX)) as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;

    #[test]
    fn the_reserve_is_filled_first_and_taken_last() {
        let disk = Arc::new(MemoryDisk::default());
        let mut slots = Slots::new(disk, 100, 10, 0, [0, 2]);
        slots.allocate(Need::Growth).expect("memory");
        assert_eq!((slots.ready(Need::Growth), slots.ready(Need::Reserve)), (0, 1), "slot 1 is the reserve");
        slots.allocate(Need::Growth).expect("memory");
        assert_eq!(slots.take(Need::Growth), Some(3));
        assert_eq!(slots.take(Need::Growth), None);
        assert_eq!(slots.take(Need::Reserve), Some(1));
        assert_eq!(slots.take(Need::Reserve), None);
        slots.give_back(0);
        slots.allocate(Need::Growth).expect("memory");
        assert!(slots.has_reserve());
        assert_eq!(slots.take(Need::Reserve), Some(0));
    }

    #[test]
    fn the_size_limit_holds() {
        let disk = Arc::new(MemoryDisk::default());
        let mut slots = Slots::new(disk, 100, 10, 135, []);
        slots.allocate(Need::Growth).expect("first");
        slots.allocate(Need::Growth).expect("second");
        let full = Err(io::ErrorKind::StorageFull);
        assert_eq!(
            (slots.allocate(Need::Growth).map_err(|e| e.kind()), slots.remaining()),
            (full, 1),
            "one is ready, one is left"
        );
        assert_eq!(slots.take(Need::Growth), Some(1));
        slots.give_back(1);
        slots.allocate(Need::Growth).expect("reused");
    }

    #[test]
    fn a_quota_counts_slots_in_use_wherever_they_lie_and_leaves_the_reserve() {
        let disk = Arc::new(MemoryDisk::default());
        let mut slots = Slots::new(disk, 100, 10, 0, [0, 1, 5]);
        slots.set_quota(125);
        assert_eq!(slots.remaining(), 0, "more is in use already");
        assert!(slots.allocate(Need::Growth).is_err(), "nor is there a reserve for data");
        slots.allocate(Need::Reserve).expect("the reserve");
        assert!(slots.allocate(Need::Reserve).is_err(), "there is one now");
        assert!(slots.is_beyond_quota());
        assert_eq!(slots.allocate(Need::Growth).map_err(|e| e.kind()), Err(io::ErrorKind::StorageFull));
        slots.give_back(0);
        slots.give_back(5);
        assert_eq!(slots.remaining(), 0, "the reserve counts, too");
        assert!(!slots.is_beyond_quota());
        slots.give_back(1);
        assert_eq!(slots.remaining(), 1);
        slots.allocate(Need::Growth).expect("one");
        assert_eq!((slots.remaining(), slots.take(Need::Growth)), (1, Some(0)));
        assert_eq!(slots.remaining(), 0);
    }

    /// Else a store that was filled, and whose reserve was used, could never be emptied once it was
    /// opened again.
    #[test]
    fn the_last_slot_within_the_limit_is_the_next_mounts_reserve() {
        let disk = Arc::new(MemoryDisk::default());
        let mut slots = Slots::new(disk.clone(), 100, 10, 135, []);
        while slots.allocate(Need::Growth).is_ok() {}
        assert_eq!((slots.take(Need::Reserve), slots.take(Need::Reserve)), (Some(1), Some(0)));
        assert!(slots.allocate(Need::Growth).is_err() && !slots.has_reserve());
        let mut slots = Slots::new(disk.clone(), 100, 10, 135, [0, 1]);
        slots.allocate(Need::Growth).expect("the last");
        assert_eq!((slots.reserve_slot(), slots.remaining()), (Some(2), 0));
        assert!(slots.allocate(Need::Growth).is_err());
        // What comes free is set aside again, but for one.
        assert_eq!(slots.take(Need::Reserve), Some(2));
        assert!(!slots.keep(0));
        slots.give_back(0);
        assert!(slots.allocate(Need::Growth).is_err());
        slots.give_back(1);
        assert!(slots.keep(2));
        assert!(slots.has_reserve());
        slots.allocate(Need::Growth).expect("two are free");
        assert!(slots.allocate(Need::Growth).is_err());
    }

    #[test]
    fn what_comes_free_is_kept_if_all_of_it_is_there() {
        let disk = Arc::new(MemoryDisk::default());
        let mut slots = Slots::new(disk.clone(), 0, 4096, 0, [0, 1, 2, 3, 4]);
        disk.allocate(0, 4 * 4096).expect("memory");
        disk.set_capacity(disk.occupied_bytes());
        assert!(!slots.keep(4), "a part of it was given back, and somebody else has it");
        assert!(
            slots.keep(0) && slots.keep(1) && slots.keep(2) && !slots.keep(3),
            "the reserve, and what is to be ready"
        );
        assert_eq!((slots.reserve_slot(), slots.ready(Need::Growth)), (Some(0), READY_SEGMENTS));
        slots.give_back(3);
        slots.give_back(4);
        slots.set_quota(7 * 4096);
        assert_eq!(slots.ready_max(), 1);
    }
}
