//! The file system: opening one, finding nodes, and counting what the kernel holds.

use crate::fs::ahead::{Distance, ReadAhead};
use crate::fs::atime::{AccessTimes, Accesses};
use crate::fs::attr::{Attr, Caller, FileType, INO_MAX, Ino, ROOT, Statfs};
use crate::fs::change::Change;
use crate::fs::content;
use crate::fs::directory::Directories;
use crate::fs::entry::Entry;
use crate::fs::error::{FsError, Result};
use crate::fs::fs_record::FsRecord;
use crate::fs::inode::{Body, Inode};
use crate::fs::key;
use crate::fs::make::TARGET_MAX;
use crate::fs::name::{NAME_MAX, Name};
use crate::fs::node::Node;
use crate::fs::records::Records;
use crate::fs::stat::Stat;
use crate::fs::table::{Forgotten, Known, Opened, Place, Table};
use crate::fs::time::{Clock, Time};
use bytes::Bytes;
use kivafs::store::{Store, View};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// A file system on an open store. Usable from any number of threads; see the module for its
/// contract.
pub struct FileSystem {
    store: Arc<Store>,
    pub(crate) clock: Clock,
    /// Taken by every change once its transaction has begun, until the table has taken it in: nobody
    /// waits for storage meanwhile. Lock order: the store's writer lock, `turn`, then `table`;
    /// `directories` and what `read_ahead` has inside are taken alone.
    pub(crate) turn: Mutex<()>,
    /// Never held across a call into the store.
    pub(crate) table: Mutex<Table>,
    pub(crate) directories: Directories,
    pub(crate) read_ahead: ReadAhead,
    pub(crate) accesses: Accesses,
    pub(crate) deferred_due: AtomicBool,
    /// Held during a deferred step, before any other lock: whoever asks for one learns whether there
    /// is more to do only when the one before him has found out.
    pub(crate) deferring: Mutex<()>,
    /// The store is read-only and has no file system: an empty root is shown.
    empty_root: Option<Inode>,
    /// The directory whose entries are the keys.
    pub(crate) key_dir: Ino,
}

const ROOT_PERM: u16 = 0o755;
const KEY_PERM: u16 = 0o644;
const STATFS_BLOCK: u32 = 4096;

impl FileSystem {
    /// The file system of that store. A new store gets an empty root directory with permissions
    /// 0755, owned by this process; opened for reading only, it is shown one. Waits for storage.
    pub fn open(store: Arc<Store>, clock: Clock) -> Result<FileSystem> {
        let record = store.patiently(|| store.view().fs_record())?;
        let formatted = record.is_some();
        let distance = if store.is_far() { Distance::Far } else { Distance::Near };
        let read_ahead = ReadAhead::new(distance, store.ahead_bytes());
        let mut fs = FileSystem {
            store,
            clock,
            turn: Mutex::new(()),
            table: Mutex::default(),
            directories: Directories::default(),
            read_ahead,
            accesses: Accesses::new(AccessTimes::Never),
            deferred_due: AtomicBool::new(formatted),
            deferring: Mutex::default(),
            empty_root: None,
            key_dir: record.map_or(ROOT, |record| record.key_dir),
        };
        if !formatted {
            let owner = process_owner();
            let root = new_root(owner, clock());
            match fs.format(owner, &root) {
                Err(FsError::ReadOnly) => fs.empty_root = Some(root),
                other => other?,
            }
        }
        Ok(fs)
    }

    fn format(&self, owner: Caller, root: &Inode) -> Result<()> {
        let mut txn = self.store.begin()?;
        let record = FsRecord {
            next_ino: Ino(ROOT.0 + 1),
            nodes: 1,
            key_perm: KEY_PERM,
            key_uid: owner.uid,
            key_gid: owner.gid,
            key_dir: ROOT,
        };
        txn.put(key::FS, record.encode());
        txn.put(&key::inode(ROOT), root.encode());
        Ok(txn.commit()?)
    }

