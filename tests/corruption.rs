//! Damaged bytes (C3): whatever is flipped, cut, zeroed, swapped or duplicated, what is read is right, or there
//! is a clear error. Never wrong data, never a panic, never an older state in silence.
//!
//! The one exception (R5): after an *unclean* end, damage to exactly the last commit cannot be told
//! from a commit that was torn before it was acknowledged, and gives the state before it.

mod support;

use kivafs::backend::MemoryDisk;
use kivafs::store::{OpenError, OpenOptions, Store, StoreError};
use std::collections::BTreeMap;
use std::sync::Arc;
use support::crash_disk::SECTOR_BYTES;
use support::random::Random;
use support::store::{Change, State, TINY, apply, commit, create, difference, read_only, read_state, unhurried};

const BLOCK_BYTES: usize = 4096;

/// A store's bytes and what may be read from them.
struct Victim {
    bytes: Vec<u8>,
    /// What was saved; after an unclean end also what was saved before the last commit.
    right: Vec<State>,
}

/// Writes a store of several commits, with values of all sizes, deletions and checkpoints.
fn write_store(is_closed: bool) -> Victim {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), TINY).unwrap();
    let mut random = Random::new(11);
    let mut states = vec![State::new()];
    let mut store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    for round in 0..14 {
        let mut state = states[states.len() - 1].clone();
        let mut changes: Vec<Change> =
            (0..4).map(|key| Change::Put(format!("small {key}").into_bytes(), random.bytes(20 + 40 * key))).collect();
        changes.push(Change::Put(format!("large {}", round % 3).into_bytes(), random.bytes(1500)));
        changes.push(Change::Delete(format!("small {}", round % 4).into_bytes()));
        commit(&store, &changes).unwrap();
        apply(&mut state, &changes);
        states.push(state);
        store.sync().unwrap();
        if round == 6 {
            store.close().unwrap();
            drop(store);
            store = Store::open_on(disk.clone(), &unhurried()).unwrap();
        }
    }
    if is_closed {
        store.close().unwrap();
    }
    let bytes = disk.to_bytes();
    println!("{} bytes", bytes.len());
    assert!(bytes.len() <= 256 << 10, "too large to try every byte");
    let right = states.split_off(states.len() - if is_closed { 1 } else { 2 });
    Victim { bytes, right }
}

/// What came of opening and reading.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord, Clone, Copy)]
enum Outcome {
    Right,
    /// The state before the last commit.
    LastCommitLost,
    RefusedToOpen,
    RefusedToRead,
}

/// Opens and reads these bytes.
fn try_bytes(bytes: Vec<u8>, right: &[State], options: &OpenOptions, what: &str) -> Outcome {
    let disk = Arc::new(MemoryDisk::from_bytes(bytes));
    let store = match Store::open_on(disk.clone(), options) {
        Ok(store) => store,
        Err(OpenError::Damaged { what: message, .. } | OpenError::Newer { what: message, .. }) => {
            assert!(!message.is_empty(), "{what}: no message");
            return Outcome::RefusedToOpen;
        }
        Err(OpenError::NotAStore(_)) => return Outcome::RefusedToOpen,
        Err(error) => panic!("{what}: open: {error}"),
    };
    let found = match read_state(&store) {
        Ok(found) => found,
        Err(StoreError::Damaged(message)) => {
            assert!(!message.is_empty(), "{what}: no message");
            drop(store);
            let check = Store::check_on(disk, true);
            assert!(!check.is_ok_and(|found| found.is_empty()), "{what}: damaged, but check finds nothing");
            return Outcome::RefusedToRead;
        }
        Err(error) => panic!("{what}: read: {error}"),
    };
    let outcome = match right.iter().rposition(|state| *state == found) {
        None => panic!("{what}: wrong data: {}", difference(&found, &right[right.len() - 1])),
        Some(index) if index + 1 == right.len() => Outcome::Right,
        Some(_) => Outcome::LastCommitLost,
    };
    if !options.read_only {
        verify_writable(&store, &disk, found, what);
    }
    outcome
}

/// A store that opens for writing and reads right takes changes and keeps them, or refuses.
fn verify_writable(store: &Store, disk: &MemoryDisk, mut state: State, what: &str) {
    let change = [Change::Put(b"after".to_vec(), vec![1; 100])];
    match commit(store, &change).and_then(|()| store.sync()) {
        Ok(()) => {}
        Err(StoreError::Damaged(_) | StoreError::Poisoned(_)) => return,
        Err(error) => panic!("{what}: write: {error}"),
    }
    apply(&mut state, &change);
    let copy = Arc::new(MemoryDisk::from_bytes(disk.to_bytes()));
    let again = match Store::open_on(copy, &read_only()) {
        Ok(again) => read_state(&again),
        Err(OpenError::Damaged { .. }) => return,
        Err(error) => panic!("{what}: reopen: {error}"),
    };
    match again {
        Ok(found) => assert!(found == state, "{what}: after writing: {}", difference(&found, &state)),
        Err(StoreError::Damaged(_)) => {}
        Err(error) => panic!("{what}: read after writing: {error}"),
    }
}

type Damage = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;

