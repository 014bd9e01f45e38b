//! Removing names and nodes: unlink, rmdir, and what is left to do afterwards.
//! And space for who was refused for lack of it, which what is left to remove may hold.

use crate::fs::attr::{FileType, Ino};
use crate::fs::change::Change;
use crate::fs::content;
use crate::fs::deferred_record::Deferred;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::Body;
use crate::fs::key;
use crate::fs::make::{add_subdir, touch};
use crate::fs::name::Name;
use crate::fs::node::Node;
use crate::fs::node_acl::Kind;
use crate::fs::records::{Records, decoded};
use crate::fs::setattr::{STEP_PIECES, continue_cut};
use crate::fs::table::{Effect, Place};
use kivafs::store::{SpaceTries, View};
use std::ops::ControlFlow;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long who has no deadline of their own tries to get space.
pub const SPACE_WAIT: Duration = Duration::from_secs(30);

/// Steps of what removals left to do, before those who wait for space are asked again: the first may do.
const REMOVALS_AT_ONCE: usize = 64;

/// Files with more bytes in pieces are removed in steps: finding the pieces may mean reading many
/// pages.
const AT_ONCE_BYTES: u64 = 1 << 20;

impl FileSystem {
    /// Removes a name of a file that is no directory. A file that is open lives on without a name;
    /// of one that is not, only the attributes remain, in memory, for as long as the kernel holds it.
    pub fn unlink(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let name = Name::to_find(name)?;
        let mut change = self.change()?;
        change.shrinks();
        let mut dir = change.directory(parent)?;
        let node = change.child(parent, &name)?.ok_or(FsError::NotFound)?;
        if node.inode.kind == FileType::Directory {
            return Err(FsError::IsADirectory);
        }
        change.delete_name(&Place::of(parent, &name));
        drop_link(&mut change, node)?;
        touch(&mut change, &mut dir);
        change.commit()
    }

    /// Removes an empty directory.
    pub fn rmdir(&self, parent: Ino, name: &[u8]) -> Result<()> {
        let name = Name::to_find(name)?;
        let mut change = self.change()?;
        change.shrinks();
        let mut dir = change.directory(parent)?;
        let node = change.child(parent, &name)?.ok_or(FsError::NotFound)?;
        node.must_be_directory()?;
        must_be_empty(&change, node.ino)?;
        change.delete_name(&Place::of(parent, &name));
        drop_directory(&mut change, node)?;
        add_subdir(&mut dir, -1)?;
        touch(&mut change, &mut dir);
        change.commit()
    }

    /// All of what removals left to do, one step after the other. Waits for storage. What fails stays to be
    /// done, and is told in the log.
    pub fn deferred_all(&self) {
        loop {
            match self.store().patiently(|| self.deferred_step()) {
                Ok(true) => {}
                Ok(false) => return,
                Err(error) => return tracing::warn!("what removals left is not done: {error}"),
            }
        }
    }

    /// One bounded step of what removals left to do; true: ask again, there may be more. A
    /// background thread calls it until false after open and whenever `deferred_due`, and every few
    /// seconds: it also lets go of the views of directories that have been open for long. When it is
    /// false, all is done that could be when it was called, by whomever: a step by another thread is
    /// waited for. May miss. In a store that is open for reading only there is nothing to do.
    pub fn deferred_step(&self) -> Result<bool> {
        self.directories.expire();
        let _one_at_a_time = self.deferring.lock();
        if !self.deferred_due.swap(false, Ordering::Relaxed) {
            return Ok(false);
        }
        let done = match self.deferred_work() {
            Err(FsError::ReadOnly) => Ok(false),
            done => done,
        };
        if !matches!(done, Ok(false)) {
            self.deferred_due.store(true, Ordering::Relaxed);
        }
        done
    }

    /// After a refusal with [`FsError::NoSpace`]: tries to get some, and answers whether to ask again, as
    /// [`Store::get_space`](kivafs::store::Store::get_space); what removals left to do holds space, too. Waits for storage.
    pub fn get_space(&self, tries: &mut SpaceTries, until: Instant) -> bool {
        // Nothing of an older state is kept for who only may read it.
        self.directories.let_go();
        // A step that fails is left to the thread that does them: it tells why.
        let step = |_: &usize| matches!(self.store().patiently_until(until, || self.deferred_step()), Ok(true));
        let has_removed = (0..REMOVALS_AT_ONCE).take_while(|_| Instant::now() < until).take_while(step).count() > 0;
        match has_removed {
            // There may be more to remove: that is no try in vain.
            true => {
                self.store().reclaim(until);
                true
            }
            false => self.store().get_space(tries, until),
        }
    }

    /// Whether there may be something for `deferred_step` to do. Cheap.
    pub fn deferred_due(&self) -> bool {
        self.deferred_due.load(Ordering::Relaxed)
    }

    fn deferred_work(&self) -> Result<bool> {
        // Not held while it is done: what is removed would be kept for it.
        let first = self.first_deferred(&self.store().view())?;
        let Some(ino) = first else { return Ok(false) };
        let mut change = self.change()?;
        change.shrinks();
        let Some(deferred) = change.txn().deferred(ino)? else { return Ok(true) };
        let Some(mut node) = Node::find(change.txn(), ino, None)? else {
            return Err(FsError::damaged(format!("{ino}: work is left to do, but there is no record")));
        };
        self.accesses.show(&mut node);
        if deferred.unlinked && !change.stays(ino) {
            erase_step(&mut change, node)?;
        } else if deferred.cut_from.is_some() {
            continue_cut(&mut change, &mut node)?;
        }
        change.commit()?;
        Ok(true)
    }

