//! The pieces of a mapped file: reading, replacing, writing. Nothing here knows attributes.
//!
//! A piece is a value under (inode, offset). Pieces do not overlap, none is empty, and none crosses
//! a multiple of [`WINDOW`] (F6), so whatever touches a range is found by one scan that begins at
//! the window of its first byte. What no piece covers is a hole.

use crate::fs::attr::Ino;
use crate::fs::error::{FsError, Result};
use crate::fs::key;
use crate::fs::records::Records;
use bytes::{Bytes, BytesMut};
use kivafs::store::{Payload, Txn};
use kivafs::tree::{VALUE_INLINE_MAX, VALUE_MAX, Value};
use std::ops::ControlFlow;

/// Pieces lie within aligned windows of this many bytes: what one stored unit holds.
pub(crate) const WINDOW: u64 = VALUE_MAX as u64;

static ZEROS: [u8; VALUE_MAX] = [0; VALUE_MAX];

/// A stretch of a file's bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Piece {
    pub(crate) offset: u64,
    pub(crate) value: Value,
}

impl Piece {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.value.len() as u64
    }

    /// The part of it that lies in `from..to`.
    fn part(&self, from: u64, to: u64) -> Option<Piece> {
        let (start, end) = (self.offset.max(from), self.end().min(to));
        (start < end).then(|| Piece {
            offset: start,
            value: slice(&self.value, (start - self.offset) as usize, (end - start) as usize),
        })
    }
}

/// A part of a value. A short part of bytes is copied: it would else keep the whole in memory.
fn slice(value: &Value, start: usize, length: usize) -> Value {
    match value.slice(start, length) {
        Value::Bytes(bytes) if bytes.len() <= VALUE_INLINE_MAX => Value::Bytes(Bytes::copy_from_slice(&bytes)),
        part => part,
    }
}

/// Where the window of that offset begins.
fn window_start(offset: u64) -> u64 {
    offset - offset % WINDOW
}

