//! Calls to the disk that fail, one after the other, until none is left to fail (C5, R4, R7).

mod support;

use kivafs::backend::{Disk, MemoryDisk};
use kivafs::store::{CreateOptions, Geometry, OpenError, OpenOptions, Store, StoreError};
use std::sync::Arc;
use std::time::{Duration, Instant};
use support::crash_disk::{CrashDisk, Effort};
use support::crash_run::CrashRun;
use support::faulty_disk::{CallKind, Fault, FaultyDisk, Then};
use support::forgetful_disk::ForgetfulDisk;
use support::medium::{OneFile, assert_whole};
use support::random::{Random, for_each_seed};
use support::store::{
    Change, LENGTHENED, SMALL, Sizes, State, TINY, apply, commit, create, difference, random_changes, read_state,
    read_view, scattered_changes, unhurried,
};

/// A store with something in it, closed, and what it holds.
fn filled_store(seed: u64) -> (Vec<u8>, State) {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), TINY).unwrap();
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let mut random = Random::new(seed);
    let mut state = State::new();
    for _ in 0..30 {
        let changes = random_changes(&mut random, TINY);
        commit(&store, &changes).unwrap();
        apply(&mut state, &changes);
    }
    store.close().unwrap();
    drop(store);
    (disk.to_bytes(), state)
}

/// Works on a filled store while one call fails. Whether that call was reached.
fn work_with_fault(bytes: &[u8], state: &State, seed: u64, fault: Fault) -> bool {
    let context = format!("{fault:?}");
    let crash_disk = Arc::new(CrashDisk::from_bytes(bytes.to_vec()));
    let faulty = Arc::new(FaultyDisk::new(crash_disk.clone()));
    let mut run = CrashRun::on(OneFile { disk: crash_disk, front: faulty.clone() }, state.clone());
    faulty.arm(fault);
    // Nothing stays cached, so that reading goes to the disk.
    let options = OpenOptions { cache_bytes: 32 << 10, ..unhurried() };
    match run.open(&options) {
        Ok(store) => {
            let happened_in_open = faulty.happened();
            let (cause, happened_before_end) = work_until_poisoned(&mut run, &store, &faulty, seed, &context);
            // What fails in the background after the last sync began is for nobody to be told.
            if happened_before_end && !happened_in_open && matches!(fault.kind, CallKind::Write | CallKind::Sync) {
                assert!(cause.is_some(), "{context}: an append failed and nobody was told");
            }
            if let Some(cause) = cause {
                assert!(faulty.happened(), "{context}: poisoned by nothing: {cause}");
                verify_poisoned(&run, &store, &cause, &context);
            }
        }
        Err(OpenError::Io { .. }) if faulty.happened() => {}
        Err(OpenError::NoSpace { .. }) if faulty.happened() && fault.errno == libc::ENOSPC => {}
        Err(error) => panic!("{context}: open: {error}"),
    }
    assert_eq!(faulty.syncs_after_failure(), 0, "{context}: never sync again after a failed sync");
    // What was acknowledged is there when the machine, or only the process, is started again.
    let effort = Effort { cuts_max: 1, fates_max: 10, shuffled: 3, seed };
    run.verify(effort, &unhurried(), |_, _| {});
    faulty.happened()
}

