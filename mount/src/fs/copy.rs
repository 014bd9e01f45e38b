//! Copying between files without copying bytes.

use crate::fs::attr::{Caller, Ino};
use crate::fs::change::Change;
use crate::fs::content::{self, Piece, WINDOW};
use crate::fs::entry::INLINE_MAX;
use crate::fs::error::{FsError, Result};
use crate::fs::file::{RANGE_PIECES, write_at};
use crate::fs::filesystem::FileSystem;
use crate::fs::inode::{Body, SIZE_MAX};
use crate::fs::node::Node;
use crate::fs::setattr::{Resized, drop_privileges, make_way, map};
use bytes::Bytes;
use kivafs::tree::Value;

/// Most bytes copied by one call.
const COPY_MAX: u64 = 128 << 20;
/// Most pieces shared by one call; each may become two.
const COPY_PIECES: usize = 1024;
/// Most bytes, of pieces that are not stored yet, that one call puts once more.
const COPY_UNSTORED: usize = 256 << 10;

impl FileSystem {
    /// Copies a range from one file to another (or within one, if the ranges do not overlap): what
    /// is stored is shared, holes stay holes. Answers how many bytes were copied: 0 only at the end
    /// of the source, else maybe fewer than asked.
    pub fn copy_file_range(&self, caller: Caller, from: (Ino, u64), to: (Ino, u64), length: u64) -> Result<u64> {
        loop {
            let mut change = self.change()?;
            let source = change.node(from.0)?;
            let mut node = change.node(to.0)?;
            source.must_be_regular()?;
            node.must_be_regular()?;
            let length = length.min(COPY_MAX).min(source.size().saturating_sub(from.1));
            if length == 0 {
                return Ok(0);
            }
            let end = to.1.checked_add(length).filter(|end| *end <= SIZE_MAX).ok_or(FsError::TooBig)?;
            if from.0 == to.0 && from.1 < end && to.1 < from.1 + length {
                return Err(FsError::Invalid);
            }
            let stays_inline = matches!(node.inode.body, Body::Inline(_)) && end <= INLINE_MAX as u64;
            let copied = match &source.inode.body {
                Body::Inline(bytes) => {
                    let bytes = bytes.slice(from.1 as usize..(from.1 + length) as usize);
                    copy_bytes(&mut change, &mut node, to.1, &bytes)?
                }
                _ if stays_inline => {
                    let bytes = content::read(change.txn(), from.0, from.1, from.1 + length)?.concat();
                    copy_bytes(&mut change, &mut node, to.1, &bytes.into())?
                }
                _ => share(&mut change, from, &mut node, to.1, length)?,
            };
            if copied.is_some() {
                node.inode.stat.mtime = change.now;
                node.inode.stat.ctime = change.now;
                if caller.uid != 0 {
                    drop_privileges(&mut change, &mut node);
                }
                change.put_node(&node);
            }
            change.commit()?;
            if let Some(copied) = copied {
                return Ok(copied);
            }
        }
    }
}

/// `None` as for [`Resized::Not`].
fn copy_bytes(change: &mut Change<'_>, node: &mut Node, offset: u64, bytes: &Bytes) -> Result<Option<u64>> {
    Ok(write_at(change, node, offset, bytes)?.map(|written| written as u64))
}

/// Puts the source's pieces under the target's offsets, cut at its windows. `None` as for
/// [`Resized::Not`].
fn share(change: &mut Change<'_>, from: (Ino, u64), node: &mut Node, offset: u64, length: u64) -> Result<Option<u64>> {
    let pieces = content::pieces(change.txn(), from.0, from.1, from.1 + length, COPY_PIECES)?;
    let length = affordable(&pieces, from.1, length);
    let (mut mapped, old) = match &node.inode.body {
        Body::Inline(_) => map(change, node)?,
        _ => {
            let size = node.size();
            if make_way(change, node, offset + length)? == Resized::Not {
                return Ok(None);
            }
            let Body::Mapped(mapped) = node.inode.body else { unreachable!("a regular file is inline or mapped") };
            let mut old = content::pieces(change.txn(), node.ino, offset, offset + length, RANGE_PIECES)?;
            old.retain(|piece| piece.offset < size);
            (mapped, old)
        }
    };
    // Where the target is in very many pieces, only as many as one transaction can replace.
    let length = match old.last() {
        Some(last) if old.len() >= RANGE_PIECES => (last.end() - offset).min(length),
        _ => length,
    };
    let mut new = Vec::with_capacity(2 * pieces.len());
    for piece in &pieces {
        let (start, end) = (piece.offset.max(from.1), piece.end().min(from.1 + length));
        let mut at = start;
        while at < end {
            let target = at - from.1 + offset;
            let take = (end - at).min(WINDOW - target % WINDOW);
            let value = piece.value.slice((at - piece.offset) as usize, take as usize);
            new.push(Piece { offset: target, value });
            at += take;
        }
    }
    let turnover = content::replace(change.txn_mut(), node.ino, &old, offset, offset + length, &new);
    mapped.allocated = turnover.apply(mapped.allocated)?;
    mapped.size = mapped.size.max(offset + length);
    node.inode.body = Body::Mapped(mapped);
    Ok(Some(length))
}

/// How much of the range one transaction can take: pieces that are not stored yet count with all
/// their bytes.
fn affordable(pieces: &[Piece], from: u64, length: u64) -> u64 {
    let mut bytes = 0;
    for piece in pieces {
        bytes += if let Value::Bytes(value) = &piece.value { value.len() } else { 0 };
        if bytes > COPY_UNSTORED {
            // The first piece alone is never too much.
            return piece.offset - from;
        }
    }
    match pieces.last() {
        Some(last) if pieces.len() >= COPY_PIECES => (last.end() - from).min(length),
        _ => length,
    }
}
