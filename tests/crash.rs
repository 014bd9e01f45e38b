//! Power cuts at every call, with every fate of what was not synced, and the loss of all machines that
//! use a bucket, with every fate of what was on its way there: what is found afterwards is the state
//! after some transaction, no older than the last acknowledged sync, whole and usable.
//!
//! Demands are in `support/crash_run`, fates in `support/crash_disk` and `support/bucket/journal`. Every image is opened, read,
//! changed, synced, opened again, closed and checked.

mod support;

use kivafs::store::OpenOptions;
use std::time::Duration;
use support::bucket::{Bucket, Delivery};
use support::crash_disk::{Effort, Tried};
use support::crash_run::CrashRun;
use support::medium::{CrashMedium, OneFile, Simulated};
use support::random::{Random, for_each_seed, scaled};
use support::store::{Change, LENGTHENED, SMALL, Sizes, TINY, random_changes, scattered_changes, unhurried};

fn effort(seed: u64, cuts_max: usize, fates_max: usize) -> Effort {
    Effort { cuts_max: scaled(cuts_max), fates_max: scaled(fates_max), shuffled: fates_max / 4, seed }
}

fn at_once() -> OpenOptions {
    OpenOptions { commit_interval: Duration::ZERO, ..unhurried() }
}

/// What is freed is deleted from a bucket with the next commit, not after minutes.
fn deleting_soon() -> OpenOptions {
    OpenOptions { grace: Duration::ZERO, ..unhurried() }
}

/// A random history from creation to closing, cut everywhere.
fn crash_random_history<M: CrashMedium>(
    medium: M,
    seed: u64,
    sizes: Sizes,
    steps: usize,
    options: &OpenOptions,
    effort: Effort,
) -> Tried {
    let mut run = CrashRun::create_on(medium, sizes);
    let store = run.work(seed, sizes, steps, options);
    run.close(store).unwrap();
    let mut recovered = 0;
    let tried = run.verify(effort, options, |_, _| recovered += 1);
    assert!(recovered > 0, "no image held a store");
    tried
}

fn crash_histories<M: CrashMedium>(
    medium: impl Fn(u64) -> M,
    seeds: usize,
    sizes: Sizes,
    steps: usize,
    options: &OpenOptions,
    [cuts, fates]: [usize; 2],
) {
    let mut tried = Tried::default();
    for_each_seed(seeds, |seed| {
        tried += crash_random_history(medium(seed), seed, sizes, steps, options, effort(seed, cuts, fates));
    });
    println!("{tried:?}");
}

#[test]
fn crash_anywhere_in_a_tiny_store() {
    crash_histories(|_| OneFile::empty(), 6, TINY, 120, &unhurried(), [400, 24]);
}

#[test]
fn crash_anywhere_while_every_transaction_is_committed_at_once() {
    crash_histories(|_| OneFile::empty(), 3, TINY, 80, &at_once(), [200, 16]);
}

#[test]
fn crash_anywhere_in_a_small_store() {
    crash_histories(|_| OneFile::empty(), 3, SMALL, 150, &unhurried(), [150, 16]);
}

#[test]
fn crash_anywhere_in_a_tiny_store_in_a_bucket() {
    crash_histories(|_| Bucket::new(), 6, TINY, 120, &deleting_soon(), [400, 24]);
}

#[test]
fn crash_anywhere_in_a_bucket_while_every_transaction_is_committed_at_once() {
    crash_histories(|_| Bucket::new(), 3, TINY, 80, &OpenOptions { grace: Duration::ZERO, ..at_once() }, [200, 16]);
}

#[test]
fn crash_anywhere_in_a_small_store_in_a_bucket() {
    crash_histories(|_| Bucket::new(), 3, SMALL, 150, &deleting_soon(), [150, 16]);
}

/// Segments are uploaded side by side: many changes are on their way at each cut.
#[test]
fn crash_anywhere_in_a_store_in_a_bucket_that_answers_in_any_order() {
    let in_any_order = |seed| {
        let bucket = Bucket::new();
        bucket.deliver(Delivery::Pool { threads: 4, latency: Duration::from_micros(300), seed });
        bucket
    };
    crash_histories(in_any_order, 4, TINY, 150, &deleting_soon(), [300, 24]);
}

/// While it is made a store is not there, or it is there, empty.
fn crash_in_create<M: CrashMedium>() {
    for sizes in [TINY, SMALL] {
        let run = CrashRun::<M>::create(sizes);
        let mut whole = Vec::new();
        let tried = run.verify(effort(1, 1000, 100), &unhurried(), |image, state| {
            assert!(state.is_empty());
            whole.push((image.cut, image.fate));
        });
        println!("{tried:?}, {} hold a store", whole.len());
        let position = run.medium.position();
        assert!(whole.contains(&(position, M::ALL_KEPT)), "created: it is durable when create returns");
    }
}

#[test]
fn crash_while_creating() {
    crash_in_create::<OneFile>();
}

#[test]
fn crash_while_creating_in_a_bucket() {
    crash_in_create::<Bucket>();
}

/// Until the log's ring has become longer, and a while after: what is changed lies all over the tree.
fn work_until_the_ring_is_longer(run: &mut CrashRun<OneFile>, random: &mut Random) {
    let store = run.open(&unhurried()).unwrap();
    let (mut before, mut after) = (0, 0);
    while after < 30 {
        before += 1;
        assert!(before < 3000, "it stays as it is: {:?}", store.figures());
        after += u32::from(store.figures().ring_bytes > LENGTHENED.geometry.ring_at_first);
        run.commit(&store, &scattered_changes(random, LENGTHENED)).unwrap();
        if random.one_in(4) {
            run.sync(&store).unwrap();
        }
    }
}

