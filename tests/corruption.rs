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
use std::sync::mpsc::channel;
use std::time::Duration;
use support::bucket::{Bucket, Damage, commit_name, data_name};
use support::crash_disk::SECTOR_BYTES;
use support::medium::Simulated;
use support::random::Random;
use support::store::{Change, State, TINY, apply, commit, difference, read_only, read_state, unhurried};

const BLOCK_BYTES: usize = 4096;

/// A store, and what may be read from it.
struct Victim<M> {
    medium: M,
    /// What was saved; after an unclean end also what was saved before the last commit.
    right: Vec<State>,
}

type File = Arc<MemoryDisk>;

/// Writes a store of several commits, with values of all sizes, deletions and checkpoints.
fn write_store<M: Simulated + Clone + Send + 'static>(is_closed: bool) -> Victim<M> {
    let medium = M::empty();
    medium.create(TINY).unwrap();
    let mut random = Random::new(11);
    let mut states = vec![State::new()];
    let mut store = medium.open(&unhurried()).unwrap();
    // What a process leaves that is killed when it has heard of its last commit, and nothing is written yet of
    // the checkpoint that follows.
    let mut left = None;
    for round in 0..14 {
        let mut state = states[states.len() - 1].clone();
        let mut changes: Vec<Change> =
            (0..4).map(|key| Change::Put(format!("small {key}").into_bytes(), random.bytes(20 + 40 * key))).collect();
        changes.push(Change::Put(format!("large {}", round % 3).into_bytes(), random.bytes(1500)));
        changes.push(Change::Delete(format!("small {}", round % 4).into_bytes()));
        commit(&store, &changes).unwrap();
        apply(&mut state, &changes);
        states.push(state);
        let (killed, copied) = channel();
        let disk = medium.clone();
        store.sync_then(Box::new(move |synced| killed.send(synced.map(|()| disk.left_by_kill())).unwrap()));
        left = Some(copied.recv().unwrap().unwrap());
        if round == 6 {
            store.close().unwrap();
            drop(store);
            store = medium.open(&unhurried()).unwrap();
        }
    }
    let medium = match left {
        Some(left) if !is_closed => left,
        _ => {
            store.close().unwrap();
            medium.left_by_kill()
        }
    };
    let right = states.split_off(states.len() - if is_closed { 1 } else { 2 });
    Victim { medium, right }
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

