//! Prints how fast and how dense the tree is. Asserts the density, not the times:
//! `cargo test --release -p kivafs --lib tree::figures -- --ignored --nocapture`

use crate::tree::shelf::{Cache, Counters, Shelf};
use crate::tree::{Direction, Tree, Value};
use std::ops::{Bound, ControlFlow};
use std::time::Instant;

const PAIRS: usize = 1 << 20;

type Change = (Vec<u8>, Option<Value>);

/// Numbers without pattern; always the same ones.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ mixed >> 31
    }

    fn bytes(&mut self) -> Vec<u8> {
        (0..5).flat_map(|_| self.next().to_le_bytes()).collect()
    }

    fn shuffle(&mut self, changes: &mut [Change]) {
        for i in (1..changes.len()).rev() {
            changes.swap(i, self.next() as usize % (i + 1));
        }
    }
}

fn pairs() -> Vec<Change> {
    let mut random = Random(1);
    (0..PAIRS).map(|_| (random.bytes(), Some(Value::from(random.bytes())))).collect()
}

fn load(tree: &mut Tree, changes: &[Change], batch: usize, name: &str) {
    let (cache, mut ledger) = (Cache::default(), Counters::default());
    let start = Instant::now();
    for batch in changes.chunks(batch) {
        tree.apply(&cache, batch, &mut ledger).unwrap();
    }
    print_rate(name, changes.len(), start);
}

fn print_rate(name: &str, count: usize, start: Instant) {
    let seconds = start.elapsed().as_secs_f64();
    println!("{name}: {:.0} k/s", count as f64 / seconds / 1000.0);
}

/// Stores the tree; returns bytes of leaf pages per pair.
fn store(tree: &mut Tree, cache: &Cache) -> f64 {
    let mut shelf = Shelf::default();
    let start = Instant::now();
    let Ok(written) = tree.freeze().write(&mut shelf);
    print_rate("  pairs written, with decoding each page once", PAIRS, start);
    let start = Instant::now();
    tree.install(written, &mut Counters::default(), &mut |at, node| {
        cache.0.borrow_mut().insert(at, node);
    });
    print_rate("  pairs installed", PAIRS, start);
    let memory: usize = cache.0.borrow().values().map(|node| node.memory_bytes()).sum();
    let per_pair = shelf.leaf_bytes as f64 / PAIRS as f64;
    println!(
        "  {per_pair:.2} bytes of leaf pages per pair, {} bytes per leaf, {} bytes of memory per pair",
        shelf.leaf_bytes / shelf.leaves,
        memory / PAIRS
    );
    per_pair
}

#[test]
#[ignore = "takes seconds, prints figures"]
fn figures() {
    let mut sorted = pairs();
    sorted.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    let mut falling: Vec<Change> = Vec::new();
    for batch in sorted.rchunks(1000) {
        falling.extend_from_slice(batch);
    }
    let mut shuffled = sorted.clone();
    Random(2).shuffle(&mut shuffled);
    for batch in shuffled.chunks_mut(1000) {
        batch.sort_unstable_by(|a, b| a.0.cmp(&b.0));
    }

    for page_bytes in [4096, 8192, 16384] {
        println!("page_bytes {page_bytes}");
        let mut tree = Tree::empty(page_bytes);
        load(&mut tree, &falling, 1000, "  falling inserts, batches of 1000");
        assert!(store(&mut tree, &Cache::default()) <= 100.0);
        let mut tree = Tree::empty(page_bytes);
        load(&mut tree, &shuffled, 1000, "  random inserts, batches of 1000");
        store(&mut tree, &Cache::default());
        let mut tree = Tree::empty(page_bytes);
        load(&mut tree, &sorted, 1000, "  sorted inserts, batches of 1000");
        gets(&tree, &Cache::default(), &sorted, "  random gets, changed pages");
        let cache = Cache::default();
        assert!(store(&mut tree, &cache) <= 100.0);
        gets(&tree, &cache, &sorted, "  random gets, cached pages");
        scan(&tree, &cache, &sorted);
        singles(page_bytes, &sorted, &shuffled);
    }
}

fn gets(tree: &Tree, cache: &Cache, sorted: &[Change], name: &str) {
    let mut random = Random(3);
    let root = tree.root();
    let start = Instant::now();
    let mut found = 0;
    for _ in 0..PAIRS {
        let (key, value) = &sorted[random.next() as usize % PAIRS];
        found += usize::from(root.get(cache, key).unwrap() == *value);
    }
    assert_eq!(found, PAIRS);
    print_rate(name, PAIRS, start);
}

fn scan(tree: &Tree, cache: &Cache, sorted: &[Change]) {
    let start = Instant::now();
    let mut bytes = 0;
    let visit = &mut |key: &[u8], value: &Value| {
        bytes += key.len() + value.len();
        ControlFlow::Continue(())
    };
    tree.root().scan(cache, Bound::Unbounded, Bound::Unbounded, Direction::Forward, visit).unwrap();
    assert_eq!(bytes, sorted.len() * 80);
    print_rate("  scanned", PAIRS, start);
}

/// Batches of one pair, with a snapshot taken after each: every page on the way is copied.
fn singles(page_bytes: usize, sorted: &[Change], shuffled: &[Change]) {
    for (changes, name) in [(sorted, "sorted"), (shuffled, "random")] {
        let mut tree = Tree::empty(page_bytes);
        load(&mut tree, &changes[..PAIRS / 4], 1, &format!("  {name} inserts one by one"));
        let (cache, mut ledger) = (Cache::default(), Counters::default());
        let mut root = tree.root();
        let start = Instant::now();
        for change in changes[PAIRS / 4..].iter().take(PAIRS / 16) {
            tree.apply(&cache, std::slice::from_ref(change), &mut ledger).unwrap();
            root = tree.root();
        }
        assert!(!root.is_empty());
        print_rate(&format!("  {name} inserts one by one, a snapshot each"), PAIRS / 16, start);
    }
}