/// Transactions, syncs and cleanings; what is refused is tried again once. The cause of the poison, if any, and
/// whether the fault had happened when the last sync began.
fn work_until_poisoned(
    run: &mut CrashRun<OneFile>,
    store: &Store,
    faulty: &FaultyDisk,
    seed: u64,
    context: &str,
) -> (Option<Arc<str>>, bool) {
    let mut random = Random::new(seed);
    for step in 0..40 {
        let changes = random_changes(&mut random, TINY);
        let act = |run: &mut CrashRun<OneFile>| match step % 6 {
            2 | 5 => run.sync(store),
            4 => match store.clean() {
                Ok(_) | Err(StoreError::NoSpace) => Ok(()),
                Err(error) => Err(error),
            },
            _ => run.commit(store, &changes),
        };
        let outcome = match act(run) {
            Err(StoreError::Io(_) | StoreError::NoSpace) => act(run),
            outcome => outcome,
        };
        match outcome {
            Ok(()) => {}
            Err(StoreError::Poisoned(cause)) => return (Some(cause), faulty.happened()),
            // Only when nothing but reading works any more.
            Err(StoreError::NoSpace) if context.contains("ReadsOnly") => {}
            Err(error) => panic!("{context}: step {step}: {error}"),
        }
        if step % 7 == 0 {
            let found = read_state(store).or_else(|error| match error {
                StoreError::Io(_) => read_state(store),
                error => Err(error),
            });
            let found = found.unwrap_or_else(|error| panic!("{context}: step {step}: read: {error}"));
            assert!(found == *run.state(), "{context}: step {step}: {}", difference(&found, run.state()));
        }
    }
    let happened = faulty.happened();
    match run.sync(store) {
        Err(StoreError::Poisoned(cause)) => (Some(cause), happened),
        _ => (None, happened),
    }
}

/// Poison stays, tells its first cause, and lets reads go on.
fn verify_poisoned(run: &CrashRun<OneFile>, store: &Store, cause: &str, context: &str) {
    assert!(!cause.is_empty());
    let is_poisoned = |outcome: Result<(), StoreError>| match outcome {
        Err(StoreError::Poisoned(again)) => assert_eq!(&*again, cause, "{context}: the first cause"),
        other => panic!("{context}: poisoned, but {other:?}"),
    };
    for _ in 0..2 {
        is_poisoned(commit(store, &[Change::Put(b"too late".to_vec(), vec![1])]));
        is_poisoned(store.sync());
        let found = read_state(store).unwrap_or_else(|error| panic!("{context}: read: {error}"));
        assert!(found == *run.state(), "{context}: poisoned: {}", difference(&found, run.state()));
        let durable = read_view(store, &store.committed_view());
        let durable = durable.unwrap_or_else(|error| panic!("{context}: read what is durable: {error}"));
        assert!(run.states_since_sync().contains(&durable), "{context}: what is durable is none of what could be");
    }
    is_poisoned(store.close());
}

/// Fails the first call of that kind, then the second, until none is left.
fn fail_each(kind: CallKind, errno: i32) {
    for_each_seed(2, |seed| {
        let (bytes, state) = filled_store(seed);
        for then in [Then::Recovers, Then::ReadsOnly] {
            let mut nth = 1;
            while work_with_fault(&bytes, &state, seed, Fault { kind, nth, errno, then }) {
                nth += 1;
            }
            println!("{kind:?} {then:?}: {} calls", nth - 1);
            assert!(nth > 1, "no call of that kind");
        }
    });
}

#[test]
fn every_write_fails_once() {
    fail_each(CallKind::Write, libc::EIO);
}

#[test]
fn every_sync_fails_once() {
    fail_each(CallKind::Sync, libc::EIO);
}

#[test]
fn every_read_fails_once() {
    fail_each(CallKind::Read, libc::EIO);
}

#[test]
fn every_allocation_fails_once() {
    fail_each(CallKind::Allocate, libc::EIO);
}

#[test]
fn every_allocation_finds_no_space_once() {
    fail_each(CallKind::Allocate, libc::ENOSPC);
}

#[test]
fn every_punch_fails_once() {
    fail_each(CallKind::Punch, libc::EIO);
}

