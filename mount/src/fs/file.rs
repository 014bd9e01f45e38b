//! The bytes of a file: read, write, holes.

use crate::fs::ahead::WINDOW_MAX;
use crate::fs::attr::{Allocate, Caller, Ino, Seek, WriteAt};
use crate::fs::change::Change;
use crate::fs::content;
use crate::fs::entry::INLINE_MAX;
use crate::fs::error::{FsError, Result};
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::{Body, SIZE_MAX};
use crate::fs::node::Node;
use crate::fs::setattr::{Resized, drop_privileges, make_way, map, resize};
use bytes::Bytes;
use kivafs::store::{TXN_BYTES_MAX, View};
use kivafs::tree::VALUE_MAX;
use std::ops::{ControlFlow, Range};

/// Most bytes that one write takes. With what it is joined with in its first and last window, and
/// the pieces that it replaces, a transaction holds it.
pub const WRITE_MAX: usize = 1 << 20;
/// Most pieces that one transaction replaces: 64 MiB of full ones.
pub(crate) const RANGE_PIECES: usize = 1024;
/// From far away, so much more than is to be fetched may be fetched with it, and no more than that part of what may be
/// fetched ahead in all.
const LOOK_BEYOND: u64 = 4 << 20;
const BEYOND_PART: u64 = 16;
const _: () = assert!(WRITE_MAX + 2 * VALUE_MAX + RANGE_PIECES * 32 < TXN_BYTES_MAX);

impl FileSystem {
    /// The bytes `offset..offset + length` in pieces; fewer only at the end of the file. One miss
    /// names all that is missing.
    pub fn read(&self, ino: Ino, offset: u64, length: usize) -> Result<Vec<Bytes>> {
        let (view, node) = self.node(ino)?;
        node.must_be_regular()?;
        let end = offset.saturating_add(length as u64).min(node.size());
        if offset >= end {
            return Ok(Vec::new());
        }
        match &node.inode.body {
            Body::Inline(bytes) => Ok(vec![bytes.slice(offset as usize..end as usize)]),
            _ => {
                let pace = self.read_ahead.note(ino, offset..end, node.size());
                if let Some(fetch) = pace.fetch {
                    self.fetch_ahead(&view, ino, fetch, node.size());
                }
                match pace.is_in_order {
                    true => content::read_once(&view, ino, offset, end),
                    false => content::read(&view, ino, offset, end),
                }
            }
        }
    }

    /// Begins to fetch a part of a file of that size, or about as much: what comes with it in one request.
    fn fetch_ahead(&self, view: &View, ino: Ino, fetch: Range<u64>, size: u64) {
        let (mut values, mut starts) = (Vec::new(), Vec::new());
        let (mut wanted, mut reached, mut goes_on) = (0, fetch.start, false);
        let beyond = match self.store().is_far() {
            true => (fetch.end - fetch.start).min(LOOK_BEYOND).min(self.store().ahead_bytes() / BEYOND_PART),
            false => 0,
        };
        // With all of the file before it, a miss also names the pages that come next.
        let scanned = content::visit_pieces(view, ino, fetch.start, size, &mut |piece| {
            if piece.offset >= fetch.end.saturating_add(beyond) {
                goes_on = true;
                return ControlFlow::Break(());
            }
            wanted += usize::from(piece.offset < fetch.end);
            reached = piece.end();
            starts.push(piece.offset);
            values.push(piece.value);
            ControlFlow::Continue(())
        });
        let begun = view.prefetch(&values, wanted, goes_on || scanned.is_err());
        let reached = *starts.get(begun).unwrap_or(&reached);
        // A hole at its end needs no fetching. Whoever reads there is told of any other error.
        let reached = if scanned.is_ok() && begun == values.len() { reached.max(fetch.end) } else { reached };
        self.read_ahead.reached(ino, fetch.clone(), reached);
        match scanned {
            Err(FsError::Miss(miss)) => self.store().fetch_soon(miss),
            _ => self.fetch_records_ahead(view, ino, fetch.end.saturating_add(WINDOW_MAX), size),
        }
    }

