//! Changing attributes, length included.

use crate::fs::attr::{Attr, Caller, FileType, Ino, SetAttr, SetTime};
use crate::fs::change::Change;
use crate::fs::content::{self, Piece, Turnover};
use crate::fs::deferred_record::Deferred;
use crate::fs::entry::INLINE_MAX;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::{Body, Mapped, SIZE_MAX};
use crate::fs::key;
use crate::fs::node::Node;
use crate::fs::node_acl::chmod;
use crate::fs::records::Records;
use crate::fs::time::Time;
use bytes::Bytes;
use kivafs::tree::Value;

/// Pieces removed in one step: 16 MiB of full ones. Well below a millisecond, and the space that the
/// store keeps back for removals is enough for it.
pub(crate) const STEP_PIECES: usize = 256;
const SETUID: u16 = libc::S_ISUID as u16;
pub(crate) const SETGID: u16 = libc::S_ISGID as u16;
const GROUP_EXECUTE: u16 = libc::S_IXGRP as u16;
/// File capabilities fall with the setuid bit.
const CAPABILITY: &[u8] = b"security.capability";

impl FileSystem {
    /// Changes attributes, all or none. Setuid and setgid fall when the owner is set, and when somebody
    /// other than root changes the length; what the kernel knows better (who may, and whether setgid
    /// stands with a new mode) it has settled before. A change of nothing is how chown(2) without an owner
    /// arrives, which has these bits fall, too. But then the kernel has not settled who may: for others
    /// than root and the owner it changes no more than it says.
    pub fn setattr(&self, caller: Caller, ino: Ino, wanted: &SetAttr) -> Result<Attr> {
        if wanted.size.is_some_and(|size| size > SIZE_MAX) {
            return Err(FsError::TooBig);
        }
        loop {
            let mut change = self.change()?;
            let mut node = change.node(ino)?;
            if let Some(size) = wanted.size {
                node.must_be_regular()?;
                if size < node.size() {
                    change.shrinks();
                }
                if resize(&mut change, &mut node, size)? == Resized::Not {
                    change.commit()?;
                    continue;
                }
                node.inode.stat.mtime = change.now;
                if caller.uid != 0 {
                    drop_privileges(&mut change, &mut node);
                }
            }
            let may_chown = caller.uid == 0 || caller.uid == node.inode.stat.uid;
            let is_of_nothing = SetAttr { kill_setgid: false, ..*wanted } == SetAttr::default();
            let sets_owner = wanted.uid.is_some() || wanted.gid.is_some() || is_of_nothing && may_chown;
            if sets_owner && node.inode.kind != FileType::Directory {
                drop_privileges(&mut change, &mut node);
                if wanted.kill_setgid {
                    node.inode.stat.perm &= !SETGID;
                }
            }
            if let Some(mode) = wanted.mode {
                chmod(&mut change, &mut node, mode)?;
            }
            let stat = &mut node.inode.stat;
            stat.uid = wanted.uid.unwrap_or(stat.uid);
            stat.gid = wanted.gid.unwrap_or(stat.gid);
            stat.atime = wanted.atime.map_or(stat.atime, |time| time_of(time, change.now));
            stat.mtime = wanted.mtime.map_or(stat.mtime, |time| time_of(time, change.now));
            stat.ctime = change.now;
            change.put_node(&node);
            change.commit()?;
            return Ok(node.attr());
        }
    }
}

fn time_of(wanted: SetTime, now: Time) -> Time {
    match wanted {
        SetTime::Now => now,
        SetTime::To(time) => time,
    }
}

/// Clears setuid, setgid (unless it marks mandatory locking, without group execution, as Linux
/// has it) and file capabilities. The node is still to be put.
pub(crate) fn drop_privileges(change: &mut Change<'_>, node: &mut Node) {
    let perm = &mut node.inode.stat.perm;
    *perm &= !SETUID;
    if *perm & GROUP_EXECUTE != 0 {
        *perm &= !SETGID;
    }
    if node.inode.has_xattrs {
        change.txn_mut().delete(&key::xattr(node.ino, CAPABILITY));
    }
}

