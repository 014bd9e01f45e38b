//! A store against a map: random transactions, reads, scans, old views, syncs and reopenings.

mod support;

use kivafs::backend::{Disk, FileDisk, Hold, MemoryDisk};
use kivafs::store::{CreateOptions, OpenError, OpenOptions, Store, StoreError};
use std::sync::Arc;
use std::time::Duration;
use support::bucket::{Bucket, Delivery, Weakness};
use support::compare::compare_with_map;
use support::medium::{Simulated, WeakBucket};
use support::random::{Random, for_each_seed};
use support::scratch::Scratch;
use support::store::{
    Change, SMALL, State, TINY, USUAL, apply, commit, create, difference, random_changes, read_state, unhurried,
};

type InMemory = Arc<MemoryDisk>;

fn little_cache_and_no_delay() -> OpenOptions {
    OpenOptions { commit_interval: Duration::ZERO, cache_bytes: 64 << 10, ..unhurried() }
}

#[test]
fn tiny_store() {
    for_each_seed(20, |seed| compare_with_map(&InMemory::empty(), seed, TINY, 400, &unhurried()));
}

#[test]
fn small_store() {
    for_each_seed(10, |seed| compare_with_map(&InMemory::empty(), seed, SMALL, 600, &unhurried()));
}

#[test]
fn small_store_that_commits_at_once_with_little_cache() {
    for_each_seed(5, |seed| {
        compare_with_map(&InMemory::empty(), seed, SMALL, 300, &little_cache_and_no_delay());
    });
}

#[test]
fn usual_store() {
    for_each_seed(2, |seed| compare_with_map(&InMemory::empty(), seed, USUAL, 300, &unhurried()));
}

/// Freed segments are deleted with the next commit.
fn deleting_soon() -> OpenOptions {
    OpenOptions { grace: Duration::ZERO, ..unhurried() }
}

#[test]
fn tiny_store_in_a_bucket() {
    for_each_seed(20, |seed| compare_with_map(&Bucket::new(), seed, TINY, 400, &deleting_soon()));
}

#[test]
fn small_store_in_a_bucket_that_answers_in_any_order() {
    for_each_seed(10, |seed| {
        let bucket = Bucket::new();
        bucket.deliver(Delivery::Pool { threads: 4, latency: Duration::ZERO, seed });
        compare_with_map(&bucket, seed, SMALL, 600, &deleting_soon());
    });
}

#[test]
fn small_store_in_a_bucket_that_commits_at_once_with_little_cache() {
    for_each_seed(5, |seed| {
        let options = OpenOptions { grace: Duration::ZERO, ..little_cache_and_no_delay() };
        compare_with_map(&Bucket::new(), seed, SMALL, 300, &options);
    });
}

/// C7. A failed attempt costs a pause, so the seeds run side by side.
#[test]
fn tiny_store_in_a_weak_bucket() {
    let mut seeds = Vec::new();
    for_each_seed(8, |seed| seeds.push(seed));
    std::thread::scope(|scope| {
        for seed in seeds {
            scope.spawn(move || {
                let weakness = if seed.is_multiple_of(2) { Weakness::severe() } else { Weakness::mild() };
                compare_with_map(&WeakBucket::new(weakness, seed), seed, TINY, 120, &deleting_soon());
            });
        }
    });
}

#[test]
fn usual_store_in_a_bucket() {
    for_each_seed(2, |seed| compare_with_map(&Bucket::new(), seed, USUAL, 300, &unhurried()));
}

#[test]
fn what_a_transaction_put_it_reads_and_nobody_else() {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), SMALL).unwrap();
    let store = Store::open_on(disk, &unhurried()).unwrap();
    let before = store.view();
    let mut txn = store.begin().unwrap();
    txn.put(b"key", b"value".to_vec());
    assert_eq!(txn.get(b"key").unwrap().unwrap().len(), 5);
    assert!(store.view().get(b"key").unwrap().is_none(), "not committed yet");
    txn.delete(b"key");
    assert!(txn.get(b"key").unwrap().is_none());
    txn.put(b"key", Vec::new());
    txn.commit().unwrap();
    assert!(before.get(b"key").unwrap().is_none(), "a view stays what it was");
    assert!(store.view().get(b"key").unwrap().unwrap().is_empty(), "no bytes are a value too");
    assert!(store.begin().unwrap().is_uncommitted(b"key") && !store.is_durable());
    store.sync().unwrap();
    assert!(store.is_durable());
    assert!(!store.begin().unwrap().is_uncommitted(b"key"));
}

