//! Walking a whole store: the tree's invariants, the segment table against a recount, and every
//! stored byte.

use super::{Core, Reading};
use crate::log::{Pointer, SegmentNo};
use crate::tree::Reference;
use std::collections::BTreeMap;

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
        let walked = root.references(&reading, &mut |reference| match reference {
            Reference::Page { pointer, .. } => {
                *counted.entry(pointer.segment).or_default() += u64::from(pointer.length);
            }
            Reference::Extent { extent, .. } => {
                *counted.entry(extent.unit.segment).or_default() += u64::from(extent.length);
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
        for (number, bytes) in counted {
            wrong.push(format!("{number:?}: {bytes} bytes referred to, but it is not in the segment table"));
        }
        if data {
            for (pointer, used) in units.values() {
                match self.log.read(pointer) {
                    Ok(payload) if payload.len() < *used as usize => {
                        wrong.push(format!("unit at {pointer}: {} bytes, {used} in use", payload.len()));
                    }
                    Ok(_) => {}
                    Err(error) => wrong.push(format!("unit at {pointer}: {error}")),
                }
            }
        }
        wrong
    }
}
