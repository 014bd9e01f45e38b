//! `kill -9` at random moments under load.
//!
//! Four workers change their directories (create, write, append, truncate, chmod, rename, link,
//! symlink, unlink; fsync of files and directories, O_SYNC); their process is killed, `kivafs
//! check --data` must find nothing wrong, and after the next mount the directories must be as at
//! one instant, with all that was durable. The next round goes on from there in the same store.

use crate::instant::prefixes;
use crate::model::shape_of;
use crate::place::{Medium, Watchdog, on_each_medium};
use crate::random::Random;
use crate::served::Place;
use crate::worker::{Signals, Worker};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const WORKERS: u64 = 4;
const OPTIONS: &str = "commit=1";

on_each_medium!(
    kill_at_random_moments_leaves_a_prefix_with_all_that_was_durable,
    what_is_never_synced_is_committed_by_itself,
);

fn kill_at_random_moments_leaves_a_prefix_with_all_that_was_durable(medium: Medium) {
    let place = Place::new(medium);
    kill_at_random_moments(&place, crate::first_seed(), crate::rounds(15), || OPTIONS.to_owned());
}

/// So many rounds on a new store, each mount with the next options.
pub fn kill_at_random_moments(place: &Place, seed: u64, rounds: u64, mut options: impl FnMut() -> String) {
    let dir = place.mount_point();
    let mut workers: Vec<Worker> =
        (0..WORKERS).map(|number| Worker::new(dir.join(format!("w{number}")), seed * 1000 + number)).collect();
    let mut served = place.serve(&options());
    for worker in &workers {
        std::fs::create_dir(&worker.dir).expect("a worker's directory");
    }
    std::fs::File::open(&dir).and_then(|root| root.sync_all()).expect("fsync of the root");
    for round in 0..rounds {
        let seed = seed + round;
        let mut random = Random::new(seed);
        let _watchdog = Watchdog::new(format!("round {round}, KIVAFS_SEED={seed}"), Duration::from_secs(300));
        // Some rounds see many fsyncs, some few, some none at all.
        let fsync_rarity = [3, 20, 200, u64::MAX][random.within(0..4)];
        let time =
            Duration::from_millis(if random.one_in(5) { random.within(0..60) } else { random.within(60..1500) } as u64);
        print!("round {} of {rounds}: KIVAFS_SEED={seed}, killed after {time:?}, ", round + 1);
        for worker in &mut workers {
            worker.fsync_rarity = fsync_rarity;
        }
        let began = Instant::now();
        let signals = Signals::default();
        std::thread::scope(|scope| {
            for worker in &mut workers {
                scope.spawn(|| worker.work_until_killed(&signals));
            }
            std::thread::sleep(time);
            signals.killed.store(true, Ordering::SeqCst);
            served.kill();
        });
        // Every other time the dead mount is left for the next one to clear away.
        if random.one_in(2) {
            assert!(place.detach(), "the dead mount can't be detached");
        }
        place.kivafs_ok(&["check", "--data", "STORE"]);
        served = place.serve(&options());
        assert_eq!(place.mounts(), 1, "the dead mount is still there, below the new one");
        let found: Vec<_> = workers.iter().map(|worker| shape_of(&worker.dir).expect("a readable directory")).collect();
        let prefixes = match prefixes(&workers, &found, began) {
            Ok(prefixes) => prefixes,
            Err(what) => panic!("KIVAFS_SEED={seed}: {what}"),
        };
        let asked: Vec<usize> = workers.iter().map(|worker| worker.asked.len()).collect();
        println!("asked {asked:?}, found {prefixes:?}");
        for (worker, prefix) in workers.iter_mut().zip(prefixes) {
            for asked in worker.asked.drain(..).take(prefix) {
                worker.model.apply(&asked.op);
            }
        }
    }
    assert!(place.umount(), "nothing is open there any more");
    served.wait();
    place.kivafs_ok(&["check", "--data", "STORE"]);
}

fn what_is_never_synced_is_committed_by_itself(medium: Medium) {
    let place = Place::new(medium);
    let served = place.serve(OPTIONS);
    let path = place.mount_point().join("file");
    std::fs::write(&path, "not synced").expect("a file");
    std::thread::sleep(Duration::from_secs(4));
    served.kill();
    let served = place.serve(OPTIONS);
    assert_eq!(std::fs::read_to_string(&path).expect("the file"), "not synced");
    assert!(place.umount(), "nothing is open there");
    served.wait();
}
