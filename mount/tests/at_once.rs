//! Many at once in the same directories of a real mount: who lists them while others create, rename,
//! link and remove there, and who looks for names that others move, replace and remove. Needs root and
//! /dev/fuse; fails without.
//!
//! A run prints its seed; `KIVAFS_SEED` repeats its choices, `KIVAFS_ROUNDS` says how many times each
//! directory is listed.
//!
//! | file | job |
//! |---|---|
//! | `listing.rs` | getdents with small buffers, and what one listing must show |
//! | `changers.rs` | who creates, renames, links and removes |

#[path = "at_once/changers.rs"]
mod changers;
#[path = "at_once/listing.rs"]
mod listing;
mod place;
#[allow(dead_code, reason = "shared with the store's tests, which use all of it")]
#[path = "../../tests/support/random.rs"]
mod random;

use changers::Changer;
use listing::{Lasting, list};
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use place::{Medium, Place, Watchdog, on_each_medium};
use random::{Random, for_each_seed};
use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

on_each_medium!(
    each_lasting_entry_is_listed_once_while_others_come_and_go,
    a_name_that_is_replaced_is_always_there,
    a_name_is_there_from_when_it_was_made_until_it_was_removed,
    names_that_are_exchanged_are_both_always_there,
);

/// How many entries last, in each directory.
const LASTING: [usize; 4] = [0, 40, 900, 4000];
const CHANGERS: usize = 3;
const LISTERS: usize = 3;
/// Of a test whose threads wait for each other for ever.
const PATIENCE: Duration = Duration::from_secs(600);

fn each_lasting_entry_is_listed_once_while_others_come_and_go(medium: Medium) {
    let rounds = random::number_from_env("KIVAFS_ROUNDS").unwrap_or(4);
    for_each_seed(2, |seed| {
        let _watchdog = Watchdog::new(format!("listing, KIVAFS_SEED={seed}"), PATIENCE);
        let place = Place::new(medium);
        place.mount(&[]).silently();
        let mut random = Random::new(seed);
        let dirs = LASTING.map(|lasting| Lasting::make(place.dir.join(lasting.to_string()), lasting, &mut random));
        // From where they are stored, too, not only from what making them has left in memory.
        place.umounts();
        place.mount(&[]).silently();
        let (dirs, done) = (&dirs, &AtomicBool::new(false));
        let paths = dirs.each_ref().map(|dir| dir.path.as_path());
        let mut changers: Vec<Changer> = (0..CHANGERS).map(|number| Changer::new(seed, number, &paths)).collect();
        std::thread::scope(|scope| {
            changers.iter_mut().for_each(|changer| {
                scope.spawn(|| changer.work_until(done));
            });
            let listers: Vec<_> = (0..LISTERS as u64)
                .map(|number| {
                    let mut random = Random::new(seed * 1000 + number);
                    scope.spawn(move || {
                        for round in 0..rounds {
                            for dir in dirs {
                                dir.check(&list(&dir.path, &mut random))
                                    .unwrap_or_else(|wrong| panic!("{}, round {round}: {wrong}", dir.path.display()));
                            }
                        }
                    })
                })
                .collect();
            let listed: Vec<_> = listers.into_iter().map(|lister| lister.join()).collect();
            done.store(true, Ordering::Relaxed);
            listed.into_iter().for_each(|done| done.unwrap());
        });
        // Now that nobody changes anything: exactly what each has left, also after a remount.
        for time in ["at the end", "after a remount"] {
            for (at, dir) in dirs.iter().enumerate() {
                let left = changers.iter().flat_map(|changer| changer.left_in(at));
                let expected: BTreeSet<Vec<u8>> = dir.names().chain(left).collect();
                let found = list(&dir.path, &mut random);
                dir.check(&found).unwrap();
                let found: BTreeSet<Vec<u8>> = found.into_iter().map(|entry| entry.name).collect();
                assert!(found == expected, "{time}: {} entries, not {}", found.len(), expected.len());
            }
            place.umounts();
            place.mount(&[]).silently();
        }
        place.umounts();
        place.on_store("check", &["--data"]).silently();
    });
}

/// Runs a thread that changes names and some that look for them, all until the first is done.
fn beside(medium: Medium, change: impl Fn(&Path) + Sync, look: impl Fn(&Path) + Sync) {
    let _watchdog = Watchdog::new("looking for names".into(), PATIENCE);
    let place = Place::new(medium);
    place.mount(&[]).silently();
    let dir = place.dir.join("dir");
    fs::create_dir(&dir).unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let changer = scope.spawn(|| change(&dir));
        let lookers: Vec<_> = (0..3)
            .map(|_| {
                scope.spawn(|| {
                    while !done.load(Ordering::Relaxed) {
                        look(&dir);
                    }
                })
            })
            .collect();
        let changed = changer.join();
        done.store(true, Ordering::Relaxed);
        lookers.into_iter().for_each(|looker| looker.join().unwrap());
        changed.unwrap();
    });
    place.umounts();
    place.on_store("check", &["--data"]).silently();
}

