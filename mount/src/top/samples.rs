//! The metrics, read: as much of Prometheus' text format as kivafs writes. Pure.

use crate::meter::{BOUNDS, Histogram, Kind};
use std::collections::HashMap;

/// Values by what stands before them: `name`, or `name{label="value"}`.
#[derive(Debug, Default)]
pub struct Samples {
    values: HashMap<String, f64>,
}

impl Samples {
    /// `None`: that is something else.
    pub fn read(text: &str) -> Option<Samples> {
        let mut values = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let (series, value) = line.rsplit_once(' ')?;
            values.insert(series.to_owned(), value.parse().ok()?);
        }
        values.contains_key("kivafs_uptime_seconds").then_some(Samples { values })
    }

    /// A value; 0 where there is none: what a mount of another version does not count.
    pub fn value(&self, name: &str) -> f64 {
        self.values.get(name).copied().unwrap_or(0.0)
    }

    /// The value with that label.
    pub fn labelled(&self, name: &str, label: &str, value: &str) -> f64 {
        self.value(&format!("{name}{{{label}=\"{value}\"}}"))
    }

    /// Whether there are values of that name with that label.
    pub fn has_labelled(&self, name: &str, label: &str, value: &str) -> bool {
        self.values.contains_key(&format!("{name}{{{label}=\"{value}\"}}"))
    }

    /// How long the requests of a kind took.
    pub fn times(&self, kind: Kind) -> Histogram {
        const NAME: &str = "kivafs_request_duration_seconds";
        let kind = kind.name();
        let mut times =
            Histogram { seconds: self.labelled(&format!("{NAME}_sum"), "kind", kind), ..Histogram::default() };
        let mut below = 0.0;
        for slot in 0..=BOUNDS {
            let bound = if slot == BOUNDS { "+Inf".into() } else { Histogram::bound(slot).to_string() };
            let up_to = self.value(&format!("{NAME}_bucket{{kind=\"{kind}\",le=\"{bound}\"}}"));
            times.slots[slot] = (up_to - below).max(0.0) as u64;
            below = up_to;
        }
        times
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_and_times_are_found() {
        let text = "# HELP kivafs_uptime_seconds Time\n# TYPE kivafs_uptime_seconds gauge\nkivafs_uptime_seconds 2.5\n\
            kivafs_request_duration_seconds_bucket{kind=\"read\",le=\"0.000001\"} 1\n\
            kivafs_request_duration_seconds_bucket{kind=\"read\",le=\"0.000002\"} 4\n\
            kivafs_request_duration_seconds_bucket{kind=\"read\",le=\"0.000004\"} 4\n\
            kivafs_request_duration_seconds_sum{kind=\"read\"} 0.5\n";
        let samples = Samples::read(text).unwrap();
        assert_eq!(samples.value("kivafs_uptime_seconds"), 2.5);
        let times = samples.times(Kind::Read);
        assert_eq!((times.slots[0], times.slots[1], times.slots[2], times.seconds), (1, 3, 0, 0.5));
        assert_eq!(samples.times(Kind::Write), Histogram::default());
        for text in ["", "something else", "other_metric 3\n", "kivafs_uptime_seconds now\n"] {
            assert!(Samples::read(text).is_none(), "{text}");
        }
    }
}
