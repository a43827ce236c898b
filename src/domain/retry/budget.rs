//! How many retries a target gets in all.

use std::time::Duration;

use super::super::window::Window;

/// The time over which requests and retries are counted.
const WINDOW: Duration = Duration::from_secs(10);

/// Retries that are always there, so that a target with few requests gets some: in [`WINDOW`], 10 per second.
const LEAST: u64 = 100;

/// Retries may be at most so many percent of the requests: when a target fails wholly, they add this much to its load
/// and not a multiple of it. The model and its numbers are those of Finagle's `RetryBudget` (10 s, 10 retries per second
/// beyond the percentage), which Linkerd took over.
#[derive(Clone, Debug)]
pub struct Budget {
    percent: u8,
    /// All calls, and of them those that are retries.
    calls: Window,
}

impl Budget {
    /// A budget of so many percent.
    #[must_use]
    pub fn new(percent: u8) -> Self {
        Self { percent, calls: Window::new(WINDOW) }
    }

    /// Counts a request's first attempt; `now` is the time since any start.
    pub fn request(&mut self, now: Duration) {
        self.calls.add(false, now);
    }

    /// Takes leave for one retry, if there is any.
    pub fn take(&mut self, now: Duration) -> bool {
        let (all, retries) = self.calls.counts(now);
        let most = LEAST + (all - retries) * u64::from(self.percent) / 100;
        let left = retries < most;
        if left {
            self.calls.add(true, now);
        }
        left
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
    fn retries_are_the_percentage_of_the_requests_and_the_minimum() {
        let now = Duration::from_mins(1);
        assert_eq!(retries(&mut Budget::new(20), 0, now), 100);
        assert_eq!(retries(&mut Budget::new(20), 10_000, now), 2100);
        assert_eq!(retries(&mut Budget::new(0), 10_000, now), 100);
    }

    #[test]
    fn what_was_ten_seconds_ago_counts_no_more() {
        let mut budget = Budget::new(20);
        assert_eq!(retries(&mut budget, 1000, Duration::from_mins(1)), 300);
        assert_eq!(retries(&mut budget, 0, Duration::from_secs(69)), 0);
        assert_eq!(retries(&mut budget, 0, Duration::from_secs(70)), 100);
    }
}
