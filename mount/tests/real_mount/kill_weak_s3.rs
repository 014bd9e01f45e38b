//! `kill -9` at random moments under load, of what serves a store in a bucket: on a real S3 server, through
//! the fault proxy, so that requests fail and uploads of the dead may still arrive.
//!
//! The next mount takes the store over by itself, since the process that had it is gone (R8).

use crate::kill::kill_at_random_moments;
use crate::place::ceph::ceph;
use crate::served::Place;
use crate::weather::WEATHER;
use kivafs_fault_proxy::{Door, Proxy, ProxyOptions};

/// Beside the weather: uploads that arrive when the next mount is at work.
const LATE: &str = "put * p=0.03 late=0s..4s";

#[test]
fn kill_at_random_moments_over_weak_s3_loses_nothing_that_was_durable() {
    let seed = crate::first_seed();
    println!("KIVAFS_SEED={seed}");
    let proxy = Proxy::start(ProxyOptions { seed, ..ProxyOptions::to(&ceph().endpoint) }).expect("a proxy");
    // Made before anything happens, so that there is a store in any case; and by the proxy's own door,
    // since the server is tried out by creates that race.
    let place = Place::in_bucket_at(&proxy.endpoint());
    proxy.plan(&format!("{LATE}\n{WEATHER}"));
    // Each mount has a door of its own, so that the proxy tells writers apart.
    let mut door: Option<Door> = None;
    let rounds = crate::rounds(20);
    kill_at_random_moments(&place, seed, rounds, || {
        let door = door.insert(proxy.door().expect("a free port"));
        format!("commit=1,endpoint={}", door.endpoint())
    });
    let counts = proxy.counts();
    println!("{} requests, {:?}", counts.requests(), counts.faults);
    assert!(counts.faults.values().sum::<u64>() > 10 * rounds, "hardly anything happened: {counts:?}");
    assert_eq!(proxy.violations(), [], "KIVAFS_SEED={seed}");
}
