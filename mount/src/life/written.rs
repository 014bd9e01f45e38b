//! What a server of keys wrote to its store, as it says at its end: one line of the log, for people and
//! for who measures it. Pure.
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

/// The bytes that a log tells of, if it does; of several lines the last counts.
pub fn bytes(log: &str) -> Option<u64> {
    let told = log.lines().rev().find_map(|line| line.split_once(NAME))?;
    told.1.split_once(" bytes: ")?.0.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_is_read() {
        let said =
            line(&Activity { commits: 3, syncs: 4, commit_bytes: 1234, data_bytes: 4444, ..Activity::default() });
        assert_eq!(said, "written: 5678 bytes: 1234 in 3 commits, 4444 of data; 4 flushes");
        let log = format!("DEBUG /s: written: 1 bytes: ...\nDEBUG /s: {said}\nDEBUG more\n");
        assert_eq!(bytes(&log), Some(5678));
        assert_eq!((bytes(""), bytes("WARN nothing\n")), (None, None));
    }
}
