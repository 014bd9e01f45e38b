//! Times of last access: when they change, and where they are until they are stored.
//!
//! Reading must cost no commit (C8). So the time of an access is kept in memory, shown from there, and
//! stored with the next change of that node, or at the end if something else is stored then anyway. What
//! a crash leaves is the time that was stored last. Only so many are kept; of more the oldest are
//! forgotten.

use crate::fs::attr::{FileType, Ino};
use crate::fs::change::Change;
use crate::fs::error::Result;
use crate::fs::filesystem::FileSystem;
use crate::fs::node::Node;
use crate::fs::time::Time;
use lru::LruCache;
use parking_lot::Mutex;
use std::num::NonZeroUsize;

/// Which reads change times of access.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum AccessTimes {
    /// None (`noatime`).
    #[default]
    Never,
    /// Those after which it is true again that a node was read after its last change, and one each day
    /// (`relatime`).
    Relative {
        /// Of directories, too (else `nodiratime`).
        directories: bool,
    },
}

/// Times kept at most: of some 80 bytes each.
const KEPT_MAX: NonZeroUsize = NonZeroUsize::new(65_536).expect("not zero");
/// An access so much later than the last one counts in any case.
const DAY_SECONDS: i64 = 86_400;
/// Times that one change stores at the end.
const STORED_AT_ONCE: usize = 256;

/// Accesses that are not stored yet.
pub(crate) struct Accesses {
    how: AccessTimes,
    times: Mutex<LruCache<u64, Time>>,
}

impl Accesses {
    pub(crate) fn new(how: AccessTimes) -> Accesses {
        Accesses { how, times: Mutex::new(LruCache::new(KEPT_MAX)) }
    }

    /// Gives a node that was just found in the store the time of its last access.
    pub(crate) fn show(&self, node: &mut Node) {
        if self.how != AccessTimes::Never
            && let Some(time) = self.times.lock().peek(&node.ino.0)
        {
            node.inode.stat.atime = *time;
        }
    }

    /// A node was stored, as it was shown or with a time that somebody has set.
    pub(crate) fn stored(&self, ino: Ino) {
        if self.how != AccessTimes::Never {
            self.times.lock().pop(&ino.0);
        }
    }

    /// Would reading it now change its time of access?
    fn is_due(&self, node: &Node, now: Time) -> bool {
        let counts = match self.how {
            AccessTimes::Never => false,
            AccessTimes::Relative { directories } => directories || node.inode.kind != FileType::Directory,
        };
        let stat = &node.inode.stat;
        let is_old = now.seconds().saturating_sub(stat.atime.seconds()) >= DAY_SECONDS;
        counts && (is_old || stat.atime <= stat.mtime || stat.atime <= stat.ctime)
    }
}

impl FileSystem {
    /// The same file system, with these times of access.
    pub fn with_access_times(mut self, how: AccessTimes) -> FileSystem {
        self.accesses = Accesses::new(how);
        self
    }

    /// Are there any?
    pub fn keeps_access_times(&self) -> bool {
        self.accesses.how != AccessTimes::Never
    }

    /// Would reading it now change its time of access? If so, who keeps its content had better ask for it
    /// once more, or nobody is told of the read.
    pub fn access_is_due(&self, ino: Ino) -> Result<bool> {
        Ok(self.keeps_access_times() && self.accesses.is_due(&self.node(ino)?.1, (self.clock)()))
    }

    /// Somebody has read a file, a directory or a symlink. (If the node is not in memory any more, this
    /// one does not count: nothing is fetched for it.)
    pub fn accessed(&self, ino: Ino) {
        let now = (self.clock)();
        if self.keeps_access_times()
            && let Ok((_, node)) = self.node(ino)
            && self.accesses.is_due(&node, now)
        {
            self.accesses.times.lock().put(ino.0, now);
        }
    }

    /// At the end: stores the times of access, if there is something else to store. Waits for nothing: a
    /// time that can't be stored at once is forgotten.
    pub fn store_access_times(&self) {
        while !self.store().is_durable() && !self.accesses.times.lock().is_empty() {
            if let Err(error) = self.store_some_access_times() {
                return tracing::debug!("times of access are forgotten: {error}");
            }
        }
    }

