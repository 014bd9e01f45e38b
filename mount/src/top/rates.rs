//! What changed between two readings. Pure.

use crate::meter::Kind;
use crate::top::samples::Samples;

/// The requests of a kind.
#[derive(Debug, PartialEq)]
pub struct OfKind {
    pub name: &'static str,
    /// A second.
    pub requests: f64,
    pub errors: f64,
    /// Seconds.
    pub mean: f64,
    pub p99: f64,
}

/// What the cache did.
#[derive(Debug, PartialEq)]
pub struct OfCache {
    pub name: &'static str,
    /// Part of the looks that found something; `None`: nobody looked.
    pub hit_rate: Option<f64>,
    /// That it holds.
    pub bytes: f64,
}

/// All of it. Rates are a second's.
#[derive(Debug, PartialEq)]
pub struct Rates {
    /// Time between the readings, and since the mount began.
    pub seconds: f64,
    pub uptime: f64,
    /// Those kinds that there were requests of.
    pub kinds: Vec<OfKind>,
    pub read_bytes: f64,
    pub written_bytes: f64,
    pub commits: f64,
    pub flushes: f64,
    pub stored_bytes: f64,
    pub loaded_bytes: f64,
    pub cache: [OfCache; 2],
    /// Of a store in S3: requests, by kind.
    pub s3: Option<[(&'static str, f64); 4]>,
    /// As they are now.
    pub memory: f64,
    pub waiting: f64,
    pub unstored_bytes: f64,
    pub held_nodes: f64,
}

impl Rates {
    /// Between two readings of one mount, or from the beginning of the second, if that is younger.
    pub fn between(before: &Samples, after: &Samples) -> Rates {
        const UPTIME: &str = "kivafs_uptime_seconds";
        let nothing = Samples::default();
        let before = if after.value(UPTIME) < before.value(UPTIME) { &nothing } else { before };
        let uptime = after.value(UPTIME);
        let seconds = (uptime - before.value(UPTIME)).max(1e-6);
        let change = |name: &str| (after.value(name) - before.value(name)).max(0.0);
        let labelled = |name: &str, label: &str, value: &str| {
            (after.labelled(name, label, value) - before.labelled(name, label, value)).max(0.0)
        };
        let of_kind = |kind: Kind| {
            let times = after.times(kind).since(&before.times(kind));
            let errors = labelled("kivafs_request_errors_total", "kind", kind.name()) / seconds;
            let requests = times.count() as f64 / seconds;
            OfKind { name: kind.name(), requests, errors, mean: times.mean(), p99: times.quantile(0.99) }
        };
        let of_cache = |name: &'static str| {
            let hits = labelled("kivafs_cache_hits_total", "what", name);
            let looks = hits + labelled("kivafs_cache_misses_total", "what", name);
            let bytes = after.labelled("kivafs_cache_bytes", "what", name);
            OfCache { name, hit_rate: (looks > 0.0).then(|| hits / looks), bytes }
        };
        let of_s3 = |kind: &'static str| (kind, labelled("kivafs_s3_requests_total", "kind", kind) / seconds);
        let stored = ["commits", "data"].map(|what| labelled("kivafs_stored_bytes_total", "what", what));
        let waits =
            ["read", "space", "change", "bulk"].map(|what| after.labelled("kivafs_waiting_requests", "for", what));
        Rates {
            seconds,
            uptime,
            kinds: Kind::all().map(of_kind).filter(|of_kind| of_kind.requests > 0.0).collect(),
            read_bytes: change("kivafs_read_bytes_total") / seconds,
            written_bytes: change("kivafs_written_bytes_total") / seconds,
            commits: change("kivafs_commits_total") / seconds,
            flushes: change("kivafs_disk_flushes_total") / seconds,
            stored_bytes: stored.iter().sum::<f64>() / seconds,
            loaded_bytes: change("kivafs_storage_read_bytes_total") / seconds,
            cache: ["pages", "units"].map(of_cache),
            s3: after
                .has_labelled("kivafs_s3_requests_total", "kind", "put")
                .then(|| ["put", "get", "list", "delete"].map(of_s3)),
            memory: after.value("process_resident_memory_bytes"),
            waiting: waits.iter().sum(),
            unstored_bytes: after.value("kivafs_unstored_bytes"),
            held_nodes: after.value("kivafs_held_nodes"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(uptime: f64, reads: u64, commits: u64) -> Samples {
        let text = format!(
            "kivafs_uptime_seconds {uptime}\n\
             kivafs_request_duration_seconds_bucket{{kind=\"read\",le=\"+Inf\"}} {reads}\n\
             kivafs_request_duration_seconds_sum{{kind=\"read\"}} {}\n\
             kivafs_request_errors_total{{kind=\"read\"}} {}\n\
             kivafs_commits_total {commits}\nkivafs_cache_hits_total{{what=\"pages\"}} {reads}\n\
             kivafs_cache_misses_total{{what=\"pages\"}} {commits}\nprocess_resident_memory_bytes 7\n",
            reads as f64 * 0.25,
            reads / 2,
        );
        Samples::read(&text).unwrap()
    }

    #[test]
    fn rates_are_over_the_mounts_own_time() {
        let rates = Rates::between(&samples(10.0, 100, 10), &samples(12.0, 160, 30));
        assert_eq!((rates.seconds, rates.uptime, rates.commits, rates.memory), (2.0, 12.0, 10.0, 7.0));
        let [read] = &rates.kinds[..] else { panic!("{:?}", rates.kinds) };
        assert_eq!((read.name, read.requests, read.errors, read.mean), ("read", 30.0, 15.0, 0.25));
        assert_eq!(rates.cache[0].hit_rate, Some(0.75));
        assert_eq!((rates.cache[1].hit_rate, rates.s3), (None, None));
    }

    #[test]
    fn a_mount_that_began_anew_is_shown_from_its_beginning() {
        let rates = Rates::between(&samples(1000.0, 1_000_000, 5000), &samples(4.0, 8, 12));
        assert_eq!((rates.seconds, rates.commits, rates.kinds[0].requests), (4.0, 3.0, 2.0));
    }
}
