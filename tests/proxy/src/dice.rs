//! Seeded decisions: the same question gets the same answer, whatever was asked in between.

use std::time::Duration;

/// A roll for one question: the seed and what the question is about.
#[derive(Clone, Copy)]
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64, about: &[u64]) -> Dice {
        Dice(about.iter().fold(mix(seed), |state, word| mix(state ^ mix(*word))))
    }

    /// True in that share of all questions, from 0 to 1.
    pub(crate) fn hits(self, chance: f64) -> bool {
        // 53 bits, the precision of the share.
        ((mix(self.0 ^ 1) >> 11) as f64) < chance * (1u64 << 53) as f64
    }

    /// A time from `min` to `max`.
    pub(crate) fn within(self, min: Duration, max: Duration) -> Duration {
        let range = u64::try_from(max.saturating_sub(min).as_nanos()).unwrap_or(u64::MAX).saturating_add(1);
        min + Duration::from_nanos(mix(self.0 ^ 2) % range)
    }

    /// Any number.
    pub(crate) fn number(self) -> u64 {
        mix(self.0 ^ 3)
    }
}

/// SplitMix64's step.
fn mix(word: u64) -> u64 {
    let mut mixed = word.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::Dice;
    use std::time::Duration;

    #[test]
    fn shares_are_kept_and_answers_repeat() {
        let hits = (0..10_000).filter(|question| Dice::new(3, &[*question]).hits(0.1)).count();
        assert!((900..1100).contains(&hits), "{hits}");
        assert!((0..1000).all(|question| Dice::new(1, &[question]).hits(1.0)));
        assert!((0..1000).all(|question| !Dice::new(1, &[question]).hits(0.0)));
        let (min, max) = (Duration::from_millis(10), Duration::from_millis(20));
        let times: Vec<_> = (0..1000).map(|question| Dice::new(9, &[5, question]).within(min, max)).collect();
        assert!(times.iter().all(|time| (min..=max).contains(time)));
        assert!(times.iter().any(|time| *time < Duration::from_millis(11)));
        assert!(times.iter().any(|time| *time > Duration::from_millis(19)));
        assert_eq!(times[7], Dice::new(9, &[5, 7]).within(min, max));
        assert_eq!(Dice::new(9, &[5, 7]).within(max, max), max);
    }
}
