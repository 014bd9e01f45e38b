//! The cleaner, seen from outside: what it moves survives every crash, and a store of bounded size can be changed in
//! place for ever.

mod support;

use kivafs::backend::MemoryDisk;
use kivafs::store::{CreateOptions, Geometry, SpaceTries, Store, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::bucket::Bucket;
use support::crash_disk::Effort;
use support::crash_run::CrashRun;
use support::machine::{Machine, final_state, new_store};
use support::medium::OneFile;
use support::random::{Random, for_each_seed, scaled};
use support::store::{
    Change, SMALL, State, TINY, apply, commit, difference, end_with_the_store, read_state, unhurried,
};

#[test]
fn crash_anywhere_while_segments_are_emptied() {
    for_each_seed(4, |seed| {
        let mut random = Random::new(seed);
        let mut run = CrashRun::<OneFile>::create(TINY);
        let store = run.open(&unhurried()).unwrap();
        for step in 0..100 {
            let key = vec![b'k', random.within(0..30) as u8];
            let change = match random.within(0..8) {
                0 => Change::Delete(key),
                1 => Change::Put(key, random.bytes(300)),
                _ => Change::Put(key, random.bytes(1500)),
            };
            run.commit(&store, &[change]).unwrap();
            match step % 6 {
                2 => run.sync(&store).unwrap(),
                4 => drop(store.clean().unwrap()),
                5 => store.checkpoint().unwrap(),
                _ => {}
            }
        }
        let moved = store.activity().moved_bytes;
        assert!(moved > 10_000, "{moved} bytes");
        run.close(store).unwrap();
        let effort = Effort { cuts_max: scaled(200), fates_max: scaled(16), shuffled: 4, seed };
        let mut recovered = 0;
        run.verify(effort, &unhurried(), |_, _| recovered += 1);
        assert!(recovered > 0, "no image held a store");
    });
}

/// Without the cleaner each segment soon held a little that lived, and the store was full for good.
#[test]
fn a_store_of_bounded_size_can_be_changed_in_place_for_ever() {
    const SIZE: u64 = 3 << 20;
    const KEYS: usize = 370;
    end_with_the_store();
    for_each_seed(3, |seed| {
        let mut random = Random::new(seed);
        let disk = Arc::new(MemoryDisk::default());
        let options = CreateOptions { size: Some(SIZE), geometry: Some(SMALL.geometry), ..CreateOptions::default() };
        Store::create_on(disk.clone(), &options).unwrap();
        let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
        let mut state = State::new();
        for step in 0..3000 {
            // Two thirds of it are full then.
            let number = if step < KEYS { step } else { random.within(0..KEYS) };
            let changes = [Change::Put((number as u32).to_be_bytes().to_vec(), random.bytes(5000))];
            let mut refused = 0;
            while let Err(error) = commit(&store, &changes) {
                assert!(matches!(error, StoreError::NoSpace), "step {step}: {error}");
                refused += 1;
                assert!(refused < 4, "step {step}: {:?}, {:?}", store.space(), store.figures().segments);
                store.reclaim(Instant::now() + Duration::from_secs(20));
            }
            apply(&mut state, &changes);
            if step % 10 == 0 {
                // While much is on its way, more space is set aside for it than it needs in the end.
                store.sync().unwrap();
            }
            assert!(disk.occupied_bytes() <= SIZE, "{} bytes", disk.occupied_bytes());
        }
        assert!(store.activity().moved_bytes > 0);
        let found = read_state(&store).unwrap();
        assert!(found == state, "{}", difference(&found, &state));
        store.close().unwrap();
        drop(store);
        assert_eq!(Store::check_on(disk, true).unwrap(), Vec::<String>::new());
    });
}

/// Puts it, and answers whether it found space, however often that takes.
fn put_patiently(store: &Store, change: &Change) -> bool {
    let mut tries = SpaceTries::default();
    loop {
        match commit(store, std::slice::from_ref(change)) {
            Ok(()) => return true,
            Err(StoreError::NoSpace) if store.get_space(&mut tries, Instant::now() + Duration::from_secs(20)) => {}
            Err(StoreError::NoSpace) => return false,
            Err(error) => panic!("{error}"),
        }
    }
}

/// A new store with segments of that length.
fn on_a_disk_of(bytes: u64, segment_bytes: u32) -> (Arc<MemoryDisk>, Store) {
    let disk = Arc::new(MemoryDisk::default());
    let geometry = Geometry { segment_bytes, ..SMALL.geometry };
    let options = CreateOptions { geometry: Some(geometry), ..CreateOptions::default() };
    Store::create_on(disk.clone(), &options).unwrap();
    disk.set_capacity(bytes);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    (disk, store)
}

/// So many bytes that nothing compresses.
fn noise(random: &mut Random, length: usize) -> Vec<u8> {
    (0..length.div_ceil(8)).flat_map(|_| random.next().to_le_bytes()).take(length).collect()
}

/// While a store is filled nothing of it is wasted. If all it has is taken then, there is nothing to move with when
/// every other value is deleted afterwards: each segment goes on holding half of what it did, and the store is full for
/// good. And what it tells of its space is so: what is deleted is free again.
#[test]
fn what_is_deleted_all_over_a_full_store_makes_room() {
    end_with_the_store();
    for_each_seed(4, |seed| {
        let mut random = Random::new(seed);
        let (disk, store) = on_a_disk_of(32 << 20, 1 << 20);
        let mut state = State::new();
        for number in 0_u32.. {
            let change = Change::Put(number.to_be_bytes().to_vec(), noise(&mut random, 20_000));
            if !put_patiently(&store, &change) {
                break;
            }
            apply(&mut state, &[change]);
            if number % 10 == 0 {
                store.sync().unwrap();
            }
        }
        let space = store.space();
        assert!(state.len() > 1000 && space.free <= 2 << 20, "full with {} values: {space:?}", state.len());

        let share = random.within(2..5);
        let doomed: Vec<Vec<u8>> = state.keys().step_by(share).cloned().collect();
        for key in &doomed {
            let change = Change::Delete(key.clone());
            commit(&store, std::slice::from_ref(&change)).unwrap();
            apply(&mut state, &[change]);
        }
        store.checkpoint().unwrap();
        let (deleted, free) = (doomed.len() as u64 * 20_000, store.space().free);
        assert!(
            free >= deleted / 2 && free <= space.free + deleted + (1 << 20),
            "{deleted} bytes deleted, {free} free, {space:?} before"
        );

        let fits = doomed.into_iter().filter(|key| {
            let change = Change::Put(key.clone(), noise(&mut random, 20_000));
            let fits = put_patiently(&store, &change);
            if fits {
                apply(&mut state, &[change]);
            }
            fits
        });
        let again = fits.count() as u64 * 20_000;
        assert!(again >= deleted / 5 * 4, "of {deleted} bytes deleted {again} fit again: {:?}", store.space());
        let found = read_state(&store).unwrap();
        assert!(found == state, "{}", difference(&found, &state));
        store.close().unwrap();
        drop(store);
        assert_eq!(Store::check_on(disk, true).unwrap(), Vec::<String>::new());
    });
}

/// Small values lie in pages, and each that is deleted changes one: by and by all of them, and nothing of what they were
/// comes free before they are stored anew. If they have no room for that, nothing ever does.
#[test]
fn small_values_that_are_deleted_all_over_a_full_store_make_room() {
    end_with_the_store();
    for_each_seed(2, |seed| {
        let mut random = Random::new(seed);
        let (disk, store) = on_a_disk_of(10 << 20, 128 << 10);
        let mut state = State::new();
        // In no order, or in the order of their keys.
        let is_in_order = seed % 2 == 0;
        for number in 0_u64.. {
            let key = if is_in_order { number } else { random.next() };
            let change = Change::Put(key.to_be_bytes().to_vec(), noise(&mut random, 250));
            if !put_patiently(&store, &change) {
                break;
            }
            apply(&mut state, &[change]);
        }
        assert!(state.len() > 10_000, "full with {} values: {:?}", state.len(), store.space());

        let share = random.within(3..6) as u64;
        let doomed: Vec<Vec<u8>> = state.keys().filter(|_| random.next().is_multiple_of(share)).cloned().collect();
        for key in &doomed {
            let change = Change::Delete(key.clone());
            commit(&store, std::slice::from_ref(&change)).unwrap();
            apply(&mut state, &[change]);
        }
        let fits = doomed.iter().filter(|key| {
            let change = Change::Put(key.to_vec(), noise(&mut random, 250));
            let fits = put_patiently(&store, &change);
            if fits {
                apply(&mut state, &[change]);
            }
            fits
        });
        let again = fits.count();
        assert!(again >= doomed.len() / 5 * 4, "of {} deleted {again} fit again: {:?}", doomed.len(), store.space());
        let found = read_state(&store).unwrap();
        assert!(found == state, "{}", difference(&found, &state));
        store.close().unwrap();
        drop(store);
        assert_eq!(Store::check_on(disk, true).unwrap(), Vec::<String>::new());
    });
}

/// Bytes of all data segments in it.
fn taken(bucket: &Bucket) -> u64 {
    let segments = bucket.names().into_iter().filter(|name| name.starts_with("d/"));
    segments.filter_map(|name| bucket.body(&name)).map(|body| body.len() as u64).sum()
}

/// Without the cleaner it came to take more than twice what it holds.
#[test]
fn a_bucket_can_be_changed_in_place_for_ever() {
    const KEYS: usize = 1200;
    const VALUE: usize = 1500;
    end_with_the_store();
    for_each_seed(3, |seed| {
        let mut random = Random::new(seed);
        let bucket = new_store(SMALL);
        let mut state = State::new();
        let mut moved = 0;
        // What one mount has written, the next cleans.
        for round in 0..3 {
            let machine = Machine::start(&bucket);
            for step in 0..5000 {
                let number = if round == 0 && step < KEYS { step } else { random.within(0..KEYS) };
                let changes = [Change::Put((number as u32).to_be_bytes().to_vec(), random.bytes(VALUE))];
                commit(&machine.store, &changes).unwrap();
                apply(&mut state, &changes);
                if step % 40 == 0 {
                    machine.store.sync().unwrap();
                }
            }
            let until = Instant::now() + Duration::from_secs(60);
            machine.put("more", "of it");
            while taken(&bucket) > 2 * (KEYS * VALUE) as u64 {
                assert!(Instant::now() < until, "{} bytes, {:?}", taken(&bucket), machine.store.figures().segments);
                machine.store.checkpoint().unwrap();
                // What that freed is deleted behind a commit.
                machine.put("more", "of it");
                machine.store.sync().unwrap();
            }
            moved += machine.store.activity().moved_bytes;
            apply(&mut state, &[Change::Put(b"more".to_vec(), b"of it".to_vec())]);
            machine.close();
        }
        assert!(moved > 0);
        let found = final_state(&bucket);
        assert!(found == state, "{}", difference(&found, &state));
    });
}
