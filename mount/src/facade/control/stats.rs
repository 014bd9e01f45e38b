//! Figures as people read them.

use crate::facade::control::figures::Figures;
use crate::shown::{brief, bytes, count, requests, time_span};
use kivafs::store::Kept;
use std::fmt::{Result, Write};

/// The text.
pub fn text(figures: &Figures) -> String {
    let mut text = String::new();
    write(&mut text, figures).expect("a string takes all that is written to it");
    text
}

fn write(out: &mut String, figures: &Figures) -> Result {
    let store = &figures.store;
    writeln!(out, "kivafs {}, mounted for {}", env!("CARGO_PKG_VERSION"), time_span(figures.uptime))?;
    if let Some(why) = &store.failure {
        writeln!(out, "FAILED       no more changes are taken: {why}")?;
    }
    let memory = &figures.memory;
    writeln!(out, "memory       {}, at most {} so far", bytes(memory.resident), bytes(memory.peak))?;
    let (used, free) = (bytes(store.space.used), bytes(store.space.free));
    writeln!(out, "store        {used} used, {free} free")?;
    if let Some(nodes) = figures.nodes {
        writeln!(out, "nodes        {}", count(nodes))?;
    }
    let (held, held_max) = (count(figures.held as u64), count(figures.held_max as u64));
    writeln!(out, "kernel       holds {held} of them, at most {held_max}")?;
    let segments = &store.segments;
    let (all, dead) = (count(segments.count), count(segments.dead));
    let (taken, live) = (bytes(segments.bytes), bytes(segments.live_bytes));
    writeln!(out, "log          {all} segments of {taken}, {dead} without live bytes; {live} live")?;
    let activity = &store.activity;
    let (commits, flushes) = (count(activity.commits), count(activity.syncs));
    let (commit_bytes, data_bytes) = (bytes(activity.commit_bytes), bytes(activity.data_bytes));
    writeln!(out, "stored       {commits} commits of {commit_bytes}, data of {data_bytes}, {flushes} flushes")?;
    writeln!(out, "cleaned      {} of data moved", bytes(activity.moved_bytes))?;
    writeln!(out, "loaded       {} in {} pages and units", bytes(activity.read_bytes), count(activity.reads))?;
    let (unstored, changed) = (bytes(store.unstored_bytes), bytes(store.changed_bytes));
    writeln!(out, "on its way   {unstored}, and {changed} of changed pages")?;
    let (tail, ring) = (bytes(store.tail_bytes), bytes(store.ring_bytes));
    match store.usage {
        None => writeln!(out, "tail         {tail} of log since the last checkpoint, in a ring of {ring}")?,
        Some(_) => writeln!(out, "tail         {tail} of log since the last checkpoint")?,
    }
    if let Some(usage) = &store.usage {
        writeln!(out, "S3           {}", requests(usage))?;
    }
    writeln!(out, "cache        {} at most", bytes(store.cache.bytes_max))?;
    for (name, kept) in [("pages", &store.cache.pages), ("units", &store.cache.units)] {
        writeln!(out, "  {name}      {} in {}; {}", count(kept.count), bytes(kept.bytes), hit_rate(kept))?;
    }
    if let Some(disk) = &store.disk_cache {
        let (hits, misses) = (count(disk.hits), count(disk.misses));
        writeln!(out, "disk cache   {}; found {hits} times, missed {misses}", bytes(disk.bytes))?;
    }
    let parked = &figures.parked;
    writeln!(out, "waiting      {} requests, with {}", count(parked.requests as u64), bytes(parked.bytes as u64))?;
    writeln!(out, "deferred     {}", if figures.deferred { "removals have left something to do" } else { "nothing" })?;
    let of_files = &figures.requests;
    writeln!(out, "files        {} read, {} written", bytes(of_files.read_bytes), bytes(of_files.written_bytes))?;
    writeln!(out)?;
    writeln!(out, "{:<16} {:>14} {:>10} {:>9} {:>9} {:>9}", "requests", "count", "errors", "mean", "p50", "p99")?;
    for (kind, of_kind) in figures.requests.kinds.iter().filter(|(_, of_kind)| of_kind.times.count() > 0) {
        let times = &of_kind.times;
        let [mean, p50, p99] = [times.mean(), times.quantile(0.5), times.quantile(0.99)].map(brief);
        let (all, errors) = (count(times.count()), count(of_kind.errors));
        writeln!(out, "{:<16} {all:>14} {errors:>10} {mean:>9} {p50:>9} {p99:>9}", kind.name())?;
    }
    Ok(())
}

/// `99.2 % of 1,234 looks found something`
fn hit_rate(kept: &Kept) -> String {
    match kept.hits + kept.misses {
        0 => "not looked into yet".into(),
        looks => format!("{:.1} % of {} looks found something", 100.0 * kept.hits as f64 / looks as f64, count(looks)),
    }
}