    /// Begins to fetch the first of what tells where the bytes from there on lie: when they are to be fetched, it
    /// would have to be waited for.
    fn fetch_records_ahead(&self, view: &View, ino: Ino, from: u64, size: u64) {
        let scanned = content::visit_pieces(view, ino, from, size, &mut |_| ControlFlow::Break(()));
        if let Err(FsError::Miss(miss)) = scanned {
            self.store().fetch_soon(miss);
        }
    }

    /// Writes; answers how many bytes were taken: all, or the first [`WRITE_MAX`]. With
    /// `kill_suid_sgid` setuid and setgid bits fall. Whole aligned 64 KiB are kept as slices of
    /// `data`, not copied.
    pub fn write(&self, ino: Ino, at: WriteAt, data: &Bytes, kill_suid_sgid: bool) -> Result<usize> {
        let data = data.slice(..data.len().min(WRITE_MAX));
        loop {
            let mut change = self.change()?;
            let mut node = change.node(ino)?;
            node.must_be_regular()?;
            let offset = match at {
                WriteAt::Offset(offset) => offset,
                WriteAt::End => node.size(),
            };
            if data.is_empty() {
                return Ok(0);
            }
            let written = write_at(&mut change, &mut node, offset, &data)?;
            if written.is_some() {
                node.inode.stat.mtime = change.now;
                node.inode.stat.ctime = change.now;
                if kill_suid_sgid {
                    drop_privileges(&mut change, &mut node);
                }
                change.put_node(&node);
            }
            change.commit()?;
            if let Some(written) = written {
                return Ok(written);
            }
        }
    }

    /// Makes holes, zeros, or room to grow; a write in any case, as times and privileges go. A range of more than 1024 pieces (64 MiB of full ones) is
    /// done in several transactions; after a failure a first part of it may be done.
    pub fn fallocate(&self, caller: Caller, ino: Ino, offset: u64, length: u64, what: Allocate) -> Result<()> {
        if length == 0 {
            return Err(FsError::Invalid);
        }
        let end = offset.checked_add(length).filter(|end| *end <= SIZE_MAX).ok_or(FsError::TooBig)?;
        let (clear, grow) = match what {
            Allocate::Reserve => (false, true),
            Allocate::ReserveKeepSize => (false, false),
            Allocate::PunchHole | Allocate::ZeroRangeKeepSize => (true, false),
            Allocate::ZeroRange => (true, true),
        };
        if !clear {
            // Before the change: the store's space is guarded by the lock that a change holds.
            let (_, node) = self.node(ino)?;
            node.must_be_regular()?;
            if length.saturating_sub(node.attr().blocks * 512) > self.store().space().free {
                return Err(FsError::NoSpace);
            }
        }
        let mut from = offset;
        loop {
            let mut change = self.change()?;
            let mut node = change.node(ino)?;
            node.must_be_regular()?;
            if what == Allocate::PunchHole {
                change.shrinks();
            }
            if clear {
                from = clear_range(&mut change, &mut node, from, end)?;
            }
            let cleared = !clear || from >= end;
            let grows = grow && end > node.size();
            let resized = if cleared && grows { resize(&mut change, &mut node, end)? } else { Resized::Yes };
            node.inode.stat.mtime = change.now;
            node.inode.stat.ctime = change.now;
            if caller.uid != 0 {
                drop_privileges(&mut change, &mut node);
            }
            change.put_node(&node);
            change.commit()?;
            if cleared && resized == Resized::Yes {
                return Ok(());
            }
        }
    }