/// Opens and reads what is there.
fn try_damaged<M: Simulated>(medium: &M, right: &[State], options: &OpenOptions, what: &str) -> Outcome {
    let store = match medium.open(options) {
        Ok(store) => store,
        Err(OpenError::Damaged { what: message, .. } | OpenError::OtherVersion { what: message, .. }) => {
            assert!(!message.is_empty(), "{what}: no message");
            return Outcome::RefusedToOpen;
        }
        Err(OpenError::NotAStore(_) | OpenError::NotFound(_)) => return Outcome::RefusedToOpen,
        // A reader cannot know whether the writer has deleted it by right.
        Err(OpenError::Io { error, .. }) if options.read_only && error.to_string().contains("is gone") => {
            return Outcome::RefusedToOpen;
        }
        Err(error) => panic!("{what}: open: {error}"),
    };
    let found = match read_state(&store) {
        Ok(found) => found,
        Err(StoreError::Damaged(message) | StoreError::Gone(message)) => {
            assert!(!message.is_empty(), "{what}: no message");
            drop(store);
            let check = medium.check();
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
        verify_writable(&store, medium, found, options, what);
    }
    outcome
}

/// A store that opens for writing and reads right takes changes and keeps them, or refuses.
fn verify_writable<M: Simulated>(store: &Store, medium: &M, mut state: State, options: &OpenOptions, what: &str) {
    let change = [Change::Put(b"after".to_vec(), vec![1; 100])];
    match commit(store, &change).and_then(|()| store.sync()) {
        Ok(()) => {}
        Err(StoreError::Damaged(_) | StoreError::Gone(_) | StoreError::Poisoned(_)) => return,
        Err(error) => panic!("{what}: write: {error}"),
    }
    apply(&mut state, &change);
    let again = match medium.left_by_kill().open(&OpenOptions { read_only: true, ..options.clone() }) {
        Ok(again) => read_state(&again),
        Err(OpenError::Damaged { .. }) => return,
        Err(error) => panic!("{what}: reopen: {error}"),
    };
    match again {
        Ok(found) => assert!(found == state, "{what}: after writing: {}", difference(&found, &state)),
        Err(StoreError::Damaged(_) | StoreError::Gone(_)) => {}
        Err(error) => panic!("{what}: read after writing: {error}"),
    }
}

/// Makes a damaged copy.
type Harm<M> = Box<dyn Fn(&M) -> M + Send + Sync>;

/// Tries each damage, on all processors, and counts what came of it.
fn try_all<M: Simulated + Sync>(
    victim: &Victim<M>,
    options: &OpenOptions,
    damages: Vec<(String, Harm<M>)>,
) -> BTreeMap<Outcome, usize> {
    let untouched = try_damaged(&victim.medium.left_by_kill(), &victim.right, options, "untouched");
    assert_eq!(untouched, Outcome::Right, "untouched");
    let threads = std::thread::available_parallelism().map_or(1, |count| count.get());
    let counts = std::thread::scope(|scope| {
        let work = |first: usize| {
            let damages = &damages;
            move || {
                let mut counts = BTreeMap::new();
                for (what, damage) in damages.iter().skip(first).step_by(threads) {
                    let damaged = damage(&victim.medium);
                    *counts.entry(try_damaged(&damaged, &victim.right, options, what)).or_insert(0) += 1;
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

type FileDamage = Box<dyn Fn(&mut Vec<u8>) + Send + Sync>;
type Damages = Vec<(String, FileDamage)>;

/// Damages of a file's bytes, each done to a copy.
fn in_file(damages: Damages) -> Vec<(String, Harm<File>)> {
    let each = damages.into_iter().map(|(what, damage)| -> (String, Harm<File>) {
        let harm = move |file: &File| {
            let mut bytes = file.to_bytes();
            damage(&mut bytes);
            Arc::new(MemoryDisk::from_bytes(bytes))
        };
        (what, Box::new(harm))
    });
    each.collect()
}

fn flips(length: usize, step: usize) -> Damages {
    let flip = |at: usize, mask: u8| -> (String, FileDamage) {
        (format!("byte {at:#x} ^ {mask:#04x}"), Box::new(move |bytes| bytes[at] ^= mask))
    };
    (0..length).step_by(step).flat_map(|at| [flip(at, 1 << (at % 8)), flip(at, 0xff)]).collect()
}

fn cuts(length: usize, step: usize) -> Damages {
    (0..length)
        .step_by(step)
        .map(|end| -> (String, FileDamage) { (format!("cut at {end:#x}"), Box::new(move |bytes| bytes.truncate(end))) })
        .collect()
}

fn zeroings(length: usize) -> Damages {
    [SECTOR_BYTES, BLOCK_BYTES]
        .into_iter()
        .flat_map(|size| (0..length).step_by(size).map(move |start| (start, length.min(start + size))))
        .map(|(start, end)| -> (String, FileDamage) {
            (format!("zeros in {start:#x}..{end:#x}"), Box::new(move |bytes| bytes[start..end].fill(0)))
        })
        .collect()
}

fn swaps_and_duplicates(length: usize) -> Damages {
    let blocks = length / BLOCK_BYTES;
    let range = |block: usize| block * BLOCK_BYTES..(block + 1) * BLOCK_BYTES;
    let mut damages: Damages = Vec::new();
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
fn damage_closed_store(options: &OpenOptions, damages: impl Fn(usize) -> Damages) {
    let victim = write_store::<File>(true);
    let length = victim.medium.to_bytes().len();
    println!("{length} bytes");
    assert!(length <= 256 << 10, "too large to try every byte");
    let counts = try_all(&victim, options, in_file(damages(length)));
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
    let victim = write_store::<File>(false);
    let length = victim.medium.to_bytes().len();
    let mut damages = flips(length, 3);
    damages.extend(cuts(length, 509));
    damages.extend(zeroings(length));
    damages.extend(swaps_and_duplicates(length));
    let counts = try_all(&victim, &read_only(), in_file(damages));
    assert!(counts.contains_key(&Outcome::RefusedToOpen) || counts.contains_key(&Outcome::RefusedToRead));
}

// In a bucket.

/// What is missing is waited for: not for long here.
fn impatient(options: OpenOptions) -> OpenOptions {
    OpenOptions { timeout: Duration::from_millis(40), ..options }
}

fn in_bucket(damages: Vec<Damage>) -> Vec<(String, Harm<Bucket>)> {
    let each = damages.into_iter().map(|damage| -> (String, Harm<Bucket>) {
        let what = format!("{damage:?}");
        let harm = move |bucket: &Bucket| {
            let copy = bucket.copy();
            copy.damage(&damage);
            copy
        };
        (what, Box::new(harm))
    });
    each.collect()
}

/// Bytes flipped in every object, each `step`th and all those of its first 200.
fn object_flips(bucket: &Bucket, step: usize) -> Vec<Damage> {
    let mut damages = Vec::new();
    for name in bucket.names() {
        let length = bucket.body(&name).expect("is there").len();
        for at in (0..length).filter(|at| *at < 200 || at % step == 0) {
            damages.extend([1 << (at % 8), 0xff].map(|mask| Damage::Flip { name: name.clone(), at, mask }));
        }
    }
    damages
}

/// Every object shorter, in steps, and of zeros.
fn object_cuts(bucket: &Bucket, step: usize) -> Vec<Damage> {
    let mut damages = Vec::new();
    for name in bucket.names() {
        let body = bucket.body(&name).expect("is there");
        let lengths = (0..body.len()).step_by(step).chain([body.len() - 1]);
        damages.extend(lengths.map(|length| Damage::Cut { name: name.clone(), length }));
        damages.push(Damage::Zero { name });
    }
    damages
}

/// Every object under every other's name and under names that come next, and every two swapped.
fn object_swaps_and_duplicates(bucket: &Bucket) -> Vec<Damage> {
    let names = bucket.names();
    let epoch = bucket.epoch();
    let end = bucket.commits_of(epoch).last().expect("an epoch has commits") + 1;
    let next = [commit_name(epoch, end), commit_name(epoch + 1, 1), commit_name(epoch + 2, 1), data_name(5000)];
    let mut damages = Vec::new();
    for (index, from) in names.iter().enumerate() {
        let others = names.iter().chain(&next).filter(|to| *to != from);
        damages.extend(others.map(|to| Damage::Duplicate(from.clone(), to.clone())));
        damages.extend(names[..index].iter().map(|to| Damage::Swap(from.clone(), to.clone())));
    }
    damages
}

fn removals(bucket: &Bucket) -> Vec<Damage> {
    bucket.names().into_iter().map(Damage::Remove).collect()
}

fn damage_closed_bucket(options: &OpenOptions, damages: impl Fn(&Bucket) -> Vec<Damage>) {
    let victim = write_store::<Bucket>(true);
    let counts = try_all(&victim, &impatient(options.clone()), in_bucket(damages(&victim.medium)));
    assert!(!counts.contains_key(&Outcome::LastCommitLost));
    assert!(counts.keys().any(|outcome| *outcome != Outcome::Right), "nothing was hit");
}

#[test]
fn flipped_bytes_in_a_bucket() {
    damage_closed_bucket(&read_only(), |bucket| object_flips(bucket, 7));
    damage_closed_bucket(&unhurried(), |bucket| object_flips(bucket, 97));
}

#[test]
fn cut_objects_in_a_bucket() {
    damage_closed_bucket(&read_only(), |bucket| object_cuts(bucket, 61));
    damage_closed_bucket(&unhurried(), |bucket| object_cuts(bucket, SECTOR_BYTES));
}

#[test]
fn swapped_and_duplicated_objects_in_a_bucket() {
    damage_closed_bucket(&read_only(), object_swaps_and_duplicates);
    damage_closed_bucket(&unhurried(), object_swaps_and_duplicates);
}

#[test]
fn removed_objects_in_a_bucket() {
    damage_closed_bucket(&read_only(), removals);
    damage_closed_bucket(&unhurried(), removals);
}

/// Damage to any object is noticed; only that the last one is missing cannot be told from its never
/// having been there.
#[test]
fn damaged_objects_in_a_bucket_that_nobody_closed() {
    let victim = write_store::<Bucket>(false);
    let bucket = &victim.medium;
    let mut damages = object_flips(bucket, 29);
    damages.extend(object_cuts(bucket, 509));
    damages.extend(object_swaps_and_duplicates(bucket));
    let counts = try_all(&victim, &impatient(read_only()), in_bucket(damages));
    assert!(!counts.contains_key(&Outcome::LastCommitLost));
    let removed = try_all(&victim, &impatient(read_only()), in_bucket(removals(bucket)));
    assert_eq!(removed.get(&Outcome::LastCommitLost), Some(&1));
}
