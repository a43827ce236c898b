//! The clock that waits are counted by.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use jiff::Timestamp;

/// The time since 1970 as it was when the process started, and from then on as a stopwatch shows it: a clock that is set to another time
/// makes nothing due, and nothing wait.
#[derive(Debug)]
pub(super) struct Clock {
    started: Instant,
    base: Duration,
}

impl Clock {
    pub(super) fn start() -> Self {
        let base = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { started: Instant::now(), base }
    }

    pub(super) fn now(&self) -> Duration {
        self.base + self.started.elapsed()
    }

    /// When it will show this time.
    pub(super) fn instant_of(&self, time: Duration) -> Instant {
        self.started + time.saturating_sub(self.base)
    }
}

/// What people and receivers take for the time.
pub(super) fn wall() -> Timestamp {
    Timestamp::now()
}