/// Whether a length was changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resized {
    /// Yes; the node is still to be put.
    Yes,
    /// Old pieces lie where the file is to grow, too many for one transaction: a step towards their
    /// removal is in the change, the node is put. Commit it and try again.
    Not,
}

/// Gives a regular file a length. What is cut off is gone at once; of a long tail the pieces are
/// removed later, and before the file grows over them again (F6).
pub(crate) fn resize(change: &mut Change<'_>, node: &mut Node, size: u64) -> Result<Resized> {
    match &node.inode.body {
        Body::Inline(content) if size <= INLINE_MAX as u64 => {
            let mut resized = content.to_vec();
            resized.resize(size as usize, 0);
            node.inode.body = Body::Inline(resized.into());
            Ok(Resized::Yes)
        }
        Body::Inline(_) => {
            let (mut mapped, _) = map(change, node)?;
            mapped.size = size;
            node.inode.body = Body::Mapped(mapped);
            Ok(Resized::Yes)
        }
        Body::Mapped(mapped) if size < mapped.size => {
            let shorter = Mapped { size, ..*mapped };
            node.inode.body = Body::Mapped(cut(change, node.ino, shorter)?);
            Ok(Resized::Yes)
        }
        Body::Mapped(_) => {
            let resized = make_way(change, node, size)?;
            if let (Resized::Yes, Body::Mapped(mapped)) = (resized, &mut node.inode.body) {
                mapped.size = size;
            }
            Ok(resized)
        }
        Body::Directory { .. } | Body::Device(_) | Body::Nothing => Err(FsError::Invalid),
    }
}

/// Gives a regular file this content, at most [`INLINE_MAX`] bytes. Of many pieces most are removed
/// later (F6). The node is still to be put; nothing else in this transaction may touch its pieces.
pub(crate) fn overwrite(change: &mut Change<'_>, node: &mut Node, content: Bytes) -> Result<()> {
    let Body::Mapped(mapped) = &node.inode.body else {
        node.inode.body = Body::Inline(content);
        return Ok(());
    };
    let mut mapped = *mapped;
    let old = content::pieces(change.txn(), node.ino, 0, u64::MAX, STEP_PIECES + 1)?;
    let now = &old[..old.len().min(STEP_PIECES)];
    mapped.size = content.len() as u64;
    // A copy: it is kept, and may be a small part of what was received.
    let new = (!content.is_empty()).then(|| Piece { offset: 0, value: Value::Bytes(Bytes::copy_from_slice(&content)) });
    let turnover = content::replace(change.txn_mut(), node.ino, now, 0, u64::MAX, new.as_slice());
    mapped.allocated = turnover.apply(mapped.allocated)?;
    let cut_from = (old.len() > now.len()).then(|| now.last().map_or(0, Piece::end));
    if cut_from.is_some() || mapped.cutting {
        put_cut(change, node.ino, cut_from)?;
    }
    mapped.cutting = cut_from.is_some();
    node.inode.body = Body::Mapped(mapped);
    Ok(())
}

/// Moves inline content into a piece; answers the mapping and that piece, if there is any content.
/// The node gets its own record, which is still to be put.
pub(crate) fn map(change: &mut Change<'_>, node: &mut Node) -> Result<(Mapped, Vec<Piece>)> {
    let Body::Inline(content) = &node.inode.body else { panic!("{}: mapped twice", node.ino) };
    let content = content.clone();
    let size = content.len() as u64;
    let pieces = match content.is_empty() {
        true => Vec::new(),
        false => vec![Piece { offset: 0, value: Value::Bytes(Bytes::copy_from_slice(&content)) }],
    };
    let turnover = content::replace(change.txn_mut(), node.ino, &[], 0, size, &pieces);
    let mapped = Mapped { size, allocated: turnover.apply(0)?, cutting: false };
    change.promote(node, true);
    node.inode.body = Body::Mapped(mapped);
    Ok((mapped, pieces))
}

