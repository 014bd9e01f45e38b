//! The edges of the log: what only a long row of events leads to. Each was found once.

mod support;

use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{CreateOptions, Geometry, OpenError, OpenOptions, Store, StoreError};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;
use support::random::Random;
use support::store::unhurried;

const BLOCK: usize = 4096;

fn new_store(ring_bytes: u64, segment_bytes: u32) -> Arc<MemoryDisk> {
    let disk = Arc::new(MemoryDisk::default());
    let geometry = Geometry { ring_bytes, ring_at_first: ring_bytes, segment_bytes, page_bytes: 4096 };
    Store::create_on(disk.clone(), &CreateOptions { geometry: Some(geometry), ..CreateOptions::default() }).unwrap();
    disk
}

fn put(store: &Store, key: &[u8], value: &[u8]) {
    store
        .patiently(|| {
            let mut txn = store.begin()?;
            txn.put(key, value.to_vec());
            txn.commit()
        })
        .unwrap();
}

fn get(store: &Store, key: &[u8]) -> Vec<u8> {
    let read = || {
        let view = store.view();
        let value = view.get(key)?.expect("it was put");
        view.read(&[value])
    };
    store.patiently::<_, StoreError>(read).unwrap().remove(0).to_vec()
}

/// R5: the clean mark of an earlier mount says nothing of the commits after it.
#[test]
fn an_old_clean_mark_does_not_end_the_log() {
    let disk = new_store(16 << 20, 4 << 20);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    put(&store, b"key", b"before the clean close");
    store.close().unwrap();
    drop(store);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    for round in 0..20 {
        put(&store, b"key", format!("acknowledged {round}").as_bytes());
        store.sync().unwrap();
    }
    let bytes = disk.to_bytes();
    drop(store);
    let is_commit = |at: &usize| bytes[*at..].starts_with(b"kivafsC1");
    let commits: Vec<usize> = (4 * BLOCK..(4 << 20)).step_by(BLOCK).filter(is_commit).collect();
    assert!(commits.len() > 20, "{} commits", commits.len());
    let (last, earlier) = commits.split_last().unwrap();
    let open_damaged = |at: usize| {
        let mut wrong = bytes.clone();
        wrong[at + 152] ^= 1;
        Store::open_on(Arc::new(MemoryDisk::from_bytes(wrong)), &unhurried())
    };
    for at in earlier.iter().filter(|at| bytes[**at + 80] > 2) {
        let opened = open_damaged(*at).map(|store| get(&store, b"key"));
        assert!(matches!(opened, Err(OpenError::Damaged { .. })), "commit at {at:#x}: {opened:?}");
    }
    // The documented exception: after an unclean end, the last commit alone.
    assert_eq!(get(&open_damaged(*last).unwrap(), b"key"), b"acknowledged 18");
}

/// A checkpoint places what is settled, however much compressed commits have taken in, without
/// filling a commit with it; nor does opening.
#[test]
fn placing_what_is_settled_fills_no_commit() {
    let disk = new_store(1 << 20, 1 << 20);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let mut random = Random::new(1);
    let mut keys = Vec::new();
    for _ in 0..40 {
        for _ in 0..60 {
            keys.push(random.bytes(512));
            put(&store, keys.last().unwrap(), &[0; 1100]);
        }
        store.sync().unwrap();
        let crashed = Arc::new(MemoryDisk::from_bytes(disk.to_bytes()));
        let store = Store::open_on(crashed, &unhurried()).unwrap();
        assert_eq!(get(&store, keys.last().unwrap()), [0; 1100]);
    }
    assert_eq!(store.check(true), Vec::<String>::new());
}

/// Mounts that die at once take no room that a later checkpoint needs, even while the disk is full.
#[test]
fn dying_mounts_never_use_up_the_log() {
    let disk = new_store(768 << 10, 256 << 10);
    let mut random = Random::new(2);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    for key in 0..4000u32 {
        put(&store, &key.to_be_bytes(), &random.bytes(900));
    }
    store.close().unwrap();
    drop(store);
    let occupied = disk.occupied_bytes();
    disk.set_capacity(occupied);
    for round in 0..400 {
        match Store::open_on(disk.clone(), &unhurried()) {
            Ok(_) | Err(OpenError::NoSpace { .. }) => {}
            Err(error) => panic!("round {round}: {error}"),
        }
    }
    disk.set_capacity(occupied + (64 << 20));
    let store = Store::open_on(disk, &unhurried()).expect("there is space again");
    put(&store, b"goes on", b"!");
    store.sync().unwrap();
}

