//! Whether a failed call is tried again, and when.

mod budget;

use std::{str::FromStr, time::Duration};

use jiff::Timestamp;

pub use budget::Budget;

/// What a retry may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum On {
    /// `connect-failure`: no connection came about, so that nothing was sent.
    ConnectFailure,
    /// `reset`: the connection ended before the answer did.
    Reset,
    /// `timeout`: no answer in time.
    Timeout,
    /// `429`: too many requests.
    TooManyRequests,
    /// `5xx`: any status from 500 to 599.
    ServerError,
}

impl On {
    /// Every word.
    pub const ALL: &'static [Self] =
        &[Self::ConnectFailure, Self::Reset, Self::Timeout, Self::TooManyRequests, Self::ServerError];

    /// The word that users write.
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

    /// What a retry after an answer with this status would be for; none for a status that is no failure.
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
    type Err = UnknownWord;

    fn from_str(word: &str) -> Result<Self, UnknownWord> {
        Self::ALL.iter().copied().find(|on| on.as_str() == word).ok_or(UnknownWord)
    }
}

/// A word that is none of [`On::ALL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("write one of connect-failure, reset, timeout, 429, 5xx")]
pub struct UnknownWord;

/// When calls are tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// How often a call is tried in all, the first time included.
    pub attempts: u32,
    /// After which failures.
    pub on: Vec<On>,
    /// The longest wait before the second attempt; it doubles with each further one.
    pub initial: Duration,
    /// The longest wait before any attempt.
    pub max: Duration,
    /// The longest `Retry-After` that is waited for. A server that asks for more is not called again: its answer goes
    /// to the caller, who may have the time.
    pub longest_retry_after: Duration,
}

/// An attempt that failed.
#[derive(Clone, Copy, Debug)]
pub struct Attempt<'a> {
    /// 1 for the first one.
    pub number: u32,
    /// The request's method.
    pub method: &'a str,
    /// Whether the request has an `Idempotency-Key`.
    pub idempotency_key: bool,
    /// What went wrong.
    pub failure: On,
    /// What the answer's `Retry-After` says.
    pub retry_after: Option<Duration>,
    /// What is left of the call's time.
    pub left: Duration,
}

impl Policy {
    /// The wait before the next attempt, which is taken from the budget; none when there is to be none.
    ///
    /// The wait is random, from none to the longest ("full jitter", as `chance` from 0 to 1 says): callers that failed
    /// together do not come back together. It is never shorter than a `Retry-After`. Whether there still is a body to
    /// send again is for the caller to know.
    pub fn again(
        &self,
        failed: &Attempt<'_>,
        budget: &mut Budget,
        chance: f64,
        now: Duration,
    ) -> Option<Duration> {
        let asked = failed.retry_after.unwrap_or_default();
        let doubled = self.initial.saturating_mul(1 << failed.number.saturating_sub(1).min(16));
        let wait = asked.max(doubled.min(self.max).mul_f64(chance.clamp(0.0, 1.0)));
        let wanted = failed.number < self.attempts
            && self.on.contains(&failed.failure)
            && repeatable(failed)
            && asked <= self.longest_retry_after
            && wait < failed.left;
        // Last: what is not tried takes nothing.
        (wanted && budget.take(now)).then_some(wait)
    }

    /// How long an attempt may take of what is `left` of the call's time: where a time-out is tried again there must be time
    /// for that, so that each attempt has its share.
    #[must_use]
    pub fn share(&self, number: u32, method: &str, idempotency_key: bool, left: Duration) -> Duration {
        let again = self.on.contains(&On::Timeout) && (idempotency_key || idempotent(method));
        let attempts = self.attempts.saturating_sub(number.saturating_sub(1)).max(1);
        if again { left / attempts } else { left }
    }
}

/// Whether the request may be sent twice (RFC 9110 9.2.2): its method is idempotent, its server is told by a key to do
/// it once, or it was never sent.
fn repeatable(failed: &Attempt<'_>) -> bool {
    failed.idempotency_key || failed.failure == On::ConnectFailure || idempotent(failed.method)
}

/// Whether doing it twice has the effect of doing it once (RFC 9110 9.2.2; methods are case-sensitive, 9.1).
#[must_use]
pub fn idempotent(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE")
}

