//! When a failed pass is tried again.

use std::time::Duration;

/// What kind of a wait an error deserves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Only a change by the user can help: of the object, or of what it names.
    OnChange,
    /// The outside must change by itself: look again after the usual interval.
    AfterInterval,
    /// Likely to pass soon: try again, slower each time.
    Backoff,
}

/// Objects are looked at again at least so often, even when nothing happened.
pub const RESYNC: Duration = Duration::from_mins(10);

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_mins(5);

/// The wait before the next try: 1 s, 2 s, 4 s, ... 5 min, each shortened by up to half as `chance` (0 to 1) says.
#[must_use]
pub fn delay(retry: Retry, failures: u32, chance: f64) -> Duration {
    match retry {
        Retry::OnChange | Retry::AfterInterval => RESYNC,
        Retry::Backoff => {
            let doubled = FIRST.saturating_mul(1 << failures.saturating_sub(1).min(16));
            doubled.min(LONGEST).mul_f64(1.0 - 0.5 * chance.clamp(0.0, 1.0))
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
        assert_eq!(delay(Retry::Backoff, u32::MAX, 0.0), LONGEST);
    }

    #[test]
    fn jitter_takes_at_most_half() {
        assert_eq!(delay(Retry::Backoff, 2, 1.0), Duration::from_secs(1));
    }
}
