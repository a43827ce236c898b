//! Strikes: nobody is taken for gone because of one look.

use std::time::Duration;

/// That an entry was missing: when for the first time, in milliseconds after 1970, and in how many runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Strike {
    /// The first time.
    pub since: i64,
    /// In so many runs, each time after a complete look.
    pub runs: u32,
}

/// How patient we are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// An entry must have been missing for so long.
    pub grace: Duration,
    /// After so long an identity is purged; never without.
    pub purge_after: Option<Duration>,
}

impl Default for Patience {
    fn default() -> Self {
        Self { grace: Duration::from_hours(1), purge_after: Some(Duration::from_hours(24 * 30)) }
    }
}

/// How many complete looks it takes.
const ENOUGH: u32 = 2;

impl Patience {
    /// The latest first strike that is old enough at `now`.
    #[must_use]
    pub fn due_since(&self, now: i64) -> i64 {
        now.saturating_sub(millis(self.grace))
    }

    /// Whether the entry is taken for gone.
    #[must_use]
    pub fn is_due(&self, strike: Strike, now: i64) -> bool {
        strike.runs >= ENOUGH && strike.since <= self.due_since(now)
    }

    /// Whether to ask for the entry once more: a cursor tells of a deletion only once, so that the second look is ours to take.
    #[must_use]
    pub fn wants_look(&self, strike: Strike, now: i64) -> bool {
        strike.runs < ENOUGH && strike.since <= self.due_since(now)
    }

    /// The latest first strike of what is purged at `now`.
    #[must_use]
    pub fn purge_since(&self, now: i64) -> Option<i64> {
        self.purge_after.map(|after| now.saturating_sub(millis(after.max(self.grace))))
    }
}

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_takes_two_looks_and_an_hour() {
        const MINUTE: i64 = 60_000;
        let patience = Patience::default();
        let rows = [
            (1, 0, false, false),
            (1, 59, false, false),
            (1, 60, false, true),
            (2, 59, false, false),
            (2, 60, true, false),
            (3, 60, true, false),
        ];
        for (runs, minutes, due, look) in rows {
            let strike = Strike { since: 1000, runs };
            let now = 1000 + minutes * MINUTE;
            assert_eq!(patience.is_due(strike, now), due, "{runs} {minutes}");
            assert_eq!(patience.wants_look(strike, now), look, "{runs} {minutes}");
        }
    }

    #[test]
    fn who_is_purged_was_gone_for_thirty_days() {
        assert_eq!(Patience::default().purge_since(0), Some(-30 * 24 * 3_600_000));
        assert_eq!(Patience { purge_after: None, ..Patience::default() }.purge_since(0), None);
    }
}
