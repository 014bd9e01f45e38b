//! info, check.

use crate::cli::cost::Cost;
use crate::cli::failure::Failure;
use crate::cli::given::{self, Given};
use crate::cli::words::{CheckWords, InfoWords};
use crate::fs;
use crate::life::holder::{patiently, sleep};
use crate::life::place::Place;
use crate::shown::{bytes, instant, requests, time_span};
use kivafs::store::{BucketInfo, Holder, Info, OpenError, OpenOptions, Store};
use serde_json::{Value, json};
use std::time::{SystemTime, UNIX_EPOCH};

pub fn info(words: &InfoWords) -> Result<(), Failure> {
    let Given { place, .. } = given::store(&words.store)?;
    let info = place.info()?;
    let cost = match (words.cost, &info.bucket) {
        (false, _) => None,
        (true, Some(bucket)) => Some(Cost::of(bucket, info.occupied_bytes.unwrap_or(info.live_bytes), info.live_bytes)),
        (true, None) => {
            let why = "--cost: a store in a local file sends no requests: there is nothing to price";
            return Err(Failure::Usage(why.into()));
        }
    };
    if words.json {
        let mut value = info_json(&place, &info);
        if let Some(cost) = &cost {
            value["cost"] = cost.json();
        }
        println!("{value}");
    } else {
        print!("{}", info_text(&place, &info));
        if let (Some(cost), Some(bucket)) = (&cost, &info.bucket) {
            print!("{}", cost.text(&info, bucket));
        }
    }
    Ok(())
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

fn info_json(place: &Place, info: &Info) -> Value {
    json!({
        "store": place.to_string(),
        "id": info.id,
        "version": info.version,
        "epoch": info.epoch,
        "sequence": info.sequence,
        "committed_at": seconds(info.committed_at),
        "occupied_bytes": info.occupied_bytes,
        "live_bytes": info.live_bytes,
        "segments": info.segments,
        "size": info.size,
        "holder": info.holder.as_ref().map(holder_json),
        "bucket": info.bucket.as_ref().map(bucket_json),
    })
}

fn holder_json(holder: &Holder) -> Value {
    json!({
        "pid": holder.pid,
        "serving_at": holder.serving_at.as_ref().map(|dir| dir.to_string_lossy()),
        "draining": holder.draining,
        "host": holder.host,
        "since": holder.since.map(seconds),
        "here": holder.here,
    })
}

fn bucket_json(bucket: &BucketInfo) -> Value {
    let usage = &bucket.usage;
    json!({
        "puts": usage.puts,
        "gets": usage.gets,
        "lists": usage.lists,
        "deletes": usage.deletes,
        "bytes_up": usage.bytes_up,
        "bytes_down": usage.bytes_down,
        "changes": bucket.changes,
        "changed_bytes": bucket.changed_bytes,
        "fencing_proven": bucket.fencing_proven,
    })
}

fn info_text(place: &Place, info: &Info) -> String {
    let idle = SystemTime::now().duration_since(info.committed_at).unwrap_or_default();
    let mut text = String::new();
    let mut line = |name: &str, value: &str| text.push_str(&format!("{name:<10} {value}\n"));
    line("store", &place.to_string());
    line("id", &info.id);
    line("format", &info.version.to_string());
    line("epoch", &info.epoch.to_string());
    line("commit", &format!("{}, {} ago", info.sequence, time_span(idle)));
    if let Some(occupied) = info.occupied_bytes {
        line("occupied", &bytes(occupied));
    }
    line("live data", &format!("{} in {} segments", bytes(info.live_bytes), info.segments));
    line("limit", &info.size.map_or_else(|| "what there is".to_string(), bytes));
    if let Some(bucket) = &info.bucket {
        line("requests", &requests(&bucket.usage));
        let writers = match bucket.fencing_proven {
            true => "one at a time: the server was seen to keep two apart",
            false => "NOT KEPT APART by this server: there must never be two",
        };
        line("writers", writers);
    }
    line("held by", &info.holder.as_ref().map_or_else(|| "nobody".to_string(), holder_text));
    text
}

fn holder_text(holder: &Holder) -> String {
    let who = match holder.pid {
        0 => "another process".to_string(),
        pid => format!("pid {pid}"),
    };
    let host = holder.host.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
    let place = holder.serving_at.as_ref().map_or_else(String::new, |dir| format!(", at {}", dir.display()));
    let since = holder.since.map_or_else(String::new, |since| format!(", since {}", instant(since)));
    let draining = if holder.draining { ", making its last changes durable" } else { "" };
    format!("{who}{host}{place}{since}{draining}")
}

pub fn check(words: &CheckWords) -> Result<(), Failure> {
    let Given { place, options } = given::store(&words.store)?;
    let opening = OpenOptions { read_only: true, ..options.for_opening() };
    let wrong = match patiently(&place, || unless_damaged(place.open(&opening)), &mut sleep)? {
        Ok(store) => check_open(&place, &store, words.data)?,
        Err(damage) => vec![damage],
    };
    if words.json {
        println!("{}", json!({ "store": place.to_string(), "whole": wrong.is_empty(), "wrong": wrong }));
    } else {
        wrong.iter().for_each(|line| println!("{line}"));
    }
    match wrong.len() {
        0 => Ok(()),
        count => Err(Failure::Failed(format!("{place}: broken in {count} places"))),
    }
}

/// Damage that keeps a store from opening is what is looked for.
fn unless_damaged(opened: Result<Store, OpenError>) -> Result<Result<Store, String>, OpenError> {
    match opened {
        Ok(store) => Ok(Ok(store)),
        Err(OpenError::Damaged { what, .. }) => Ok(Err(what)),
        Err(error) => Err(error),
    }
}

fn check_open(place: &Place, store: &Store, data: bool) -> Result<Vec<String>, Failure> {
    let failed = |why: &dyn std::fmt::Display| Failure::Failed(format!("{place}: {why}"));
    let mut wrong = store.check(data);
    // What lies on a broken store can't be followed.
    if wrong.is_empty() {
        wrong = fs::check(store).map_err(|error| failed(&error))?;
    }
    store.close().map_err(|error| failed(&error))?;
    Ok(wrong)
}
