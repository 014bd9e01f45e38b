//! Random work against a map of all that was ever put.

use crate::random::{Random, for_each_seed};
use crate::scratch::Scratch;
use crate::values::{SMALL, disk_usage, hits, open_warm, put};
use kivafs::backend::DiskCache;
use std::collections::HashMap;
use std::path::Path;

/// Values put lately that must be there: of at most so many bytes, far from what is deleted at once.
const RECENT_BYTES: usize = 8 << 20;

struct Model {
    /// Lengths by number.
    put: HashMap<u64, usize>,
    /// Numbers, the latest last.
    order: Vec<u64>,
}

impl Model {
    fn check_recent(&self, cache: &DiskCache, step: usize) {
        let mut bytes = 0;
        for number in self.order.iter().rev() {
            bytes += self.put[number];
            if bytes > RECENT_BYTES {
                break;
            }
            assert!(hits(cache, *number, self.put[number]), "step {step}: value {number} was put just now");
        }
    }

    fn hits(&self, cache: &DiskCache) -> usize {
        self.put.iter().filter(|(number, length)| hits(cache, **number, **length)).count()
    }
}

fn length(random: &mut Random) -> usize {
    match random.within(0..16) {
        0 => random.within(0..130),
        1 => random.within(0..(1 << 20) + 1),
        2..8 => random.within(1000..5000),
        _ => random.within(30_000..70_000),
    }
}

fn check_size(directory: &Path, step: usize) {
    let used = disk_usage(directory);
    assert!(used <= SMALL, "step {step}: {used} bytes used");
}

#[test]
fn what_is_found_is_what_was_put() {
    for_each_seed(6, |seed| {
        let scratch = Scratch::new();
        let directory = scratch.path("cache");
        let mut random = Random::new(seed);
        let mut model = Model { put: HashMap::new(), order: Vec::new() };
        let mut cache = open_warm(&directory, SMALL);
        let mut next = 0;
        for step in 0..3000 {
            match random.within(0..100) {
                0..60 => {
                    let length = length(&mut random);
                    put(&cache, next, length);
                    model.put.insert(next, length);
                    model.order.push(next);
                    next += 1;
                    // So that none is dropped: what waits is bounded.
                    cache.flush();
                    check_size(&directory, step);
                }
                60..70 if next > 0 => {
                    let number = random.within(0..next as usize) as u64;
                    put(&cache, number, model.put[&number]);
                }
                70..90 if next > 0 => {
                    let number = random.within(0..next as usize) as u64;
                    hits(&cache, number, model.put[&number]);
                }
                90..97 => assert!(!hits(&cache, u64::MAX - random.next() % 1000, 0), "step {step}: never put"),
                97 => model.check_recent(&cache, step),
                98 if random.one_in(4) => {
                    cache.flush();
                    let before = model.hits(&cache);
                    drop(cache);
                    check_size(&directory, step);
                    cache = open_warm(&directory, SMALL);
                    check_size(&directory, step);
                    let after = model.hits(&cache);
                    assert!(after * 100 >= before * 95, "step {step}: {after} of {before} values found again");
                    model.check_recent(&cache, step);
                }
                _ => {}
            }
        }
        let stats = cache.stats();
        assert_eq!((stats.dropped, stats.failed), (0, 0));
        assert!(stats.hits > 0 && stats.misses > 0);
    });
}