/// Whether that call was reached while the ring became longer, and for a while after.
fn lengthen_with_fault(fault: Fault) -> bool {
    let context = format!("{fault:?}");
    let crash_disk = Arc::new(CrashDisk::from_bytes(Vec::new()));
    let faulty = Arc::new(FaultyDisk::new(crash_disk.clone()));
    let mut run = CrashRun::create_on(OneFile { disk: crash_disk, front: faulty.clone() }, LENGTHENED);
    let store = run.open(&unhurried()).unwrap();
    faulty.arm(fault);
    let mut random = Random::new(11);
    let (mut cause, mut round, mut after) = (None, 0, 0);
    while after < 20 {
        round += 1;
        assert!(round < 3000, "{context}: neither failed nor became longer");
        let is_longer = store.figures().ring_bytes == LENGTHENED.geometry.ring_bytes;
        after += u32::from(is_longer || faulty.happened());
        let changes = scattered_changes(&mut random, LENGTHENED);
        let act =
            |run: &mut CrashRun<OneFile>| if round % 4 == 3 { run.sync(&store) } else { run.commit(&store, &changes) };
        let outcome = match act(&mut run) {
            Err(StoreError::NoSpace) => act(&mut run),
            outcome => outcome,
        };
        match outcome {
            Ok(()) => {}
            Err(StoreError::Poisoned(first)) => {
                cause = Some(first);
                break;
            }
            Err(error) => panic!("{context}: round {round}: {error}"),
        }
    }
    if let Some(cause) = cause {
        verify_poisoned(&run, &store, &cause, &context);
    } else {
        assert!(*run.state() == read_state(&store).unwrap(), "{context}");
    }
    drop(store);
    assert_eq!(faulty.syncs_after_failure(), 0, "{context}: never sync again after a failed sync");
    let effort = Effort { cuts_max: 1, fates_max: 4, shuffled: 1, seed: 1 };
    run.verify(effort, &unhurried(), |_, _| {});
    faulty.happened()
}

/// Without the space for it the ring stays as it is; what else fails is as everywhere.
#[test]
fn every_call_fails_once_while_the_ring_becomes_longer() {
    let faults = [
        (CallKind::Write, libc::EIO),
        (CallKind::Sync, libc::EIO),
        (CallKind::Allocate, libc::EIO),
        (CallKind::Allocate, libc::ENOSPC),
    ];
    for (kind, errno) in faults {
        let is_reached = |nth: &usize| lengthen_with_fault(Fault { kind, nth: *nth, errno, then: Then::Recovers });
        let calls = (1..).take_while(is_reached).count();
        println!("{kind:?} {errno}: {calls} calls");
        assert!(calls > 0, "no call of that kind");
    }
}

#[test]
fn every_call_of_creating_fails_once() {
    for kind in [CallKind::Write, CallKind::Sync, CallKind::Allocate] {
        for nth in 1.. {
            let below = Arc::new(MemoryDisk::default());
            let disk = Arc::new(FaultyDisk::new(below.clone()));
            disk.arm(Fault { kind, nth, errno: libc::ENOSPC, then: Then::Recovers });
            match create(disk.clone(), TINY) {
                Ok(()) => {
                    assert!(!disk.happened(), "{kind:?} {nth} failed unnoticed");
                    break;
                }
                Err(OpenError::NoSpace { .. } | OpenError::Io { .. }) => {}
                Err(error) => panic!("{kind:?} {nth}: {error}"),
            }
            let outcome = Store::open_on(Arc::new(MemoryDisk::from_bytes(below.to_bytes())), &unhurried());
            let half_made = outcome.map(|store| read_state(&store).unwrap());
            assert!(
                matches!(&half_made, Err(OpenError::NotAStore(_))) || half_made.as_ref().is_ok_and(State::is_empty),
                "{kind:?} {nth}: {half_made:?}"
            );
        }
    }
}

/// Fills until refused. Every transaction is there whole, or refused and not there.
fn fill(store: &Store, state: &mut State) {
    fill_with(store, state, 5000, 8);
}

