//! Every byte flipped, every length cut, copies taken in the midst of work, kill -9.

use crate::random::{Random, for_each_seed};
use crate::scratch::Scratch;
use crate::values::{SMALL, cache_files, hits, open, open_warm, put};
use std::io::{BufRead, BufReader};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};

/// Lengths of the values of a cache that is damaged in all ways. Each takes whole units of 64
/// bytes: a header, and at least one more.
const LENGTHS: [usize; 9] = [1, 0, 63, 64, 65, 200, 1000, 128, 500];
const UNIT: usize = 64;
/// A value that is put after damage.
const NEW: u64 = u64::MAX;

/// A closed cache of one file, and where its values lie in it.
struct Specimen {
    name: PathBuf,
    bytes: Vec<u8>,
    file_length: u64,
    places: Vec<Range<usize>>,
    /// End of the catalog behind the values.
    used: usize,
}

impl Specimen {
    fn new(scratch: &Scratch) -> Specimen {
        let directory = scratch.path("specimen");
        let cache = open(&directory, SMALL);
        for (number, length) in LENGTHS.iter().enumerate() {
            put(&cache, number as u64, *length);
            cache.flush();
        }
        drop(cache);
        let [path] = &cache_files(&directory)[..] else { panic!("one file") };
        let mut places = Vec::new();
        let mut end = 2 * UNIT;
        for length in LENGTHS {
            let start = end;
            end += UNIT + length.div_ceil(UNIT).max(1) * UNIT;
            places.push(start..end);
        }
        let used = end + UNIT + (LENGTHS.len() * 40).div_ceil(UNIT) * UNIT;
        let mut bytes = std::fs::read(path).unwrap();
        let file_length = bytes.len() as u64;
        assert!(bytes[used..].iter().all(|byte| *byte == 0) && bytes[used - UNIT..used].iter().any(|byte| *byte != 0));
        bytes.truncate(used);
        Specimen { name: path.file_name().unwrap().into(), bytes, file_length, places, used }
    }

    /// A directory with this cache, cut at `length`.
    fn lay_out(&self, directory: &Path, length: u64) -> PathBuf {
        let _ = std::fs::remove_dir_all(directory);
        std::fs::create_dir(directory).unwrap();
        let path = directory.join(&self.name);
        std::fs::write(&path, &self.bytes).unwrap();
        std::fs::File::options().write(true).open(&path).unwrap().set_len(length).unwrap();
        path
    }

    /// Values that are not there. Those that are must be right.
    fn lost(cache: &kivafs::backend::DiskCache) -> Vec<usize> {
        (0..LENGTHS.len()).filter(|number| !hits(cache, *number as u64, LENGTHS[*number])).collect()
    }
}

fn flip(path: &Path, at: usize, mask: u8) {
    let file = std::fs::File::options().read(true).write(true).open(path).unwrap();
    let mut byte = [0];
    file.read_exact_at(&mut byte, at as u64).unwrap();
    file.write_all_at(&[byte[0] ^ mask], at as u64).unwrap();
}

/// Also after damage, what is put is there.
fn assert_usable(cache: &kivafs::backend::DiskCache, what: &str) {
    put(cache, NEW, 777);
    cache.flush();
    assert!(hits(cache, NEW, 777), "{what}: takes up nothing new");
}

#[test]
fn a_flipped_byte_loses_at_most_its_value() {
    let scratch = Scratch::new();
    let specimen = Specimen::new(&scratch);
    let directory = scratch.path("flipped");
    let mut random = Random::new(1);
    for at in 0..specimen.used {
        let mask = 1 << random.within(0..8);
        let path = specimen.lay_out(&directory, specimen.file_length);
        flip(&path, at, mask);
        let cache = open_warm(&directory, SMALL);
        let lost = Specimen::lost(&cache);
        let hit = specimen.places.iter().position(|place| place.contains(&at));
        match at {
            // Padding is not covered, and nobody misses it.
            _ if lost.is_empty() => assert!(at >= UNIT, "byte {at}: the header of the file is not looked at"),
            0..UNIT => assert_eq!(lost.len(), LENGTHS.len(), "byte {at}: of the header of the file"),
            _ => assert_eq!(lost, Vec::from_iter(hit), "byte {at}"),
        }
        assert_usable(&cache, &format!("byte {at}"));
    }
}

#[test]
fn a_byte_flipped_while_the_cache_is_open_loses_at_most_its_value() {
    let scratch = Scratch::new();
    let specimen = Specimen::new(&scratch);
    let directory = scratch.path("flipped");
    let mut random = Random::new(2);
    let path = specimen.lay_out(&directory, specimen.file_length);
    let mut cache = open_warm(&directory, SMALL);
    for at in 0..specimen.used {
        let mask = 1 << random.within(0..8);
        flip(&path, at, mask);
        let lost = Specimen::lost(&cache);
        let hit = specimen.places.iter().position(|place| place.contains(&at));
        assert!(lost.is_empty() || lost == Vec::from_iter(hit), "byte {at}: lost {lost:?}");
        assert_eq!(cache.stats().failed, lost.len() as u64, "byte {at}");
        flip(&path, at, mask);
        if !lost.is_empty() {
            assert_eq!(Specimen::lost(&cache), lost, "byte {at}: what was damaged is not looked at again");
            drop(cache);
            cache = open_warm(&directory, SMALL);
            assert_eq!(Specimen::lost(&cache), [], "byte {at}: mended");
        }
    }
}

