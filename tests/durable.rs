//! The durable state, for who asks for it while newer ones are there (D1, D2).

mod support;

use kivafs::backend::MemoryDisk;
use kivafs::store::{Direction, Store};
use kivafs::tree::VALUE_INLINE_MAX;
use std::ops::Bound;
use std::sync::Arc;
use std::sync::mpsc::channel;
use support::random::{Random, for_each_seed};
use support::silent_disk::{Silence, SilentDisk};
use support::store::{
    Change, Sizes, State, USUAL, apply, commit, create, difference, random_changes, random_key, read_view, scan,
    unhurried,
};

/// Few keys, so that most are changed again; and no commit but those that are asked for.
const SIZES: Sizes = Sizes { keys: 200, value_bytes_max: 5000, ..USUAL };

fn work(store: &Store, random: &mut Random, state: &mut State) {
    let mut make = |changes: &[Change]| {
        commit(store, changes).unwrap();
        apply(state, changes);
    };
    // Something that the next commit has to write.
    make(&[Change::Put(random_key(random, SIZES), random.bytes(20))]);
    for _ in 0..random.within(0..8) {
        make(&random_changes(random, SIZES));
    }
}

/// All of it, single keys, and pieces in both directions.
fn assert_durable(store: &Store, random: &mut Random, expected: &State, context: &str) {
    let view = store.committed_view();
    let found = read_view(store, &view).unwrap();
    assert!(found == *expected, "{context}: {}", difference(&found, expected));
    let keys: Vec<Vec<u8>> = (0..20).map(|_| random_key(random, SIZES)).collect();
    let values = store.patiently(|| view.get_all(&keys)).unwrap();
    for (key, value) in keys.iter().zip(values) {
        assert_eq!(value, store.patiently(|| view.get(key)).unwrap(), "{context}: {}", key.escape_ascii());
        assert_eq!(value.is_some(), expected.contains_key(key), "{context}: {}", key.escape_ascii());
    }
    for direction in [Direction::Forward, Direction::Backward] {
        let (one, other) = (random_key(random, SIZES), random_key(random, SIZES));
        let (from, to) = (one.clone().min(other.clone()), one.max(other));
        let mut within: Vec<&Vec<u8>> = expected.keys().filter(|key| from < **key && **key <= to).collect();
        if direction == Direction::Backward {
            within.reverse();
        }
        within.truncate(1 + random.within(0..20));
        let bounds = (Bound::Excluded(from), Bound::Included(to));
        let pairs = scan(store, &view, bounds, direction, within.len().max(1)).unwrap();
        assert!(pairs.iter().map(|(key, _)| key).eq(within), "{context}: {direction:?}");
    }
}

/// What is not asked to be durable is not shown, nor what is on its way; and then it is.
#[test]
fn the_durable_state_is_the_last_that_was_synced() {
    for_each_seed(20, |seed| {
        let mut random = Random::new(seed);
        let disk = Arc::new(MemoryDisk::default());
        create(disk.clone(), SIZES).unwrap();
        let silent = Arc::new(SilentDisk::new(disk));
        let store = Store::open_on(silent.clone(), &unhurried()).unwrap();
        let (mut state, mut durable) = (State::new(), State::new());
        for round in 0..30 {
            let context = format!("round {round}");
            work(&store, &mut random, &mut state);
            assert_durable(&store, &mut random, &durable, &context);
            silent.fall(Silence::CHANGES);
            let (done, synced) = channel();
            store.sync_then(Box::new(move |result| done.send(result).unwrap()));
            let on_its_way = state.clone();
            silent.until_waiting(1);
            // Some of it again, behind what the commit has.
            work(&store, &mut random, &mut state);
            assert_durable(&store, &mut random, &durable, &format!("{context}, a commit under way"));
            silent.fall(Silence::NONE);
            synced.recv().unwrap().unwrap();
            durable = on_its_way;
            assert_durable(&store, &mut random, &durable, &format!("{context}, synced"));
            if random.one_in(4) {
                store.checkpoint().unwrap();
                durable.clone_from(&state);
                assert_durable(&store, &mut random, &durable, &format!("{context}, checkpoint"));
            }
        }
    });
}

/// What is said to be durable is there after a crash.
fn assert_survives(store: &Store, disk: &MemoryDisk) {
    let found = read_view(store, &store.committed_view()).unwrap();
    let recovered = Store::open_on(Arc::new(MemoryDisk::from_bytes(disk.to_bytes())), &unhurried()).unwrap();
    let recovered = read_view(&recovered, &recovered.view()).unwrap();
    let lost = found.iter().filter(|(key, value)| recovered.get(*key) != Some(value)).count();
    assert_eq!(lost, 0, "of {} keys, of which {} are there", found.len(), recovered.len());
}

