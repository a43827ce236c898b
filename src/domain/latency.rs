//! A percentile of the last latencies.

use std::{collections::VecDeque, time::Duration};

/// The number of latencies that are kept.
pub const WINDOW: usize = 64;

/// The last [`WINDOW`] latencies.
#[derive(Clone, Debug, Default)]
pub struct Latencies(VecDeque<Duration>);

impl Latencies {
    /// Adds a latency, and drops the oldest if the window is full.
    pub fn add(&mut self, latency: Duration) {
        if self.0.len() == WINDOW {
            self.0.pop_front();
        }
        self.0.push_back(latency);
    }

    /// The last latency.
    #[must_use]
    pub fn last(&self) -> Option<Duration> {
        self.0.back().copied()
    }

    /// The 95th percentile of the window (nearest rank).
    #[must_use]
    pub fn p95(&self) -> Option<Duration> {
        let mut sorted: Vec<_> = self.0.iter().copied().collect();
        sorted.sort_unstable();
        let rank = (sorted.len() * 95).div_ceil(100);
        sorted.get(rank.checked_sub(1)?).copied()
    }
}

/// Converts to whole milliseconds.
#[must_use]
pub fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_percentile_is_the_nearest_rank_of_the_window() {
        let mut latencies = Latencies::default();
        assert_eq!(latencies.p95(), None);
        for value in 1..=1000 {
            latencies.add(Duration::from_millis(value));
        }
        // The window holds 937..=1000; rank 61 of 64 is 997.
        assert_eq!(latencies.p95(), Some(Duration::from_millis(997)));
        assert_eq!(latencies.last(), Some(Duration::from_secs(1)));
    }
}
