//! When an endpoint is disabled: because it said so, or because nothing has arrived for days. It stays so until somebody enables it.

use std::time::Duration;

/// When an endpoint that only fails is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisablePolicy {
    /// So long after the first failure without a success since, ...
    pub after: Duration,
    /// ... and after so many failures.
    pub min_failures: u32,
}

impl Default for DisablePolicy {
    fn default() -> Self {
        Self { after: Duration::from_hours(120), min_failures: 20 }
    }
}

/// Why it is disabled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DisableReason {
    /// It answered 410.
    Gone,
    /// By the policy.
    TooManyFailures,
}

impl DisableReason {
    /// The word that users read.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Gone => "Gone",
            Self::TooManyFailures => "TooManyFailures",
        }
    }

    /// The reason that has this word.
    #[must_use]
    pub fn named(word: &str) -> Option<Self> {
        [Self::Gone, Self::TooManyFailures].into_iter().find(|reason| reason.as_str() == word)
    }
}

/// Parts of the way to being disabled that are told, in percent.
pub const NOTICES: [u8; 3] = [50, 70, 90];

/// Failures since the last success.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Failing {
    /// When the first was.
    pub since: Duration,
    /// How many.
    pub failures: u32,
    /// The last part of the way that was told.
    pub noticed: u8,
}

/// What is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// So many percent of the way to being disabled.
    Notice(u8),
    /// It is disabled.
    Disable,
}

impl Failing {
    /// Counts a failure. `now` must stand still while it is we who cannot reach anybody.
    pub fn fail(failing: &mut Option<Self>, policy: Option<DisablePolicy>, now: Duration) -> Option<Verdict> {
        let failing = failing.get_or_insert(Self { since: now, failures: 0, noticed: 0 });
        failing.failures = failing.failures.saturating_add(1);
        let policy = policy?;
        let part = |done: u128, of: u128| (done * 100).checked_div(of).unwrap_or(100);
        let time = part(now.saturating_sub(failing.since).as_nanos(), policy.after.as_nanos());
        let way = time.min(part(failing.failures.into(), policy.min_failures.into()));
        if way >= 100 {
            return Some(Verdict::Disable);
        }
        let notice = NOTICES.into_iter().rev().find(|notice| u128::from(*notice) <= way)?;
        (notice > failing.noticed).then(|| {
            failing.noticed = notice;
            Verdict::Notice(notice)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_hours(1);

    #[test]
    fn it_takes_the_time_and_the_failures_and_the_way_there_is_told() {
        let mut failing = None;
        let policy = Some(DisablePolicy::default());
        // One failure in six hours.
        let told: Vec<_> =
            (0..=20).filter_map(|n| Failing::fail(&mut failing, policy, HOUR * 6 * n)).collect();
        let notices = NOTICES.map(Verdict::Notice);
        assert_eq!(told, [&notices[..], &[Verdict::Disable]].concat());
    }

    #[test]
    fn neither_many_failures_in_a_short_time_nor_few_in_a_long_one_disable_it() {
        let policy = Some(DisablePolicy::default());
        let mut failing = None;
        assert!((0..1000).all(|n| Failing::fail(&mut failing, policy, Duration::from_secs(n)).is_none()));
        let mut failing = None;
        let told: Vec<_> =
            (0..19).filter_map(|n| Failing::fail(&mut failing, policy, HOUR * 24 * n)).collect();
        assert_eq!(told.last(), Some(&Verdict::Notice(90)));
    }

    #[test]
    fn without_a_policy_it_only_counts() {
        let mut failing = None;
        assert!((0..1000).all(|n| Failing::fail(&mut failing, None, HOUR * n).is_none()));
        assert_eq!(failing.map(|failing| failing.failures), Some(1000));
    }
}
