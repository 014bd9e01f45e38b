//! The operations, and how they are chosen.

use crate::random::Random;
use crate::twin::Twin;
use std::ops::Range;

/// How long files and operations are.
#[derive(Clone, Copy, Debug)]
pub enum Shape {
    /// Files that go in and out of what fits beside a name.
    Tiny,
    /// Files of some pieces.
    Usual,
    /// Operations of several requests.
    Large,
}

impl Shape {
    pub const ALL: [Shape; 3] = [Shape::Tiny, Shape::Usual, Shape::Large];

    fn file_max(self) -> usize {
        match self {
            Shape::Tiny => 3000,
            Shape::Usual => 256 << 10,
            Shape::Large => 6 << 20,
        }
    }

    fn bytes_max(self) -> usize {
        match self {
            Shape::Tiny => 1000,
            Shape::Usual => 64 << 10,
            Shape::Large => 3 << 20,
        }
    }
}

/// By which way bytes go in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// pread, pwrite.
    Call,
    /// The same, past the kernel's cache.
    Direct,
    /// A mapping.
    Map,
    /// A mapping that is synced before it ends.
    MapSync,
    /// pread, pwrite with O_DSYNC.
    Durable,
}

#[derive(Clone, Debug)]
pub enum Op {
    Read(usize, Way, Range<usize>),
    /// The last number: of which seed the bytes are.
    Write(usize, Way, Range<usize>, u64),
    Append(usize, usize, u64),
    SetLength(usize, usize),
    /// With these FALLOC_FL_ flags.
    Allocate(usize, i32, Range<usize>),
    /// From where to where.
    Copy((usize, Range<usize>), (usize, usize)),
    Sync(usize),
    DataSync(usize),
    /// The kernel's cache of it.
    Forget(usize),
    Reopen(usize),
    /// Where data and holes are.
    Holes(usize),
}

impl Op {
    pub fn choose(random: &mut Random, shape: Shape, lengths: [usize; 2]) -> Op {
        let which = random.within(0..2);
        let length = lengths[which];
        match random.within(0..100) {
            0..20 => {
                let way = pick(random, &[Way::Call, Way::Call, Way::Direct, Way::Map]);
                let mut range = within(random, shape, shape.file_max());
                if way == Way::Map {
                    range = range.start.min(length)..range.end.min(length);
                }
                if range.is_empty() { Op::Sync(which) } else { Op::Read(which, way, range) }
            }
            20..48 => {
                let way = pick(random, &[Way::Call, Way::Call, Way::Direct, Way::Map, Way::MapSync, Way::Durable]);
                Op::Write(which, way, within(random, shape, shape.file_max()), random.next())
            }
            48..54 => match shape.file_max() - length.min(shape.file_max()) {
                0 => Op::SetLength(which, 0),
                room => Op::Append(which, size(random, shape).min(room), random.next()),
            },
            54..64 => {
                let near = length + random.within(0..5000);
                let to = if random.one_in(3) { near.saturating_sub(2500) } else { random.within(0..shape.file_max()) };
                Op::SetLength(which, to.min(shape.file_max()))
            }
            64..82 => {
                let keep = libc::FALLOC_FL_KEEP_SIZE;
                let (punch, zero) = (libc::FALLOC_FL_PUNCH_HOLE, libc::FALLOC_FL_ZERO_RANGE);
                let flags = pick(random, &[0, keep, punch | keep, punch | keep, zero, zero | keep]);
                Op::Allocate(which, flags, within(random, shape, shape.file_max()))
            }
            82..91 => {
                let from = within(random, shape, shape.file_max());
                let from = from.start.min(length)..from.end.min(length);
                let to = (random.within(0..2), random.within(0..shape.file_max() - from.len()));
                let overlap = to.0 == which && to.1 < from.end && from.start < to.1 + from.len();
                if from.is_empty() || overlap { Op::Holes(which) } else { Op::Copy((which, from), to) }
            }
            91..93 => Op::Sync(which),
            93..94 => Op::DataSync(which),
            94..96 => Op::Forget(which),
            96..98 => Op::Reopen(which),
            _ => Op::Holes(which),
        }
    }

    /// Does it to the files, and says what was not as it should be.
    pub fn perform(&self, twins: &mut [Twin; 2]) -> Result<(), String> {
        match self {
            Op::Read(which, way, range) => twins[*which].read(*way, range),
            Op::Write(which, way, range, seed) => {
                let bytes = Random::new(*seed).bytes(range.len());
                twins[*which].write(*way, range.start, &bytes)
            }
            Op::Append(which, length, seed) => twins[*which].append(&Random::new(*seed).bytes(*length)),
            Op::SetLength(which, length) => twins[*which].set_length(*length),
            Op::Allocate(which, flags, range) => twins[*which].allocate(*flags, range),
            Op::Copy((from, range), (to, offset)) => Twin::copy(twins, *from, range, *to, *offset),
            Op::Sync(which) => twins[*which].sync(),
            Op::DataSync(which) => twins[*which].data_sync(),
            Op::Forget(which) => twins[*which].forget(),
            Op::Reopen(which) => twins[*which].reopen(),
            Op::Holes(which) => twins[*which].holes(),
        }
    }
}

fn pick<T: Copy>(random: &mut Random, from: &[T]) -> T {
    from[random.within(0..from.len())]
}

/// A number of bytes, as often below 10 as between 1000 and 10,000; half of the time whole blocks.
fn size(random: &mut Random, shape: Shape) -> usize {
    let bits = random.within(0..shape.bytes_max().ilog2() as usize + 1);
    let size = random.within(1 << bits..2 << bits).min(shape.bytes_max());
    aligned(random, size).max(1)
}

/// A range below `max`, not empty; half of the time of whole blocks.
fn within(random: &mut Random, shape: Shape, max: usize) -> Range<usize> {
    let size = size(random, shape);
    let start = random.within(0..max - size + 1);
    let start = aligned(random, start);
    start..start + size
}

fn aligned(random: &mut Random, number: usize) -> usize {
    match random.within(0..6) {
        0 => number & !511,
        1 => number & !4095,
        2 => number & !65535,
        _ => number,
    }
}
