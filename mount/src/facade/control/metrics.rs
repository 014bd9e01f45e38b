//! Figures as Prometheus reads them.
//!
//! Names are a contract with whoever watches: they are added to, and neither change nor go.

use crate::facade::control::figures::Figures;
use crate::meter::{BOUNDS, Histogram};
use kivafs::store::CacheFigures;
use prometheus::TextEncoder;
use prometheus::proto::{Bucket, Counter, Gauge, LabelPair, Metric, MetricFamily, MetricType};

/// The text.
pub fn text(figures: &Figures) -> String {
    let mut families = Families::default();
    of_mount(&mut families, figures);
    of_requests(&mut families, figures);
    of_store(&mut families, &figures.store);
    of_cache(&mut families, &figures.store.cache);
    of_bucket(&mut families, &figures.store);
    of_disk_cache(&mut families, &figures.store);
    TextEncoder::new().encode_to_string(&families.0).expect("each family has a name and a metric")
}

fn of_mount(families: &mut Families, figures: &Figures) {
    let version = Labelled { label: [("version", env!("CARGO_PKG_VERSION"))], value: 1 };
    families.gauges("kivafs_build_info", "The version that serves the mount.", [version]);
    families.add(
        "kivafs_uptime_seconds",
        "Time since the mount began.",
        MetricType::GAUGE,
        vec![gauge(figures.uptime.as_secs_f64())],
    );
    let Figures { memory, parked, .. } = figures;
    families.gauge("process_resident_memory_bytes", "Memory of the serving process.", memory.resident);
    families.gauge("kivafs_peak_memory_bytes", "The most memory that it had so far.", memory.peak);
    families.gauge("kivafs_held_nodes", "Nodes that the kernel holds.", figures.held as u64);
    families.gauge("kivafs_held_nodes_max", "Most that it is to hold (inodes=).", figures.held_max as u64);
    let waits = [
        ("read", parked.for_reads),
        ("space", parked.for_space),
        ("change", parked.for_changes),
        ("bulk", parked.for_bulk),
    ];
    let waits = waits.map(|(what, count)| Labelled { label: [("for", what)], value: count as u64 });
    families.gauges("kivafs_waiting_requests", "Requests that wait for storage.", waits);
    families.gauge("kivafs_waiting_bytes", "Bytes that waiting requests hold.", parked.bytes as u64);
    let deferred = u64::from(figures.deferred);
    families.gauge("kivafs_deferred_work", "1: removals have left something to do.", deferred);
    if let Some(nodes) = figures.nodes {
        families.gauge("kivafs_nodes", "Files, directories and other nodes in the store.", nodes);
    }
}

fn of_requests(families: &mut Families, figures: &Figures) {
    let kinds = &figures.requests.kinds;
    let of_each = |value: fn(&crate::meter::OfKind) -> u64| {
        kinds.iter().map(move |(kind, of_kind)| Labelled { label: [("kind", kind.name())], value: value(of_kind) })
    };
    families.counters("kivafs_requests_total", "Requests answered.", of_each(|of_kind| of_kind.times.count()));
    families.counters(
        "kivafs_request_errors_total",
        "Those of them that were answered with an error.",
        of_each(|of_kind| of_kind.errors),
    );
    let times = kinds.iter().map(|(kind, of_kind)| {
        let mut metric = Metric::default();
        metric.set_label(labels(&[("kind", kind.name())]));
        metric.set_histogram(histogram(&of_kind.times));
        metric
    });
    let help = "Time from a request's coming to its answer.";
    families.add("kivafs_request_duration_seconds", help, MetricType::HISTOGRAM, times.collect());
    families.counter("kivafs_read_bytes_total", "Bytes of files that were read.", figures.requests.read_bytes);
    let written = figures.requests.written_bytes;
    families.counter("kivafs_written_bytes_total", "Bytes of files that were written.", written);
}

fn of_store(families: &mut Families, figures: &kivafs::store::Figures) {
    let activity = &figures.activity;
    families.counter("kivafs_commits_total", "Commits made.", activity.commits);
    families.counter("kivafs_disk_flushes_total", "fdatasync calls; none in S3.", activity.syncs);
    let stored = [("commits", activity.commit_bytes), ("data", activity.data_bytes)];
    let stored = stored.map(|(what, value)| Labelled { label: [("what", what)], value });
    families.counters("kivafs_stored_bytes_total", "Bytes written to storage.", stored);
    let help = "Bytes of data that were moved out of segments that were mostly dead.";
    families.counter("kivafs_moved_bytes_total", help, activity.moved_bytes);
    families.counter("kivafs_storage_reads_total", "Pages and units read from storage.", activity.reads);
    families.counter("kivafs_storage_read_bytes_total", "Bytes of these, as stored.", activity.read_bytes);
    families.gauge("kivafs_unstored_bytes", "Bytes accepted and not stored yet.", figures.unstored_bytes);
    let changed = figures.changed_bytes;
    families.gauge("kivafs_changed_page_bytes", "Bytes of pages changed since the last checkpoint.", changed);
    let help = "Bytes of log behind the newest checkpoint, which opening after a crash reads.";
    families.gauge("kivafs_log_tail_bytes", help, figures.tail_bytes);
    if figures.usage.is_none() {
        families.gauge("kivafs_log_ring_bytes", "Bytes of the file that the log goes round in.", figures.ring_bytes);
    }
    let space = [("used", figures.space.used), ("free", figures.space.free)];
    let space = space.map(|(what, value)| Labelled { label: [("what", what)], value });
    families.gauges("kivafs_store_bytes", "What the store takes, and what it can still take.", space);
    let segments = &figures.segments;
    families.gauge("kivafs_segments", "Data segments of the log.", segments.count);
    families.gauge("kivafs_segment_bytes", "Bytes that they take.", segments.bytes);
    let help = "Those of them that hold nothing: being filled, or about to be freed.";
    families.gauge("kivafs_segments_dead", help, segments.dead);
    families.gauge("kivafs_live_bytes", "Bytes of data segments that are in use.", segments.live_bytes);
    let failed = u64::from(figures.failure.is_some());
    families.gauge("kivafs_failed", "1: storage has failed, and no more changes are taken.", failed);
}

