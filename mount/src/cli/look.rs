//! info, check.

use crate::cli::failure::Failure;
use crate::cli::place;
use crate::cli::words::{CheckWords, LookWords};
use crate::fs;
use crate::life::holder::{patiently, sleep};
use kivafs::store::{Info, OpenOptions, Store};
use serde_json::json;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

pub fn info(words: &LookWords) -> Result<(), Failure> {
    let store = place::store(&words.store)?;
    let info = Store::info_at(&store)?;
    if words.json {
        println!("{}", info_json(&store, &info));
    } else {
        print!("{}", info_text(&store, &info));
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn info_json(store: &Path, info: &Info) -> serde_json::Value {
    json!({
        "store": store.to_string_lossy(),
        "id": info.id,
        "version": info.version,
        "epoch": info.epoch,
        "sequence": info.sequence,
        "committed_at": seconds(info.committed_at),
        "occupied_bytes": info.occupied_bytes,
        "live_bytes": info.live_bytes,
        "segments": info.segments,
        "size": info.size,
        "holder": info.holder.as_ref().map(|holder| json!({
            "pid": holder.pid,
            "serving_at": holder.serving_at.as_ref().map(|dir| dir.to_string_lossy()),
            "draining": holder.draining,
        })),
    })
}

fn info_text(store: &Path, info: &Info) -> String {
    let age = SystemTime::now().duration_since(info.committed_at).map_or(0, |age| age.as_secs());
    let size = info.size.map_or_else(|| "what its disk has".to_string(), bytes);
    let holder = match &info.holder {
        None => "nobody".to_string(),
        Some(holder) => {
            let place = holder.serving_at.as_ref().map_or_else(String::new, |dir| format!(", at {}", dir.display()));
            let draining = if holder.draining { ", making its last changes durable" } else { "" };
            format!("pid {}{place}{draining}", holder.pid)
        }
    };
    format!(
        "store      {}\nid         {}\nformat     {}\nepoch      {}\ncommit     {}, {age} s ago\n\
         occupied   {}\nlive data  {} in {} segments\nlimit      {size}\nheld by    {holder}\n",
        store.display(),
        info.id,
        info.version,
        info.epoch,
        info.sequence,
        info.occupied_bytes.map_or_else(|| "not known".to_string(), bytes),
        bytes(info.live_bytes),
        info.segments,
    )
}

/// For people.
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (count.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    match unit {
        0 => format!("{count} bytes"),
        unit => format!("{:.1} {}", count as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]),
    }
}

pub fn check(words: &CheckWords) -> Result<(), Failure> {
    let store = place::store(&words.store)?;
    let mut wrong = patiently(&store, || Store::check_at(&store, words.data), &mut sleep)?;
    // What lies on a broken store can't be followed.
    if wrong.is_empty() {
        wrong = check_files(&store)?;
    }
    if words.json {
        println!("{}", json!({ "store": store.to_string_lossy(), "whole": wrong.is_empty(), "wrong": wrong }));
    } else {
        wrong.iter().for_each(|line| println!("{line}"));
    }
    match wrong.len() {
        0 => Ok(()),
        count => Err(Failure::Failed(format!("{}: broken in {count} places", store.display()))),
    }
}

fn check_files(place: &Path) -> Result<Vec<String>, Failure> {
    let options = OpenOptions { read_only: true, ..OpenOptions::default() };
    let store = patiently(place, || Store::open_at(place, &options), &mut sleep)?;
    let wrong = fs::check(&store).map_err(|error| Failure::Failed(format!("{}: {error}", place.display())))?;
    store.close().map_err(|error| Failure::Failed(format!("{}: {error}", place.display())))?;
    Ok(wrong)
}

#[cfg(test)]
mod tests {
    use super::bytes;

    #[test]
    fn bytes_for_people() {
        let shown = [0, 1023, 1024, 1536, 1 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "1.0 GiB", "16777216.0 TiB"]);
    }
}