/// Tries each damage, on all processors, and counts what came of it.
fn try_all(victim: &Victim, options: &OpenOptions, damages: Vec<(String, Damage)>) -> BTreeMap<Outcome, usize> {
    let untouched = try_bytes(victim.bytes.clone(), &victim.right, options, "untouched");
    assert_eq!(untouched, Outcome::Right, "untouched");
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let counts = std::thread::scope(|scope| {
        let work = |first: usize| {
            let damages = &damages;
            move || {
                let mut counts = BTreeMap::new();
                for (what, damage) in damages.iter().skip(first).step_by(threads) {
                    let mut bytes = victim.bytes.clone();
                    damage(&mut bytes);
                    *counts.entry(try_bytes(bytes, &victim.right, options, what)).or_insert(0) += 1;
                }
                counts
            }
        };
        let workers: Vec<_> = (0..threads).map(|first| scope.spawn(work(first))).collect();
        let mut counts = BTreeMap::new();
        for worker in workers {
            let more = worker.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
            more.into_iter().for_each(|(outcome, count)| *counts.entry(outcome).or_insert(0) += count);
        }
        counts
    });
    println!("{} damages: {counts:?}", damages.len());
    counts
}

fn flips(length: usize, step: usize) -> Vec<(String, Damage)> {
    let flip = |at: usize, mask: u8| -> (String, Damage) {
        (format!("byte {at:#x} ^ {mask:#04x}"), Box::new(move |bytes| bytes[at] ^= mask))
    };
    (0..length).step_by(step).flat_map(|at| [flip(at, 1 << (at % 8)), flip(at, 0xff)]).collect()
}

fn cuts(length: usize, step: usize) -> Vec<(String, Damage)> {
    (0..length)
        .step_by(step)
        .map(|end| -> (String, Damage) { (format!("cut at {end:#x}"), Box::new(move |bytes| bytes.truncate(end))) })
        .collect()
}

fn zeroings(length: usize) -> Vec<(String, Damage)> {
    [SECTOR_BYTES, BLOCK_BYTES]
        .into_iter()
        .flat_map(|size| (0..length).step_by(size).map(move |start| (start, length.min(start + size))))
        .map(|(start, end)| -> (String, Damage) {
            (format!("zeros in {start:#x}..{end:#x}"), Box::new(move |bytes| bytes[start..end].fill(0)))
        })
        .collect()
}

fn swaps_and_duplicates(length: usize) -> Vec<(String, Damage)> {
    let blocks = length / BLOCK_BYTES;
    let range = |block: usize| block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
    let mut damages: Vec<(String, Damage)> = Vec::new();
    for from in 0..blocks {
        for to in (0..blocks).filter(|to| *to != from) {
            let duplicate = move |bytes: &mut Vec<u8>| bytes.copy_within(range(from), to * BLOCK_BYTES);
            damages.push((format!("block {from} over {to}"), Box::new(duplicate)));
            if from < to {
                let swap = move |bytes: &mut Vec<u8>| {
                    let first = bytes[range(from)].to_vec();
                    bytes.copy_within(range(to), from * BLOCK_BYTES);
                    bytes[range(to)].copy_from_slice(&first);
                };
                damages.push((format!("blocks {from} and {to} swapped"), Box::new(swap)));
            }
        }
    }
    damages
}

/// After a clean end nothing may be lost without an error; some damage of each sort must hit
/// something, or the test sees nothing.
fn damage_closed_store(options: &OpenOptions, damages: impl Fn(usize) -> Vec<(String, Damage)>) {
    let victim = write_store(true);
    let counts = try_all(&victim, options, damages(victim.bytes.len()));
    assert!(!counts.contains_key(&Outcome::LastCommitLost));
    assert!(counts.keys().any(|outcome| *outcome != Outcome::Right), "nothing was hit");
}

#[test]
fn flipped_bytes_after_a_clean_end() {
    damage_closed_store(&read_only(), |length| flips(length, 1));
}

#[test]
fn flipped_bytes_before_writing_goes_on() {
    damage_closed_store(&unhurried(), |length| flips(length, 13));
}

#[test]
fn cut_after_a_clean_end() {
    damage_closed_store(&read_only(), |length| cuts(length, 61));
    damage_closed_store(&unhurried(), |length| cuts(length, SECTOR_BYTES));
}

#[test]
fn zeroed_after_a_clean_end() {
    damage_closed_store(&read_only(), zeroings);
    damage_closed_store(&unhurried(), zeroings);
}

#[test]
fn swapped_and_duplicated_blocks_after_a_clean_end() {
    damage_closed_store(&read_only(), swaps_and_duplicates);
    damage_closed_store(&unhurried(), swaps_and_duplicates);
}

#[test]
fn damaged_after_an_unclean_end() {
    let victim = write_store(false);
    let length = victim.bytes.len();
    let mut damages = flips(length, 3);
    damages.extend(cuts(length, 509));
    damages.extend(zeroings(length));
    damages.extend(swaps_and_duplicates(length));
    let counts = try_all(&victim, &read_only(), damages);
    assert!(counts.contains_key(&Outcome::RefusedToOpen) || counts.contains_key(&Outcome::RefusedToRead));
}
