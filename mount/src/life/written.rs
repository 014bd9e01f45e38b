//! What a server wrote to its store, as it says at its end: one line of the log, for people and for who
//! measures it. Pure.
//!
//! The system cannot tell: it counts what a socket took, too, or whole folios of its page cache.

use kivafs::store::Activity;

const NAME: &str = "written: ";

/// `written: 5678 bytes: 1234 in 3 commits, 4444 of data; 4 flushes`
pub fn line(activity: &Activity) -> String {
    let Activity { commits, syncs, commit_bytes, data_bytes, .. } = activity;
    let bytes = commit_bytes + data_bytes;
    format!("{NAME}{bytes} bytes: {commit_bytes} in {commits} commits, {data_bytes} of data; {syncs} flushes")
}

/// What a log tells, if it does; of several lines the last counts.
pub fn told(log: &str) -> Option<Activity> {
    let told = log.lines().rev().find_map(|line| line.rsplit_once(NAME))?.1;
    let (_, parts) = told.split_once(" bytes: ")?;
    let mut numbers = parts.split(|letter: char| !letter.is_ascii_digit()).filter(|digits| !digits.is_empty());
    let mut next = || numbers.next()?.parse().ok();
    let (commit_bytes, commits, data_bytes, syncs) = (next()?, next()?, next()?, next()?);
    Some(Activity { commits, syncs, commit_bytes, data_bytes, ..Activity::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let activity = Activity { commits: 3, syncs: 4, commit_bytes: 1234, data_bytes: 4444, ..Activity::default() };
        let said = line(&activity);
        assert_eq!(said, "written: 5678 bytes: 1234 in 3 commits, 4444 of data; 4 flushes");
        let log = format!("DEBUG /s: written: 1 bytes: ...\nDEBUG /s: {said}\nDEBUG more\n");
        assert_eq!(told(&log), Some(activity));
        assert_eq!((told(""), told("WARN nothing\n"), told("written: 5 bytes: 1 in\n")), (None, None, None));
    }
}