const VERSIONS: u64 = 1500;

/// Some beside their names, some in pieces of their own.
fn content(version: u64) -> Vec<u8> {
    let times = if version.is_multiple_of(3) { 700 } else { 3 };
    version.to_le_bytes().repeat(times)
}

fn version_of(content: &[u8]) -> u64 {
    let version = u64::from_le_bytes(*content.first_chunk().unwrap());
    assert!(content == self::content(version), "{} bytes of version {version}", content.len());
    version
}

fn a_name_that_is_replaced_is_always_there(medium: Medium) {
    let replaced = AtomicU64::new(0);
    let begun = AtomicBool::new(false);
    let change = |dir: &Path| {
        for version in 1..=VERSIONS {
            fs::write(dir.join("new"), content(version)).unwrap();
            fs::rename(dir.join("new"), dir.join("name")).unwrap();
            replaced.store(version, Ordering::SeqCst);
            begun.store(true, Ordering::SeqCst);
        }
    };
    let look = |dir: &Path| {
        if begun.load(Ordering::SeqCst) {
            let least = replaced.load(Ordering::SeqCst);
            let found = version_of(&fs::read(dir.join("name")).unwrap());
            assert!(found >= least, "version {found}, though {least} had replaced it");
        }
    };
    beside(medium, change, look);
}

fn a_name_is_there_from_when_it_was_made_until_it_was_removed(medium: Medium) {
    // A version is being made, was made, is being removed, was removed.
    let steps = [const { AtomicU64::new(0) }; 4];
    let [making, made, removing, removed] = &steps;
    let change = |dir: &Path| {
        for version in 1..=VERSIONS {
            fs::write(dir.join("new"), content(version)).unwrap();
            making.store(version, Ordering::SeqCst);
            if version.is_multiple_of(2) {
                fs::rename(dir.join("new"), dir.join("name")).unwrap();
            } else {
                fs::hard_link(dir.join("new"), dir.join("name")).unwrap();
                fs::remove_file(dir.join("new")).unwrap();
            }
            made.store(version, Ordering::SeqCst);
            removing.store(version, Ordering::SeqCst);
            if version.is_multiple_of(5) {
                fs::rename(dir.join("name"), dir.join("elsewhere")).unwrap();
            } else {
                fs::remove_file(dir.join("name")).unwrap();
            }
            removed.store(version, Ordering::SeqCst);
        }
    };
    let look = |dir: &Path| {
        let (gone, there) = (removed.load(Ordering::SeqCst), made.load(Ordering::SeqCst));
        match fs::File::open(dir.join("name")) {
            Ok(mut file) => {
                let (most, mut found) = (making.load(Ordering::SeqCst), Vec::new());
                std::io::Read::read_to_end(&mut file, &mut found).unwrap();
                let found = version_of(&found);
                assert!(found > gone && found <= most, "version {found}: {gone} was gone, {most} the last");
            }
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::NotFound);
                let going = removing.load(Ordering::SeqCst);
                assert!(there <= gone || going >= there, "version {there} was not there, and nobody had removed it");
            }
        }
    };
    beside(medium, change, look);
}

fn names_that_are_exchanged_are_both_always_there(medium: Medium) {
    let begun = AtomicBool::new(false);
    let change = |dir: &Path| {
        fs::create_dir(dir.join("one")).unwrap();
        fs::create_dir(dir.join("two")).unwrap();
        let (one, two) = (dir.join("one/name"), dir.join("two/name"));
        fs::write(&one, content(1)).unwrap();
        fs::write(&two, content(3)).unwrap();
        begun.store(true, Ordering::SeqCst);
        for _ in 0..VERSIONS {
            renameat2(AT_FDCWD, &one, AT_FDCWD, &two, RenameFlags::RENAME_EXCHANGE).unwrap();
        }
    };
    let look = |dir: &Path| {
        if begun.load(Ordering::SeqCst) {
            for path in ["one/name", "two/name"] {
                let found = version_of(&fs::read(dir.join(path)).unwrap());
                assert!([1, 3].contains(&found), "version {found}");
            }
        }
    };
    beside(medium, change, look);
}
