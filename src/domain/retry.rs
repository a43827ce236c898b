//! Retries: whether a failed call is retried, and when.

mod budget;

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;

pub use budget::Budget;

/// A failure that can be retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum On {
    /// `connect-failure`: the connection failed, and nothing was sent.
    ConnectFailure,
    /// `reset`: the connection was closed before the end of the response.
    Reset,
    /// `timeout`: the attempt timed out.
    Timeout,
    /// `429`: status 429.
    TooManyRequests,
    /// `5xx`: a status from 500 to 599.
    ServerError,
}

impl On {
    /// Every failure.
    pub const ALL: &'static [Self] =
        &[Self::ConnectFailure, Self::Reset, Self::Timeout, Self::TooManyRequests, Self::ServerError];

    /// The name in `spec.retry.on`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ConnectFailure => "connect-failure",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::TooManyRequests => "429",
            Self::ServerError => "5xx",
        }
    }

    /// The failure that a response status stands for; none if the status is not a failure.
    #[must_use]
    pub const fn status(code: u16) -> Option<Self> {
        match code {
            429 => Some(Self::TooManyRequests),
            500..=599 => Some(Self::ServerError),
            _ => None,
        }
    }
}

impl FromStr for On {
    type Err = UnknownFailure;

    fn from_str(name: &str) -> Result<Self, UnknownFailure> {
        Self::ALL.iter().copied().find(|on| on.as_str() == name).ok_or(UnknownFailure)
    }
}

/// A name that is not in [`On::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be one of connect-failure, reset, timeout, 429, 5xx")]
pub struct UnknownFailure;

/// The retry policy of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The maximum number of attempts, including the first one.
    pub attempts: u32,
    /// The failures to retry.
    pub on: Vec<On>,
    /// The maximum delay before the first retry; it doubles with each further one.
    pub initial: Duration,
    /// The maximum delay before any retry.
    pub max: Duration,
    /// The maximum `Retry-After` to wait for. If it is longer, there is no retry, and the caller gets the response.
    pub longest_retry_after: Duration,
}

/// A failed attempt.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// The number of the attempt, from 1.
    pub number: u32,
    /// The HTTP method.
    pub method: &'a str,
    /// Whether the request has an `Idempotency-Key`.
    pub idempotency_key: bool,
    /// The failure.
    pub failure: On,
    /// The `Retry-After` of the response.
    pub retry_after: Option<Duration>,
    /// The remaining time of the call.
    pub left: Duration,
}

impl Policy {
    /// The delay before the next attempt; none if the call is not retried. A retry is taken from the budget.
    ///
    /// The delay is random between zero and its maximum (full jitter; `chance` is a random number from 0 to 1), so
    /// that callers that failed together do not retry together. It is at least the `Retry-After`. The caller must
    /// check whether the request body can be sent again.
    pub fn again(
        &self,
        failed: &Attempt<'_>,
        budget: &mut Budget,
        chance: f64,
        now: Duration,
    ) -> Option<Duration> {
        let retry_after = failed.retry_after.unwrap_or_default();
        let doubled = self.initial.saturating_mul(1 << failed.number.saturating_sub(1).min(16));
        let delay = retry_after.max(doubled.min(self.max).mul_f64(chance.clamp(0.0, 1.0)));
        let retry = failed.number < self.attempts
            && self.on.contains(&failed.failure)
            && is_retryable(failed)
            && retry_after <= self.longest_retry_after
            && delay < failed.left;
        // The budget comes last: a call that is not retried must not use it.
        (retry && budget.take(now)).then_some(delay)
    }

    /// The timeout of an attempt, given the remaining time of the call. If timeouts are retried, it is an equal share
    /// for each remaining attempt.
    #[must_use]
    pub fn share(&self, number: u32, method: &str, idempotency_key: bool, left: Duration) -> Duration {
        let again = self.on.contains(&On::Timeout) && (idempotency_key || idempotent(method));
        let attempts = self.attempts.saturating_sub(number.saturating_sub(1)).max(1);
        if again { left / attempts } else { left }
    }
}

/// Whether the request can be sent twice (RFC 9110 9.2.2): its method is idempotent, it has an idempotency key, or it
/// was not sent.
fn is_retryable(failed: &Attempt<'_>) -> bool {
    failed.idempotency_key || failed.failure == On::ConnectFailure || idempotent(failed.method)
}