/// Has a disk speak again, also when a test fails: else its store would wait for ever.
struct Speaks<'a>(&'a SilentDisk);

impl Drop for Speaks<'_> {
    fn drop(&mut self) {
        self.0.fall(Silence::NONE);
    }
}

/// D2: a commit that was under way when a load without redo could have begun says nothing of it.
#[test]
fn a_load_beside_a_commit_is_not_durable_with_it() {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), USUAL).unwrap();
    let silent = Arc::new(SilentDisk::new(disk.clone()));
    let store = Store::open_on(silent.clone(), &unhurried()).unwrap();
    let commits = || store.activity().commits;
    silent.fall(Silence::CHANGES);
    std::thread::scope(|threads| {
        let _speaks = Speaks(&silent);
        let before = commits();
        let checkpoint = threads.spawn(|| store.checkpoint());
        silent.until_waiting(1);
        let mut keys: Vec<Vec<u8>> = Vec::new();
        while let Ok(mut txn) = store.begin_now() {
            let key = format!("{:040}", keys.len()).into_bytes();
            txn.put(&key, vec![7; 60]);
            txn.commit().unwrap();
            keys.push(key);
        }
        assert!(keys.len() > 1000, "{} keys", keys.len());
        assert!(store.are_durable(&keys).iter().all(|is_durable| !is_durable));
        assert_survives(&store, &disk);
        silent.fall(Silence::NONE);
        while commits() == before {
            std::thread::yield_now();
        }
        silent.fall(Silence::CHANGES);
        assert_survives(&store, &disk);
        silent.fall(Silence::NONE);
        checkpoint.join().unwrap().unwrap();
        assert_survives(&store, &disk);
        store.sync().unwrap();
        assert_survives(&store, &disk);
        assert!(store.are_durable(&keys).iter().all(|is_durable| *is_durable));
    });
}

/// Deletes are short, and what they delete is long: that is kept until they are durable, but no more of it
/// than may be (C6).
#[test]
fn what_deletes_keep_is_bounded() {
    const KEYS: u32 = 30_000;
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), USUAL).unwrap();
    let store = Store::open_on(disk, &unhurried()).unwrap();
    for number in 0..KEYS {
        commit(&store, &[Change::Put(number.to_be_bytes().to_vec(), vec![1; VALUE_INLINE_MAX])]).unwrap();
    }
    store.checkpoint().unwrap();
    let before = store.activity().commits;
    for number in 0..KEYS {
        commit(&store, &[Change::Delete(number.to_be_bytes().to_vec())]).unwrap();
    }
    // Of redo this is less than what one commit takes; two commits keep 8 MiB each, and one is pending.
    assert!(store.activity().commits >= before + 2, "{:?}", store.activity());
}

/// D2: a load without redo shows nothing of itself until a checkpoint is durable; after that, all that
/// the checkpoint has.
#[test]
fn a_load_without_redo_is_not_durable_before_its_checkpoint() {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), USUAL).unwrap();
    let put = |store: &Store, number: u64, value: &[u8]| {
        let key = format!("{number:040}").into_bytes();
        commit(store, &[Change::Put(key, value.to_vec())]).unwrap();
    };
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let mut durable = State::new();
    for number in (0..30_000).step_by(300) {
        put(&store, number, b"before");
        durable.insert(format!("{number:040}").into_bytes(), b"before".to_vec());
    }
    store.close().unwrap();
    drop(store);
    let silent = Arc::new(SilentDisk::new(disk));
    // Nobody has asked for durability since it was opened.
    let store = Store::open_on(silent.clone(), &unhurried()).unwrap();
    silent.fall(Silence::CHANGES);
    let commits = store.activity().commits;
    let mut number = 0;
    // More than a commit takes: from there on nothing is pending.
    while number < 30_000 {
        put(&store, number, &[7; 60]);
        number += 1;
    }
    let view = store.committed_view();
    assert_eq!(store.activity().commits, commits, "no redo was written");
    let found = read_view(&store, &view).unwrap();
    assert!(found == durable, "{}", difference(&found, &durable));
    silent.fall(Silence::NONE);
    store.sync().unwrap();
    let found = read_view(&store, &store.committed_view()).unwrap();
    let all = read_view(&store, &store.view()).unwrap();
    assert!(all.len() == 30_000 && found == all, "{}", difference(&found, &all));
}
