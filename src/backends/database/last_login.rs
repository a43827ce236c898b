//! The age of the last login: an open connection says nothing about a credential that was revoked since.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// A probe relies on a login that is at most this old.
const MAX_AGE: Duration = Duration::from_mins(5);

/// When the credential last logged in to the server.
pub(super) struct LastLogin {
    time: Mutex<Option<Instant>>,
    max_age: Duration,
}

impl LastLogin {
    /// None yet. The maximum age is five minutes, or `max_lifetime` if that is shorter.
    pub(super) fn new(max_lifetime: Duration) -> Self {
        Self { time: Mutex::default(), max_age: MAX_AGE.min(max_lifetime) }
    }

    /// A login succeeded.
    pub(super) fn record(&self) {
        *self.time.lock() = Some(Instant::now());
    }

    /// The last login is too old to rely on.
    pub(super) fn is_due(&self) -> bool {
        let time = *self.time.lock();
        time.is_some_and(|time| time.elapsed() >= self.max_age)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_due_when_the_last_one_is_old_and_not_before_the_first() {
        let long = LastLogin::new(Duration::MAX);
        let short = LastLogin::new(Duration::ZERO);
        assert!(!long.is_due() && !short.is_due());
        long.record();
        short.record();
        assert!(!long.is_due() && short.is_due());
        assert_eq!(long.max_age, MAX_AGE);
    }
}
