//! `bench mount`: a mount on a local store, beside the ceiling and the disk, row by row in one run.
//!
//! Each row has a mount of its own, which ends before the next: so what it wrote is told to the byte,
//! with all that it had put off, and kivafs has nothing in memory when a row begins.

use crate::bench::clients::Sample;
use crate::bench::figures::{Answer, MIB, median, millis, p50_and_p99, text};
use crate::bench::interrupt::Interrupt;
use crate::bench::plot;
use crate::bench::rows::{Bound, Row, Unit, chosen};
use crate::bench::scratch::{fresh_name, with_scratch};
use crate::bench::sides::{SIDES, Side, Sides};
use crate::bench::work::{Job, Sizes};
use crate::life::progress::Progress;
use kivafs::store::Activity;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What to run, and where.
pub struct MountPlan {
    /// A fresh directory is made in it.
    pub dir: PathBuf,
    pub sizes: Sizes,
    /// Beginnings of the names of rows; none: all of them.
    pub rows: Vec<String>,
    /// How often all is done; medians are shown.
    pub rounds: usize,
    /// What stands behind `-o` of the mount.
    pub options: String,
    /// Threads that read requests, of the mount and of the ceiling.
    pub threads: usize,
    /// Where to draw it, too.
    pub svg: Option<PathBuf>,
}

/// Runs it all; lines go to `out`.
pub fn mount(plan: &MountPlan, out: &mut dyn Write) -> Answer<()> {
    if !nix::unistd::geteuid().is_root() {
        return Err("bench mount: run it as root: it drops the kernel's caches".into());
    }
    let rows = chosen(&plan.rows)?;
    let interrupt = Interrupt::watch()?;
    with_scratch(&plan.dir, &fresh_name(), |dir| {
        let mut say = |line: String| writeln!(out, "{line}").and_then(|()| out.flush()).map_err(text);
        say(format!(
            "mount      in {}: {} small files, large ones of {} MiB; {}",
            dir.display(),
            plan.sizes.files,
            plan.sizes.big_bytes >> 20,
            if plan.rounds == 1 { "one round".into() } else { format!("medians of {} rounds", plan.rounds) }
        ))?;
        let mut progress = Progress::start();
        let mut tables: Vec<Table> = rows.iter().map(|_| Table::default()).collect();
        for number in 0..plan.rounds {
            let tell = &mut |row: &str| progress.tick(&format!("round {} of {}: {row}", number + 1, plan.rounds));
            round(plan, dir, number, &interrupt, &rows, &mut tables, tell)?;
        }
        drop(progress);
        let (mut held, mut met, mut missed) = (0, 0, Vec::new());
        let all: Vec<(&Row, Table)> = rows.into_iter().zip(tables).collect();
        for (row, table) in &all {
            let judged = row.bounds.iter().map(|bound| judge(row, table, *bound, &all)).collect::<Vec<_>>();
            held += judged.len();
            met += judged.iter().filter(|judged| judged.is_met).count();
            if judged.iter().any(|judged| !judged.is_met) {
                missed.push(row.name);
            }
            say(line(row, table, &judged))?;
        }
        say(match missed.is_empty() {
            true => format!("bounds     {met} of {held} met"),
            false => format!("bounds     {met} of {held} met; missed: {}", missed.join(", ")),
        })?;
        match &plan.svg {
            Some(path) => plot::ratios(path, &ratios(&all)).map_err(|error| format!("{}: {error}", path.display())),
            None => Ok(()),
        }
    })
}

/// All rounds of one row.
#[derive(Default)]
struct Table(Vec<Cells>);

/// One round of it: in the order of [`SIDES`].
#[derive(Default)]
struct Cells {
    samples: [Sample; SIDES.len()],
    /// Of ours.
    activity: Activity,
}

fn round(
    plan: &MountPlan,
    dir: &Path,
    number: usize,
    interrupt: &Interrupt,
    rows: &[&Row],
    tables: &mut [Table],
    tell: &mut dyn FnMut(&str),
) -> Answer<()> {
    let dir = dir.join(format!("round-{number}"));
    std::fs::create_dir(&dir).map_err(text)?;
    let sides = Sides::start(&dir, &plan.options, plan.threads)?;
    for (turn, (row, table)) in rows.iter().zip(tables).enumerate() {
        tell(row.name);
        let mut cells = Cells::default();
        // Nobody is always the one after whom the machine is tired.
        for at in (0..SIDES.len()).map(|at| (at + turn + number) % SIDES.len()) {
            interrupt.check()?;
            let job = Job { dir: &dir, sizes: plan.sizes, clients: row.clients, interrupt };
            let (sample, activity) = sides.measure(SIDES[at], &row.work, &job)?;
            if SIDES[at] == Side::Kivafs {
                cells.activity = activity;
            }
            cells.samples[at] = sample;
        }
        table.0.push(cells);
    }
    drop(sides);
    std::fs::remove_dir_all(&dir).map_err(text)
}

impl Table {
    fn of(&self, figure: impl Fn(&Cells) -> f64) -> f64 {
        median(self.0.iter().map(figure))
    }

    fn rate(&self, side: Side) -> f64 {
        self.of(|cells| cells.rate(side))
    }

    /// Ours to that of a side.
    fn ratio(&self, side: Side) -> f64 {
        self.of(|cells| cells.rate(Side::Kivafs) / cells.rate(side))
    }

