//! A rate limiter with bursts.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// GCRA, the generic cell rate algorithm (ITU-T I.371), which is equivalent to a token bucket and needs a single
/// number as its state.
///
/// Tokens are earned over time, and each request uses one. Used tokens can be at most `burst` ahead of earned ones;
/// earned tokens that are not used are lost. Both are counted since the start, in units that are a small part of a
/// token: a century fits into 64 bits, and a unit is earned in 0.17 ns, less than the resolution of a clock. So there
/// is no accumulated rounding error, which GCRA has when it counts nanoseconds per request (3 per second:
/// 333,333,333.3 ns).
#[derive(Debug)]
pub struct Limiter {
    requests: u128,
    per: u128,
    /// The units of one token.
    token: u64,
    burst: u64,
    /// The units that are used or lost.
    used: AtomicU64,
}

const CENTURY: u128 = Duration::from_hours(24 * 365 * 100).as_nanos();

impl Limiter {
    /// A limiter that allows `requests` per `per`, and a burst of `burst`. Each is at least 1 (or 1 ns), and `per` is
    /// at most a century.
    #[must_use]
    pub fn new(requests: u32, per: Duration, burst: u32) -> Self {
        let requests = u128::from(requests.max(1));
        let per = per.as_nanos().clamp(1, CENTURY);
        let burst = u64::from(burst.max(1));
        let in_a_century = CENTURY * requests / per + u128::from(burst) + 1;
        let token = saturated(u128::from(u64::MAX) / in_a_century).max(1);
        Self { requests, per, token, burst: burst.saturating_mul(token), used: AtomicU64::new(0) }
    }

    /// Whether a request is allowed; `now` is a monotonic time of at most a century. Never blocks.
    ///
    /// # Errors
    /// The request is rejected; the error is the time after which the next one is allowed.
    pub fn check(&self, now: Duration) -> Result<(), Duration> {
        let earned = self.earned(now);
        let most = earned.saturating_add(self.burst);
        let take =
            |used: u64| Some(used.max(earned).saturating_add(self.token)).filter(|after| *after <= most);
        // Relaxed: no other memory depends on the order.
        self.used.fetch_update(Relaxed, Relaxed, take).map(drop).map_err(|used| {
            let needed = used.saturating_add(self.token).saturating_sub(self.burst);
            self.earned_at(needed).saturating_sub(now)
        })
    }

    /// The units that are earned until `now`, rounded down.
    fn earned(&self, now: Duration) -> u64 {
        // At most 2^126: at most 2^64 units are earned in a century, and `per` is at most 2^62 ns.
        saturated(now.as_nanos().min(CENTURY) * self.requests * u128::from(self.token) / self.per)
    }

    /// The first nanosecond at which so many units are earned.
    fn earned_at(&self, units: u64) -> Duration {
        let nanos = (u128::from(units) * self.per).div_ceil(self.requests * u128::from(self.token));
        Duration::from_nanos(saturated(nanos))
    }
}

