//! Measures what a store costs: `cargo run --release --example figures [DIR]`.
//!
//! Loads 2^20 sorted pairs of 40+40 bytes into a store in DIR (default: the current directory),
//! then times lone durable puts, random gets and random durable batches, and prints what was
//! written for them. The physical limit, a 4 KiB pwrite + fdatasync into a zero-filled file of the
//! same directory, is measured in the same run.

use kivafs::store::{CreateOptions, OpenOptions, Store};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::{Duration, Instant};

const PAIRS: u64 = 1 << 20;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let dir = std::env::args().nth(1).unwrap_or_else(|| ".".into());
    let path = Path::new(&dir).join("figures.kivafs");
    Store::create_at(&path, &CreateOptions::default())?;
    let empty = std::fs::metadata(&path)?.blocks() * 512;
    let store = Store::open_at(&path, &OpenOptions { cache_bytes: 256 << 20, ..OpenOptions::default() })?;

    let mut noise = Noise(1);
    let mut keys: Vec<[u8; 40]> = (0..PAIRS).map(|_| noise.bytes()).collect();
    keys.sort_unstable();
    let start = Instant::now();
    for batch in keys.chunks(1000) {
        store.patiently(|| {
            let mut txn = store.begin()?;
            for key in batch {
                txn.put(key, noise.bytes::<40>().to_vec());
            }
            txn.commit()
        })?;
    }
    store.sync()?;
    println!("load of {PAIRS} sorted 40+40-byte pairs: {:.0}k/s", PAIRS as f64 / start.elapsed().as_secs_f64() / 1e3);
    let loaded = store.activity();
    println!("  written: {:.1} bytes a pair", (loaded.commit_bytes + loaded.data_bytes) as f64 / PAIRS as f64);
    store.checkpoint()?;
    store.sync()?;

    let mut times = Vec::new();
    let before = store.activity();
    for _ in 0..1000 {
        let key = noise.bytes::<40>();
        let start = Instant::now();
        store.patiently(|| {
            let mut txn = store.begin()?;
            txn.put(&key, noise.bytes::<40>().to_vec());
            txn.commit()
        })?;
        store.sync()?;
        times.push(start.elapsed());
    }
    let after = store.activity();
    println!(
        "lone durable put: p50 {:?}, {} fdatasyncs and {:.0} bytes of commits a put (with checkpoints: {:.0})",
        median(&mut times),
        (after.syncs - before.syncs) as f64 / 1000.0,
        (after.commit_bytes - before.commit_bytes) as f64 / 1000.0,
        (after.commit_bytes + after.data_bytes - before.commit_bytes - before.data_bytes) as f64 / 1000.0,
    );
    println!("  limit, 4 KiB pwrite + fdatasync: p50 {:?}", pwrite_and_sync(Path::new(&dir))?);

    let start = Instant::now();
    let count = 300_000;
    for _ in 0..count {
        let key = &keys[(noise.next() % PAIRS) as usize];
        let found = store.patiently(|| store.view().get(key))?;
        assert!(found.is_some(), "every loaded pair is there");
    }
    println!("random get: {:.0}k/s", count as f64 / start.elapsed().as_secs_f64() / 1e3);

    store.close()?;
    drop(store);
    let occupied = std::fs::metadata(&path)?.blocks() * 512;
    println!(
        "file: {occupied} bytes occupied, {:.1} a pair; {:.1} without the {empty} of an empty store",
        occupied as f64 / PAIRS as f64,
        (occupied - empty) as f64 / PAIRS as f64
    );
    let start = Instant::now();
    drop(Store::open_at(&path, &OpenOptions::default())?);
    println!("open: {:?}", start.elapsed());
    std::fs::remove_file(&path)?;
    Ok(())
}

fn pwrite_and_sync(dir: &Path) -> std::io::Result<Duration> {
    let path = dir.join("figures.limit");
    let file = std::fs::File::create_new(&path)?;
    file.write_all_at(&vec![0; 4 << 20], 0)?;
    file.sync_all()?;
    let mut times = Vec::new();
    for block in 0..1000 {
        let start = Instant::now();
        file.write_all_at(&[1; 4096], block * 4096)?;
        file.sync_data()?;
        times.push(start.elapsed());
    }
    std::fs::remove_file(&path)?;
    Ok(median(&mut times))
}

fn median(times: &mut [Duration]) -> Duration {
    times.sort_unstable();
    times[times.len() / 2]
}

/// Numbers that do not compress (xorshift64*).
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn bytes<const N: usize>(&mut self) -> [u8; N] {
        let mut bytes = [0; N];
        for chunk in bytes.chunks_mut(8) {
            chunk.copy_from_slice(&self.next().to_le_bytes()[..chunk.len()]);
        }
        bytes
    }
}
