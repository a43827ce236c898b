//! When an object is reconciled again.

use std::time::Duration;

/// When a failed reconcile is retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// When the object or an object that it references changes; nothing else can help.
    OnChange,
    /// After the resync interval: the target has to change.
    AfterInterval,
    /// With exponential backoff: the failure is probably temporary.
    Backoff,
}

/// The resync interval: every object is reconciled at least this often.
pub const RESYNC: Duration = Duration::from_mins(10);

const INITIAL: Duration = Duration::from_secs(1);
const MAX: Duration = Duration::from_mins(5);

/// The delay before the next reconcile. With backoff it is 1 s, 2 s, 4 s, ... 5 min, each reduced by up to half;
/// `chance` (0 to 1) is the jitter.
#[must_use]
pub fn delay(retry: Retry, failures: u32, chance: f64) -> Duration {
    match retry {
        Retry::OnChange | Retry::AfterInterval => RESYNC,
        Retry::Backoff => {
            let doubled = INITIAL.saturating_mul(1 << failures.saturating_sub(1).min(16));
            doubled.min(MAX).mul_f64(1.0 - 0.5 * chance.clamp(0.0, 1.0))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn backoff_doubles_from_one_second_to_five_minutes() {
        let delays: Vec<_> =
            (1..=11).map(|failures| delay(Retry::Backoff, failures, 0.0).as_secs()).collect();
        assert_eq!(delays, [1, 2, 4, 8, 16, 32, 64, 128, 256, 300, 300]);
        assert_eq!(delay(Retry::Backoff, u32::MAX, 0.0), MAX);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        assert_eq!(delay(Retry::Backoff, 2, 1.0), Duration::from_secs(1));
    }
}
