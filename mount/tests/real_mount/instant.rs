//! Is what was found the state at one instant, no older than the last fsync?
//!
//! Each worker's directory must be as after some number of its operations (its *prefix*), and one
//! instant must fit them all: not before an operation that is there began, not after one that is
//! missing was answered, and not before the last successful fsync of any worker began, since that
//! made durable whatever had been answered by then. Where a prefix is ambiguous (operations that
//! undo each other, or change nothing), any choice that fits will do.

use crate::model::{Model, Shape};
use crate::worker::{Asked, Worker};
use std::time::Instant;

/// A possible prefix of a worker, and the instants that fit it.
struct Candidate {
    prefix: usize,
    from: Option<Instant>,
    until: Option<Instant>,
}

impl Candidate {
    fn new(asked: &[Asked], prefix: usize) -> Candidate {
        Candidate {
            prefix,
            from: prefix.checked_sub(1).map(|last| asked[last].begun),
            until: asked.get(prefix).and_then(|first_missing| first_missing.answered),
        }
    }

    fn fits(&self, instant: Instant) -> bool {
        self.from.is_none_or(|from| from <= instant) && self.until.is_none_or(|until| instant <= until)
    }
}

/// What each worker's prefix is, for what was found in its directory; or what is wrong.
pub fn prefixes(workers: &[Worker], found: &[Shape], began: Instant) -> Result<Vec<usize>, String> {
    let durable = workers.iter().flat_map(|worker| &worker.asked).filter(|asked| asked.answered.is_some());
    let durable = durable.filter(|asked| asked.op.makes_durable()).map(|asked| asked.begun).max().unwrap_or(began);
    let mut candidates = Vec::new();
    for (worker, found) in workers.iter().zip(found) {
        candidates.push(candidates_of(worker, found, durable)?);
    }
    let mut instants: Vec<Instant> = candidates.iter().flatten().filter_map(|candidate| candidate.from).collect();
    instants.push(durable);
    instants.retain(|instant| *instant >= durable);
    instants.sort();
    let fitting = instants.iter().find_map(|instant| {
        let prefix = |candidates: &Vec<Candidate>| Some(candidates.iter().rfind(|one| one.fits(*instant))?.prefix);
        candidates.iter().map(prefix).collect::<Option<Vec<usize>>>()
    });
    fitting.ok_or_else(|| {
        let mut text = "each directory is as after some of its operations, but no instant fits them all:".to_owned();
        for (worker, candidates) in workers.iter().zip(&candidates) {
            let show = |instant: Option<Instant>| instant.map(|instant| instant.duration_since(began));
            for one in candidates {
                let (dir, of) = (worker.dir.display(), worker.asked.len());
                let (from, until) = (show(one.from), show(one.until));
                text += &format!("\n  {dir}: {} of {of} operations: from {from:?} until {until:?}", one.prefix);
            }
        }
        text + &format!("\n  durable: whatever was answered by {:?}", durable.duration_since(began))
    })
}

fn candidates_of(worker: &Worker, found: &Shape, durable: Instant) -> Result<Vec<Candidate>, String> {
    let asked = &worker.asked;
    let answered_by = |one: &Asked| one.answered.is_some_and(|answered| answered < durable);
    let own = asked.iter().rposition(|one| one.op.makes_durable() && one.answered.is_some()).map_or(0, |last| last + 1);
    let least = own.max(asked.iter().take_while(|one| answered_by(one)).count());
    let mut model = worker.model.clone();
    let mut candidates = Vec::new();
    let mut nearest = (usize::MAX, 0);
    for prefix in 0..=asked.len() {
        // What lies before `least` is looked at only to tell what is wrong.
        if prefix >= least {
            let differences = differences(&model.shape(), found).count();
            nearest = nearest.min((differences, prefix));
            if differences == 0 {
                candidates.push(Candidate::new(asked, prefix));
            }
        }
        if let Some(next) = asked.get(prefix) {
            model.apply(&next.op);
        }
    }
    if candidates.is_empty() { Err(mismatch(worker, found, least, nearest.1)) } else { Ok(candidates) }
}

