//! The rows of `bench mount`: what each does, and what it is held to.

use crate::bench::sides::{Caches, Side, Work};
use crate::bench::work::{self, Job};
use crate::bench::{clients::Sample, figures::Answer};

/// What a row counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    Things,
    Bytes,
}

/// What is to be reached.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bound {
    /// So much of a side's rate, at least.
    Of(Side, f64),
    /// So much of the lower of the ceiling's and the disk's.
    OfLower(f64),
    /// So many times the rate of another row, at least.
    TimesRow(&'static str, f64),
    /// So many bytes written for each of the payload, at most.
    Written(f64),
    /// So many flushes for each commit, at most.
    Flushes(f64),
}

/// One row.
pub struct Row {
    pub name: &'static str,
    /// What is done.
    pub what: &'static str,
    pub clients: usize,
    pub unit: Unit,
    /// Each thing goes through FUSE, where the ceiling has nothing to wait for, and then waits for the disk:
    /// no file system of FUSE does it in less than the two take.
    pub is_durable: bool,
    pub work: Work,
    pub bounds: &'static [Bound],
}

type Measure = fn(&Job<'_>) -> Answer<Sample>;

/// What stores nothing before it is answered is held to the ceiling.
const NAMES: &[Bound] = &[Bound::Of(Side::Ceiling, 0.8)];
const DATA: &[Bound] = &[Bound::OfLower(0.8)];
/// Contents that do not compress are to be written once.
const DATA_ONCE: &[Bound] = &[Bound::OfLower(0.8), Bound::Written(1.1)];

const fn row(
    name: &'static str,
    what: &'static str,
    caches: Caches,
    measure: Measure,
    bounds: &'static [Bound],
) -> Row {
    let work = Work { prepare: None, caches, measure };
    Row { name, what, clients: 1, unit: Unit::Things, is_durable: false, work, bounds }
}

/// Of large files.
const fn blocks(
    name: &'static str,
    what: &'static str,
    caches: Caches,
    measure: Measure,
    bounds: &'static [Bound],
) -> Row {
    Row { unit: Unit::Bytes, ..row(name, what, caches, measure, bounds) }
}

/// Of what is durable before it is answered.
const fn durable(
    name: &'static str,
    what: &'static str,
    clients: usize,
    prepare: fn(&Job<'_>) -> Answer<()>,
    measure: Measure,
    bounds: &'static [Bound],
) -> Row {
    let work = Work { prepare: Some(prepare), caches: Caches::AsTheyAre, measure };
    Row { clients, is_durable: true, work, ..row(name, what, Caches::AsTheyAre, measure, bounds) }
}

/// In their order: each finds what those before it have left.
pub const ROWS: [Row; 19] = [
    row("create 1", "create, 1 KiB, close", Caches::AsTheyAre, work::create, NAMES),
    Row { clients: 2, ..row("create 2", "the same, 2 clients", Caches::AsTheyAre, work::create, NAMES) },
    row("stat cold", "stat", Caches::Cold, work::stat, NAMES),
    row("stat warm", "stat", Caches::Warm, work::stat, NAMES),
    row("list", "readdir and stat, cold", Caches::Cold, work::list, NAMES),
    row("read", "open, read 1 KiB, close, warm", Caches::Warm, work::read_small, NAMES),
    row("rename", "rename, warm", Caches::Warm, work::rename, NAMES),
    row("unlink", "unlink, cold", Caches::Cold, work::unlink, NAMES),
    blocks("write", "blocks of 1 MiB, fsync", Caches::AsTheyAre, work::write_noise, DATA_ONCE),
    blocks("write text", "the same of what compresses", Caches::AsTheyAre, work::write_text, DATA_ONCE),
    blocks("read cold", "blocks of 1 MiB", Caches::Cold, work::read_noise, DATA),
    blocks("read text", "the same of what compresses, cold", Caches::Cold, work::read_text, DATA),
    row("random r", "random reads of 4 KiB, cold", Caches::Cold, work::read_random, DATA),
    row("random w", "random writes of 4 KiB", Caches::AsTheyAre, work::write_random, DATA),
    durable(
        "fsync 1",
        "4 KiB pwrite, fdatasync",
        1,
        work::prepare_durable_writes,
        work::write_durably,
        &[Bound::Of(Side::Disk, 0.8), Bound::Flushes(1.0)],
    ),
    durable(
        "fsync 16",
        "the same, 16 threads",
        16,
        work::prepare_durable_writes,
        work::write_durably,
        &[Bound::TimesRow("fsync 1", 4.0), Bound::Flushes(1.0)],
    ),
    durable(
        "fsync copy",
        "4 KiB pwrite, fdatasync beside a copy of a large file",
        1,
        work::prepare_durable_writes,
        work::write_durably_beside_copy,
        &[],
    ),
    durable(
        "file 1",
        "create, 4 KiB, fsync, close",
        1,
        work::prepare_durable_files,
        work::create_durably,
        &[Bound::Of(Side::Disk, 1.0), Bound::Flushes(1.0)],
    ),
    durable(
        "file 16",
        "the same, 16 threads",
        16,
        work::prepare_durable_files,
        work::create_durably,
        &[Bound::Of(Side::Disk, 1.0), Bound::Flushes(1.0)],
    ),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_apart_and_compared_with_what_came_before() {
        for (at, row) in ROWS.iter().enumerate() {
            assert!(row.name.len() <= 10 && ROWS[..at].iter().all(|other| other.name != row.name), "{}", row.name);
            for bound in row.bounds {
                match bound {
                    Bound::TimesRow(other, _) => assert!(ROWS[..at].iter().any(|row| row.name == *other)),
                    Bound::Of(..) | Bound::OfLower(_) | Bound::Written(_) | Bound::Flushes(_) => {}
                }
            }
        }
    }
}