/// The same with values of so many bytes, and a sync after each few.
fn fill_with(store: &Store, state: &mut State, value_bytes: usize, sync_each: usize) {
    let mut random = Random::new(9);
    for number in 0..10_000 {
        let changes = [Change::Put(format!("fill {number:05}").into_bytes(), random.bytes(value_bytes))];
        match commit(store, &changes) {
            Ok(()) => apply(state, &changes),
            Err(StoreError::NoSpace) => return,
            Err(error) => panic!("{number}: {error}"),
        }
        if number % sync_each == 0 {
            store.sync().unwrap_or_else(|error| panic!("what was accepted finds its space: {error}"));
        }
    }
    panic!("never full");
}

#[track_caller]
fn assert_holds(store: &Store, state: &State) {
    let found = read_state(store).unwrap();
    assert!(found == *state, "{}", difference(&found, state));
}

/// Space comes back in the background, once commits make it free: asks until then.
#[track_caller]
fn commit_when_there_is_space(store: &Store, changes: &[Change]) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while let Err(error) = commit(store, changes) {
        assert!(matches!(error, StoreError::NoSpace), "{error}");
        assert!(Instant::now() < deadline, "no space came back: {:?}", store.space());
        store.sync().unwrap();
    }
}

/// A new store on a disk that has a MiB.
fn on_a_small_disk() -> (Arc<MemoryDisk>, Store) {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), SMALL).unwrap();
    disk.set_capacity(1 << 20);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    (disk, store)
}

#[test]
fn a_full_disk_refuses_and_poisons_nothing() {
    // Small, but so that what ends with a segment is little of it: else there may be nothing to be gained by moving.
    let disk = Arc::new(MemoryDisk::default());
    let geometry = Geometry { segment_bytes: 256 << 10, ..SMALL.geometry };
    create(disk.clone(), Sizes { geometry, ..SMALL }).unwrap();
    disk.set_capacity(6 << 20);
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let mut state = State::new();
    fill(&store, &mut state);
    assert!(state.len() > 20, "full after {} values", state.len());
    assert_holds(&store, &state);
    store.sync().expect("what was accepted has its space");

    // Full, and nothing more is to be had: deleting works, one by one.
    let doomed: Vec<Vec<u8>> = state.keys().step_by(2).cloned().collect();
    for (number, key) in doomed.into_iter().enumerate() {
        let change = [Change::Delete(key)];
        let deleted = commit(&store, &change);
        deleted.unwrap_or_else(|error| panic!("deleting number {number} needs no space that is not there: {error}"));
        apply(&mut state, &change);
        store.sync().unwrap();
    }
    assert_holds(&store, &state);
    let change = [Change::Put(b"fits again".to_vec(), Random::new(1).bytes(5000))];
    commit_when_there_is_space(&store, &change);
    apply(&mut state, &change);

    // Space that somebody else gives back is used, too.
    fill(&store, &mut state);
    disk.set_capacity(7 << 20);
    let change = [Change::Put(b"room".to_vec(), vec![2; 5000])];
    commit_when_there_is_space(&store, &change);
    apply(&mut state, &change);
    store.close().unwrap();
    drop(store);
    assert_whole(&disk, "after a full disk");
    assert_holds(&Store::open_on(disk, &unhurried()).unwrap(), &state);
}

#[test]
fn a_full_store_can_be_opened_and_emptied() {
    // However its last segments were filled: a mount can't go on in them, and has the reserve alone.
    for value_bytes in [700, 3000, 5000, 9000, 15000] {
        for sync_each in 1..9 {
            fill_and_empty(value_bytes, sync_each);
        }
    }
}

fn fill_and_empty(value_bytes: usize, sync_each: usize) {
    let (disk, store) = on_a_small_disk();
    let mut state = State::new();
    fill_with(&store, &mut state, value_bytes, sync_each);
    store.close().unwrap();
    drop(store);

    disk.set_capacity(0);
    let store = Store::open_on(disk.clone(), &unhurried()).expect("opening needs no space that is not there");
    assert_holds(&store, &state);
    for key in state.keys() {
        commit(&store, &[Change::Delete(key.clone())]).unwrap();
    }
    commit_when_there_is_space(&store, &[Change::Put(b"k".to_vec(), vec![1; 3000])]);
    store.close().unwrap();
    drop(store);
    assert_whole(&disk, &format!("emptied of values of {value_bytes} bytes"));
}

