//! Walking a whole store: the tree's invariants, the segment table against a recount, and every
//! stored byte.

use super::{Core, Reading};
use crate::log::{LogError, Payload, Pointer, SegmentNo};
use crate::tree::Reference;
use std::collections::BTreeMap;

/// So many units are read at once, 16 MiB at most: of a bucket, neighbours with one request.
const UNITS_READ_TOGETHER: usize = 256;

impl Core {
    /// Everything that is wrong, one line each.
    pub(super) fn check(&self, data: bool) -> Vec<String> {
        let _era = self.published.read().era.clone();
        let (root, table) = {
            let writer = self.writer.lock();
            (writer.tree.root(), writer.table.clone())
        };
        let reading = Reading(self);
        let mut wrong = root.check(&reading, crate::tree::PAGE_BYTES_MAX);
        let mut counted: BTreeMap<SegmentNo, u64> = BTreeMap::new();
        let mut units: BTreeMap<(SegmentNo, u32), (Pointer, u32)> = BTreeMap::new();
        let mut pages = 0;
        let walked = root.references(&reading, &mut |reference| match reference {
            Reference::Page { pointer, .. } => {
                pages += u64::from(pointer.length);
                *counted.entry(pointer.segment).or_default() += u64::from(pointer.length);
            }
            Reference::Extent { extent, .. } => {
                *counted.entry(extent.unit.segment).or_default() += extent.counted();
                let used = units.entry((extent.unit.segment, extent.unit.offset)).or_insert((extent.unit, 0));
                used.1 = used.1.max(extent.offset + extent.length);
            }
        });
        if let Err(error) = walked {
            wrong.push(format!("the walk ended early: {error}"));
            return wrong;
        }
        for (number, entry) in table.iter() {
            let found = counted.remove(&number).unwrap_or(0);
            if found != entry.live {
                wrong.push(format!("{number:?}: {} live bytes in the segment table, {found} referred to", entry.live));
            }
        }
        if let Some(counted) = table.pages().filter(|counted| *counted != pages) {
            wrong.push(format!("{counted} bytes of pages in the segment table, {pages} in the tree"));
        }
        for (number, bytes) in counted {
            wrong.push(format!("{number:?}: {bytes} bytes referred to, but it is not in the segment table"));
        }
        if data {
            let units: Vec<(Pointer, u32)> = units.into_values().collect();
            self.check_units(&units, &mut wrong);
        }
        wrong
    }

    /// Reads units, of which so many bytes are in use.
    fn check_units(&self, units: &[(Pointer, u32)], wrong: &mut Vec<String>) {
        for together in units.chunks(UNITS_READ_TOGETHER) {
            let pointers: Vec<Pointer> = together.iter().map(|(pointer, _)| *pointer).collect();
            let payloads: Vec<Result<Payload, LogError>> = match self.log.read_all(&pointers) {
                Ok(payloads) => payloads.into_iter().map(Ok).collect(),
                // A bucket that does not answer would be waited for once for each unit.
                Err(error @ LogError::Io(_)) if self.log.bucket().is_some() => {
                    wrong.push(format!("the reading of data ended early: {error}"));
                    return;
                }
                // Which of them is it?
                Err(_) => pointers.iter().map(|pointer| self.log.read(pointer)).collect(),
            };
            for ((pointer, used), payload) in together.iter().zip(payloads) {
                match payload {
                    Ok(payload) if payload.len() < *used as usize => {
                        wrong.push(format!("unit at {pointer}: {} bytes, {used} in use", payload.len()));
                    }
                    Ok(_) => {}
                    Err(error) => wrong.push(format!("unit at {pointer}: {error}")),
                }
            }
        }
    }
}
