//! Points in time, and where "now" comes from.

use std::time::{SystemTime, UNIX_EPOCH};

/// A point in time: `seconds + nanos / 10^9` after 1970-01-01T00:00:00Z. `nanos` is always below
/// 10^9, so times before 1970 have negative seconds and a positive fraction.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Time {
    seconds: i64,
    nanos: u32,
}

/// Nanoseconds in a second.
pub(crate) const NANOS: u32 = 1_000_000_000;
const NANOS_PER_MILLI: u32 = 1_000_000;

/// Where "now" comes from; given at open, so that tests can hold the time still.
pub type Clock = fn() -> Time;

impl Time {
    /// 1970-01-01T00:00:00Z.
    pub const EPOCH: Time = Time { seconds: 0, nanos: 0 };

    /// That many seconds and nanoseconds after the epoch. `None`: `nanos` is 10^9 or more.
    pub fn new(seconds: i64, nanos: u32) -> Option<Time> {
        (nanos < NANOS).then_some(Time { seconds, nanos })
    }

    /// Whole seconds, rounded down.
    pub fn seconds(self) -> i64 {
        self.seconds
    }

    /// Nanoseconds above [`Time::seconds`].
    pub fn nanos(self) -> u32 {
        self.nanos
    }

    /// This time as the standard library has it; saturates at what that can express.
    pub fn to_system_time(self) -> SystemTime {
        let fraction = std::time::Duration::from_nanos(u64::from(self.nanos));
        let whole = std::time::Duration::from_secs(self.seconds.unsigned_abs());
        let base = if self.seconds < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        base.and_then(|base| base.checked_add(fraction)).unwrap_or(UNIX_EPOCH)
    }

    /// The standard library's time as ours.
    pub fn from_system_time(time: SystemTime) -> Time {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Time { seconds: after.as_secs() as i64, nanos: after.subsec_nanos() },
            Err(before) => {
                let before = before.duration();
                let seconds = -(before.as_secs() as i64);
                match before.subsec_nanos() {
                    0 => Time { seconds, nanos: 0 },
                    nanos => Time { seconds: seconds - 1, nanos: NANOS - nanos },
                }
            }
        }
    }
}

/// The system's clock in whole milliseconds: as fine as the kernel's own file systems in practice
/// (they take the time of the last tick), and a millisecond is stored in 6 bytes where a nanosecond
/// takes 8.
pub fn coarse_now() -> Time {
    let now = Time::from_system_time(SystemTime::now());
    Time { seconds: now.seconds, nanos: now.nanos - now.nanos % NANOS_PER_MILLI }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn system_time_there_and_back() {
        for (seconds, nanos) in [(0, 0), (1, 5), (-1, 0), (-1, 999_999_999), (-5, 1), (1 << 33, 7)] {
            let time = Time::new(seconds, nanos).unwrap();
            assert_eq!(Time::from_system_time(time.to_system_time()), time);
        }
        let half = UNIX_EPOCH - Duration::from_millis(500);
        assert_eq!(Time::from_system_time(half), Time { seconds: -1, nanos: 500_000_000 });
        assert_eq!(Time::new(0, NANOS), None);
    }

    #[test]
    fn now_is_whole_milliseconds() {
        assert_eq!(coarse_now().nanos() % NANOS_PER_MILLI, 0);
    }
}