/// A checkpoint is complete before the storage thread comes to what it frees: who asked for space once
/// more in between was refused.
#[test]
fn what_was_reclaimed_can_be_used_at_once() {
    let (_, store) = on_a_small_disk();
    for round in 0..30 {
        let mut state = State::new();
        fill(&store, &mut state);
        // Not what the refusal has asked for.
        store.checkpoint().unwrap();
        for key in state.keys() {
            commit(&store, &[Change::Delete(key.clone())]).unwrap();
        }
        store.reclaim(Instant::now() + Duration::from_secs(20));
        // More than one segment takes.
        for number in 0..16 {
            let change = [Change::Put(vec![number], vec![round; 8_000])];
            commit(&store, &change).unwrap_or_else(|error| panic!("round {round}, {number}: {error}"));
        }
        for number in 0..16 {
            commit(&store, &[Change::Delete(vec![number])]).unwrap();
        }
    }
}

/// A reader of an older state keeps the space of what was deleted since. Who asked for space while there was
/// one was refused for good, though it let go at once.
#[test]
fn space_that_a_reader_keeps_is_waited_for() {
    let (_, store) = on_a_small_disk();
    let mut state = State::new();
    fill(&store, &mut state);
    store.checkpoint().unwrap();
    let view = store.view();
    for key in state.keys() {
        commit(&store, &[Change::Delete(key.clone())]).unwrap();
    }
    store.checkpoint().unwrap();
    let put = || commit(&store, &[Change::Put(b"next".to_vec(), vec![1; 8_000])]);
    while put().is_ok() {}
    // Until all that is dead waits for the view alone.
    while store.reclaim(Instant::now() + Duration::from_millis(20)) {}
    drop(view);
    store.reclaim(Instant::now() + Duration::from_secs(20));
    put().unwrap();
}

/// Nothing is given back there, and nobody waits.
#[test]
fn a_store_that_is_closed_or_read_only_reclaims_nothing() {
    let disk = Arc::new(MemoryDisk::default());
    create(disk.clone(), SMALL).unwrap();
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    store.close().unwrap();
    assert!(!store.reclaim(Instant::now() + Duration::from_secs(20)));
    drop(store);
    let store = Store::open_on(disk, &OpenOptions { read_only: true, ..OpenOptions::default() }).unwrap();
    assert!(!store.reclaim(Instant::now() + Duration::from_secs(20)));
}

/// Each mount begins in new segments (R3): what is set aside must not all be in those of the last one.
#[test]
fn a_full_store_of_bounded_size_can_be_emptied_however_often_it_is_opened() {
    for size in [1 << 20, 5 << 18, 3 << 19] {
        let disk = Arc::new(MemoryDisk::default());
        let options = CreateOptions { size: Some(size), geometry: Some(SMALL.geometry), ..CreateOptions::default() };
        Store::create_on(disk.clone(), &options).unwrap();
        for round in 0..4 {
            let context = format!("{size} bytes, round {round}");
            let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
            let mut state = State::new();
            fill(&store, &mut state);
            store.close().unwrap();
            drop(store);
            let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
            assert_holds(&store, &state);
            for key in state.keys() {
                commit(&store, &[Change::Delete(key.clone())]).unwrap();
            }
            commit_when_there_is_space(&store, &[Change::Put(b"k".to_vec(), vec![round; 3000])]);
            commit(&store, &[Change::Delete(b"k".to_vec())]).unwrap();
            store.close().unwrap();
            drop(store);
            assert_whole(&disk, &context);
            assert!(disk.occupied_bytes() <= size, "{context}: {} bytes", disk.occupied_bytes());
        }
    }
}

