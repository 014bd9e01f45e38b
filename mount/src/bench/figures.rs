//! What benchmarks do with their figures.

use std::fmt::Display;
use std::time::Duration;

pub const MIB: f64 = (1 << 20) as f64;

/// What was measured, or one line that says why not.
pub type Answer<T> = Result<T, String>;

pub fn text(error: impl Display) -> String {
    error.to_string()
}

pub fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// The one in the middle; of an even number, the mean of the two there. Panics if there is none.
pub fn median(figures: impl IntoIterator<Item = f64>) -> f64 {
    let mut figures: Vec<f64> = figures.into_iter().collect();
    figures.sort_by(f64::total_cmp);
    (figures[(figures.len() - 1) / 2] + figures[figures.len() / 2]) / 2.0
}

/// Median and 99th percentile. Panics if there is none.
pub fn p50_and_p99(mut times: Vec<Duration>) -> [Duration; 2] {
    times.sort_unstable();
    [times[times.len() / 2], times[times.len() * 99 / 100]]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_and_the_end() {
        assert_eq!([median([3.0]), median([3.0, 1.0, 2.0]), median([4.0, 1.0, 2.0, 3.0])], [3.0, 2.0, 2.5]);
        let times: Vec<Duration> = (0..100).rev().map(Duration::from_millis).collect();
        assert_eq!(p50_and_p99(times).map(millis), [50.0, 99.0]);
        assert_eq!(p50_and_p99(vec![Duration::ZERO]), [Duration::ZERO; 2]);
    }
}
