//! Storage that does not answer: nobody waits for longer than they want to, what is in memory can be
//! read, and nothing is lost when it answers again.

mod support;

use kivafs::backend::MemoryDisk;
use kivafs::store::{Miss, Room, Store, StoreError};
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle, ThreadId};
use std::time::{Duration, Instant};
use support::silent_disk::{Silence, SilentDisk};
use support::store::{SMALL, create, unhurried};

const CAUSE: &str = "storage did not answer, and nobody wants to wait";
/// Beyond any that a test waits for.
const LONG: Duration = Duration::from_secs(3600);

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
fn fill(disk: &SilentDisk, put: impl Fn(&str) -> Result<(), StoreError>) -> (usize, Miss) {
    let (mut number, mut stuck) = (0, false);
    loop {
        match put(&number.to_string()) {
            Ok(()) => number += 1,
            Err(StoreError::Miss(miss)) if stuck => return (number, miss),
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
    fill(disk, |key| put_now(store, key, vec![1; 100]))
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
    let (count, miss) = fill(&disk, |key| {
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
    let (count, _) = fill(&disk, |key| put_now(&store, key, vec![1; 900]));
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

fn put(store: &Store, key: &str) {
    store.patiently(|| put_now(store, key, vec![1])).unwrap();
}

/// The thread that told it.
fn told_by(store: &Store, key: &str) -> ThreadId {
    put(store, key);
    let (told, by) = mpsc::channel();
    store.sync_here_then(Box::new(move |result| told.send((result, thread::current().id())).unwrap()));
    let (result, by) = by.recv().unwrap();
    result.unwrap();
    by
}

/// To wake another thread would take as long again.
#[test]
fn who_waits_for_a_commit_makes_it_while_storage_is_at_rest() {
    let (_, store) = store();
    let us = thread::current().id();
    // Now and then somebody else is at work, or the machine is: all the same, most are ours.
    let ours = (0..100).filter(|round| told_by(&store, &round.to_string()) == us).count();
    assert!(ours >= 10, "{ours} of 100");
    store.close().unwrap();
}

#[test]
fn who_has_other_things_to_do_does_not_wait_for_slow_flushes() {
    let (disk, store) = store();
    disk.fall(Silence::FLUSHES);
    put(&store, "slow");
    let (told, answered) = mpsc::channel();
    store.sync_then(Box::new(move |result| told.send(result).unwrap()));
    disk.until_waiting(1);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(2) {
        thread::yield_now();
    }
    disk.fall(Silence::NONE);
    answered.recv().unwrap().unwrap();
    assert_ne!(told_by(&store, "next"), thread::current().id());
    store.close().unwrap();
}

#[test]
fn who_finds_storage_at_work_does_not_wait_for_it() {
    let (disk, store) = store();
    disk.fall(Silence::CHANGES);
    put(&store, "first");
    let first = {
        let store = store.clone();
        thread::spawn(move || store.sync())
    };
    disk.until_waiting(1);
    let (told, durable) = mpsc::channel();
    for key in ["second", "third"] {
        put(&store, key);
        let told = told.clone();
        store.sync_here_then(Box::new(move |result| told.send(result).unwrap()));
    }
    assert!(durable.try_recv().is_err(), "storage has not answered");
    disk.fall(Silence::NONE);
    first.join().unwrap().unwrap();
    assert!((0..2).all(|_| durable.recv().unwrap().is_ok()));
    store.close().unwrap();
    drop(store);
    let store = Store::open_on(disk, &unhurried()).unwrap();
    assert!(["first", "second", "third"].iter().all(|key| is_there(&store, key)));
}

/// K2: each of many who ask at once is told, whoever makes the commits.
#[test]
fn all_who_ask_at_once_are_told() {
    let (_, store) = store();
    let ask = |client: usize| {
        for round in 0..300 {
            put(&store, &format!("{client} {round}"));
            match (client + round) % 3 {
                0 => store.sync().unwrap(),
                1 => store.sync_then(Box::new(|result| result.unwrap())),
                _ => store.sync_here_then(Box::new(|result| result.unwrap())),
            }
        }
        store.sync().unwrap();
        assert!((0..300).all(|round| is_there(&store, &format!("{client} {round}"))));
    };
    thread::scope(|scope| (0..8).for_each(|client| drop(scope.spawn(move || ask(client)))));
    store.close().unwrap();
}
