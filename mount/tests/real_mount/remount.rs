//! `umount X; mount X` under load.
//!
//! Workers go on all the time; while nothing is mounted they wait for the mount to come back. The
//! process that served before may still be making things durable when the next mount is asked
//! for: that must wait for it, and must not be unmounted by its end.

use crate::model::shape_of;
use crate::place::{Medium, Watchdog, on_each_medium};
use crate::served::Place;
use crate::worker::{Signals, Worker};
use std::sync::atomic::Ordering;
use std::time::Duration;

on_each_medium!(umount_and_mount_under_load_lose_neither_data_nor_the_new_mount,);

fn umount_and_mount_under_load_lose_neither_data_nor_the_new_mount(medium: Medium) {
    let place = Place::new(medium);
    let seed = crate::first_seed();
    println!("KIVAFS_SEED={seed}");
    let dir = place.mount_point();
    let mut workers: Vec<Worker> =
        (0..2).map(|number| Worker::new(dir.join(format!("w{number}")), seed * 1000 + number)).collect();
    place.kivafs_ok(&["mount", "-o", "LOG", "STORE", "DIR"]);
    for worker in &mut workers {
        worker.fsync_rarity = 50;
        std::fs::create_dir(&worker.dir).expect("a worker's directory");
    }
    let signals = Signals::default();
    let rounds = crate::rounds(20);
    std::thread::scope(|scope| {
        for worker in &mut workers {
            scope.spawn(|| worker.work_until_done(&signals));
        }
        let _done_also_after_a_failure = OnDrop(|| signals.done.store(true, Ordering::SeqCst));
        for round in 0..rounds {
            let _watchdog = Watchdog::new(format!("round {round}, KIVAFS_SEED={seed}"), Duration::from_secs(300));
            std::thread::sleep(Duration::from_millis(200));
            assert_eq!(place.mounts(), 1, "round {round}: the mount of the round before is gone");
            let mut refusals = 0;
            while !place.umount() {
                refusals += 1;
                // They have something open nearly all the time: let umount through now.
                signals.pause.store(refusals > 3, Ordering::SeqCst);
                assert!(refusals < 1000, "round {round}: busy for ever");
            }
            signals.pause.store(false, Ordering::SeqCst);
            place.kivafs_ok(&["mount", "-o", "LOG", "STORE", "DIR"]);
            assert_eq!(place.mounts(), 1, "round {round}: mount said that it was done");
        }
    });
    // The process that served before the last one has ended by now, and took nothing with it.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(place.mounts(), 1, "the last mount is gone");
    for worker in &workers {
        assert!(!worker.model.shape().is_empty(), "{} has done nothing", worker.dir.display());
        assert_eq!(shape_of(&worker.dir).expect("a readable directory"), worker.model.shape());
    }
    place.kivafs_ok(&["umount", "DIR"]);
    place.kivafs_ok(&["check", "--data", "STORE"]);
}

/// Does it at the end, however that comes about.
struct OnDrop<F: Fn()>(F);

impl<F: Fn()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}