    /// The store: for `fetch` after a miss, `sync_here` or `sync_then` for fsync, `wait_for_room` before bulk data.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Finds a name. The kernel then holds the node once more (until `forget`).
    pub fn lookup(&self, parent: Ino, name: &[u8]) -> Result<Attr> {
        let name = Name::to_find(name)?;
        let place = Place::of(parent, &name);
        loop {
            let version = self.table.lock().version();
            let view = self.store.view();
            let entry = view.entry(place.key())?.ok_or(FsError::NotFound)?;
            let mut node = Node::of_entry(&view, place.clone(), entry)?;
            self.accesses.show(&mut node);
            if self.table.lock().look(version, node.ino, node.form(), place.clone()) {
                return Ok(node.attr());
            }
        }
    }

    /// The kernel lets go of a node `count` times. True: now it does not hold it any more.
    pub fn forget(&self, ino: Ino, count: u64) -> bool {
        let forgotten = self.table.lock().forget(ino, count);
        if forgotten == Forgotten::Over {
            self.deferred_due.store(true, Ordering::Relaxed);
        }
        forgotten != Forgotten::Held
    }

    /// For `time`, files that lose their last name while the kernel holds them can still be opened, until
    /// it lets go of them. Else only those are kept that are open: keeping one takes a second
    /// transaction, and a file that is held is rarely opened in the moment in which it is removed.
    pub fn let_removed_stay(&self, time: Duration) {
        self.table.lock().let_stay(time);
    }

    /// How many nodes the kernel holds.
    pub fn held(&self) -> usize {
        self.table.lock().len()
    }

    /// Of the `count` nodes that the kernel holds and has asked about least lately those that are
    /// not open, the oldest first. The next call gives the next ones, whether or not these were let
    /// go meanwhile. Cheap, at any number of nodes held.
    pub fn oldest_held(&self, count: usize) -> Vec<Ino> {
        self.table.lock().oldest(count)
    }

    /// A directory and a (shown) name in it by which the kernel may know a node that it holds.
    /// `None` for directories, for what is open or removed, and for what has no such name any more.
    pub fn name_held(&self, ino: Ino) -> Result<Option<(Ino, Vec<u8>)>> {
        let place = self.table.lock().idle_place(ino);
        let Some((place, dir, name)) = place.and_then(|at| Some((at.clone(), at.dir()?, at.name()?))) else {
            return Ok(None);
        };
        let entry = self.store.view().entry(place.key())?;
        let fits = |entry: &Entry| entry.ino() == ino && entry.kind() != FileType::Directory;
        Ok(entry.filter(fits).map(|_| (dir, name.shown())))
    }

    /// The directory in which the kernel was last told of a node that it holds. `None`: it does not
    /// hold it any more.
    pub fn told_in(&self, ino: Ino) -> Option<Ino> {
        self.table.lock().told_in(ino)
    }

    /// Attributes; also of a node that was removed while the kernel holds it.
    pub fn getattr(&self, ino: Ino) -> Result<Attr> {
        match self.find(ino)? {
            Found::Node(_, node) => Ok(node.attr()),
            Found::Gone(attr) => Ok(attr),
        }
    }

    /// A symlink's target.
    pub fn readlink(&self, ino: Ino) -> Result<Bytes> {
        let (view, node) = self.node(ino)?;
        match &node.inode.body {
            _ if node.inode.kind != FileType::Symlink => Err(FsError::Invalid),
            Body::Inline(target) => Ok(target.clone()),
            _ if node.size() > TARGET_MAX as u64 => {
                Err(FsError::damaged(format!("{ino}: a target of {}", node.size())))
            }
            _ => Ok(content::read(&view, ino, 0, node.size())?.concat().into()),
        }
    }

    /// Counts one more open of a file: its content outlives its last name until `release`. Files
    /// have no handles: every method takes the node's number.
    pub fn open_file(&self, ino: Ino) -> Result<()> {
        loop {
            let opened = self.table.lock().open(ino);
            match opened {
                Opened::Yes => return Ok(()),
                Opened::Gone => return Err(FsError::Stale),
                // The removal that is under way ends before it passes on its turn.
                Opened::Wait => drop(self.turn.lock()),
            }
        }
    }