#[test]
fn a_cut_file_loses_what_was_cut_off() {
    let scratch = Scratch::new();
    let specimen = Specimen::new(&scratch);
    let directory = scratch.path("cut");
    for length in 0..=specimen.used {
        specimen.lay_out(&directory, length as u64);
        let cache = open_warm(&directory, SMALL);
        let lost = Specimen::lost(&cache);
        let cut_off = (0..LENGTHS.len()).filter(|number| specimen.places[*number].end > length);
        assert_eq!(lost, cut_off.collect::<Vec<_>>(), "cut at {length}");
        assert_usable(&cache, &format!("cut at {length}"));
        drop(cache);
        let cache = open_warm(&directory, SMALL);
        assert!(hits(&cache, NEW, 777), "cut at {length}: what was put then is found again");
        // A value of which only the padding was cut off has it again.
        let now_lost = Specimen::lost(&cache);
        assert!(now_lost.iter().all(|number| lost.contains(number)), "cut at {length}: and what was there");
    }
}

#[test]
fn a_file_of_zeros_loses_what_was_there() {
    let scratch = Scratch::new();
    let specimen = Specimen::new(&scratch);
    let directory = scratch.path("zeros");
    // What a power cut leaves of whole blocks that were not written.
    for from in (0..specimen.used).step_by(UNIT) {
        let path = specimen.lay_out(&directory, specimen.file_length);
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.write_all_at(&vec![0; specimen.used - from], from as u64).unwrap();
        let cache = open_warm(&directory, SMALL);
        let lost = Specimen::lost(&cache);
        let end = |number: usize| specimen.places[number].start + UNIT + LENGTHS[number];
        let gone = (0..LENGTHS.len()).filter(|number| end(*number) > from || from == 0);
        assert!(lost.iter().copied().eq(gone), "zeros from {from}: lost {lost:?}");
        assert_usable(&cache, &format!("zeros from {from}"));
    }
}

fn length_of(number: u64) -> usize {
    Random::new(number ^ 0x5eed).within(0..60_000)
}

#[test]
fn a_copy_taken_in_the_midst_of_work_has_right_bytes_or_none() {
    for_each_seed(1, |seed| {
        let scratch = Scratch::new();
        let directory = scratch.path("cache");
        let cache = open_warm(&directory, SMALL);
        let is_over = AtomicBool::new(false);
        let mut random = Random::new(seed);
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| {
                let mut number = 0;
                while !is_over.load(Ordering::Relaxed) {
                    put(&cache, number, length_of(number));
                    number += 1;
                    if number.is_multiple_of(64) {
                        cache.flush();
                    }
                }
                number
            });
            let copies: Vec<PathBuf> = (0..8)
                .map(|copy| {
                    // Each file is copied at another moment, in any order.
                    let to = scratch.path(&format!("copy-{copy}"));
                    std::fs::create_dir(&to).unwrap();
                    let files = cache_files(&directory);
                    for which in random.permutation(files.len()) {
                        let _ = std::fs::copy(&files[which], to.join(files[which].file_name().unwrap()));
                    }
                    to
                })
                .collect();
            is_over.store(true, Ordering::Relaxed);
            let numbers = writer.join().unwrap();
            for copy in copies {
                let cache = open_warm(&copy, SMALL);
                let found = (0..numbers).filter(|number| hits(&cache, *number, length_of(*number))).count();
                println!("{}: {found} of {numbers} values", copy.display());
                assert_usable(&cache, "a copy");
                drop(cache);
                std::fs::remove_dir_all(copy).unwrap();
            }
        });
    });
}

const WORKER_DIRECTORY: &str = "KIVAFS_CACHE_WORKER";
const BATCH: u64 = 50;

/// Not a test of its own: the process that is killed. Says after each batch that it is stored.
#[test]
fn worker() {
    let Ok(directory) = std::env::var(WORKER_DIRECTORY) else { return };
    let cache = open(Path::new(&directory), SMALL);
    for batch in 0.. {
        (batch * BATCH..(batch + 1) * BATCH).for_each(|number| put(&cache, number, length_of(number)));
        cache.flush();
        println!("\nstored {batch}");
    }
}

#[test]
fn what_was_stored_outlives_a_kill() {
    for_each_seed(5, |seed| {
        let scratch = Scratch::new();
        let directory = scratch.path("cache");
        let mut random = Random::new(seed);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "damage::worker", "--nocapture"])
            .env(WORKER_DIRECTORY, &directory)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines().map(Result::unwrap);
        let stored = lines.filter_map(|line| Some(line.strip_prefix("stored ")?.parse::<u64>().unwrap()));
        let last = stored.take(random.within(1..80)).last().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let cache = open_warm(&directory, SMALL);
        let numbers = (last + 1) * BATCH;
        let found = (0..numbers).filter(|number| hits(&cache, *number, length_of(*number))).count();
        println!("{found} of {numbers} values");
        for number in numbers.saturating_sub(5 * BATCH)..numbers {
            assert!(hits(&cache, number, length_of(number)), "value {number} of {numbers} was stored");
        }
        assert_usable(&cache, "after a kill");
    });
}
