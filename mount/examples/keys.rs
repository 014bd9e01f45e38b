//! Keys and values from Rust: `cargo run -p kivafs-mount --example keys [STORE]`.
//!
//! Makes the store STORE (default: one in a temporary directory, removed at the end), and in it a stock
//! of a few things. Mounted, or with `kivafs ls STORE`, its keys are files.

use kivafs::store::OpenOptions;
use kivafs_mount::keys::{Change, If, Keys, Outcome};
use std::error::Error;
use std::path::Path;

fn main() -> Result<(), Box<dyn Error>> {
    match std::env::args_os().nth(1) {
        Some(store) => run(store.as_ref()),
        None => {
            let directory = std::env::temp_dir().join(format!("kivafs-keys-{}", std::process::id()));
            std::fs::create_dir(&directory)?;
            let done = run(&directory.join("store"));
            std::fs::remove_dir_all(&directory)?;
            done
        }
    }
}

/// All of it, with a new store at that path.
pub fn run(store: &Path) -> Result<(), Box<dyn Error>> {
    let keys = Keys::create(store)?;

    // Several changes at one instant.
    let changes = ["apples", "pears", "plums"].map(|thing| Change::set(format!("stock/{thing}"), "3"));
    assert_eq!(keys.apply(&changes)?, [Outcome::Done; 3]);

    // Only if nobody else has done it: a name that is taken once.
    let take = |who: &'static str| keys.apply(&[Change::set("owner", who).only(If::Absent)]);
    assert_eq!((take("ann")?, take("bob")?), (vec![Outcome::Done], vec![Outcome::Not]));

    // Read, change, and set if it is still as it was read: nothing is lost, however many threads do it.
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| sell(&keys, "stock/apples").expect("the store works"));
        }
    });
    assert_eq!(keys.get(b"stock/apples")?.as_deref(), Some(&b"0"[..]));

    // In order, as of one instant. '0' comes right after '/'.
    for pair in keys.range(b"stock/", Some(b"stock0"))? {
        let (key, value) = pair?;
        println!("{} {}", key.escape_ascii(), value.escape_ascii());
    }

    // From here on a power cut loses nothing of that.
    keys.sync()?;

    keys.apply(&[Change::delete("stock/pears")])?;
    // This does the same as `sync`, and lets others have the store.
    keys.close()?;

    let reading = OpenOptions { read_only: true, ..OpenOptions::default() };
    let keys = Keys::open(store, &reading)?;
    assert_eq!(keys.get(b"stock/pears")?, None);
    println!("{} keys are in {}", keys.range(b"", None)?.count(), store.display());
    Ok(keys.close()?)
}

fn sell(keys: &Keys, thing: &str) -> Result<(), Box<dyn Error>> {
    loop {
        let found = keys.get(thing.as_bytes())?.ok_or("it is not sold here")?;
        let left = std::str::from_utf8(&found)?.parse::<u32>()?.checked_sub(1).ok_or("none is left")?;
        let change = Change::set(thing.to_owned(), left.to_string()).only(If::Equals(found));
        if keys.apply(&[change])? == [Outcome::Done] {
            return Ok(());
        }
    }
}