fn mismatch(worker: &Worker, found: &Shape, least: usize, nearest: usize) -> String {
    let mut model = worker.model.clone();
    let mut older = None;
    let mut at_nearest = Model::default();
    for prefix in 0..=worker.asked.len() {
        if prefix < least && differences(&model.shape(), found).next().is_none() {
            older = Some(prefix);
        }
        if prefix == nearest {
            at_nearest = model.clone();
        }
        if let Some(next) = worker.asked.get(prefix) {
            model.apply(&next.op);
        }
    }
    let (dir, count) = (worker.dir.display(), worker.asked.len());
    if let Some(older) = older {
        return format!(
            "{dir}: is as after {older} of {count} operations, but {least} were durable: fsynced data is lost"
        );
    }
    let mut text = format!(
        "{dir}: is not as after any of {count} operations since the {least} durable ones. The nearest is after \
         {nearest}; then there differ:"
    );
    for path in differences(&at_nearest.shape(), found) {
        let (expected, found) = (at_nearest.shape().contains_key(path), found.contains_key(path));
        text += &format!("\n  {path}: should be there: {expected}, is there: {found}");
    }
    text += "\noperations around it:";
    for (number, asked) in worker.asked.iter().enumerate().take(nearest + 3).skip(nearest.saturating_sub(5)) {
        text += &format!("\n  {}: {}, answered: {}", number + 1, asked.op.shown(), asked.answered.is_some());
    }
    text
}

/// Paths that are in one only, or not alike.
fn differences<'a>(one: &'a Shape, other: &'a Shape) -> impl Iterator<Item = &'a String> {
    let unlike = one.iter().filter(|(path, digest)| other.get(*path) != Some(digest)).map(|(path, _)| path);
    unlike.chain(other.keys().filter(|path| !one.contains_key(*path)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Op;
    use std::time::Duration;

    /// Workers whose operations were asked at these times and answered 1 ms later; each makes a
    /// directory named after its number, or is an fsync.
    fn workers(began: Instant, times: &[&[(u64, &str)]]) -> Vec<Worker> {
        let at = |ms| began + Duration::from_millis(ms);
        let asked = |(ms, name): &(u64, &str)| Asked {
            op: if *name == "fsync" { Op::Fsync(String::new()) } else { Op::MakeDir((*name).to_owned()) },
            begun: at(*ms),
            answered: Some(at(*ms + 1)),
        };
        let worker = |times: &&[(u64, &str)]| {
            let mut worker = Worker::new("w".into(), 0);
            worker.asked = times.iter().map(asked).collect();
            worker
        };
        times.iter().map(worker).collect()
    }

    fn found(names: &[&str]) -> Shape {
        let mut model = Model::default();
        names.iter().for_each(|name| model.apply(&Op::MakeDir((*name).to_owned())));
        model.shape()
    }

    fn outcome(times: &[&[(u64, &str)]], found: &[Shape]) -> Result<Vec<usize>, String> {
        let began = Instant::now();
        prefixes(&workers(began, times), found, began)
    }

    #[test]
    fn any_prefix_will_do_when_nothing_was_durable() {
        let times: &[&[(u64, &str)]] = &[&[(1, "a"), (3, "b")]];
        assert_eq!(outcome(times, &[found(&[])]), Ok(vec![0]));
        assert_eq!(outcome(times, &[found(&["a"])]), Ok(vec![1]));
        assert_eq!(outcome(times, &[found(&["a", "b"])]), Ok(vec![2]));
    }

    #[test]
    fn a_hole_is_no_prefix() {
        let why = outcome(&[&[(1, "a"), (3, "b")]], &[found(&["b"])]).expect_err("'a' is missing");
        assert!(why.contains("is not as after any"), "{why}");
    }

    #[test]
    fn what_was_answered_before_an_fsync_must_be_there() {
        let why = outcome(&[&[(1, "a"), (3, "fsync"), (5, "b")]], &[found(&[])]).expect_err("'a' was durable");
        assert!(why.contains("fsynced data is lost"), "{why}");
    }

    #[test]
    fn an_fsync_covers_what_others_were_answered() {
        let times: &[&[(u64, &str)]] = &[&[(1, "a")], &[(3, "fsync")]];
        let why = outcome(times, &[found(&[]), found(&[])]).expect_err("'a' was durable");
        assert!(why.contains("fsynced data is lost"), "{why}");
        assert_eq!(outcome(times, &[found(&["a"]), found(&[])]), Ok(vec![1, 1]));
    }

    #[test]
    fn one_instant_must_fit_all() {
        let times: &[&[(u64, &str)]] = &[&[(1, "a"), (3, "b")], &[(5, "x"), (7, "y")]];
        let why = outcome(times, &[found(&["a"]), found(&["x"])]).expect_err("'b' was answered before 'x' began");
        assert!(why.contains("no instant fits"), "{why}");
        assert_eq!(outcome(times, &[found(&["a", "b"]), found(&["x"])]), Ok(vec![2, 1]));
    }
}