fn of_cache(families: &mut Families, cache: &CacheFigures) {
    let groups = [("pages", &cache.pages), ("units", &cache.units)];
    let of_each = |value: fn(&kivafs::store::Kept) -> u64| {
        groups.map(|(what, kept)| Labelled { label: [("what", what)], value: value(kept) })
    };
    let help = "Looks into the cache for pages of the tree, and units of data, that were there.";
    families.counters("kivafs_cache_hits_total", help, of_each(|kept| kept.hits));
    families.counters("kivafs_cache_misses_total", "And that were not.", of_each(|kept| kept.misses));
    families.gauges("kivafs_cache_entries", "What the cache holds.", of_each(|kept| kept.count));
    families.gauges("kivafs_cache_bytes", "What that takes.", of_each(|kept| kept.bytes));
    families.gauge("kivafs_cache_bytes_max", "Most that it may take (cache=).", cache.bytes_max);
}

fn of_bucket(families: &mut Families, figures: &kivafs::store::Figures) {
    let Some(usage) = &figures.usage else { return };
    let requests = [("put", usage.puts), ("get", usage.gets), ("list", usage.lists), ("delete", usage.deletes)];
    let requests = requests.map(|(kind, value)| Labelled { label: [("kind", kind)], value });
    families.counters("kivafs_s3_requests_total", "Requests to S3, each attempt.", requests);
    families.counter("kivafs_s3_sent_bytes_total", "Bytes of objects sent.", usage.bytes_up);
    families.counter("kivafs_s3_received_bytes_total", "Bytes of objects received.", usage.bytes_down);
}

fn of_disk_cache(families: &mut Families, figures: &kivafs::store::Figures) {
    let Some(stats) = &figures.disk_cache else { return };
    families.counter("kivafs_disk_cache_hits_total", "What was asked for and on the disk.", stats.hits);
    families.counter("kivafs_disk_cache_misses_total", "And what was not.", stats.misses);
    families.counter("kivafs_disk_cache_stored_bytes_total", "Bytes written there.", stats.stored_bytes);
    families.counter("kivafs_disk_cache_failures_total", "Reads that found damage or failed.", stats.failed);
    families.gauge("kivafs_disk_cache_bytes", "Bytes of disk that it takes.", stats.bytes);
}

/// A value, and what tells it from others of its family.
struct Labelled<'a> {
    label: [(&'a str, &'a str); 1],
    value: u64,
}

/// What the encoder takes.
#[derive(Default)]
struct Families(Vec<MetricFamily>);

impl Families {
    fn add(&mut self, name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) {
        let mut family = MetricFamily::default();
        family.set_name(name.into());
        family.set_help(help.into());
        family.set_field_type(kind);
        family.set_metric(metrics);
        self.0.push(family);
    }

    fn gauge(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, MetricType::GAUGE, vec![gauge(value as f64)]);
    }

    fn counter(&mut self, name: &str, help: &str, value: u64) {
        self.add(name, help, MetricType::COUNTER, vec![counter(value)]);
    }

    fn gauges<'a>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = Labelled<'a>>) {
        let labelled = |of: Labelled<'_>| with_label(gauge(of.value as f64), &of);
        self.add(name, help, MetricType::GAUGE, values.into_iter().map(labelled).collect());
    }

    fn counters<'a>(&mut self, name: &str, help: &str, values: impl IntoIterator<Item = Labelled<'a>>) {
        let labelled = |of: Labelled<'_>| with_label(counter(of.value), &of);
        self.add(name, help, MetricType::COUNTER, values.into_iter().map(labelled).collect());
    }
}

fn gauge(value: f64) -> Metric {
    let (mut metric, mut gauge) = (Metric::default(), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

fn counter(value: u64) -> Metric {
    let (mut metric, mut counter) = (Metric::default(), Counter::default());
    counter.set_value(value as f64);
    metric.set_counter(counter);
    metric
}

fn with_label(mut metric: Metric, of: &Labelled<'_>) -> Metric {
    metric.set_label(labels(&of.label));
    metric
}

fn labels(pairs: &[(&str, &str)]) -> Vec<LabelPair> {
    let label = |(name, value): &(&str, &str)| {
        let mut label = LabelPair::default();
        label.set_name((*name).into());
        label.set_value((*value).into());
        label
    };
    pairs.iter().map(label).collect()
}

/// Each bucket counts what is in those before it, too.
fn histogram(times: &Histogram) -> prometheus::proto::Histogram {
    let mut below = 0;
    let bucket = |slot: usize| {
        below += times.slots[slot];
        let mut bucket = Bucket::default();
        bucket.set_upper_bound(Histogram::bound(slot));
        bucket.set_cumulative_count(below);
        bucket
    };
    let buckets = (0..BOUNDS).map(bucket).collect();
    let mut histogram = prometheus::proto::Histogram::default();
    histogram.set_bucket(buckets);
    histogram.set_sample_count(times.count());
    histogram.set_sample_sum(times.seconds);
    histogram
}
