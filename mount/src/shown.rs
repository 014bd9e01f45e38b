//! Numbers, sizes and times as people read them.

use kivafs::backend::Usage;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// `1,234,567`
pub fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut shown = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            shown.push(',');
        }
        shown.push(digit);
    }
    shown
}

/// `1.5 KiB`
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["bytes", "KiB", "MiB", "GiB", "TiB"];
    let unit = (count.max(1).ilog2() as usize / 10).min(UNITS.len() - 1);
    match unit {
        0 => format!("{count} bytes"),
        unit => format!("{:.1} {}", count as f64 / (1u64 << (10 * unit)) as f64, UNITS[unit]),
    }
}

/// `40 s`, `3 min`, `7 h`, `2 days`: the unit that says enough.
pub fn time_span(span: Duration) -> String {
    match span.as_secs() {
        seconds @ 0..120 => format!("{seconds} s"),
        seconds @ 120..7200 => format!("{} min", seconds / 60),
        seconds @ 7200..172_800 => format!("{} h", seconds / 3600),
        seconds => format!("{} days", seconds / 86_400),
    }
}

/// `12 us`, `3.4 ms`, `1.2 s`: of seconds, as many digits as matter.
pub fn brief(seconds: f64) -> String {
    let micros = seconds * 1e6;
    match micros {
        micros if micros < 9.95 => format!("{micros:.1} us"),
        micros if micros < 999.5 => format!("{micros:.0} us"),
        micros if micros < 9950.0 => format!("{:.1} ms", micros / 1e3),
        micros if micros < 999_500.0 => format!("{:.0} ms", micros / 1e3),
        micros => format!("{:.1} s", micros / 1e6),
    }
}

/// `2026-11-22 15:41 UTC`: who reads it may sit in another zone than who wrote it.
pub fn instant(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let (year, month, day) = civil_date(seconds / 86_400);
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02} UTC", seconds / 3600 % 24, seconds / 60 % 60)
}

/// Year, month and day of that many days after 1970-01-01, in the Gregorian calendar. Counted in
/// years that begin in March, so that a leap day is a year's last.
fn civil_date(days: u64) -> (u64, u64, u64) {
    const DAYS_OF_400_YEARS: u64 = 146_097;
    // From 0000-03-01.
    let days = days + 719_468;
    let era = days / DAYS_OF_400_YEARS;
    let day_of_era = days % DAYS_OF_400_YEARS;
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// `1,234 PUT, 56 GET, 0 LIST, 2 DELETE; 1.2 GiB up, 3.0 MiB down`
pub fn requests(usage: &Usage) -> String {
    format!(
        "{} PUT, {} GET, {} LIST, {} DELETE; {} up, {} down",
        count(usage.puts),
        count(usage.gets),
        count(usage.lists),
        count(usage.deletes),
        bytes(usage.bytes_up),
        bytes(usage.bytes_down),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_for_people() {
        let shown = [0, 999, 1000, 123_456, 1_234_567, u64::MAX].map(count);
        assert_eq!(shown, ["0", "999", "1,000", "123,456", "1,234,567", "18,446,744,073,709,551,615"]);
    }

    #[test]
    fn bytes_for_people() {
        let shown = [0, 1023, 1024, 1536, 1 << 30, u64::MAX].map(bytes);
        assert_eq!(shown, ["0 bytes", "1023 bytes", "1.0 KiB", "1.5 KiB", "1.0 GiB", "16777216.0 TiB"]);
    }

    #[test]
    fn times_for_people() {
        let shown = [0, 119, 120, 7199, 7200, 172_799, 172_800].map(|s| time_span(Duration::from_secs(s)));
        assert_eq!(shown, ["0 s", "119 s", "2 min", "119 min", "2 h", "47 h", "2 days"]);
        // As `date -u -d @SECONDS` has them: the days around leap days, and the ends of centuries.
        for (seconds, text) in [
            (0, "1970-01-01 00:00 UTC"),
            (951_782_399, "2000-02-28 23:59 UTC"),
            (951_868_800, "2000-03-01 00:00 UTC"),
            (951_782_400, "2000-02-29 00:00 UTC"),
            (1_709_251_199, "2024-02-29 23:59 UTC"),
            (1_735_689_599, "2024-12-31 23:59 UTC"),
            (1_795_362_060, "2026-11-22 15:41 UTC"),
            (4_107_542_399, "2100-02-28 23:59 UTC"),
            (4_107_542_400, "2100-03-01 00:00 UTC"),
        ] {
            assert_eq!(instant(UNIX_EPOCH + Duration::from_secs(seconds)), text);
        }
        assert_eq!(instant(UNIX_EPOCH - Duration::from_secs(1)), "1970-01-01 00:00 UTC");
    }

    #[test]
    fn moments_for_people() {
        let shown = [0.0, 1.25e-6, 9.96e-6, 999.4e-6, 999.6e-6, 9.96e-3, 0.9994, 0.9996, 75.04].map(brief);
        assert_eq!(shown, ["0.0 us", "1.2 us", "10 us", "999 us", "1.0 ms", "10 ms", "999 ms", "1.0 s", "75.0 s"]);
    }

    #[test]
    fn requests_for_people() {
        let usage = Usage { puts: 1234, gets: 56, lists: 0, deletes: 2, bytes_up: 6 << 28, bytes_down: 3 << 20 };
        assert_eq!(requests(&usage), "1,234 PUT, 56 GET, 0 LIST, 2 DELETE; 1.5 GiB up, 3.0 MiB down");
    }
}