/// Before, while and after the ring becomes longer; and then once more, with what the crash left of that.
#[test]
fn crash_while_the_ring_becomes_longer() {
    let (mut once, mut twice) = (Tried::default(), Tried::default());
    for_each_seed(3, |seed| {
        let mut random = Random::new(seed);
        let mut run = CrashRun::<OneFile>::create(LENGTHENED);
        work_until_the_ring_is_longer(&mut run, &mut random);
        println!("{} calls", run.medium.position());
        once += run.verify(effort(seed, 1000, 12), &unhurried(), |image, state| {
            if !random.one_in(100) {
                return;
            }
            let mut run = CrashRun::after(image, state);
            work_until_the_ring_is_longer(&mut run, &mut random);
            twice += run.verify(effort(seed, 60, 8), &unhurried(), |_, _| {});
        });
    });
    println!("{once:?}, then {twice:?}");
}

/// Opening writes the epoch's first commit; closing, its last.
fn crash_in_open_and_close<M: CrashMedium>(options: &OpenOptions) {
    for_each_seed(3, |seed| {
        let mut random = Random::new(seed);
        let mut run = CrashRun::<M>::create(TINY);
        for _ in 0..8 {
            let store = run.open(options).unwrap();
            if random.one_in(2) {
                run.commit(&store, &random_changes(&mut random, TINY)).unwrap();
            }
            run.close(store).unwrap();
        }
        println!("{:?}", run.verify(effort(seed, 400, 40), options, |_, _| {}));
    });
}

#[test]
fn crash_while_opening_and_closing_again_and_again() {
    crash_in_open_and_close::<OneFile>(&unhurried());
}

#[test]
fn crash_while_opening_and_closing_again_and_again_in_a_bucket() {
    crash_in_open_and_close::<Bucket>(&deleting_soon());
}

/// A crash; recovery, some work and another crash, also in the middle of recovery; and again.
fn crash_again<M: CrashMedium>(options: &OpenOptions) {
    let (mut once, mut twice, mut thrice) = (Tried::default(), Tried::default(), Tried::default());
    for_each_seed(3, |seed| {
        let mut run = CrashRun::<M>::create(TINY);
        drop(run.work(seed, TINY, 50, options));
        let mut chosen = Random::new(seed);
        once += run.verify(effort(seed, 40, 8), options, |image, state| {
            if !chosen.one_in(12) {
                return;
            }
            let mut run = CrashRun::after(image, state);
            drop(run.work(seed + 100, TINY, 12, options));
            twice += run.verify(effort(seed, 30, 8), options, |image, state| {
                if !chosen.one_in(40) {
                    return;
                }
                let mut run = CrashRun::after(image, state);
                drop(run.work(seed + 200, TINY, 8, options));
                thrice += run.verify(effort(seed, 12, 6), options, |_, _| {});
            });
        });
    });
    println!("{once:?}, then {twice:?}, then {thrice:?}");
    assert!(thrice.images > 0);
}

#[test]
fn crash_after_a_crash() {
    crash_again::<OneFile>(&unhurried());
}

#[test]
fn crash_after_a_crash_in_a_bucket() {
    crash_again::<Bucket>(&deleting_soon());
}

/// The same few keys, over and over, until every place in the file was used several times: what
/// lies in reused places always looks almost right.
#[test]
fn crash_where_old_bytes_look_almost_right() {
    let mut run = CrashRun::<OneFile>::create(TINY);
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

/// A bulk load writes no redo: its pages come first, then the commit of a checkpoint, which whoever
/// asks for durability waits for. Before, between and behind there are commits with redo.
fn crash_in_a_bulk_load<M: CrashMedium>(options: &OpenOptions) {
    for_each_seed(3, |seed| {
        let mut random = Random::new(seed);
        let mut run = CrashRun::<M>::create(TINY);
        let store = run.open(options).unwrap();
        let mut number = 0;
        for _ in 0..3 {
            for _ in 0..150 + random.within(0..100) {
                let changes: Vec<Change> = (0..3)
                    .map(|_| {
                        // Some are overwritten soon, some are placed in data segments.
                        number += random.within(0..3);
                        let length = if random.one_in(20) { 1500 } else { 100 + random.within(0..100) };
                        Change::Put(format!("key {number:05}").into_bytes(), random.bytes(length))
                    })
                    .collect();
                run.commit(&store, &changes).unwrap();
            }
            run.sync(&store).unwrap();
            for _ in 0..random.within(0..4) {
                run.commit(&store, &random_changes(&mut random, TINY)).unwrap();
                run.sync(&store).unwrap();
            }
        }
        drop(store);
        println!("{:?}", run.verify(effort(seed, 300, 16), options, |_, _| {}));
    });
}

#[test]
fn crash_while_much_is_loaded() {
    crash_in_a_bulk_load::<OneFile>(&unhurried());
}

#[test]
fn crash_while_much_is_loaded_into_a_bucket() {
    crash_in_a_bulk_load::<Bucket>(&deleting_soon());
}

/// A transaction that puts values into data segments and is never synced must not be half there.
fn crash_behind_data<M: CrashMedium>(options: &OpenOptions) {
    let mut run = CrashRun::<M>::create(SMALL);
    let store = run.open(options).unwrap();
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
    println!("{:?}", run.verify(effort(5, 300, 40), options, |_, _| {}));
}

#[test]
fn crash_between_data_and_the_commit_that_refers_to_it() {
    crash_behind_data::<OneFile>(&unhurried());
}

#[test]
fn crash_between_data_and_the_commit_that_refers_to_it_in_a_bucket() {
    crash_behind_data::<Bucket>(&deleting_soon());
}
