//! Storage that does not answer: nobody waits for longer than they want to, what is in memory can be
//! read, and nothing is lost when it answers again.

mod support;

use kivafs::backend::MemoryDisk;
use kivafs::store::{CreateOptions, Miss, Room, Store, StoreError};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Barrier};
use std::thread::{JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use support::silent_disk::{Silence, SilentDisk};
use support::store::{SMALL, create, unhurried};

const CAUSE: &str = "storage did not answer, and nobody wants to wait";
/// Beyond any that a test waits for.
const LONG: Duration = Duration::from_secs(3600);
/// How long is waited for what storage would have to do.
const WHILE: Duration = Duration::from_millis(100);

fn store() -> (Arc<SilentDisk>, Arc<Store>) {
    let disk = Arc::new(SilentDisk::new(Arc::new(MemoryDisk::default())));
    create(disk.clone(), SMALL).unwrap();
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    (disk, Arc::new(store))
}

fn put_now(store: &Store, key: &str, value: Vec<u8>) -> Result<(), StoreError> {
    let mut txn = store.begin_now()?;
    txn.put(key.as_bytes(), value);
    txn.commit()
}

fn is_there(store: &Store, key: &str) -> bool {
    store.view().get(key.as_bytes()).unwrap().is_some()
}

/// Puts values into a silent store until there is no room, and will be none; answers how many.
fn fill(disk: &SilentDisk, store: &Store, put: impl Fn(&str) -> Result<(), StoreError>) -> (usize, Miss) {
    let (mut number, mut stuck) = (0, false);
    loop {
        match put(&number.to_string()) {
            Ok(()) => number += 1,
            Err(StoreError::Miss(miss)) if stuck => return (number, miss),
            // There may be room in a moment, without storage: when the redo of a bulk load is skipped.
            Err(StoreError::Miss(miss)) if store.fetch_until(&miss, Instant::now() + WHILE).unwrap() => {}
            Err(StoreError::Miss(_)) => {
                // Once storage is at a commit, the next is not begun.
                disk.until_waiting(1);
                stuck = true;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn fill_with_short(disk: &SilentDisk, store: &Store) -> (usize, Miss) {
    // Somebody waits for durability: what comes is no bulk load.
    store.sync_then(Box::new(drop));
    fill(disk, store, |key| put_now(store, key, vec![1; 100]))
}

#[test]
fn who_must_not_wait_for_room_does_not() {
    let (disk, store) = store();
    disk.fall(Silence::CHANGES);
    let (count, miss) = fill_with_short(&disk, &store);
    assert!(count > 20 && miss.room() == Some(Room::Change));
    assert!(!store.fetch_until(&miss, Instant::now() + Duration::from_millis(20)).unwrap());
    let late = store.patiently_until(Instant::now(), || put_now(&store, "late", vec![1]));
    assert!(matches!(late, Err(StoreError::Io(_))));
    assert!(is_there(&store, &(count - 1).to_string()));
    disk.fall(Silence::NONE);
    assert!(store.fetch_until(&miss, Instant::now() + LONG).unwrap());
    store.patiently_until(Instant::now() + LONG, || put_now(&store, "in time", vec![1])).unwrap();
    store.sync().unwrap();
    store.close().unwrap();
    drop(store);
    let store = Store::open_on(disk, &unhurried()).unwrap();
    for key in (0..count).map(|number| number.to_string()).chain(["in time".into()]) {
        assert!(store.patiently(|| store.view().get(key.as_bytes())).unwrap().is_some(), "{key}");
    }
}

#[test]
fn bulk_data_is_taken_in_until_enough_is_in_flight() {
    let (disk, store) = store();
    disk.fall(Silence::CHANGES);
    let (count, miss) = fill(&disk, &store, |key| {
        store.bulk_room()?;
        put_now(&store, key, vec![1; 9000])
    });
    assert!(count < (20 << 20) / 9000, "{count} values in memory");
    assert!(!store.fetch_until(&miss, Instant::now()).unwrap());
    assert!(is_there(&store, "0"));
    disk.fall(Silence::NONE);
    store.fetch(&miss).unwrap();
    store.sync().unwrap();
    assert!(is_there(&store, &(count - 1).to_string()));
}

/// C6: a bulk load, too, which has no commits to wait for. And nothing of it is lost.
#[test]
fn a_bulk_load_is_taken_in_until_enough_is_in_memory() {
    let (disk, store) = store();
    disk.fall(Silence::CHANGES);
    let (count, _) = fill(&disk, &store, |key| put_now(&store, key, vec![1; 900]));
    // Three times what makes a checkpoint due, and what one is writing.
    assert!((100..(4 << 20) / 900).contains(&count), "{count} values in memory");
    disk.fall(Silence::NONE);
    store.sync().unwrap();
    drop(store);
    let store = Store::open_on(disk, &unhurried()).unwrap();
    assert!(
        (0..count)
            .all(|number| { store.patiently(|| store.view().get(number.to_string().as_bytes())).unwrap().is_some() })
    );
}

/// A thread that waits for the store; its end tells what it was told.
fn wait<T: Send + 'static>(store: &Arc<Store>, wait: impl FnOnce(&Store) -> T + Send + 'static) -> JoinHandle<T> {
    let store = store.clone();
    std::thread::spawn(move || wait(&store))
}

fn was_given_up<T: std::fmt::Debug>(told: Result<T, StoreError>) {
    assert!(matches!(&told, Err(StoreError::Poisoned(cause)) if **cause == *CAUSE), "{told:?}");
}

#[test]
fn whoever_waits_is_told_when_storage_is_given_up() {
    let (disk, store) = store();
    disk.fall(Silence::ALL);
    let (count, _) = fill_with_short(&disk, &store);
    let others = [
        wait(&store, |store| store.begin().map(drop)),
        wait(&store, |store| store.sync()),
        wait(&store, |store| store.checkpoint()),
    ];
    assert!(!store.reclaim(Instant::now() + Duration::from_millis(20)));
    store.abandon(CAUSE);
    others.into_iter().for_each(|other| was_given_up(other.join().unwrap()));
    store.wait_for_room();
    [store.sync(), store.begin_now().map(drop), store.checkpoint()].into_iter().for_each(was_given_up);
    store.abandon("once more");
    assert!(is_there(&store, &(count - 1).to_string()), "reads go on");
    was_given_up(store.close());
    // Nothing waits for the threads that still wait for storage.
    drop(Arc::into_inner(store).expect("nobody else has it"));
    disk.fall(Silence::NONE);
}

/// What a lone caller waits for it does itself; who comes while it is at that does not wait, and is served by the
/// storage thread.
#[test]
fn one_caller_at_a_time_stores_what_it_waits_for_itself() {
    let disk = Arc::new(SilentDisk::new(Arc::new(MemoryDisk::default())));
    // Of the usual geometry: no checkpoint becomes due.
    Store::create_on(disk.clone(), &CreateOptions::default()).unwrap();
    let store = Arc::new(Store::open_on(disk.clone(), &unhurried()).unwrap());
    let sync_here = |store: &Store, told: &Sender<(&'static str, ThreadId)>, name| {
        let told = told.clone();
        store.sync_here(Box::new(move |result| {
            result.unwrap();
            told.send((name, std::thread::current().id())).unwrap();
        }));
    };
    let (told, heard) = channel();
    let own = std::thread::current().id();
    let commits = store.activity().commits;
    let (mut before, mut by_themselves) = (0, 0);
    for round in 0..50 {
        // The storage thread tells of the commit before, and goes to rest a little later.
        loop {
            put_now(&store, "before", vec![round; 100]).unwrap();
            sync_here(&store, &told, "before");
            before += 1;
            if heard.recv().unwrap().1 == own {
                break;
            }
        }
        put_now(&store, "first", vec![round; 100]).unwrap();
        disk.fall(Silence::CHANGES);
        let first = told.clone();
        let first = wait(&store, move |store| {
            sync_here(store, &first, "first");
            std::thread::current().id()
        });
        disk.until_waiting(1);
        put_now(&store, "others", vec![round; 100]).unwrap();
        sync_here(&store, &told, "second");
        sync_here(&store, &told, "third");
        assert!(!store.is_durable() && heard.try_recv().is_err());
        disk.fall(Silence::NONE);
        let first = first.join().unwrap();
        // The first caller and the storage thread tell, each of all that is durable by then.
        let mut all: Vec<_> = (0..3).map(|_| heard.recv().unwrap()).collect();
        all.sort_by_key(|(name, _)| *name);
        assert_eq!(all.iter().map(|(name, _)| *name).collect::<Vec<_>>(), ["first", "second", "third"]);
        by_themselves += u32::from(all[0].1 == first);
        assert!(all.iter().all(|(_, by)| *by != own), "{all:?}, this is {own:?}");
        assert!(store.is_durable());
    }
    let commits = store.activity().commits - commits;
    // Each for itself: 150.
    assert!(commits - before <= 125, "mostly the others share a commit: {commits}, {before} of them before");
    assert!(by_themselves >= 25, "{by_themselves} of 50 stored it themselves");
    store.close().unwrap();
}

/// Whoever comes while the store is being closed is told, one way or the other.
#[test]
fn who_syncs_beside_the_end_is_answered() {
    for round in 0..2000 {
        let (_disk, store) = store();
        let (told, heard) = channel();
        let begun = Arc::new(Barrier::new(3));
        let others = [true, false].map(|is_here| {
            let (told, begun) = (told.clone(), begun.clone());
            wait(&store, move |store| {
                begun.wait();
                for count in 1.. {
                    let told = told.clone();
                    let done = Box::new(move |result: Result<(), StoreError>| told.send(result.is_ok()).unwrap());
                    if is_here {
                        store.sync_here(done)
                    } else {
                        store.sync_then(done)
                    }
                    if put_now(store, "key", vec![count as u8; 20]).is_err() {
                        return count;
                    }
                }
                unreachable!("the store is closed some time")
            })
        });
        begun.wait();
        for _ in 0..round % 20 {
            std::thread::yield_now();
        }
        store.close().unwrap();
        let asked: usize = others.into_iter().map(|other| other.join().unwrap()).sum();
        drop(told);
        assert_eq!(heard.iter().count(), asked, "round {round}");
    }
}

#[test]
fn a_store_that_is_being_closed_can_be_given_up() {
    let (disk, store) = store();
    put_now(&store, "key", vec![1; 9000]).unwrap();
    disk.fall(Silence::CHANGES);
    let closing = wait(&store, |store| store.close());
    disk.until_waiting(1);
    store.abandon(CAUSE);
    was_given_up(closing.join().unwrap());
    drop(Arc::into_inner(store).expect("nobody else has it"));
    disk.fall(Silence::NONE);
}
