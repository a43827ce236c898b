//! How old the last login is: an open connection says nothing of a credential that was revoked since.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

/// The last login that a probe relies on is at most this old.
const PROOF: Duration = Duration::from_mins(5);

/// When somebody last logged in to a server with its credential.
pub(super) struct Logins {
    last: Mutex<Option<Instant>>,
    proof: Duration,
}

impl Logins {
    /// Nobody yet. What must not grow older than `max_lifetime` is not relied on for longer either.
    pub(super) fn new(max_lifetime: Duration) -> Self {
        Self { last: Mutex::default(), proof: PROOF.min(max_lifetime) }
    }

    /// Somebody has.
    pub(super) fn succeeded(&self) {
        *self.last.lock() = Some(Instant::now());
    }

    /// The last one is too old to rely on.
    pub(super) fn is_due(&self) -> bool {
        let last = *self.last.lock();
        last.is_some_and(|last| last.elapsed() >= self.proof)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_due_when_the_last_one_is_old_and_not_before_the_first() {
        let kept = Logins::new(Duration::MAX);
        let short = Logins::new(Duration::ZERO);
        assert!(!kept.is_due() && !short.is_due());
        kept.succeeded();
        short.succeeded();
        assert!(!kept.is_due() && short.is_due());
        assert_eq!(kept.proof, PROOF);
    }
}