/// Removes what lies beyond the end, or the first of it and leaves the rest to `deferred_step`.
fn cut(change: &mut Change<'_>, ino: Ino, mut mapped: Mapped) -> Result<Mapped> {
    let from = mapped.size;
    let beyond = content::pieces(change.txn(), ino, from, u64::MAX, STEP_PIECES + 1)?;
    let now = &beyond[..beyond.len().min(STEP_PIECES)];
    let turnover = content::replace(change.txn_mut(), ino, now, from, u64::MAX, &[]);
    mapped.allocated = turnover.apply(mapped.allocated)?;
    let more = beyond.len() > now.len();
    if more || mapped.cutting {
        put_cut(change, ino, more.then_some(from))?;
    }
    mapped.cutting = more;
    Ok(mapped)
}

/// Notes from where on pieces are still to be removed, or that none are.
fn put_cut(change: &mut Change<'_>, ino: Ino, cut_from: Option<u64>) -> Result<()> {
    let unlinked = change.txn().deferred(ino)?.is_some_and(|deferred| deferred.unlinked);
    if cut_from.is_some() {
        change.due();
    }
    let key = key::deferred(ino);
    match (unlinked, cut_from) {
        (false, None) => change.txn_mut().delete(&key),
        _ => change.txn_mut().put(&key, Deferred { unlinked, cut_from }.encode()),
    }
    Ok(())
}

/// Removes the pieces that were cut off and lie before `size`, to which a mapped file is to grow.
pub(crate) fn make_way(change: &mut Change<'_>, node: &mut Node, size: u64) -> Result<Resized> {
    let Body::Mapped(mapped) = &node.inode.body else { return Ok(Resized::Yes) };
    let mut mapped = *mapped;
    if !mapped.cutting || size <= mapped.size {
        return Ok(Resized::Yes);
    }
    let (turnover, next) = remove_cut(change, node.ino, size)?;
    mapped.allocated = turnover.apply(mapped.allocated)?;
    node.inode.body = Body::Mapped(mapped);
    if next < size {
        put_cut(change, node.ino, Some(next))?;
        change.put_node(node);
        return Ok(Resized::Not);
    }
    put_cut(change, node.ino, Some(next))?;
    Ok(Resized::Yes)
}

/// Removes at most a step's worth of pieces that were cut off and begin before `to`; answers from
/// where on there may be more.
fn remove_cut(change: &mut Change<'_>, ino: Ino, to: u64) -> Result<(Turnover, u64)> {
    let from = change.txn().deferred(ino)?.and_then(|deferred| deferred.cut_from);
    let from = from.ok_or_else(|| FsError::damaged(format!("{ino}: what is cut off is not recorded")))?;
    if from >= to {
        return Ok((Turnover::default(), from));
    }
    let pieces = content::pieces(change.txn(), ino, from, to, STEP_PIECES)?;
    let turnover = content::replace(change.txn_mut(), ino, &pieces, from, u64::MAX, &[]);
    let next = match pieces.last() {
        Some(last) if pieces.len() == STEP_PIECES => last.end(),
        Some(last) => last.end().max(to),
        None => to,
    };
    Ok((turnover, next))
}

/// One step of removing what was cut off; true: there is more. The node is put.
pub(crate) fn continue_cut(change: &mut Change<'_>, node: &mut Node) -> Result<bool> {
    let Body::Mapped(mapped) = &node.inode.body else {
        return Err(FsError::damaged(format!("{}: cut off, but without pieces", node.ino)));
    };
    let mut mapped = *mapped;
    let (turnover, next) = remove_cut(change, node.ino, u64::MAX)?;
    mapped.allocated = turnover.apply(mapped.allocated)?;
    mapped.cutting = next < u64::MAX;
    put_cut(change, node.ino, mapped.cutting.then_some(next))?;
    node.inode.body = Body::Mapped(mapped);
    change.put_node(node);
    Ok(mapped.cutting)
}
