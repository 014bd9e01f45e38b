//! Power cuts at every call, with every fate of what was not synced: what is found afterwards is the
//! state after some transaction, no older than the last acknowledged sync, whole and usable.
//!
//! Demands are in `support/crash_run`, fates in `support/crash_disk`. Every image is opened, read,
//! changed, synced, opened again, closed and checked.

mod support;

use kivafs::store::OpenOptions;
use std::time::Duration;
use support::crash_disk::{Effort, Fate, Tried};
use support::crash_run::CrashRun;
use support::random::{Random, for_each_seed, scaled};
use support::store::{Change, SMALL, Sizes, TINY, random_changes, unhurried};

fn effort(seed: u64, cuts_max: usize, fates_max: usize) -> Effort {
    Effort { cuts_max: scaled(cuts_max), fates_max: scaled(fates_max), shuffled: fates_max / 4, seed }
}

fn at_once() -> OpenOptions {
    OpenOptions { commit_interval: Duration::ZERO, ..unhurried() }
}

/// A random history from creation to closing, cut everywhere.
fn crash_random_history(seed: u64, sizes: Sizes, steps: usize, options: &OpenOptions, effort: Effort) -> Tried {
    let mut run = CrashRun::create(sizes);
    let store = run.work(seed, sizes, steps, options);
    run.close(store).unwrap();
    let mut recovered = 0;
    let tried = run.verify(effort, options, |_, _| recovered += 1);
    assert!(recovered > 0, "no image held a store");
    tried
}

#[test]
fn crash_anywhere_in_a_tiny_store() {
    let mut tried = Tried::default();
    for_each_seed(6, |seed| {
        tried += crash_random_history(seed, TINY, 120, &unhurried(), effort(seed, 400, 24));
    });
    println!("{tried:?}");
}

#[test]
fn crash_anywhere_while_every_transaction_is_committed_at_once() {
    let mut tried = Tried::default();
    for_each_seed(3, |seed| {
        tried += crash_random_history(seed, TINY, 80, &at_once(), effort(seed, 200, 16));
    });
    println!("{tried:?}");
}

#[test]
fn crash_anywhere_in_a_small_store() {
    let mut tried = Tried::default();
    for_each_seed(3, |seed| {
        tried += crash_random_history(seed, SMALL, 150, &unhurried(), effort(seed, 150, 16));
    });
    println!("{tried:?}");
}

/// While it is made a store is not there, or it is there, empty.
#[test]
fn crash_while_creating() {
    for sizes in [TINY, SMALL] {
        let run = CrashRun::create(sizes);
        let mut whole = Vec::new();
        let tried = run.verify(effort(1, 1000, 100), &unhurried(), |image, state| {
            assert!(state.is_empty());
            whole.push((image.cut, image.fate));
        });
        println!("{tried:?}, {} hold a store", whole.len());
        let position = run.disk.position();
        assert!(whole.contains(&(position, Fate::AllKept)), "created: it is durable when create returns");
    }
}

/// Opening writes the epoch's first commit; closing, its last.
#[test]
fn crash_while_opening_and_closing_again_and_again() {
    for_each_seed(3, |seed| {
        let mut random = Random::new(seed);
        let mut run = CrashRun::create(TINY);
        for _ in 0..8 {
            let store = run.open(&unhurried()).unwrap();
            if random.one_in(2) {
                run.commit(&store, &random_changes(&mut random, TINY)).unwrap();
            }
            run.close(store).unwrap();
        }
        println!("{:?}", run.verify(effort(seed, 400, 40), &unhurried(), |_, _| {}));
    });
}

/// A crash; recovery, some work and another crash, also in the middle of recovery; and again.
#[test]
fn crash_after_a_crash() {
    let (mut once, mut twice, mut thrice) = (Tried::default(), Tried::default(), Tried::default());
    for_each_seed(3, |seed| {
        let mut run = CrashRun::create(TINY);
        drop(run.work(seed, TINY, 50, &unhurried()));
        let mut chosen = Random::new(seed);
        once += run.verify(effort(seed, 40, 8), &unhurried(), |image, state| {
            if !chosen.one_in(12) {
                return;
            }
            let mut run = CrashRun::after(image, state);
            drop(run.work(seed + 100, TINY, 12, &unhurried()));
            twice += run.verify(effort(seed, 30, 8), &unhurried(), |image, state| {
                if !chosen.one_in(40) {
                    return;
                }
                let mut run = CrashRun::after(image, state);
                drop(run.work(seed + 200, TINY, 8, &unhurried()));
                thrice += run.verify(effort(seed, 12, 6), &unhurried(), |_, _| {});
            });
        });
    });
    println!("{once:?}, then {twice:?}, then {thrice:?}");
    assert!(thrice.images > 0);
}

/// The same few keys, over and over, until every place in the file was used several times: what
/// lies in reused places always looks almost right.
#[test]
fn crash_where_old_bytes_look_almost_right() {
    let mut run = CrashRun::create(TINY);
    let store = run.open(&unhurried()).unwrap();
    for round in 0..60_u8 {
        let changes: Vec<Change> =
            (0..3).map(|key| Change::Put(format!("key {key}").into_bytes(), vec![round; 150])).collect();
        run.commit(&store, &changes).unwrap();
        run.sync(&store).unwrap();
    }
    drop(store);
    println!("{:?}", run.verify(effort(1, 400, 20), &unhurried(), |_, _| {}));
}

/// A transaction that puts values into data segments and is never synced must not be half there.
#[test]
fn crash_between_data_and_the_commit_that_refers_to_it() {
    let mut run = CrashRun::create(SMALL);
    let store = run.open(&unhurried()).unwrap();
    let mut random = Random::new(5);
    for round in 0..12_u8 {
        let changes: Vec<Change> = (0..3)
            .map(|key| Change::Put(format!("large {key} {}", round % 4).into_bytes(), random.bytes(3500)))
            .collect();
        run.commit(&store, &changes).unwrap();
        if round % 3 == 0 {
            run.sync(&store).unwrap();
        }
        if round % 5 == 4 {
            run.commit(&store, &[Change::DeleteRange(b"large 1".to_vec(), b"large 2".to_vec(), 9)]).unwrap();
        }
    }
    run.close(store).unwrap();
    println!("{:?}", run.verify(effort(5, 300, 40), &unhurried(), |_, _| {}));
}
