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
    /// The row before it that makes what it finds.
    pub follows: Option<&'static str>,
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
    Row { name, what, clients: 1, follows: None, unit: Unit::Things, is_durable: false, work, bounds }
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

impl Row {
    const fn after(self, follows: &'static str) -> Row {
        Row { follows: Some(follows), ..self }
    }

    /// Whether FUSE and then the disk is all that each thing waits for: not beside other clients, nor beside a
    /// copy.
    pub fn takes_both_in_turn(&self) -> bool {
        self.is_durable && self.clients == 1 && !self.bounds.is_empty()
    }

    /// What it cannot be measured without, or be compared.
    fn needs(&self) -> impl Iterator<Item = &'static str> {
        let compared = self.bounds.iter().find_map(|bound| match bound {
            Bound::TimesRow(other, _) => Some(*other),
            _ => None,
        });
        self.follows.into_iter().chain(compared)
    }
}

/// The rows of which the names begin with one of these, and those before them that they need. All, if there
/// are none. Error: one that no name begins with.
pub fn chosen(beginnings: &[String]) -> Answer<Vec<&'static Row>> {
    let begins = |row: &Row, beginning: &String| row.name.starts_with(beginning.as_str());
    if let Some(unknown) = beginnings.iter().find(|beginning| !ROWS.iter().any(|row| begins(row, beginning))) {
        let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
        return Err(format!("bench mount: no row is called '{unknown}': there are {}", names.join(", ")));
    }
    let mut needed: Vec<&str> = Vec::new();
    let mut rows: Vec<&Row> = Vec::new();
    for row in ROWS.iter().rev() {
        let is_chosen = beginnings.is_empty() || beginnings.iter().any(|beginning| begins(row, beginning));
        if is_chosen || needed.contains(&row.name) {
            needed.extend(row.needs());
            rows.push(row);
        }
    }
    rows.reverse();
    Ok(rows)
}

/// In their order: each finds what those before it have left.
pub static ROWS: [Row; 19] = [
    row("create 1", "create, 1 KiB, close", Caches::AsTheyAre, work::create, NAMES),
    Row { clients: 2, ..row("create 2", "the same, 2 clients", Caches::AsTheyAre, work::create, NAMES) },
    row("stat cold", "stat", Caches::Cold, work::stat, NAMES).after("create 1"),
    row("stat warm", "stat", Caches::Warm, work::stat, NAMES).after("create 1"),
    row("list", "readdir and stat, cold", Caches::Cold, work::list, NAMES).after("create 1"),
    row("read", "open, read 1 KiB, close, warm", Caches::Warm, work::read_small, NAMES).after("create 1"),
    row("rename", "rename, warm", Caches::Warm, work::rename, NAMES).after("create 1"),
    row("unlink", "unlink, cold", Caches::Cold, work::unlink, NAMES).after("rename"),
    blocks("write", "blocks of 1 MiB, fsync", Caches::AsTheyAre, work::write_noise, DATA_ONCE),
    blocks("write text", "the same of what compresses", Caches::AsTheyAre, work::write_text, DATA_ONCE),
    blocks("read cold", "blocks of 1 MiB", Caches::Cold, work::read_noise, DATA).after("write"),
    blocks("read text", "the same of what compresses, cold", Caches::Cold, work::read_text, DATA).after("write text"),
    row("random r", "random reads of 4 KiB, cold", Caches::Cold, work::read_random, DATA).after("write"),
    row("random w", "random writes of 4 KiB", Caches::AsTheyAre, work::write_random, DATA).after("write"),
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
            assert!(row.needs().all(|name| ROWS[..at].iter().any(|other| other.name == name)), "{}", row.name);
        }
    }

    #[test]
    fn rows_are_chosen_with_what_they_need() {
        let names = |beginnings: &[&str]| {
            let beginnings: Vec<String> = beginnings.iter().map(|name| name.to_string()).collect();
            chosen(&beginnings).map(|rows| rows.iter().map(|row| row.name).collect::<Vec<_>>())
        };
        assert_eq!(names(&[]).unwrap().len(), ROWS.len());
        assert_eq!(names(&["unlink", "random r"]).unwrap(), ["create 1", "rename", "unlink", "write", "random r"]);
        assert_eq!(names(&["fsync 16"]).unwrap(), ["fsync 1", "fsync 16"]);
        assert!(names(&["file", "nothing"]).unwrap_err().contains("'nothing'"));
    }
}
