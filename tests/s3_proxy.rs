//! Weak S3 is enough (C7), on a real server: through the fault proxy requests are delayed, refused, reset
//! before and after the server has acted, and broken off half way; what is read comes from another
//! time, at each address from its own; machines are cut off and killed, and taken over. Nothing
//! acknowledged is lost, and no name ever has two contents.
//!
//! `s3_weak` does the same on a bucket in memory, where each request can be held to more rules.

#[path = "support/bucket_client.rs"]
mod bucket_client;
#[path = "support/proxied.rs"]
mod proxied;
mod support;
#[path = "support/weather.rs"]
mod weather;

use bucket_client::wait;
use bytes::Bytes;
use kivafs::backend::{ObjectError, Objects};
use kivafs_fault_proxy::{Counts, Violation};
use proxied::Proxied;
use std::collections::BTreeMap;
use std::panic::resume_unwind;
use support::compare::compare_with_map;
use support::machine::eager;
use support::medium::Medium;
use support::random::{for_each_seed, scaled};
use support::store::TINY;
use support::succession::{Outcome, side_by_side};

/// As many as a server on the same machine can serve well.
const SIDE_BY_SIDE: usize = 8;

/// Writers of stores side by side, each taking over from the one before.
fn take_over(seed: u64, writers: usize) -> (Outcome, Vec<Proxied>) {
    let (outcome, buckets) = side_by_side(seed, SIDE_BY_SIDE, writers, |seed| {
        let proxied = Proxied::new(seed, writers / SIDE_BY_SIDE);
        proxied.create(TINY).unwrap_or_else(|error| panic!("create: {error}"));
        proxied
    });
    println!("{outcome:?}");
    let mut faults: BTreeMap<&str, u64> = BTreeMap::new();
    let counts: Vec<Counts> = buckets.iter().map(Proxied::counts).collect();
    for (fault, count) in counts.iter().flat_map(|counts| &counts.faults) {
        *faults.entry(fault).or_default() += count;
    }
    println!("{} requests, {faults:?}", counts.iter().map(Counts::requests).sum::<u64>());
    (outcome, buckets)
}

#[test]
fn a_store_is_what_a_map_is() {
    for_each_seed(1, |seed| {
        std::thread::scope(|scope| {
            let compare = |seed| {
                move || {
                    let proxied = Proxied::new(seed, 0);
                    compare_with_map(&proxied, seed, TINY, 120, &eager());
                    assert_eq!(proxied.violations(), [], "seed {seed}");
                }
            };
            let stores: Vec<_> = (0..4).map(|number| scope.spawn(compare(100 * seed + number))).collect();
            stores.into_iter().for_each(|store| store.join().unwrap_or_else(|panic| resume_unwind(panic)));
        });
    });
}

#[test]
fn a_thousand_writers_are_taken_over_and_nothing_acknowledged_is_lost() {
    for_each_seed(1, |seed| {
        let (outcome, buckets) = take_over(seed, scaled(1000));
        assert!(outcome.fenced > 0 && outcome.acknowledged > outcome.opened, "{outcome:?}");
        for bucket in &buckets {
            assert_eq!(bucket.violations(), [], "seed {seed}");
        }
    });
}

/// Counted anew from the requests, beside what the proxy judges by itself.
#[test]
fn no_name_is_ever_put_with_two_contents() {
    for_each_seed(1, |seed| {
        let (_, buckets) = take_over(seed, 80);
        for bucket in &buckets {
            let written = bucket.written();
            println!("{written:?}");
            assert!(written.names > 20 && written.attempts > written.names, "too little was tried: {written:?}");
            assert_eq!(written.twice, [""; 0], "seed {seed}");
            assert_eq!(bucket.violations(), [], "seed {seed}");
        }
    });
}

/// What the others would see.
#[test]
fn a_name_that_is_put_with_two_contents_is_counted() {
    let bucket = Proxied::new(1, 0);
    let line = bucket.line(0, 2);
    let put = |name, body: &'static [u8]| wait(|done| line.put(name, Bytes::from_static(body), done));
    let create = |name, body: &'static [u8]| wait(|done| line.create(name, Bytes::from_static(body), done));
    for _ in 0..2 {
        assert_eq!(put("d/1", b"one"), Ok(()));
    }
    assert_eq!(create("e1/c1", b"one"), Ok(()));
    assert_eq!((bucket.written().names, bucket.written().attempts, bucket.written().twice.len()), (2, 3, 0));
    assert_eq!(bucket.violations(), []);
    assert_eq!(put("d/1", b"two"), Ok(()));
    // Also one that the server does not take.
    assert_eq!(create("e1/c1", b"two"), Err(ObjectError::Exists));
    let twice = bucket.written().twice;
    assert!(matches!(&twice[..], [name] if name.ends_with("/d/1")), "{twice:?}");
    let violations = bucket.violations();
    assert!(matches!(&violations[..], [Violation::Overwritten { .. }, Violation::Rebuilt { .. }]), "{violations:?}");
}