/// Every sync is answered: also while the ring is tight and no checkpoint finds space.
#[test]
fn a_sync_is_answered_when_nothing_can_be_stored() {
    let disk = new_store(768 << 10, 256 << 10);
    let mut random = Random::new(3);
    let options = OpenOptions { cache_bytes: 64 << 20, ..unhurried() };
    let store = Arc::new(Store::open_on(disk.clone(), &options).unwrap());
    for key in 0..4000u32 {
        put(&store, &key.to_be_bytes(), &random.bytes(500));
    }
    store.sync().unwrap();
    store.checkpoint().unwrap();
    disk.set_capacity(0);
    // Deleting goes on as long as there is room in the log, and then is refused, not stuck.
    let (done, outcome) = channel();
    let deleter = store.clone();
    std::thread::spawn(move || {
        for key in 0..4000u32 {
            let deleted = deleter.patiently(|| {
                let mut txn = deleter.begin()?;
                txn.delete(&key.to_be_bytes());
                txn.commit()
            });
            let outcome = deleted.and_then(|()| deleter.sync());
            if outcome.is_err() || key == 3999 {
                done.send(outcome).unwrap();
                return;
            }
        }
    });
    match outcome.recv_timeout(Duration::from_secs(120)).expect("each deletion and each sync is answered") {
        Ok(()) | Err(StoreError::NoSpace) => {}
        Err(error) => panic!("{error}"),
    }
    disk.set_capacity(256 << 20);
    // A failed checkpoint is tried again by itself; until then the answer is still no.
    let mut tries = 0;
    while let Err(error) = store.sync() {
        assert!(matches!(error, StoreError::NoSpace), "{error}");
        tries += 1;
        assert!(tries < 1000, "there is space again");
        drop(store.checkpoint());
    }
    store.close().unwrap();
    assert_eq!(Store::check_on(disk as Arc<dyn Disk>, true).unwrap(), Vec::<String>::new());
}

/// Sorted pairs, so many a transaction, from the number on.
fn load(store: &Store, from: u64, count: u64) {
    for batch in (from..from + count).step_by(1000) {
        store
            .patiently(|| {
                let mut txn = store.begin()?;
                for number in batch..batch + 1000 {
                    txn.put(format!("{number:040}").as_bytes(), Random::new(number).bytes(40));
                }
                txn.commit()
            })
            .unwrap_or_else(|error: StoreError| panic!("{error}"));
    }
}

/// W4: what is loaded without a sync is written once, in pages. Then a sync makes it durable, and from
/// then on commits carry redo again.
#[test]
fn a_bulk_load_is_written_once() {
    const PAIRS: u64 = 200_000;
    let disk = new_store(16 << 20, 4 << 20);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    load(&store, 0, PAIRS);
    store.sync().unwrap();
    let loaded = store.activity();
    let payload = PAIRS * 80;
    assert!(loaded.commit_bytes < payload / 100, "{loaded:?}");
    assert!(loaded.data_bytes < payload * 5 / 4, "{loaded:?}");
    put(&store, b"a", b"key");
    store.sync().unwrap();
    let after = store.activity();
    assert_eq!((after.commits, after.data_bytes), (loaded.commits + 1, loaded.data_bytes));
    // The process is killed in the midst of another load.
    load(&store, PAIRS, PAIRS);
    let bytes = disk.to_bytes();
    drop(store);
    let disk = Arc::new(MemoryDisk::from_bytes(bytes));
    let store = Store::open_on(disk, &unhurried()).unwrap();
    let has = |number: u64| {
        let key = format!("{number:040}");
        store.patiently::<_, StoreError>(|| store.view().get(key.as_bytes())).unwrap().is_some()
    };
    let kept = (PAIRS..2 * PAIRS).step_by(1000).take_while(|first| has(*first)).count() as u64 * 1000;
    assert!((0..PAIRS + kept).step_by(97).all(has), "all before the last transaction that is there");
    assert!(!(PAIRS + kept..2 * PAIRS).step_by(97).any(has), "and nothing behind it");
    let last = PAIRS + kept - 1;
    assert_eq!(get(&store, format!("{last:040}").as_bytes()), Random::new(last).bytes(40));
    assert_eq!(store.check(true), Vec::<String>::new());
}