    /// The end of one `open_file` or `create`. If that was the last open of a removed file,
    /// `deferred_step` will remove its content.
    pub fn release(&self, ino: Ino) {
        let (is_over, is_open) = {
            let mut table = self.table.lock();
            (table.release(ino), table.is_open(ino))
        };
        if is_over {
            self.deferred_due.store(true, Ordering::Relaxed);
        }
        if !is_open {
            self.read_ahead.forget(ino);
        }
    }

    /// The directory whose entries are the keys.
    pub fn key_dir(&self) -> Ino {
        self.key_dir
    }

    /// How many nodes there are.
    pub fn nodes(&self) -> Result<u64> {
        Ok(self.store.view().fs_record()?.map_or(1, |record| record.nodes))
    }

    /// How full the store is.
    pub fn statfs(&self) -> Result<Statfs> {
        let space = self.store.space();
        let record = self.store.view().fs_record()?;
        let (files, next) = record.map_or((1, ROOT.0 + 1), |record| (record.nodes, record.next_ino.0));
        Ok(Statfs {
            block_bytes: STATFS_BLOCK,
            blocks: space.total / u64::from(STATFS_BLOCK),
            blocks_free: space.free / u64::from(STATFS_BLOCK),
            files,
            files_free: INO_MAX - next,
            name_max: NAME_MAX as u32,
        })
    }

    /// A node that is not removed, and the view in which it was found.
    pub(crate) fn node(&self, ino: Ino) -> Result<(View, Node)> {
        match self.find(ino)? {
            Found::Node(view, node) => Ok((view, node)),
            Found::Gone(_) => Err(FsError::Stale),
        }
    }

    /// A node that is not removed, or what is left of one that is.
    pub(crate) fn find(&self, ino: Ino) -> Result<Found> {
        if let Some(found) = self.find_once(ino)? {
            return Ok(found);
        }
        // It may have moved between the look at the table and the look at the store, or a change is
        // in the store and not yet in the table. Nothing moves while we have the turn.
        let _turn = self.turn.lock();
        self.find_once(ino)?.ok_or(FsError::Stale)
    }

    fn find_once(&self, ino: Ino) -> Result<Option<Found>> {
        let known = self.table.lock().known(ino);
        let place = match known {
            Known::Gone(attr) => return Ok(Some(Found::Gone(attr))),
            Known::At(place) => Some(place),
            Known::Elsewhere => None,
        };
        let view = self.store.view();
        match Node::find(&view, ino, place)? {
            Some(mut node) => {
                self.accesses.show(&mut node);
                Ok(Some(Found::Node(view, node)))
            }
            None => Ok(match &self.empty_root {
                Some(root) if ino == ROOT => Some(Found::Node(view, Node { ino, place: None, inode: root.clone() })),
                _ => None,
            }),
        }
    }

    /// Begins a change.
    pub(crate) fn change(&self) -> Result<Change<'_>> {
        Change::begin(self)
    }
}

/// Where a node that the kernel asks about turned out to be.
pub(crate) enum Found {
    Node(View, Node),
    Gone(Attr),
}

fn new_root(owner: Caller, now: Time) -> Inode {
    Inode {
        kind: FileType::Directory,
        has_xattrs: false,
        links: 1,
        stat: Stat { perm: ROOT_PERM, uid: owner.uid, gid: owner.gid, mtime: now, ctime: now, atime: now },
        body: Body::Directory { parent: ROOT, subdirs: 0 },
    }
}

/// Who owns what this process makes.
pub(crate) fn process_owner() -> Caller {
    use std::os::unix::fs::MetadataExt;
    // /proc/self belongs to the process's effective user and group.
    match std::fs::metadata("/proc/self") {
        Ok(metadata) => Caller { uid: metadata.uid(), gid: metadata.gid(), umask: 0 },
        Err(_) => Caller { uid: 0, gid: 0, umask: 0 },
    }
}
