//! Whether it is our own way out that is missing, and not the endpoints: if so, nothing of what they seem to do counts against them.

use std::{collections::HashMap, hash::Hash, time::Duration};

/// So many endpoints at least, ...
const ENOUGH: usize = 5;
/// ... of which more than half cannot be reached, ...
const WINDOW: Duration = Duration::from_mins(1);
// ... within this time.

/// How often it is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// What the last attempts at each endpoint say of the way out.
#[derive(Clone, Debug)]
pub struct OutageGuard<K> {
    last: HashMap<K, (Duration, bool)>,
    looked: Option<Duration>,
    since: Option<Duration>,
    /// The time of earlier outages.
    before: Duration,
}

impl<K> Default for OutageGuard<K> {
    fn default() -> Self {
        Self { last: HashMap::new(), looked: None, since: None, before: Duration::ZERO }
    }
}

impl<K: Eq + Hash> OutageGuard<K> {
    /// An attempt has shown that there is a way out, or has not found one. Gives whether there is an outage, if that has changed.
    pub fn record(&mut self, endpoint: K, reached: bool, now: Duration) -> Option<bool> {
        self.last.insert(endpoint, (now, reached));
        // While all is well, nothing can change by a success.
        let quiet = reached && self.since.is_none();
        if quiet || self.looked.is_some_and(|looked| now < looked + LOOK) {
            return None;
        }
        self.looked = Some(now);
        self.last.retain(|_, (at, _)| now < *at + WINDOW);
        let reached = self.last.values().filter(|(_, reached)| *reached).count();
        let lost = self.last.len() - reached;
        match self.since {
            None if lost >= ENOUGH && lost > reached => {
                self.since = Some(now);
                Some(true)
            }
            // Only an endpoint that was reached ends it: nobody may have been called for a while.
            Some(since) if reached > 0 && reached >= lost => {
                self.before += now.saturating_sub(since);
                self.since = None;
                Some(false)
            }
            _ => None,
        }
    }

    /// Whether there is an outage.
    #[must_use]
    pub fn is_out(&self) -> bool {
        self.since.is_some()
    }

    /// Forgets an endpoint.
    pub fn forget(&mut self, endpoint: &K) {
        self.last.remove(endpoint);
    }

    /// All the time that outages have taken.
    #[must_use]
    pub fn lost(&self, now: Duration) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| now.saturating_sub(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_takes_five_endpoints_and_more_than_half_of_those_that_were_tried() {
        let mut guard = OutageGuard::default();
        let turns: Vec<_> = (0..5).map(|n| guard.record(n, false, at(2 * n))).collect();
        assert_eq!(turns, [None, None, None, None, Some(true)]);
        let mut guard = OutageGuard::default();
        for n in 0..8 {
            guard.record(n, true, at(0));
        }
        assert!((10..18).all(|n| guard.record(n, false, at(n)).is_none()), "as many were reached");
        assert_eq!(guard.record(18, false, at(18)), Some(true));
    }

    #[test]
    fn failures_of_some_time_ago_do_not_count() {
        let mut guard = OutageGuard::default();
        assert!((0..100).all(|n| guard.record(n, false, at(20 * n)).is_none()));
    }

    #[test]
    fn it_ends_when_endpoints_are_reached_and_its_time_is_known() {
        let mut guard = OutageGuard::default();
        for n in 0..5 {
            guard.record(n, false, at(2 * n));
        }
        assert_eq!(guard.lost(at(108)), at(100));
        // Silence is no news.
        assert_eq!(guard.record(0, false, at(10_000)), None);
        assert!(guard.is_out());
        assert_eq!(guard.record(1, true, at(10_008)), Some(false));
        assert_eq!(guard.lost(at(99_999)), at(10_000));
    }
}