    /// Where at or after `offset` the next data or hole begins. `NoData`: there is none, or the
    /// offset is at or beyond the end.
    pub fn lseek(&self, ino: Ino, offset: u64, what: Seek) -> Result<u64> {
        let (view, node) = self.node(ino)?;
        node.must_be_regular()?;
        let size = node.size();
        if offset >= size {
            return Err(FsError::NoData);
        }
        let Body::Mapped(mapped) = &node.inode.body else {
            return Ok(if what == Seek::Data { offset } else { size });
        };
        match what {
            Seek::Data => {
                let first = content::pieces(&view, ino, offset, size, 1)?;
                first.first().map(|piece| piece.offset.max(offset)).ok_or(FsError::NoData)
            }
            Seek::Hole if mapped.allocated == size && !mapped.cutting => Ok(size),
            Seek::Hole => {
                let mut at = offset;
                content::visit_pieces(&view, ino, offset, size, &mut |piece| {
                    if piece.offset > at {
                        return ControlFlow::Break(());
                    }
                    at = piece.end();
                    ControlFlow::Continue(())
                })?;
                Ok(at.min(size))
            }
        }
    }
}

/// Writes into a regular file; answers how many bytes: all, or fewer if what is there is in very
/// many pieces. The node is still to be put. `None` as for [`Resized::Not`].
pub(crate) fn write_at(change: &mut Change<'_>, node: &mut Node, offset: u64, data: &Bytes) -> Result<Option<usize>> {
    let end = offset.checked_add(data.len() as u64).filter(|end| *end <= SIZE_MAX).ok_or(FsError::TooBig)?;
    let mut data = data.clone();
    let (mut mapped, old, fresh) = match &node.inode.body {
        Body::Inline(content) if end <= INLINE_MAX as u64 => {
            let mut whole = content.to_vec();
            whole.resize(whole.len().max(end as usize), 0);
            whole[offset as usize..end as usize].copy_from_slice(&data);
            node.inode.body = Body::Inline(whole.into());
            return Ok(Some(data.len()));
        }
        Body::Inline(_) => {
            let (mapped, pieces) = map(change, node)?;
            (mapped, pieces, true)
        }
        Body::Mapped(mapped) => {
            let size = mapped.size;
            if make_way(change, node, end)? == Resized::Not {
                return Ok(None);
            }
            // Also those that it adjoins, to be joined with them.
            let mut old = content::pieces(change.txn(), node.ino, offset.saturating_sub(1), end + 1, RANGE_PIECES)?;
            if let Some(last) = old.last().filter(|_| old.len() == RANGE_PIECES) {
                data.truncate((last.end() - offset).min(data.len() as u64) as usize);
            }
            // What lies beyond the end is none of the file, and must not be joined to it.
            old.retain(|piece| piece.offset < size);
            let Body::Mapped(mapped) = node.inode.body else { unreachable!("way was made in a mapping") };
            (mapped, old, false)
        }
        Body::Directory { .. } | Body::Device(_) | Body::Nothing => return Err(FsError::Invalid),
    };
    let turnover = content::write(change.txn_mut(), node.ino, &old, fresh, offset, &data);
    mapped.allocated = turnover.apply(mapped.allocated)?;
    mapped.size = mapped.size.max(offset + data.len() as u64);
    node.inode.body = Body::Mapped(mapped);
    Ok(Some(data.len()))
}

/// Makes zeros of what a file has in `from..end`, as far as one transaction goes; answers how far.
fn clear_range(change: &mut Change<'_>, node: &mut Node, from: u64, end: u64) -> Result<u64> {
    let to = end.min(node.size());
    if from >= to {
        return Ok(end);
    }
    match &mut node.inode.body {
        Body::Inline(content) => {
            let mut zeroed = content.to_vec();
            zeroed[from as usize..to as usize].fill(0);
            node.inode.body = Body::Inline(zeroed.into());
            Ok(end)
        }
        Body::Mapped(mapped) => {
            let old = content::pieces(change.txn(), node.ino, from, to, RANGE_PIECES)?;
            let reached = match old.last() {
                Some(last) if old.len() == RANGE_PIECES => last.end().min(to),
                _ => to,
            };
            let turnover = content::replace(change.txn_mut(), node.ino, &old, from, reached, &[]);
            mapped.allocated = turnover.apply(mapped.allocated)?;
            Ok(if reached == to { end } else { reached })
        }
        Body::Directory { .. } | Body::Device(_) | Body::Nothing => Err(FsError::Invalid),
    }
}
