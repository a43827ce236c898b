//! The retry budget of a target.

use std::time::Duration;

use super::super::window::Window;

/// The window over which requests and retries are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// The number of retries in a [`WINDOW`] that are always allowed (10 per second), for targets with few requests.
const MIN_RETRIES: u64 = 100;

/// Limits retries to a percentage of the requests: when a target fails completely, they add this percentage to its
/// load instead of a multiple of it. Model and numbers are those of Finagle's `RetryBudget` (10 s, 10 retries per
/// second plus the percentage), which Linkerd uses as well.
#[derive(Clone, Debug)]
pub struct Budget {
    percent: u8,
    /// All calls; the marked ones are retries.
    calls: Window,
}

impl Budget {
    /// A budget of this percentage.
    #[must_use]
    pub fn new(percent: u8) -> Self {
        Self { percent, calls: Window::new(WINDOW) }
    }

    /// Counts the first attempt of a request; `now` is a monotonic time.
    pub fn request(&mut self, now: Duration) {
        self.calls.add(false, now);
    }

    /// Takes a retry from the budget. Returns whether it is allowed.
    pub fn take(&mut self, now: Duration) -> bool {
        let (all, retries) = self.calls.counts(now);
        let max = MIN_RETRIES + (all - retries) * u64::from(self.percent) / 100;
        let allowed = retries < max;
        if allowed {
            self.calls.add(true, now);
        }
        allowed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn retries(budget: &mut Budget, requests: u32, now: Duration) -> usize {
        for _ in 0..requests {
            budget.request(now);
        }
        (0..10_000).filter(|_| budget.take(now)).count()
    }

    #[test]
    fn retries_are_limited_to_the_minimum_plus_the_percentage() {
        let now = Duration::from_mins(1);
        assert_eq!(retries(&mut Budget::new(20), 0, now), 100);
        assert_eq!(retries(&mut Budget::new(20), 10_000, now), 2100);
        assert_eq!(retries(&mut Budget::new(0), 10_000, now), 100);
    }

    #[test]
    fn requests_and_retries_are_counted_for_ten_seconds() {
        let mut budget = Budget::new(20);
        assert_eq!(retries(&mut budget, 1000, Duration::from_mins(1)), 300);
        assert_eq!(retries(&mut budget, 0, Duration::from_secs(69)), 0);
        assert_eq!(retries(&mut budget, 0, Duration::from_secs(70)), 100);
    }
}
