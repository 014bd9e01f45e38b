//! Placing: raw values become extents.
//!
//! Neighbouring raw values (in key order: pieces of one file, say) are packed into one unit of at
//! most 64 KiB, so that small writes do not make small units.
//!
//! P1 A raw value is replaced only if it is still the value of its key, byte for byte the same
//! memory: an overwrite that came meanwhile wins, and what was placed for it is garbage.

use super::txn::Before;
use super::writer::Writer;
use super::{Core, StoreError, redo};
use crate::log::{Codec, Stream};
use crate::tree::{Extent, Key, VALUE_MAX, Value};
use bytes::Bytes;
use parking_lot::MutexGuard;

/// Raw bytes that are placed in one go.
const BATCH_BYTES: usize = 1 << 20;

type Raw = Vec<(Key, Bytes)>;

/// A raw value and the extent that is to take its place.
pub type Placed = Vec<(Key, Bytes, Extent)>;

impl Core {
    /// Places pending raw values, oldest first, until no more are left than a commit takes inside.
    pub(super) fn place_excess(&self) {
        while self.writer.lock().raw_bytes > self.limits.raw_inside && self.log.failure().is_none() {
            let _placing = self.placing.lock();
            let batch = {
                let writer = self.writer.lock();
                let mut bytes = 0;
                let oldest = writer.raw.iter().rev().take_while(|(_, length)| {
                    bytes += **length;
                    bytes - **length < BATCH_BYTES
                });
                let keys = oldest.map(|(key, _)| key.clone()).collect();
                self.collect(&writer, keys)
            };
            match self.append_units(&batch) {
                Ok(placed) => self.swap(&mut self.writer.lock(), placed),
                // Room for it was allocated before it was accepted (R7).
                Err(error) => self.log.fail(format!("placing data failed: {error}")),
            }
        }
    }

    /// Places all settled raw values, a batch at a time. Where there is no space for that, they
    /// stay what they are: the log has them.
    pub(super) fn place_settled(&self) -> Result<(), StoreError> {
        loop {
            let _placing = self.placing.lock();
            let batch = {
                let writer = self.writer.lock();
                let mut bytes = 0;
                let first = writer.settled.iter().take_while(|(_, length)| {
                    bytes += **length;
                    bytes - **length < BATCH_BYTES
                });
                let keys = first.map(|(key, _)| key.clone()).collect();
                self.collect(&writer, keys)
            };
            if batch.is_empty() {
                return Ok(());
            }
            let placed = self.append_units(&batch)?;
            self.swap(&mut self.writer.lock(), placed);
            self.room.notify_all();
        }
    }

    /// The writer lock, at a moment when no value is raw (T6); or when there is no space for
    /// placing those that are ([`Writer::has_raw`] tells). What came since [`Core::place_settled`] is placed under the lock: about as much as one commit takes
    /// inside. The caller holds `placing`.
    pub(super) fn lock_with_nothing_raw(&self) -> MutexGuard<'_, Writer> {
        let mut writer = self.writer.lock();
        loop {
            let pending = writer.raw.iter().map(|(key, _)| key.clone());
            let keys: Vec<Key> = pending.chain(writer.settled.keys().cloned()).collect();
            let batch = self.collect(&writer, keys);
            match self.append_units(&batch) {
                Ok(placed) if placed.is_empty() => return writer,
                Ok(placed) => self.swap(&mut writer, placed),
                Err(error) => {
                    if writer.raw_bytes > self.limits.raw_inside {
                        self.log.fail(format!("placing data failed: {error}"));
                    }
                    return writer;
                }
            }
        }
    }

    /// The raw values of these keys, in key order.
    fn collect(&self, writer: &Writer, mut keys: Vec<Key>) -> Raw {
        keys.sort_unstable();
        let root = writer.tree.root();
        keys.into_iter()
            .map(|key| {
                // A page with a raw value is not stored (T6), and so in memory (T8).
                let value = root.get(&self.cache, &key).expect("a page with a raw value is in memory");
                match value {
                    Some(Value::Bytes(bytes)) => (key, bytes),
                    other => panic!("W2: {key:?} is raw, but the tree has {other:?}"),
                }
            })
            .collect()
    }

    /// Appends the batch in units. Nothing refers to them yet.
    fn append_units(&self, batch: &[(Key, Bytes)]) -> Result<Placed, StoreError> {
        self.append_units_with(self.log.codec(), batch)
    }

    /// The same, compressed with that codec.
    pub(super) fn append_units_with(&self, codec: Codec, batch: &[(Key, Bytes)]) -> Result<Placed, StoreError> {
        let mut placed = Placed::with_capacity(batch.len());
        for unit in units(batch, VALUE_MAX.min(self.log.payload_bytes_max())) {
            let payload = match unit {
                [(_, bytes)] => bytes.clone(),
                many => many.iter().map(|(_, bytes)| &bytes[..]).collect::<Vec<_>>().concat().into(),
            };
            let pointer = self.log.append_with(codec, Stream::Data, &payload, &unit[0].0)?;
            let mut offset = 0;
            for (key, bytes) in unit {
                let extent = Extent { unit: pointer, offset, length: bytes.len() as u32 };
                offset += extent.length;
                placed.push((key.clone(), bytes.clone(), extent));
            }
        }
        Ok(placed)
    }

    /// P1: puts the extents where their raw values still are.
    fn swap(&self, writer: &mut Writer, mut placed: Placed) {
        let root = writer.tree.root();
        placed.retain(|(key, bytes, _)| {
            let now = root.get(&self.cache, key);
            matches!(now, Ok(Some(Value::Bytes(now))) if now.as_ptr() == bytes.as_ptr() && now.len() == bytes.len())
        });
        drop(root);
        if placed.is_empty() {
            return;
        }
        let changes: Vec<redo::Change> =
            placed.into_iter().map(|(key, _, extent)| (key, Some(Value::Extent(extent)))).collect();
        self.apply(writer, &changes, Before::Unknown).expect("pages with raw values are in memory");
        // What is settled needs no redo: until the checkpoint is durable, the log has the bytes, and
        // then the checkpoint has the extent. So placing it, however much it is, fills no commit.
        let (pending, settled): (Vec<_>, Vec<_>) = changes.into_iter().partition(|(key, _)| writer.raw.contains(key));
        for (key, _) in settled {
            writer.forget_raw(&key);
        }
        // Nor is placing a change that a caller waits to see committed.
        let before = writer.bytes_since_freeze;
        // They are in `pending` already, with what was before; or redo is skipped, and D2.
        self.note(writer, pending, Vec::new());
        writer.bytes_since_freeze = before;
    }
}

/// Cuts the batch into runs of at most `unit_bytes`.
fn units(batch: &[(Key, Bytes)], unit_bytes: usize) -> impl Iterator<Item = &[(Key, Bytes)]> {
    let mut rest = batch;
    std::iter::from_fn(move || {
        let mut bytes = 0;
        let count = rest
            .iter()
            .take_while(|(_, value)| {
                bytes += value.len();
                bytes <= unit_bytes
            })
            .count();
        let (unit, behind) = rest.split_at(count);
        rest = behind;
        (!unit.is_empty()).then_some(unit)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_packed_in_order() {
        let batch: Raw = [30, 40, 50, 10, 10]
            .into_iter()
            .enumerate()
            .map(|(at, length)| (Key::from([at as u8]), Bytes::from(vec![0; length])))
            .collect();
        let lengths: Vec<usize> = units(&batch, 70).map(<[_]>::len).collect();
        assert_eq!(lengths, [2, 3]);
    }
}
