//! What there is to see of it.

use std::{cmp::Reverse, sync::Arc, time::Duration};

use super::{Scheduler, Uid, queue::Queue};
use crate::domain::delivery::health::Snapshot;

impl<E> Scheduler<E> {
    /// When something changes by itself.
    #[must_use]
    pub fn next_change(&self) -> Option<Duration> {
        self.timers.peek().map(|Reverse((at, _))| *at)
    }

    /// What is known of an endpoint that this process sends to, and how many of its deliveries are pending.
    #[must_use]
    pub fn state(&self, uid: &str, now: Duration) -> Option<(Snapshot, u64)> {
        let queue = self.queues.get(uid).filter(|queue| queue.owned)?;
        Some((queue.health.snapshot(self.outage.lost(now)), queue.pending))
    }

    /// Endpoints with deliveries that are not in memory, how old these may become, and how many are pending.
    #[must_use]
    pub fn backlogs(&self) -> Vec<(Uid, Duration, u64)> {
        let of = |(uid, queue): (&Uid, &Queue<E>)| {
            let waits = queue.owned && queue.pending > queue.known.len() as u64;
            let config = queue.config.as_ref().filter(|_| waits)?;
            Some((Arc::clone(uid), config.retry.max_age, queue.pending))
        };
        self.queues.iter().filter_map(of).collect()
    }

    /// Deliveries that are pending for an endpoint.
    #[must_use]
    pub fn pending_of(&self, uid: &str) -> u64 {
        self.queues.get(uid).map_or(0, |queue| queue.pending)
    }

    /// Whether an endpoint is disabled that this process sends to.
    #[must_use]
    pub fn is_disabled(&self, uid: &str) -> Option<bool> {
        self.queues.get(uid).filter(|queue| queue.owned).map(|queue| queue.health.disabled.is_some())
    }

    /// Deliveries that are pending, of all endpoints.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.queues.values().map(|queue| queue.pending).sum()
    }

    /// Attempts under way, and results that are not in the store yet.
    #[must_use]
    pub fn unfinished(&self) -> (usize, usize) {
        (self.in_flight, self.unflushed)
    }

    /// Whether nothing is under way at this endpoint, and no result of it waits for the store.
    #[must_use]
    pub fn is_idle(&self, uid: &str) -> bool {
        self.queues.get(uid).is_none_or(|queue| queue.in_hand() == 0)
    }

    /// Whether our own way out is missing.
    #[must_use]
    pub fn is_outage(&self) -> bool {
        self.outage.is_out()
    }

    /// Whether this process sends to it.
    #[must_use]
    pub fn owns(&self, uid: &str) -> bool {
        self.queues.get(uid).is_some_and(|queue| queue.owned)
    }
}
