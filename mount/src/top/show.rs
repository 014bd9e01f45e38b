//! Rates for people, and for programs. Pure.

use crate::shown::{brief, bytes, count, time_span};
use crate::top::rates::{OfCache, Rates};
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::time::Duration;

/// For people.
pub fn table(rates: &Rates) -> String {
    let mut lines = vec![
        format!("mounted for {}; the last {:.1} s:", time_span(Duration::from_secs_f64(rates.uptime)), rates.seconds),
        format!(
            "files        {}/s read, {}/s written",
            whole_bytes(rates.read_bytes),
            whole_bytes(rates.written_bytes)
        ),
        format!(
            "storage      {}/s read, {}/s written; {} commits/s, {} flushes/s",
            whole_bytes(rates.loaded_bytes),
            whole_bytes(rates.stored_bytes),
            few(rates.commits),
            few(rates.flushes)
        ),
    ];
    if let Some(s3) = &rates.s3 {
        let requests: Vec<String> =
            s3.iter().map(|(kind, rate)| format!("{} {}/s", few(*rate), kind.to_uppercase())).collect();
        lines.push(format!("S3           {}", requests.join(", ")));
    }
    lines.push(format!("cache        {}", rates.cache.each_ref().map(of_cache).join("; ")));
    lines.push(format!(
        "now          {} of memory, {} on its way to storage, {} requests wait, {} nodes held",
        whole_bytes(rates.memory),
        whole_bytes(rates.unstored_bytes),
        count(rates.waiting as u64),
        count(rates.held_nodes as u64)
    ));
    let mut table = lines.join("\n");
    table.push_str("\n\n");
    let mut row = |name: &str, cells: [String; 4]| {
        let [requests, errors, mean, p99] = cells;
        // A string takes all that is written to it.
        let _ = writeln!(table, "{name:<16} {requests:>10} {errors:>10} {mean:>9} {p99:>9}");
    };
    row("requests", ["a second", "errors", "mean", "p99"].map(String::from));
    for kind in &rates.kinds {
        row(kind.name, [few(kind.requests), few(kind.errors), brief(kind.mean), brief(kind.p99)]);
    }
    table
}

fn of_cache(of: &OfCache) -> String {
    let found = of.hit_rate.map_or_else(|| "not asked".into(), |rate| format!("{:.1} % found", 100.0 * rate));
    format!("{} {found}, {}", of.name, whole_bytes(of.bytes))
}

fn whole_bytes(of: f64) -> String {
    bytes(of as u64)
}

/// Whole numbers are enough, unless there are few.
fn few(rate: f64) -> String {
    if rate > 0.0 && rate < 9.95 { format!("{rate:.1}") } else { count(rate.round() as u64) }
}

/// For programs.
pub fn object(rates: &Rates) -> Value {
    let kinds = rates.kinds.iter().map(|kind| {
        let figures = json!({
            "per_second": kind.requests,
            "errors_per_second": kind.errors,
            "mean_seconds": kind.mean,
            "p99_seconds": kind.p99,
        });
        (kind.name.to_owned(), figures)
    });
    let cache = rates.cache.iter().map(|of| {
        let figures = json!({ "hit_rate": of.hit_rate, "bytes": of.bytes });
        (of.name.to_owned(), figures)
    });
    let s3 =
        rates.s3.map(|s3| s3.into_iter().map(|(kind, rate)| (kind.to_owned(), rate.into())).collect::<Map<_, _>>());
    json!({
        "seconds": rates.seconds,
        "uptime_seconds": rates.uptime,
        "requests": kinds.collect::<Map<_, _>>(),
        "read_bytes_per_second": rates.read_bytes,
        "written_bytes_per_second": rates.written_bytes,
        "commits_per_second": rates.commits,
        "disk_flushes_per_second": rates.flushes,
        "stored_bytes_per_second": rates.stored_bytes,
        "loaded_bytes_per_second": rates.loaded_bytes,
        "cache": cache.collect::<Map<_, _>>(),
        "s3_requests_per_second": s3,
        "memory_bytes": rates.memory,
        "waiting_requests": rates.waiting,
        "unstored_bytes": rates.unstored_bytes,
        "held_nodes": rates.held_nodes,
    })
}
