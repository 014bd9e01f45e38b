//! The contents of two files on a real mount, by all ways in and out: calls, O_DIRECT, O_APPEND,
//! O_DSYNC, mappings, copies from one to the other, holes, lengths, each compared with a model in
//! memory. In between everything is unmounted and found again. Needs root and /dev/fuse; fails without.
//!
//! A run prints its seed: `KIVAFS_SEED` repeats it, and `KIVAFS_OPERATIONS` says how long it is. A run
//! that goes wrong shows what it did last.
//!
//! | file | job |
//! |---|---|
//! | `op.rs` | the operations, and how they are chosen |
//! | `twin.rs` | a file, and what it should hold |
//! | `mapping.rs` | shared mappings |

#[path = "contents/mapping.rs"]
mod mapping;
#[path = "contents/op.rs"]
mod op;
mod place;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../tests/support/random.rs"]
mod random;
#[path = "contents/twin.rs"]
mod twin;

use op::{Op, Shape};
use place::{Medium, Place, Watchdog, on_each_medium};
use random::{Random, for_each_seed};
use std::collections::VecDeque;
use std::time::Duration;
use twin::Twin;

on_each_medium!(files_hold_what_was_written_by_all_ways_at_all_times);

/// As many operations come between unmounting and mounting.
const REMOUNT_EVERY: usize = 1000;
/// For so many operations, and one remount.
const PATIENCE: Duration = Duration::from_secs(600);
/// As many of the last ones are shown when one goes wrong.
const SHOWN: usize = 60;

fn files_hold_what_was_written_by_all_ways_at_all_times(medium: Medium) {
    let usual = if medium == Medium::File { 5000 } else { 1200 };
    let operations = random::number_from_env("KIVAFS_OPERATIONS").map_or(usual, |number| number as usize);
    for_each_seed(Shape::ALL.len(), |seed| {
        let shape = Shape::ALL[seed as usize % Shape::ALL.len()];
        let place = Place::new(medium);
        let mut random = Random::new(seed);
        let mut twins = open(&place);
        let mut last = VecDeque::new();
        let watch = |number| Watchdog::new(format!("operation {number}, KIVAFS_SEED={seed}"), PATIENCE);
        let mut _watchdog = watch(0);
        for number in 0..operations {
            if number % REMOUNT_EVERY == REMOUNT_EVERY - 1 {
                twins = remounted(&place, twins);
                _watchdog = watch(number);
            }
            let op = Op::choose(&mut random, shape, twins.each_ref().map(Twin::length));
            if last.len() == SHOWN {
                last.pop_front();
            }
            last.push_back(format!("{number}: {op:?}"));
            if let Err(wrong) = op.perform(&mut twins) {
                let last: Vec<String> = last.into_iter().collect();
                panic!("{shape:?}, KIVAFS_SEED={seed}: {wrong}, after\n{}", last.join("\n"));
            }
        }
        drop(remounted(&place, twins));
        place.umounts();
        place.on_store("check", &["--data"]).silently();
    });
}

fn open(place: &Place) -> [Twin; 2] {
    place.mount(&[]).silently();
    ["one", "two"].map(|name| Twin::new(place.dir.join(name)))
}

/// Unmounts, mounts, and compares all.
fn remounted(place: &Place, twins: [Twin; 2]) -> [Twin; 2] {
    let closed = twins.map(Twin::close);
    place.umounts();
    place.mount(&[]).silently();
    let twins = closed.map(twin::Closed::open);
    for twin in &twins {
        twin.compare_all().unwrap_or_else(|wrong| panic!("after a remount: {wrong}"));
    }
    twins
}
