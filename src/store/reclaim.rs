//! Space for who was refused for lack of it: what is dead is given back, and what is mostly dead is cleaned.
//!
//! Who is refused is to ask again as long as that may be of use, and then no more: [`Store::get_space`]. Space comes
//! and goes between a refusal and the next try: others take it, the cleaner holds some while it moves, a checkpoint
//! gives some back that was asked for by somebody else. Who took the first such moment for the end told of a full
//! disk where there was none.

use super::clean::Aim;
use super::writer::{Phase, Writer};
use super::{Core, Store};
use crate::log::Need;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often one that is refused asks again: others may be quicker to take what came free.
const TRIES_MAX: u32 = 16;

/// And how often where nothing was gained, and there is no room: somebody else may have gained it, or hold it for a
/// moment.
const VAIN_TRIES_MAX: u32 = 1;

/// How long readers of older states are waited for. A few keep theirs for longer.
const READERS_WAIT_MAX: Duration = Duration::from_secs(1);

/// How long a checkpoint under way is waited for.
const CHECKPOINT_WAIT_MAX: Duration = Duration::from_secs(5);

/// What one that was refused for lack of space has tried so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct SpaceTries {
    all: u32,
    /// How many of the last ones in a row gained nothing, and found no room.
    vain: u32,
}

impl Store {
    /// After a refusal with [`NoSpace`](super::StoreError::NoSpace): tries to get some, and answers whether to ask
    /// again. `tries` begins empty with each request, and is handed in again after its next refusal. Waits as
    /// [`Store::reclaim`] does.
    pub fn get_space(&self, tries: &mut SpaceTries, until: Instant) -> bool {
        if tries.all >= TRIES_MAX || self.core.read_only {
            return false;
        }
        tries.all += 1;
        let gains = self.core.gains.get();
        // Others gain, too.
        let has_gained = self.reclaim(until) || self.core.gains.get() > gains;
        // What a checkpoint under way stores counts twice, and comes free without a gain: whoever met two in a row was
        // told of a full disk that had room. (In a bucket there is always some: it is its size limit that refuses.)
        let has_room = || self.core.log.disk().is_some() && self.core.has_room_for_the_refused(until);
        tries.vain = if has_gained || has_room() { 0 } else { tries.vain + 1 };
        tries.vain <= VAIN_TRIES_MAX
    }

    /// Has the space of what was deleted given back, where there was none, and then of what is mostly dead; answers whether
    /// that gained anything. If not, what others freed since then is there, too: trying once more is worth it in any
    /// case. Waits for storage, until the deadline at most, and some of that for who reads an older state.
    pub fn reclaim(&self, until: Instant) -> bool {
        if self.core.read_only {
            return false;
        }
        let mut has_gained = self.core.give_back(until);
        let mut wasted = u64::MAX;
        // In a bucket there is always room, but for its size limit; that counts what lives.
        while self.core.log.disk().is_some() && !self.core.has_room_to_grow(until) {
            // What fills segments badly may be moved for ever, and gain nothing.
            let Some(now) = self.core.wasted_now(until) else { break };
            if now >= std::mem::replace(&mut wasted, now) {
                break;
            }
            let has_cleaned = matches!(self.core.clean(Aim::Space, Some(until)), Ok(true));
            // Also what the cleaner gained meanwhile.
            let gives_back = self.core.give_back(until);
            has_gained |= has_cleaned || gives_back;
            if !has_cleaned {
                break;
            }
        }
        has_gained
    }
}

impl Core {
    /// Has the space of what is dead given back; answers whether there was any. And what is set aside for pages: each
    /// counts as a full one until it is stored, and twice while a checkpoint stores it.
    pub(super) fn give_back(self: &Arc<Self>, until: Instant) -> bool {
        self.wait_for_the_checkpoint(until);
        let (frees, owes) = match self.writer.try_lock_until(until) {
            // What is dead takes nothing from what a bucket may hold.
            Some(writer) => (self.log.disk().is_some() && writer.may_free_more(), self.owes_pages(&writer)),
            None => (false, false),
        };
        let is_done = (frees || owes) && self.checkpoint(Some(until)).is_ok();
        let freed = frees && is_done;
        // A checkpoint is complete before readers of older states, and then the storage thread, have come to
        // what it frees.
        let buried = self.bury_until(until.min(Instant::now() + READERS_WAIT_MAX));
        self.log.wait_until_freed(until);
        freed || buried
    }

    /// Waits for the checkpoint that is wanted or under way, if there is one.
    pub(super) fn wait_for_the_checkpoint(&self, until: Instant) {
        let until = until.min(Instant::now() + CHECKPOINT_WAIT_MAX);
        let Some(mut writer) = self.writer.try_lock_until(until) else { return };
        let ended = writer.checkpoints_ended;
        let is_under_way = |writer: &Writer| writer.phase != Phase::Idle && writer.checkpoints_ended == ended;
        while is_under_way(&writer) && !writer.closing && self.log.failure().is_none() {
            if self.room.wait_until(&mut writer, until).timed_out() {
                return;
            }
        }
    }

    /// Whether much less may be needed than is set aside for changed pages, and a checkpoint, that finds out, does not
    /// take the reserve.
    fn owes_pages(&self, writer: &Writer) -> bool {
        let pages = writer.tree.dirty_bytes();
        pages > u64::from(self.log.geometry().segment_bytes) / 2
            && self.log.ensure_capacity(writer.owed_bytes(), Need::Growth).is_ok()
    }

    /// Whether a segment more can be added to the store; not, if that cannot be told before the deadline.
    fn has_room_to_grow(&self, until: Instant) -> bool {
        let Some(writer) = self.writer.try_lock_until(until) else { return false };
        let more = u64::from(self.log.geometry().segment_bytes);
        self.log.capacity_max() >= writer.owed_bytes() + self.room_to_clean(&writer) + more
    }

    /// Whether what was refused last finds its room now: asked as it will ask, since what a file system tells of itself
    /// is not all that it may refuse for.
    fn has_room_for_the_refused(&self, until: Instant) -> bool {
        let Some(writer) = self.writer.try_lock_until(until) else { return false };
        let needed = writer.owed_bytes() + self.room_to_clean(&writer) + writer.refused_bytes;
        !self.log.is_beyond_quota() && self.log.ensure_capacity(needed, Need::Growth).is_ok()
    }

    /// Whether the store would hold more than its size limit with so many bytes more.
    pub(super) fn is_beyond_limit(&self, writer: &Writer, more: u64) -> bool {
        self.size_limit > 0 && writer.table.held() + writer.owed_bytes() + more > self.size_limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::MemoryDisk;
    use crate::store::{CreateOptions, OpenOptions};

    /// Who was refused by two checkpoints in a row, each of which counted its pages twice, was told of a full disk.
    #[test]
    fn where_there_is_room_after_all_the_refused_ask_again_though_nothing_was_gained() {
        let disk = Arc::new(MemoryDisk::default());
        Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
        let store = Store::open_on(disk, &OpenOptions::default()).unwrap();
        let (mut tries, until) = (SpaceTries::default(), Instant::now() + Duration::from_secs(60));
        let count = (0..2 * TRIES_MAX).take_while(|_| store.get_space(&mut tries, until)).count();
        assert_eq!(count as u32, TRIES_MAX);
        store.close().unwrap();
    }
}