#[test]
fn a_file_keeps_what_is_put_into_it_and_tells_who_has_it() {
    let scratch = Scratch::new();
    let path = scratch.path("store");
    assert!(matches!(Store::open_at(&path, &unhurried()), Err(OpenError::NotFound(_))));
    let options = CreateOptions { geometry: Some(SMALL.geometry), ..CreateOptions::default() };
    Store::create_at(&path, &options).unwrap();
    assert!(matches!(Store::create_at(&path, &options), Err(OpenError::Exists(_))));

    let mut random = Random::new(1);
    let mut state = State::new();
    for round in 0..5 {
        let serving_at = Some(scratch.path("mount point"));
        let store = Store::open_at(&path, &OpenOptions { serving_at: serving_at.clone(), ..unhurried() }).unwrap();
        let found = read_state(&store).unwrap();
        assert!(found == state, "round {round}: {}", difference(&found, &state));
        for _ in 0..20 {
            let changes = random_changes(&mut random, SMALL);
            commit(&store, &changes).unwrap();
            apply(&mut state, &changes);
        }
        for read_only in [false, true] {
            match Store::open_at(&path, &OpenOptions { read_only, ..unhurried() }) {
                Err(OpenError::InUse { holder, .. }) => {
                    assert_eq!((holder.pid, holder.draining), (std::process::id(), false));
                    assert_eq!(holder.serving_at, serving_at);
                }
                other => panic!("opened twice: {:?}", other.map(|_| ())),
            }
        }
        assert_eq!(Store::info_at(&path).unwrap().holder.map(|holder| holder.pid), Some(std::process::id()));
        store.announce_draining();
        assert!(Store::info_at(&path).unwrap().holder.is_some_and(|holder| holder.draining));
        store.close().unwrap();
        drop(store);
        assert_eq!(Store::info_at(&path).unwrap().holder, None);
        assert_eq!(Store::check_at(&path, true).unwrap(), Vec::<String>::new());
    }

    let readers = [1, 2].map(|_| Store::open_at(&path, &OpenOptions { read_only: true, ..unhurried() }).unwrap());
    assert!(readers.iter().all(|reader| read_state(reader).unwrap() == state));
    assert!(readers[0].begin().is_err(), "for reading only");
    assert!(Store::open_at(&path, &unhurried()).is_err(), "readers keep writers out");
    drop(readers);
    drop(FileDisk::open(&path, Hold::Exclusive).expect("nobody holds it any more"));
}

#[test]
fn what_is_no_store_is_not_opened() {
    for bytes in [Vec::new(), vec![0; 100], vec![0; 100_000], Random::new(3).bytes(100_000)] {
        let outcome = Store::open_on(Arc::new(MemoryDisk::from_bytes(bytes)), &unhurried());
        assert!(matches!(outcome, Err(OpenError::NotAStore(_))), "{:?}", outcome.map(|_| ()));
    }
}

/// R2, as why.md tells it for readers: space is not reused between a miss and its fetch.
#[test]
fn what_was_missed_stays_until_it_is_fetched() {
    let disk: Arc<dyn Disk> = Arc::new(MemoryDisk::default());
    create(disk.clone(), SMALL).unwrap();
    let store = Store::open_on(disk, &unhurried()).unwrap();
    let mut random = Random::new(1);
    let value = random.bytes(5000);
    commit(&store, &[Change::Put(b"old".to_vec(), value.clone())]).unwrap();
    store.checkpoint().unwrap();
    let view = store.view();
    let extent = store.patiently(|| view.get(b"old")).unwrap().unwrap();
    let Err(StoreError::Miss(miss)) = view.read(std::slice::from_ref(&extent)) else {
        panic!("nothing has read the unit yet")
    };
    drop(view);
    // The unit's segment fills, dies, and would be used again many times over.
    for round in 0..40u8 {
        for key in 0..20u8 {
            commit(&store, &[Change::Put(vec![b'k', key], random.bytes(4000 + usize::from(round)))]).unwrap();
        }
        if round == 5 {
            commit(&store, &[Change::Delete(b"old".to_vec())]).unwrap();
        }
        store.checkpoint().unwrap();
    }
    store.fetch(&miss).expect("what was there is still there");
    let view = store.view();
    assert_eq!(view.read(&[extent]).unwrap(), [value]);
}
