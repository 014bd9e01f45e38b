//! Prometheus' text format, read strictly, by its description and not by what kivafs writes.

use std::collections::BTreeMap;

/// A value, and the labels that tell it from others of its name.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

/// What was told at one instant.
#[derive(Debug)]
pub struct Metrics {
    pub samples: Vec<Sample>,
    pub types: BTreeMap<String, String>,
}

impl Metrics {
    /// Fails on the first line that is not as it should be.
    #[track_caller]
    pub fn parse(text: &str) -> Metrics {
        assert!(text.ends_with('\n'), "the last line has an end");
        let (mut types, mut helped, mut samples) = (BTreeMap::new(), Vec::new(), Vec::new());
        let mut current = String::new();
        for line in text.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').expect("a name and its help");
                assert!(!words.is_empty() && !helped.contains(&name), "{line}");
                helped.push(name);
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a name and its type");
                assert!(["counter", "gauge", "histogram"].contains(&kind), "{line}");
                assert_eq!(helped.last(), Some(&name), "help comes first");
                current = name.to_owned();
                assert!(types.insert(name.to_owned(), kind.to_owned()).is_none(), "{name} comes once");
            } else {
                let sample = parse_sample(line);
                let suffixes: &[&str] = match types[&current].as_str() {
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                let suffix = sample.name.strip_prefix(&current).expect("it belongs to the family above");
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(types[&current] != "counter" || sample.name.ends_with("_total"), "{line}");
                samples.push(sample);
            }
        }
        let metrics = Metrics { samples, types };
        metrics.check_histograms();
        metrics
    }

    /// Buckets rise to infinity, where the count is.
    fn check_histograms(&self) {
        for (name, _) in self.types.iter().filter(|(_, kind)| *kind == "histogram") {
            let mut counts: BTreeMap<String, (f64, f64)> = BTreeMap::new();
            for sample in self.samples.iter().filter(|sample| sample.name == format!("{name}_bucket")) {
                let bound = match sample.labels["le"].as_str() {
                    "+Inf" => f64::INFINITY,
                    bound => bound.parse().unwrap(),
                };
                let last = counts.entry(sample.labels["kind"].clone()).or_insert((0.0, 0.0));
                assert!(bound > last.0 && sample.value >= last.1, "{sample:?}");
                *last = (bound, sample.value);
            }
            assert!(!counts.is_empty());
            for (kind, (bound, count)) in counts {
                assert_eq!((bound, count), (f64::INFINITY, self.get(&format!("{name}_count"), &[("kind", &kind)])));
            }
        }
    }

    /// The value with exactly these labels.
    #[track_caller]
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let labels: BTreeMap<String, String> =
            labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        let mut fitting = self.samples.iter().filter(|sample| sample.name == name && sample.labels == labels);
        let found = fitting.next().unwrap_or_else(|| panic!("no {name} {labels:?}"));
        assert_eq!(fitting.next(), None, "once");
        found.value
    }

    pub fn plain(&self, name: &str) -> f64 {
        self.get(name, &[])
    }

    pub fn requests(&self, kind: &str) -> f64 {
        self.get("kivafs_requests_total", &[("kind", kind)])
    }

    pub fn errors(&self, kind: &str) -> f64 {
        self.get("kivafs_request_errors_total", &[("kind", kind)])
    }

    /// The sum of all with that name.
    pub fn sum(&self, name: &str) -> f64 {
        self.samples.iter().filter(|sample| sample.name == name).map(|sample| sample.value).sum()
    }
}

/// `name{label="value",...} number`
fn parse_sample(line: &str) -> Sample {
    let is_name = |name: &str| {
        name.chars().enumerate().all(|(at, c)| c.is_ascii_alphabetic() || c == '_' || (at > 0 && c.is_ascii_digit()))
    };
    let (series, value) = line.rsplit_once(' ').expect("a series and its value");
    let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
    let (name, rest) = series.split_once('{').unwrap_or((series, "}"));
    assert!(!name.is_empty() && is_name(name), "{line}");
    let mut labels = BTreeMap::new();
    let inside = rest.strip_suffix('}').unwrap_or_else(|| panic!("{line}"));
    for pair in inside.split(',').filter(|pair| !pair.is_empty()) {
        let (label, quoted) = pair.split_once('=').unwrap_or_else(|| panic!("{line}"));
        let value = quoted.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')).expect("a value in quotes");
        assert!(is_name(label) && !value.contains(['"', '\\', '\n']), "{line}");
        assert!(labels.insert(label.to_owned(), value.to_owned()).is_none(), "{line}");
    }
    Sample { name: name.to_owned(), labels, value }
}