/// C2: also what is loaded without redo becomes durable in time, when nobody asks for it.
#[test]
fn a_bulk_load_becomes_durable_by_itself() {
    const PAIRS: u64 = 100_000;
    let disk = new_store(16 << 20, 4 << 20);
    let store =
        Store::open_on(disk.clone(), &OpenOptions { commit_interval: Duration::from_millis(100), ..unhurried() });
    let store = store.unwrap();
    load(&store, 0, PAIRS);
    let last = format!("{:040}", PAIRS - 1);
    let is_durable = || store.patiently::<_, StoreError>(|| store.committed_view().get(last.as_bytes())).unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while is_durable().is_none() {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.activity());
        std::thread::yield_now();
    }
    let disk = Arc::new(MemoryDisk::from_bytes(disk.to_bytes()));
    let store = Store::open_on(disk, &unhurried()).unwrap();
    assert_eq!(get(&store, last.as_bytes()), Random::new(PAIRS - 1).bytes(40));
}

/// Pages that were replaced pushed out those that are asked for: of a cache that could hold the whole tree,
/// half was of the past.
#[test]
fn pages_of_the_past_are_kept_only_while_somebody_reads_it() {
    const KEYS: u32 = 20_000;
    let store = Store::open_on(new_store(16 << 20, 4 << 20), &unhurried()).unwrap();
    let each_50th = |value: &[u8]| {
        let keys = (0..KEYS).step_by(50).map(u32::to_be_bytes);
        let change = || {
            let mut txn = store.begin()?;
            keys.clone().for_each(|key| txn.put(&key, value.to_vec()));
            txn.commit()
        };
        store.patiently::<_, StoreError>(change).unwrap();
    };
    let pages = || store.figures().cache.pages.count;
    for number in 0..KEYS {
        put(&store, &number.to_be_bytes(), &[0; 80]);
    }
    store.checkpoint().unwrap();
    let all = pages();
    assert!(all > 400, "{all} pages");
    each_50th(b"one on each leaf");
    assert!(pages() < all / 10, "{} pages are kept in vain", pages());
    store.checkpoint().unwrap();
    assert!(pages() >= all * 9 / 10, "{} of {all} pages after a checkpoint", pages());

    let view = store.view();
    each_50th(b"changed again");
    assert!(pages() >= all * 9 / 10, "{} of {all} pages, and somebody reads them", pages());
    let before = store.activity().reads;
    for key in (0..KEYS).step_by(50).map(u32::to_be_bytes) {
        let value = view.get(&key).unwrap().expect("it was put");
        assert_eq!(view.read(&[value]).unwrap()[0], &b"one on each leaf"[..]);
    }
    assert_eq!(store.activity().reads, before);
}

/// While there are changes, a checkpoint for what is dead has to free much more than it writes; but then nothing
/// else came, and it was never made.
#[test]
fn what_was_deleted_comes_free_when_nothing_else_happens() {
    const VALUES: u32 = 64;
    const BYTES: usize = 60_000;
    let disk = new_store(16 << 20, 256 << 10);
    let options = OpenOptions { commit_interval: Duration::from_millis(100), cache_bytes: 64 << 20, ..unhurried() };
    let store = Store::open_on(disk.clone(), &options).unwrap();
    let mut random = Random::new(3);
    for number in 0..VALUES {
        put(&store, &number.to_be_bytes(), &random.bytes(BYTES));
    }
    store.checkpoint().unwrap();
    // More is changed than a quarter of what will be dead.
    for from in (0..16_000).step_by(1000) {
        load(&store, from, 1000);
        store.sync().unwrap();
    }
    for number in 0..VALUES {
        store
            .patiently(|| {
                let mut txn = store.begin()?;
                txn.delete(&number.to_be_bytes());
                txn.commit()
            })
            .unwrap();
    }
    store.sync().unwrap();
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    while store.figures().segments.freeable > 0 {
        assert!(std::time::Instant::now() < deadline, "{:?}", store.figures());
        std::thread::yield_now();
    }
    assert!(store.figures().segments.live_bytes < u64::from(VALUES) * BYTES as u64);
}