fn saturated(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// The number of requests that are allowed at once.
    fn drain(limiter: &Limiter, now: Duration) -> u128 {
        (0..1_000_000).take_while(|_| limiter.check(now).is_ok()).count() as u128
    }

    #[test]
    fn exactly_the_burst_is_allowed_at_once_and_exactly_the_rate_after_that() {
        for requests in [1, 3, 7, 100, 999, 1_000_000] {
            let limiter = Limiter::new(requests, SECOND, 20_000);
            // As in a process that has run for ten years.
            let start = SECOND * 3600 * 24 * 3650;
            assert_eq!(drain(&limiter, start), 20_000);
            let passed: u128 = (1..=97).map(|step| drain(&limiter, start + SECOND * step / 97)).sum();
            assert_eq!(passed, u128::from(requests), "{requests} per second");
        }
    }

    #[test]
    fn a_rejection_has_the_time_until_the_next_request_is_allowed() {
        let limiter = Limiter::new(3, SECOND, 1);
        assert_eq!(limiter.check(SECOND), Ok(()));
        let wait = limiter.check(SECOND).unwrap_err();
        assert_eq!(wait, Duration::from_nanos(333_333_334));
        assert_eq!(limiter.check(SECOND + wait / 2), Err(wait / 2));
        assert_eq!(limiter.check(SECOND + wait), Ok(()));
    }

    #[test]
    fn unused_tokens_are_not_saved_beyond_the_burst() {
        let limiter = Limiter::new(10, SECOND, 5);
        assert_eq!(drain(&limiter, SECOND), 5);
        assert_eq!(drain(&limiter, SECOND * 3600), 5);
    }

    #[test]
    fn several_threads_get_no_more_than_one() {
        let limiter = Limiter::new(1, SECOND, 1000);
        let threads = || (0..4).map(|_| || drain(&limiter, SECOND));
        let passed: u128 = std::thread::scope(|scope| {
            let running: Vec<_> = threads().map(|thread| scope.spawn(thread)).collect();
            running.into_iter().map(|thread| thread.join().unwrap()).sum()
        });
        assert_eq!(passed, 1000);
    }

    #[test]
    fn extreme_settings_neither_overflow_nor_block_forever() {
        let settings =
            [(u32::MAX, Duration::from_nanos(1), u32::MAX), (0, Duration::ZERO, 0), (1, Duration::MAX, 1)];
        for (requests, per, burst) in settings {
            let limiter = Limiter::new(requests, per, burst);
            assert_eq!(limiter.check(Duration::ZERO), Ok(()));
            if let Err(wait) = limiter.check(Duration::ZERO) {
                assert!(wait <= Duration::from_hours(24 * 365 * 100), "{wait:?}");
                assert_eq!(limiter.check(wait), Ok(()), "{requests} per {per:?}");
            }
        }
        let slow = Limiter::new(1, Duration::from_hours(24), 1);
        assert_eq!(slow.check(Duration::ZERO), Ok(()));
        assert_eq!(slow.check(Duration::ZERO), Err(Duration::from_hours(24)));
    }

    /// A textbook token bucket in integers: tokens are counted in units of 1/per.
    struct Bucket {
        requests: u128,
        per: u128,
        size: u128,
        tokens: u128,
        last: u128,
    }

    impl Bucket {
        fn check(&mut self, now: u128) -> bool {
            self.tokens = self.size.min(self.tokens + (now - self.last) * self.requests);
            self.last = now;
            let passes = self.tokens >= self.per;
            self.tokens -= if passes { self.per } else { 0 };
            passes
        }
    }

    proptest! {
        /// The tolerance is one nanosecond, the resolution of the clock.
        #[test]
        fn no_window_has_more_requests_than_burst_and_rate_allow(
            requests in 1_u32..2_000, per in 1_u64..4_000_000_000, burst in 1_u32..20,
            gaps in prop::collection::vec(prop_oneof![Just(0), 0_u64..1000, 0_u64..1_000_000_000], 1..120),
        ) {
            let limiter = Limiter::new(requests, Duration::from_nanos(per), burst);
            let mut now = 0;
            let passed: Vec<u128> = gaps.iter().filter_map(|gap| {
                now += gap;
                limiter.check(Duration::from_nanos(now)).is_ok().then_some(u128::from(now))
            }).collect();
            for (first, start) in passed.iter().enumerate() {
                for (last, end) in passed.iter().enumerate().skip(first) {
                    let count = (last - first + 1) as u128;
                    let earned = u128::from(requests) * (end - start + 1);
                    prop_assert!(count * u128::from(per) <= u128::from(burst) * u128::from(per) + earned);
                }
            }
        }

        #[test]
        fn it_allows_no_fewer_requests_than_a_token_bucket(
            requests in 1_u32..2_000, per in 1_u64..4_000_000_000, burst in 1_u32..20,
            gaps in prop::collection::vec(prop_oneof![Just(0), 0_u64..1000, 0_u64..1_000_000_000], 1..120),
        ) {
            let limiter = Limiter::new(requests, Duration::from_nanos(per), burst);
            let (requests, per) = (u128::from(requests), u128::from(per));
            let size = u128::from(burst) * per;
            let mut bucket = Bucket { requests, per, size, tokens: size, last: 0 };
            let mut now = 0;
            let (mut passed, mut expected) = (0_u64, 0_u64);
            for gap in gaps {
                now += gap;
                passed += u64::from(limiter.check(Duration::from_nanos(now)).is_ok());
                expected += u64::from(bucket.check(u128::from(now)));
                prop_assert!(passed >= expected, "{passed} and not {expected} after {now} ns");
            }
        }

        #[test]
        fn a_request_after_the_returned_time_is_allowed_and_one_before_it_is_not(
            requests in 1_u32..2_000, per in 1_u64..4_000_000_000, burst in 1_u32..20, start in 0_u64..u64::MAX / 8,
        ) {
            let limiter = Limiter::new(requests, Duration::from_nanos(per), burst);
            let mut now = Duration::from_nanos(start);
            for _ in 0..50 {
                if let Err(wait) = limiter.check(now) {
                    prop_assert!(wait > Duration::ZERO);
                    now += wait;
                    prop_assert!(limiter.check(now.saturating_sub(Duration::from_nanos(1))).is_err());
                    prop_assert_eq!(limiter.check(now), Ok(()));
                }
            }
        }
    }
}