/// The wait that a `Retry-After` asks for (RFC 9110 10.2.3): seconds, or a date, of which a past one means none. A text
/// that is neither asks for nothing.
#[must_use]
pub fn retry_after(value: &str, now: Timestamp) -> Option<Duration> {
    let value = value.trim_matches([' ', '\t']);
    if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
        // More seconds than a number can hold are too many for anyone.
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
    fn idempotent_calls_are_tried_again_and_others_only_with_a_key_or_if_never_sent() {
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
    fn only_the_named_failures_are_tried_again() {
        let only = |on: On| Policy { on: vec![on], ..policy() };
        for named in On::ALL {
            for failure in On::ALL {
                let tried = again(&only(*named), &failed("GET", *failure)).is_some();
                assert_eq!(tried, named == failure, "{} on {}", failure.as_str(), named.as_str());
            }
        }
    }

    #[test]
    fn the_words_and_the_statuses_are_those_that_users_write() {
        for on in On::ALL {
            assert_eq!(on.as_str().parse(), Ok(*on));
        }
        assert_eq!("4xx".parse::<On>(), Err(UnknownWord));
        assert_eq!(
            [429, 500, 503, 599].map(|code| On::status(code).unwrap().as_str()),
            ["429", "5xx", "5xx", "5xx"]
        );
        assert_eq!([200, 301, 404, 499, 600].map(On::status), [None; 5]);
    }

    #[test]
    fn there_are_as_many_attempts_as_said_and_the_waits_double_up_to_the_longest() {
        let waits = |attempts, max| -> Vec<_> {
            let policy = Policy { attempts, max: Duration::from_millis(max), ..policy() };
            let waits = (1..)
                .map_while(|number| again(&policy, &Attempt { number, ..failed("GET", On::ServerError) }));
            waits.map(|wait| wait.as_millis()).collect()
        };
        assert_eq!(waits(3, 5000), [100, 200]);
        assert_eq!(waits(7, 1000), [100, 200, 400, 800, 1000, 1000]);
        assert_eq!(waits(1, 5000), [0_u128; 0]);
        assert_eq!(waits(40, 1000).len(), 39, "no overflow");
    }

    #[test]
    fn jitter_takes_up_to_all_of_the_wait() {
        let wait =
            |chance| policy().again(&failed("GET", On::ServerError), &mut Budget::new(20), chance, NOW);
        assert_eq!(wait(0.0), Some(Duration::ZERO));
        assert_eq!(wait(0.25), Some(Duration::from_millis(25)));
    }

    #[test]
    fn retry_after_is_waited_for_up_to_the_bound_and_beyond_it_nothing_is_tried() {
        let after = |seconds| {
            let retry_after = Some(Duration::from_secs(seconds));
            again(&policy(), &Attempt { retry_after, ..failed("GET", On::TooManyRequests) })
        };
        assert_eq!(after(0), Some(Duration::from_millis(100)));
        assert_eq!(after(10), Some(Duration::from_secs(10)));
        assert_eq!(after(11), None);
    }

    #[test]
    fn a_time_out_that_is_tried_again_leaves_the_others_their_share() {
        let (policy, left) = (Policy { on: vec![On::Timeout], ..policy() }, Duration::from_secs(9));
        let shares = [1, 2, 3, 4].map(|number| policy.share(number, "GET", false, left).as_millis());
        assert_eq!(shares, [3000, 4500, 9000, 9000]);
        assert_eq!(policy.share(1, "POST", false, left), left, "it is not tried again");
        assert_eq!(policy.share(1, "POST", true, left), left / 3);
        assert_eq!(self::policy().share(1, "GET", false, left), left, "time-outs are not");
    }

    #[test]
    fn an_empty_budget_ends_the_retries() {
        let mut budget = Budget::new(20);
        let tried = (0..1000)
            .filter(|_| policy().again(&failed("GET", On::ServerError), &mut budget, 1.0, NOW).is_some());
        assert_eq!(tried.count(), 100);
        let refused = failed("POST", On::ServerError);
        let mut budget = Budget::new(20);
        assert_eq!((0..1000).find_map(|_| policy().again(&refused, &mut budget, 1.0, NOW)), None);
        let late = Attempt { left: Duration::from_millis(100), ..failed("GET", On::ServerError) };
        assert_eq!((0..1000).find_map(|_| policy().again(&late, &mut budget, 1.0, NOW)), None);
        assert!(
            again(&policy(), &failed("GET", On::ServerError)).is_some(),
            "what is not tried takes nothing"
        );
    }

    #[test]
    fn retry_after_is_read_as_seconds_or_as_any_date_of_http() {
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