    fn store_some_access_times(&self) -> Result<()> {
        let mut change = self.change()?;
        for _ in 0..STORED_AT_ONCE {
            let Some((number, time)) = self.accesses.times.lock().pop_lru() else { break };
            if let Ok(mut node) = change.node(Ino(number)) {
                node.inode.stat.atime = time;
                change.put_node(&node);
            }
        }
        Change::commit(change)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fs::attr::{Caller, IfExists, ROOT, SetAttr, SetTime};
    use crate::fs::tests::store;
    use std::sync::atomic::{AtomicI64, Ordering};

    const ROOT_USER: Caller = Caller { uid: 0, gid: 0, umask: 0 };
    const RELATIVE: AccessTimes = AccessTimes::Relative { directories: true };

    thread_local! {
        static NOW: AtomicI64 = const { AtomicI64::new(1000) };
    }

    fn clock() -> Time {
        Time::new(NOW.with(|now| now.load(Ordering::Relaxed)), 0).unwrap()
    }

    fn later(seconds: i64) -> Time {
        NOW.with(|now| now.fetch_add(seconds, Ordering::Relaxed));
        clock()
    }

    fn file_system(how: AccessTimes) -> FileSystem {
        FileSystem::open(store(), clock).unwrap().with_access_times(how)
    }

    fn create(fs: &FileSystem, name: &[u8]) -> Ino {
        fs.create(ROOT_USER, ROOT, name, 0o644, IfExists::Fail).unwrap().ino
    }

    fn atime(fs: &FileSystem, ino: Ino) -> Time {
        let atime = fs.getattr(ino).unwrap().atime;
        assert_eq!(fs.lookup(ROOT, b"a").unwrap().atime, atime);
        atime
    }

    /// The next mount of the store.
    fn reopened(fs: FileSystem) -> FileSystem {
        let fs = FileSystem::open(fs.store().clone(), clock).unwrap().with_access_times(RELATIVE);
        fs.lookup(ROOT, b"a").unwrap();
        fs
    }

    #[test]
    fn a_read_counts_after_a_change_and_once_a_day() {
        let fs = file_system(RELATIVE);
        let ino = create(&fs, b"a");
        let first = later(10);
        assert!(fs.access_is_due(ino).unwrap());
        fs.accessed(ino);
        assert_eq!(atime(&fs, ino), first);
        later(10);
        assert!(!fs.access_is_due(ino).unwrap());
        fs.accessed(ino);
        assert_eq!(atime(&fs, ino), first, "it was read since its last change");
        fs.setattr(ROOT_USER, ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
        let second = later(10);
        fs.accessed(ino);
        assert_eq!(atime(&fs, ino), second);
        later(DAY_SECONDS - 1);
        fs.accessed(ino);
        assert_eq!(atime(&fs, ino), second);
        let third = later(1);
        fs.accessed(ino);
        assert_eq!(atime(&fs, ino), third);
    }

    #[test]
    fn directories_only_if_wanted_and_nothing_if_not() {
        let due = |how| file_system(how).access_is_due(ROOT).unwrap();
        let wanted = [RELATIVE, AccessTimes::Relative { directories: false }, AccessTimes::Never].map(due);
        assert_eq!(wanted, [true, false, false]);
    }

    #[test]
    fn a_time_is_stored_with_the_next_change_and_costs_none() {
        let fs = file_system(RELATIVE);
        let ino = create(&fs, b"a");
        fs.store().sync().unwrap();
        let time = later(10);
        fs.accessed(ino);
        assert!(fs.store().is_durable(), "nothing to commit");
        fs.store_access_times();
        assert!(fs.store().is_durable(), "nor at the end");
        fs.setattr(ROOT_USER, ino, &SetAttr { mode: Some(0o600), ..SetAttr::default() }).unwrap();
        let fs = reopened(fs);
        assert_eq!(atime(&fs, ino), time);
    }

    #[test]
    fn at_the_end_they_go_along_with_something_else() {
        let fs = file_system(RELATIVE);
        let ino = create(&fs, b"a");
        let time = later(10);
        fs.accessed(ino);
        create(&fs, b"b");
        assert!(!fs.store().is_durable());
        fs.store_access_times();
        let fs = reopened(fs);
        assert_eq!(atime(&fs, ino), time);
    }

    #[test]
    fn a_time_that_is_set_counts_whatever_was_read_before() {
        let fs = file_system(RELATIVE);
        let ino = create(&fs, b"a");
        later(10);
        fs.accessed(ino);
        let old = Time::new(5, 0).unwrap();
        fs.setattr(ROOT_USER, ino, &SetAttr { atime: Some(SetTime::To(old)), ..SetAttr::default() }).unwrap();
        assert_eq!(atime(&fs, ino), old);
        let fs = reopened(fs);
        assert_eq!(atime(&fs, ino), old);
    }

    #[test]
    fn no_more_than_the_limit_are_kept() {
        let accesses = Accesses::new(RELATIVE);
        for number in 0..KEPT_MAX.get() as u64 + 10 {
            accesses.times.lock().put(number, Time::EPOCH);
        }
        assert_eq!(accesses.times.lock().len(), KEPT_MAX.get());
    }
}