    /// The first node for which something can be done now: a removed file that is open waits.
    fn first_deferred(&self, view: &View) -> Result<Option<Ino>> {
        let mut first = Ok(None);
        view.visit(&key::all_deferred(), &mut |key, value| {
            let record = match value {
                kivafs::tree::Value::Bytes(bytes) => Deferred::decode(bytes),
                kivafs::tree::Value::Extent(_) => None,
            };
            match decoded(key, record.zip(key::ino_of(key))) {
                Ok((deferred, ino)) if deferred.cut_from.is_none() && self.table.lock().stays(ino) => {
                    ControlFlow::Continue(())
                }
                Ok((_, ino)) => {
                    first = Ok(Some(ino));
                    ControlFlow::Break(())
                }
                Err(error) => {
                    first = Err(error);
                    ControlFlow::Break(())
                }
            }
        })?;
        first
    }
}

/// Refuses a directory with entries.
pub(crate) fn must_be_empty(change: &Change<'_>, dir: Ino) -> Result<()> {
    let mut empty = true;
    change.txn().visit(&key::entries(dir), &mut |_, _| {
        empty = false;
        ControlFlow::Break(())
    })?;
    if empty { Ok(()) } else { Err(FsError::NotEmpty) }
}

/// A directory that is empty and whose name is gone goes, too. Not the one for keys.
pub(crate) fn drop_directory(change: &mut Change<'_>, mut node: Node) -> Result<()> {
    if change.fs_record()?.key_dir == node.ino {
        return Err(FsError::Busy);
    }
    node.inode.links = 0;
    node.inode.stat.ctime = change.now;
    erase_record(change, &node)
}

/// A name of that file is gone (or stands for another). With the last one the file goes, unless it
/// is open, or is to stay (see [`FileSystem::let_removed_stay`]).
pub(crate) fn drop_link(change: &mut Change<'_>, mut node: Node) -> Result<()> {
    node.inode.stat.ctime = change.now;
    match node.inode.links {
        0 => return Err(FsError::damaged(format!("{}: more names than it counts", node.ino))),
        1 => {}
        _ => {
            node.inode.links -= 1;
            change.put_node(&node);
            return Ok(());
        }
    }
    node.inode.links = 0;
    let stays = change.stays(node.ino);
    if !stays && erase(change, &node)? {
        return Ok(());
    }
    let cut_from = change.txn().deferred(node.ino)?.and_then(|deferred| deferred.cut_from);
    change.promote(&mut node, false);
    change.put_node(&node);
    change.txn_mut().put(&key::deferred(node.ino), Deferred { unlinked: true, cut_from }.encode());
    if stays {
        change.then(Effect::Unlinked(node.ino));
    } else {
        change.then(Effect::Gone(node.ino, node.attr()));
        change.due();
    }
    Ok(())
}

/// Removes a node that has no name and all that belongs to it, except a pair's entry. False: that is
/// more than one transaction should do, and nothing was changed.
fn erase(change: &mut Change<'_>, node: &Node) -> Result<bool> {
    if let Body::Mapped(mapped) = &node.inode.body {
        if mapped.allocated > AT_ONCE_BYTES || mapped.cutting {
            return Ok(false);
        }
        let pieces = content::pieces(change.txn(), node.ino, 0, u64::MAX, STEP_PIECES)?;
        if pieces.len() == STEP_PIECES {
            return Ok(false);
        }
        content::replace(change.txn_mut(), node.ino, &pieces, 0, u64::MAX, &[]);
    }
    erase_record(change, node)?;
    Ok(true)
}

/// Removes a node without a name, or the first part of it.
fn erase_step(change: &mut Change<'_>, mut node: Node) -> Result<()> {
    if let Body::Mapped(mapped) = &mut node.inode.body {
        let pieces = content::pieces(change.txn(), node.ino, 0, u64::MAX, STEP_PIECES)?;
        let turnover = content::replace(change.txn_mut(), node.ino, &pieces, 0, u64::MAX, &[]);
        mapped.allocated = turnover.apply(mapped.allocated)?;
        if pieces.len() == STEP_PIECES {
            // From now on it cannot be opened again, through a descriptor's path in /proc, say.
            change.then(Effect::Gone(node.ino, node.attr()));
            change.put_node(&node);
            return Ok(());
        }
    }
    change.txn_mut().delete(&key::deferred(node.ino));
    erase_record(change, &node)
}

/// Removes what is left of a node when its pieces are gone.
fn erase_record(change: &mut Change<'_>, node: &Node) -> Result<()> {
    if node.inode.has_xattrs {
        let mut keys = Vec::new();
        change.txn().visit(&key::xattrs(node.ino), &mut |key, _| {
            keys.push(key.to_vec());
            ControlFlow::Continue(())
        })?;
        // A scan does not see what this transaction has put: what it has made may have inherited ACLs.
        keys.extend([Kind::Access, Kind::Default].map(|kind| kind.key(node.ino)));
        keys.iter().for_each(|key| change.txn_mut().delete(key));
    }
    if node.place.is_none() {
        change.txn_mut().delete(&key::inode(node.ino));
    }
    change.uncount()?;
    change.then(Effect::Gone(node.ino, node.attr()));
    Ok(())
}