/// The pieces that have bytes in `from..to`, in order, at most `limit` of them.
pub(crate) fn pieces(records: &impl Records, ino: Ino, from: u64, to: u64, limit: usize) -> Result<Vec<Piece>> {
    let mut pieces: Vec<Piece> = Vec::new();
    visit_pieces(records, ino, from, to, &mut |piece| {
        if pieces.len() < limit {
            pieces.push(piece);
        }
        if pieces.len() < limit { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    Ok(pieces)
}

/// Visits the pieces that have bytes in `from..to`, in order, until `visit` breaks.
pub(crate) fn visit_pieces(
    records: &impl Records,
    ino: Ino,
    from: u64,
    to: u64,
    visit: &mut dyn FnMut(Piece) -> ControlFlow<()>,
) -> Result<()> {
    let mut before = 0;
    let mut damage = None;
    records.visit(&key::pieces(ino, window_start(from), to), &mut |key, value| match key::offset_of(key)
        .and_then(|offset| sound(before, offset, value))
    {
        None => {
            damage = Some(FsError::damaged(format!("piece {}: overlaps, or is misplaced", key.escape_ascii())));
            ControlFlow::Break(())
        }
        Some(piece) => {
            before = piece.end();
            if before > from { visit(piece) } else { ControlFlow::Continue(()) }
        }
    })?;
    damage.map_or(Ok(()), Err)
}

/// The piece, if it is none that F6 forbids.
pub(crate) fn sound(before: u64, offset: u64, value: &Value) -> Option<Piece> {
    let length = value.len() as u64;
    let room = WINDOW - offset % WINDOW;
    (offset >= before && (1..=room).contains(&length) && offset.checked_add(length).is_some())
        .then(|| Piece { offset, value: value.clone() })
}

/// The bytes `from..to` of a file, holes as zeros.
pub(crate) fn read(records: &impl Records, ino: Ino, from: u64, to: u64) -> Result<Vec<Bytes>> {
    read_by(records, ino, from, to, |values| Ok(records.bytes(values)?.into_iter().map(Payload::from).collect()))
}

/// The same, for who reads on and will not ask for them again soon.
pub(crate) fn read_once(records: &impl Records, ino: Ino, from: u64, to: u64) -> Result<Vec<Bytes>> {
    read_by(records, ino, from, to, |values| records.bytes_once(values))
}

fn read_by(
    records: &impl Records,
    ino: Ino,
    from: u64,
    to: u64,
    read: impl Fn(&[Value]) -> Result<Vec<Payload>>,
) -> Result<Vec<Bytes>> {
    let pieces = pieces(records, ino, from, to, usize::MAX)?;
    let parts: Vec<Piece> = pieces.iter().filter_map(|piece| piece.part(from, to)).collect();
    let values: Vec<Value> = parts.iter().map(|part| part.value.clone()).collect();
    let found = read(&values)?;
    let mut out: Vec<Payload> = Vec::with_capacity(found.len() + 1);
    let mut at = from;
    for (part, payload) in parts.iter().zip(found) {
        push_zeros(&mut out, part.offset - at);
        at = part.end();
        match out.last_mut().and_then(|last| last.joined(&payload).map(|both| (last, both))) {
            Some((last, both)) => *last = both,
            None => out.push(payload),
        }
    }
    push_zeros(&mut out, to - at);
    Ok(out.into_iter().map(Payload::into_bytes).collect())
}

fn push_zeros(out: &mut Vec<Payload>, mut count: u64) {
    while count > 0 {
        let now = count.min(WINDOW);
        out.push(Bytes::from_static(&ZEROS[..now as usize]).into());
        count -= now;
    }
}

/// How the bytes in a file's pieces changed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Turnover {
    pub(crate) added: u64,
    pub(crate) removed: u64,
}

impl Turnover {
    /// The sum of the lengths of the pieces afterwards.
    pub(crate) fn apply(self, allocated: u64) -> Result<u64> {
        let more = allocated.checked_add(self.added).and_then(|sum| sum.checked_sub(self.removed));
        more.ok_or_else(|| FsError::damaged("bytes in a file's pieces: miscounted"))
    }

    fn and(self, other: Turnover) -> Turnover {
        Turnover { added: self.added + other.added, removed: self.removed + other.removed }
    }
}

/// Puts `new` (all of it within `from..to`) in the place of whatever is in `from..to`; `old` are all
/// the pieces there.
pub(crate) fn replace(txn: &mut Txn<'_>, ino: Ino, old: &[Piece], from: u64, to: u64, new: &[Piece]) -> Turnover {
    let mut turnover = Turnover::default();
    let mut kept = Vec::new();
    for piece in old {
        let Some(gone) = piece.part(from, to) else { continue };
        turnover.removed += gone.value.len() as u64;
        txn.delete(&key::piece(ino, piece.offset));
        kept.extend(piece.part(0, from));
        kept.extend(piece.part(to, u64::MAX));
    }
    for piece in new {
        assert!(from <= piece.offset && piece.end() <= to, "a piece outside of what it replaces");
        turnover.added += piece.value.len() as u64;
    }
    for piece in kept.iter().chain(new) {
        assert!(sound(0, piece.offset, &piece.value).is_some(), "{ino}: piece {} crosses a window (F6)", piece.offset);
        txn.put(&key::piece(ino, piece.offset), piece.value.clone());
    }
    turnover
}

/// Writes `data` at `offset`. `old` are all the pieces that it touches or adjoins; with `fresh` they
/// were put by this very transaction.
///
/// A write of less than a window is joined with neighbouring bytes of the same window where that
/// makes the next commit no bigger: those that no commit has stored yet, or so few that they stay in
/// the leaf. So small sequential writes gather to whole units, and small synced ones do not rewrite
/// what was synced before.
pub(crate) fn write(txn: &mut Txn<'_>, ino: Ino, old: &[Piece], fresh: bool, offset: u64, data: &Bytes) -> Turnover {
    let end = offset + data.len() as u64;
    let mut turnover = Turnover::default();
    let mut at = offset;
    while at < end {
        let window = window_start(at)..window_start(at) + WINDOW;
        let to = end.min(window.end);
        let bytes = data.slice((at - offset) as usize..(to - offset) as usize);
        let olds: Vec<Piece> = old.iter().filter(|piece| window.contains(&piece.offset)).cloned().collect();
        let joined = match to - at {
            WINDOW => Piece { offset: at, value: Value::Bytes(bytes) },
            _ => join(txn, ino, &olds, fresh, at, &bytes, data.len()),
        };
        turnover = turnover.and(replace(txn, ino, &olds, joined.offset, joined.end(), std::slice::from_ref(&joined)));
        at = to;
    }
    turnover
}

/// The bytes of a write within one window, joined with what is worth it. `whole` is how long the
/// buffer is that `bytes` is part of.
fn join(txn: &Txn<'_>, ino: Ino, olds: &[Piece], fresh: bool, at: u64, bytes: &Bytes, whole: usize) -> Piece {
    let end = at + bytes.len() as u64;
    let (mut left, mut right) = (&[][..], &[][..]);
    for piece in olds {
        let Value::Bytes(old) = &piece.value else { continue };
        if piece.end() < at || piece.offset > end {
            continue;
        }
        let before = &old[..at.saturating_sub(piece.offset) as usize];
        let after = &old[old.len() - piece.end().saturating_sub(end) as usize..];
        let length = before.len() + bytes.len() + after.len();
        if fresh || length <= VALUE_INLINE_MAX || txn.is_uncommitted(&key::piece(ino, piece.offset)) {
            left = if before.is_empty() { left } else { before };
            right = if after.is_empty() { right } else { after };
        }
    }
    let value = match left.len() + right.len() {
        0 if bytes.len() == whole => bytes.clone(),
        _ => {
            let mut joined = BytesMut::with_capacity(left.len() + bytes.len() + right.len());
            [left, bytes, right].into_iter().for_each(|part| joined.extend_from_slice(part));
            joined.freeze()
        }
    };
    Piece { offset: at - left.len() as u64, value: Value::Bytes(value) }
}
