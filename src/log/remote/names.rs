//! Names of objects. Pure.
//!
//! | name | object |
//! |---|---|
//! | `e<epoch>/c<number>` | commit, or the seal that ends the epoch |
//! | `d/<number>` | data segment |
//!
//! Numbers are inverted (`2^64 - 1 - n`) and written as 16 hexadecimal digits, so that names in
//! order show the newest first: a LIST of two keys below `e` finds the end.

use crate::log::pointer::SegmentNo;

/// What every commit's name begins with.
pub const COMMITS: &str = "e";

/// A commit of an epoch, or its seal.
pub fn commit(epoch: u64, number: u64) -> String {
    format!("e{:016x}/c{:016x}", !epoch, !number)
}

/// A data segment.
pub fn segment(number: SegmentNo) -> String {
    format!("d/{:016x}", !number.0)
}

/// Epoch and number of a commit's name.
pub fn parse_commit(name: &str) -> Option<(u64, u64)> {
    let (epoch, number) = name.strip_prefix('e')?.split_once("/c")?;
    Some((inverted(epoch)?, inverted(number)?))
}

fn inverted(digits: &str) -> Option<u64> {
    let is_ours = digits.len() == 16 && digits.bytes().all(|digit| matches!(digit, b'0'..=b'9' | b'a'..=b'f'));
    is_ours.then(|| u64::from_str_radix(digits, 16).ok()).flatten().map(|number| !number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn golden_names() {
        assert_eq!(commit(1, 258), "efffffffffffffffe/cfffffffffffffefd");
        assert_eq!(segment(SegmentNo(0)), "d/ffffffffffffffff");
    }

    #[test]
    fn the_newest_comes_first_and_names_come_back() {
        let ends = [(1, 1), (1, 2), (1, 300), (2, 1), (17, 5)];
        let names = ends.map(|(epoch, number)| commit(epoch, number));
        assert!(names.is_sorted_by(|older, newer| newer < older));
        for (name, end) in names.iter().zip(ends) {
            assert_eq!(parse_commit(name), Some(end));
            assert!(name.starts_with(COMMITS));
        }
        for wrong in ["", "e", "e1/c1", "d/ffffffffffffffff", "efffffffffffffffe/cfffffffffffffefD"] {
            assert_eq!(parse_commit(wrong), None, "{wrong}");
        }
    }
}
