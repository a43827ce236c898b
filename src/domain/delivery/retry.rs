//! When a delivery is tried again, and when it is given up.

use std::time::Duration;

use super::super::retry::retry_after;
use jiff::Timestamp;

/// The waits between attempts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Waits {
    /// The wait after the first attempt, after the second, and so on; the last one repeats. None means no wait.
    List(Vec<Duration>),
    /// `base`, and each further one longer by `factor`, up to `max`.
    Exponential {
        /// The first wait.
        base: Duration,
        /// By how much each is longer than the one before; at least 1.
        factor: u32,
        /// The longest.
        max: Duration,
    },
}

/// How often a delivery is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryPolicy {
    /// The waits between attempts.
    pub waits: Waits,
    /// Attempts in all, the first one included; at least 1.
    pub max_attempts: u32,
    /// It is given up when it is older, however many attempts are left.
    pub max_age: Duration,
    /// The longest `Retry-After` that is followed; a longer one counts as this.
    pub max_retry_after: Duration,
}

impl Default for RetryPolicy {
    /// 8 attempts in 27 h 35 min, and 75 h for what is held up.
    fn default() -> Self {
        let minutes = Duration::from_mins;
        let hours = Duration::from_hours;
        let list =
            vec![Duration::from_secs(5), minutes(5), minutes(30), hours(2), hours(5), hours(10), hours(10)];
        Self { waits: Waits::List(list), max_attempts: 8, max_age: hours(75), max_retry_after: hours(1) }
    }
}

impl RetryPolicy {
    /// The wait after the attempt of this number (1 for the first): within a fifth of what was asked for, the same for the same seed, so
    /// that deliveries which failed together do not come back together. None where there is to be no other.
    #[must_use]
    pub fn wait_after(&self, attempt: u32, seed: u64) -> Option<Duration> {
        (attempt < self.max_attempts).then(|| jitter(self.plain_wait(attempt), seed ^ u64::from(attempt)))
    }

    fn plain_wait(&self, attempt: u32) -> Duration {
        let index = attempt.saturating_sub(1);
        match &self.waits {
            Waits::List(list) => {
                let index = usize::try_from(index).unwrap_or(usize::MAX).min(list.len().saturating_sub(1));
                list.get(index).copied().unwrap_or_default()
            }
            Waits::Exponential { base, factor, max } => {
                let times = (*factor).max(1).checked_pow(index).unwrap_or(u32::MAX);
                base.saturating_mul(times).min(*max)
            }
        }
    }

    /// The wait that an answer asks for by its `Retry-After` headers, as far as it is followed. Several of them, or one that is neither
    /// a number of seconds nor a date, ask for nothing.
    #[must_use]
    pub fn asked_wait<'a>(
        &self,
        headers: impl IntoIterator<Item = &'a str>,
        now: Timestamp,
    ) -> Option<Duration> {
        let mut headers = headers.into_iter();
        let (Some(value), None) = (headers.next(), headers.next()) else { return None };
        retry_after(value, now).map(|wait| wait.min(self.max_retry_after))
    }
}

/// Within a fifth of `wait`, as the seed says.
#[must_use]
pub fn jitter(wait: Duration, seed: u64) -> Duration {
    // From 0 to 2000 tenths of a thousandth.
    let part = u32::try_from(scatter(seed) % 4001).unwrap_or_default();
    wait.saturating_mul(8000 + part) / 10_000
}

/// SplitMix64 (Steele, Lea, Flood 2014): numbers that follow each other become numbers that have nothing to do with each other.
#[must_use]
pub fn scatter(seed: u64) -> u64 {
    let mixed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(list: &[u64]) -> Waits {
        Waits::List(list.iter().copied().map(Duration::from_secs).collect())
    }

    /// The waits of a delivery that always fails, in whole seconds without jitter.
    fn waits(waits: Waits, max_attempts: u32) -> Vec<u64> {
        let policy = RetryPolicy { waits, max_attempts, ..RetryPolicy::default() };
        (1..)
            .map_while(|attempt| policy.wait_after(attempt, 0).map(|_| policy.plain_wait(attempt).as_secs()))
            .collect()
    }

    #[test]
    fn there_are_as_many_attempts_as_said_and_the_last_wait_repeats() {
        assert_eq!(waits(seconds(&[1, 2]), 5), [1, 2, 2, 2]);
        assert_eq!(waits(seconds(&[1; 7]), 3), [1, 1]);
        assert_eq!(waits(seconds(&[1]), 1), [0; 0]);
        assert_eq!(waits(seconds(&[]), 3), [0, 0]);
        assert_eq!(waits(RetryPolicy::default().waits, 8), [5, 300, 1800, 7200, 18_000, 36_000, 36_000]);
    }

    #[test]
    fn an_exponential_wait_grows_up_to_its_bound() {
        let (base, max) = (Duration::from_secs(1), Duration::from_secs(10));
        assert_eq!(waits(Waits::Exponential { base, factor: 2, max }, 7), [1, 2, 4, 8, 10, 10]);
        assert_eq!(waits(Waits::Exponential { base, factor: 0, max }, 3), [1, 1]);
        assert_eq!(waits(Waits::Exponential { base, factor: 10, max }, 100).len(), 99, "no overflow");
    }

    #[test]
    fn a_wait_is_within_a_fifth_the_same_for_the_same_seed_and_spread_over_all_of_it() {
        let wait = Duration::from_secs(100);
        let all: Vec<_> = (0..1000).map(|seed| jitter(wait, seed)).collect();
        assert!(all.iter().all(|wait| (80..=120).contains(&wait.as_secs())));
        assert!(all.iter().any(|wait| wait.as_secs() < 82) && all.iter().any(|wait| wait.as_secs() > 118));
        assert_eq!(all, (0..1000).map(|seed| jitter(wait, seed)).collect::<Vec<_>>());
    }

    #[test]
    fn a_retry_after_is_followed_up_to_its_bound_and_ignored_where_it_says_nothing() {
        let (policy, now) = (RetryPolicy::default(), "2026-08-01T00:00:00Z".parse().unwrap());
        let asked =
            |headers: &[&str]| policy.asked_wait(headers.iter().copied(), now).map(|wait| wait.as_secs());
        assert_eq!(asked(&["7"]), Some(7));
        assert_eq!(asked(&["99999999"]), Some(3600));
        assert_eq!(asked(&["Sat, 01 Aug 2026 00:01:00 GMT"]), Some(60));
        assert_eq!(asked(&["Wed, 21 Oct 2015 07:28:00 GMT"]), Some(0));
        for nothing in [&["-5"][..], &["abc"], &["1", "2"], &[]] {
            assert_eq!(asked(nothing), None, "{nothing:?}");
        }
    }
}