/// Each of these mounts finds a full store, and deletes so little that nothing comes free. (Many more of them
/// would use up the reserve: live data would have to be moved.)
#[test]
fn a_full_store_is_emptied_by_many_mounts_of_which_each_deletes_a_little() {
    for size in [None, Some(1 << 20)] {
        let disk = Arc::new(MemoryDisk::default());
        let options = CreateOptions { size, geometry: Some(SMALL.geometry), ..CreateOptions::default() };
        Store::create_on(disk.clone(), &options).unwrap();
        disk.set_capacity(1 << 20);
        let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
        let mut state = State::new();
        fill_with(&store, &mut state, 700, 8);
        store.close().unwrap();
        drop(store);
        // Far from each other: in leaves, and in segments, of their own.
        let doomed: Vec<Vec<u8>> = state.keys().step_by(state.len() / 4).cloned().collect();
        assert!((4..6).contains(&doomed.len()));
        for key in doomed {
            let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
            let change = [Change::Delete(key)];
            commit(&store, &change).unwrap();
            apply(&mut state, &change);
            store.close().unwrap();
            drop(store);
        }
        let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
        assert_holds(&store, &state);
        for key in state.keys() {
            commit(&store, &[Change::Delete(key.clone())]).unwrap();
        }
        commit_when_there_is_space(&store, &[Change::Put(b"k".to_vec(), vec![1; 3000])]);
        store.close().unwrap();
        drop(store);
        assert_whole(&disk, "emptied by many");
    }
}

#[test]
fn a_store_never_outgrows_the_size_given_at_its_creation() {
    const SIZE: u64 = 1 << 20;
    let disk = Arc::new(MemoryDisk::default());
    let options = CreateOptions { size: Some(SIZE), geometry: Some(SMALL.geometry), ..CreateOptions::default() };
    Store::create_on(disk.clone(), &options).unwrap();
    let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
    let mut state = State::new();
    fill(&store, &mut state);
    store.sync().unwrap();
    assert!(disk.occupied_bytes() <= SIZE, "{} bytes", disk.occupied_bytes());
    assert_holds(&store, &state);
    let space = store.space();
    assert!(space.total <= SIZE && space.used <= space.total && space.free < 128 << 10, "{space:?}");
    let first = state.keys().next().unwrap().clone();
    commit(&store, &[Change::Delete(first)]).unwrap();
}

/// R4: a commit that could not be flushed stays in the page cache, clean. The next process must not build on it: what it
/// acknowledges would be lost along with it.
#[test]
fn what_could_not_be_flushed_is_not_built_upon() {
    for_each_seed(20, |seed| {
        let (bytes, mut state) = filled_store(seed);
        let disk = Arc::new(ForgetfulDisk::new(bytes));
        let mut random = Random::new(seed);
        for round in 0..6 {
            // As opening a file does.
            disk.sync().unwrap();
            let store = Store::open_on(disk.clone(), &unhurried()).unwrap();
            let found = read_state(&store).unwrap();
            assert!(found == state, "round {round}: {}", difference(&state, &found));
            for _ in 0..random.within(1..8) {
                let changes = random_changes(&mut random, TINY);
                commit(&store, &changes).unwrap();
                store.sync().unwrap();
                apply(&mut state, &changes);
            }
            // Before the commit: a checkpoint that runs meanwhile may flush it, or fail in its place.
            disk.fail_next_sync();
            commit(&store, &random_changes(&mut random, TINY)).and_then(|()| store.sync()).unwrap_err();
            drop(store);
            let after_a_cut = Store::open_on(Arc::new(MemoryDisk::from_bytes(disk.durable())), &unhurried()).unwrap();
            let found = read_state(&after_a_cut).unwrap();
            assert!(found == state, "round {round}, after a power cut: {}", difference(&state, &found));
        }
    });
}
