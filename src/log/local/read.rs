//! Reading payloads from a file.

use crate::backend::Disk;
use crate::log::geometry::Geometry;
use crate::log::pointer::{Pointer, raw_bytes};
use crate::log::{LogError, Payload, Unpack};
use bytes::Bytes;
use std::io;

/// Neighbouring payloads are read in one go up to this many bytes.
const JOINED_READ_BYTES_MAX: u64 = 1 << 20;

/// Reads the payloads of `stored`: which of the pointers, and the slot of its segment. Answers them
/// unpacked.
///
/// The disk is told of all of them before the first is waited for. (Threads that share them would do the same
/// at a cold disk; but mostly the kernel has them, and to start a thread then takes longer than a dozen reads.)
pub fn read(
    disk: &dyn Disk,
    geometry: Geometry,
    pointers: &[Pointer],
    stored: &[(usize, u32)],
    unpack: &Unpack<'_>,
) -> Result<Vec<(usize, Payload)>, LogError> {
    let slot_bytes = u64::from(geometry.segment_bytes);
    let offset_of = |&(which, slot): &(usize, u32)| {
        (geometry.slots_offset() + u64::from(slot) * slot_bytes + u64::from(pointers[which].offset), which)
    };
    let mut on_disk: Vec<(u64, usize)> = stored.iter().map(offset_of).collect();
    on_disk.sort_unstable();
    let runs = join(&on_disk, pointers);
    if runs.len() > 1 {
        for run in &runs {
            let (start, end) = extent_of(run, pointers);
            disk.will_read(start, end - start);
        }
    }
    let mut read = Vec::with_capacity(pointers.len());
    for run in runs {
        read_run(disk, run, pointers, unpack, &mut read)?;
    }
    Ok(read)
}

/// Where neighbours begin and end in the file.
fn extent_of(run: &[(u64, usize)], pointers: &[Pointer]) -> (u64, u64) {
    let end = run.iter().map(|(offset, which)| offset + u64::from(pointers[*which].length)).max();
    (run[0].0, end.expect("a run is not empty"))
}

/// Reads neighbours in one go.
fn read_run(
    disk: &dyn Disk,
    run: &[(u64, usize)],
    pointers: &[Pointer],
    unpack: &Unpack<'_>,
    read: &mut Vec<(usize, Payload)>,
) -> Result<(), LogError> {
    let (start, end) = extent_of(run, pointers);
    let first = run[0].1;
    let mut buffer = zeroes((end - start) as usize);
    disk.read_at(start, &mut buffer).map_err(|error| match error.kind() {
        io::ErrorKind::UnexpectedEof => {
            LogError::damaged(format!("{}: the store ends before file offset {end:#x}", pointers[first]))
        }
        _ => LogError::Io(format!("reading {} at file offset {start:#x}: {error}", pointers[first]).into()),
    })?;
    let buffer = Bytes::from(buffer);
    let raw_bytes = raw_bytes(run.iter().map(|(_, which)| &pointers[*which]));
    for &(offset, which) in run {
        let at = (offset - start) as usize;
        let stored = Payload::part_if_worth(&buffer, at..at + pointers[which].length as usize, raw_bytes);
        read.push((which, unpack(&pointers[which], stored)?));
    }
    Ok(())
}

/// So many zeroes, in memory that was used before, if there is some. `vec![0; length]` has the allocator ask the
/// kernel for it anew: mapping it page by page, and telling the other processors, took longer than reading it.
#[expect(clippy::slow_vector_initialization, reason = "what is faster here is what it warns of")]
fn zeroes(length: usize) -> Vec<u8> {
    let mut buffer = Vec::with_capacity(length);
    buffer.resize(length, 0);
    buffer
}

/// Cuts file offsets in order (each with the number of its pointer) into runs that are read in one
/// go.
fn join<'a>(on_disk: &'a [(u64, usize)], pointers: &[Pointer]) -> Vec<&'a [(u64, usize)]> {
    let end_of = |(offset, which): (u64, usize)| offset + u64::from(pointers[which].length);
    let mut runs = Vec::new();
    let mut rest = on_disk;
    while let Some(&first) = rest.first() {
        let mut end = end_of(first);
        let mut count = 1;
        for &next in &rest[1..] {
            // A gap of less than a block is cheaper read than skipped.
            if next.0 > end + 4096 || end_of(next) - first.0 > JOINED_READ_BYTES_MAX {
                break;
            }
            end = end.max(end_of(next));
            count += 1;
        }
        let (run, behind) = rest.split_at(count);
        runs.push(run);
        rest = behind;
    }
    runs
}