    fn flushes_a_commit(&self) -> f64 {
        self.of(|cells| cells.activity.syncs as f64 / cells.activity.commits.max(1) as f64)
    }

    /// Bytes written for each byte of what large files got.
    fn written(&self) -> f64 {
        self.of(|cells| bytes(&cells.activity) / cells.sample(Side::Kivafs).count as f64)
    }
}

impl Cells {
    fn sample(&self, side: Side) -> &Sample {
        let at = SIDES.iter().position(|other| *other == side).expect("all sides are there");
        &self.samples[at]
    }

    fn rate(&self, side: Side) -> f64 {
        self.sample(side).rate()
    }

    /// Seconds for one thing that goes through FUSE and is then stored.
    fn in_turn(&self) -> f64 {
        1.0 / self.rate(Side::Ceiling) + 1.0 / self.rate(Side::Disk)
    }

    /// p50 and p99.
    fn times(&self, side: Side) -> [Duration; 2] {
        p50_and_p99(self.sample(side).times.clone())
    }
}

fn bytes(activity: &Activity) -> f64 {
    (activity.commit_bytes + activity.data_bytes) as f64
}

/// A bound, and whether it is met.
struct Judged {
    text: String,
    is_met: bool,
}

fn judge(row: &Row, table: &Table, bound: Bound, all: &[(&Row, Table)]) -> Judged {
    let at_least = |what: String, reached: f64, bound: f64| Judged {
        text: format!("{reached:.2} {what} (bound {bound}: {})", word(reached >= bound)),
        is_met: reached >= bound,
    };
    let at_most = |what: &str, reached: f64, bound: f64| {
        // To two digits: a mount's first and last flush are no reason to worry.
        let is_met = (reached * 100.0).round() <= bound * 100.0;
        Judged { text: format!("{reached:.2} {what} (bound {bound}: {})", word(is_met)), is_met }
    };
    match bound {
        Bound::Of(side, share) => at_least(format!("of the {}", name(side)), table.ratio(side), share),
        Bound::OfLower(share) => {
            let lower = |cells: &Cells| cells.rate(Side::Ceiling).min(cells.rate(Side::Disk));
            let reached = table.of(|cells| cells.rate(Side::Kivafs) / lower(cells));
            at_least("of the lower".into(), reached, share)
        }
        Bound::TimesRow(other, times) => {
            let (_, others) = all.iter().find(|(row, _)| row.name == other).expect("what a row needs is there");
            let pairs = table.0.iter().zip(&others.0);
            let reached = median(pairs.map(|(ours, its)| ours.rate(Side::Kivafs) / its.rate(Side::Kivafs)));
            at_least(format!("times {other}"), reached, times)
        }
        Bound::Written(share) => {
            assert_eq!(row.unit, Unit::Bytes, "bytes are held against bytes");
            at_most("bytes written a byte", table.written(), share)
        }
        Bound::Flushes(most) => at_most("flushes a commit", table.flushes_a_commit(), most),
    }
}

fn word(is_met: bool) -> &'static str {
    if is_met { "met" } else { "missed" }
}

fn name(side: Side) -> &'static str {
    match side {
        Side::Kivafs => "kivafs",
        Side::Ceiling => "ceiling",
        Side::Disk => "disk",
    }
}

fn line(row: &Row, table: &Table, judged: &[Judged]) -> String {
    let figures = SIDES.map(|side| figure(row, table, side));
    let mut parts = vec![figures.join(", ")];
    let is_told = |side: Side| row.bounds.iter().any(|bound| matches!(bound, Bound::Of(of, _) if *of == side));
    let others = [Side::Ceiling, Side::Disk].into_iter().filter(|side| !is_told(*side));
    parts.extend(others.map(|side| format!("{:.2} of the {}", table.ratio(side), name(side))));
    if row.takes_both_in_turn() {
        parts.push(format!("{:.2} of the two in turn", table.of(|cells| cells.rate(Side::Kivafs) * cells.in_turn())));
    }
    parts.extend(judged.iter().map(|judged| judged.text.clone()));
    let activity = |figure: fn(&Activity) -> f64| table.of(|cells| figure(&cells.activity));
    format!(
        "{:<10} {}; {} commits, {} flushes, {:.2} MiB written: {}",
        row.name,
        parts.join("; "),
        activity(|activity| activity.commits as f64).round(),
        activity(|activity| activity.syncs as f64).round(),
        activity(bytes) / MIB,
        row.what
    )
}

/// What a side reached.
fn figure(row: &Row, table: &Table, side: Side) -> String {
    let rate = match row.unit {
        Unit::Things => format!("{} {:.2} k/s", name(side), table.rate(side) / 1e3),
        Unit::Bytes => format!("{} {:.0} MiB/s", name(side), table.rate(side) / MIB),
    };
    if table.0.iter().any(|cells| cells.sample(side).times.is_empty()) {
        return rate;
    }
    let time = |at: usize| table.of(|cells| millis(cells.times(side)[at]));
    format!("{rate} (p50 {:.3} ms, p99 {:.3} ms)", time(0), time(1))
}

/// For the drawing: each row's name, and ours to the ceiling (where what is stored is not to be durable) and to
/// the disk.
fn ratios(all: &[(&Row, Table)]) -> Vec<(String, Option<f64>, f64)> {
    let ratios = |(row, table): &(&Row, Table)| {
        (row.name.to_string(), (!row.is_durable).then(|| table.ratio(Side::Ceiling)), table.ratio(Side::Disk))
    };
    all.iter().map(ratios).collect()
}