/// Whether the method is idempotent (RFC 9110 9.2.2; methods are case-sensitive, 9.1).
#[must_use]
pub fn idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// Parses a `Retry-After` (RFC 9110 10.2.3): seconds, or a date; a date in the past is zero. None if the value is
/// invalid.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // A number of seconds that overflows is longer than any limit.
        return Some(value.parse().map_or(Duration::MAX, Duration::from_secs));
    }
    let date = Timestamp::try_from(httpdate::parse_http_date(value).ok()?).ok()?;
    Some(Duration::try_from(date.duration_since(now)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_mins(1);

    fn policy() -> Policy {
        Policy {
            attempts: 3,
            on: vec![On::ConnectFailure, On::ServerError, On::TooManyRequests],
            initial: Duration::from_millis(100),
            max: Duration::from_secs(5),
            longest_retry_after: Duration::from_secs(10),
        }
    }

    fn failed(method: &str, failure: On) -> Attempt<'_> {
        Attempt { number: 1, method, idempotency_key: false, failure, retry_after: None, left: Duration::MAX }
    }

    fn again(policy: &Policy, attempt: &Attempt<'_>) -> Option<Duration> {
        policy.again(attempt, &mut Budget::new(20), 1.0, NOW)
    }

    #[test]
    fn idempotent_calls_are_retried_and_others_only_with_a_key_or_if_not_sent() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"] {
            assert!(again(&policy(), &failed(method, On::ServerError)).is_some(), "{method}");
        }
        for method in ["POST", "PATCH", "CONNECT", "LOCK", "get"] {
            let attempt = failed(method, On::ServerError);
            assert_eq!(again(&policy(), &attempt), None, "{method}");
            assert!(again(&policy(), &Attempt { idempotency_key: true, ..attempt }).is_some(), "{method}");
            assert!(again(&policy(), &failed(method, On::ConnectFailure)).is_some(), "{method}");
        }
    }

    #[test]
    fn only_the_listed_failures_are_retried() {
        let only = |on: On| Policy { on: vec![on], ..policy() };
        for named in On::ALL {
            for failure in On::ALL {
                let retried = again(&only(*named), &failed("GET", *failure)).is_some();
                assert_eq!(retried, named == failure, "{} on {}", failure.as_str(), named.as_str());
            }
        }
    }

    #[test]
    fn names_and_statuses_are_those_of_the_spec() {
        for on in On::ALL {
            assert_eq!(on.as_str().parse(), Ok(*on));
        }
        assert_eq!("4xx".parse::<On>(), Err(UnknownFailure));
        assert_eq!(
            [429, 500, 503, 599].map(|code| On::status(code).unwrap().as_str()),
            ["429", "5xx", "5xx", "5xx"]
        );
        assert_eq!([200, 301, 404, 499, 600].map(On::status), [None; 5]);
    }

    #[test]
    fn the_number_of_attempts_is_limited_and_the_delays_double_up_to_the_maximum() {
        let delays = |attempts, max| -> Vec<_> {
            let policy = Policy { attempts, max: Duration::from_millis(max), ..policy() };
            let delays = (1..)
                .map_while(|number| again(&policy, &Attempt { number, ..failed("GET", On::ServerError) }));
            delays.map(|delay| delay.as_millis()).collect()
        };
        assert_eq!(delays(3, 5000), [100, 200]);
        assert_eq!(delays(7, 1000), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(delays(1, 5000), [0_u128; 0]);
        assert_eq!(delays(40, 1000).len(), 39, "no overflow");
    }

    #[test]
    fn full_jitter_takes_up_to_all_of_the_delay() {
        let delay =
            |chance| policy().again(&failed("GET", On::ServerError), &mut Budget::new(20), chance, NOW);
        assert_eq!(delay(0.0), Some(Duration::ZERO));
        assert_eq!(delay(0.25), Some(Duration::from_millis(25)));
    }

    #[test]
    fn a_retry_waits_for_retry_after_up_to_the_maximum_and_beyond_it_there_is_no_retry() {
        let after = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            again(&policy(), &Attempt { retry_after, ..failed("GET", On::TooManyRequests) })
        };
        assert_eq!(after(0), Some(Duration::from_millis(100)));
        assert_eq!(after(10), Some(Duration::from_secs(10)));
        assert_eq!(after(11), None);
    }

    #[test]
    fn if_timeouts_are_retried_each_attempt_has_an_equal_share_of_the_time() {
        let (policy, left) = (Policy { on: vec![On::Timeout], ..policy() }, Duration::from_secs(9));
        let shares = [1, 2, 3, 4].map(|number| policy.share(number, "GET", false, left).as_millis());
        assert_eq!(shares, [3000, 4500, 9000, 9000]);
        assert_eq!(policy.share(1, "POST", false, left), left, "POST is not retried");
        assert_eq!(policy.share(1, "POST", true, left), left / 3);
        assert_eq!(self::policy().share(1, "GET", false, left), left, "timeouts are not retried");
    }

    #[test]
    fn an_empty_budget_ends_the_retries() {
        let mut budget = Budget::new(20);
        let retried = (0..1000)
            .filter(|_| policy().again(&failed("GET", On::ServerError), &mut budget, 1.0, NOW).is_some());
        assert_eq!(retried.count(), 100);
        let not_retryable = failed("POST", On::ServerError);
        let mut budget = Budget::new(20);
        assert_eq!((0..1000).find_map(|_| policy().again(&not_retryable, &mut budget, 1.0, NOW)), None);
        let late = Attempt { left: Duration::from_millis(100), ..failed("GET", On::ServerError) };
        assert_eq!((0..1000).find_map(|_| policy().again(&late, &mut budget, 1.0, NOW)), None);
        assert!(
            again(&policy(), &failed("GET", On::ServerError)).is_some(),
            "calls that are not retried do not use the budget"
        );
    }

    #[test]
    fn retry_after_is_parsed_as_seconds_or_as_any_http_date() {
        let now: Timestamp = "1994-11-06T08:49:37Z".parse().unwrap();
        let seconds = |value| retry_after(value, now).map(|wait| wait.as_secs());
        assert_eq!(["0", "120", " 7\t", "007"].map(seconds), [Some(0), Some(120), Some(7), Some(7)]);
        let dates =
            ["Sun, 06 Nov 1994 08:50:37 GMT", "Sunday, 06-Nov-94 08:50:37 GMT", "Sun Nov  6 08:50:37 1994"];
        assert_eq!(dates.map(seconds), [Some(60); 3]);
        assert_eq!(seconds("Wed, 21 Oct 1992 07:28:00 GMT"), Some(0));
        assert_eq!(retry_after("99999999999999999999999", now), Some(Duration::MAX));
        for junk in ["", " ", "-5", "+5", "1.5", "abc", "1e3", "5, 7", "Wed, 99 Oct 2015 07:28:00 GMT", "٣"]
        {
            assert_eq!(retry_after(junk, now), None, "{junk}");
        }
    }
}
