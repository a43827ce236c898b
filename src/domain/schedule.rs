//! Intervals, timeouts and thresholds of probes.

use std::time::Duration;

use crate::api::shared::HealthCheck;

/// The settings of the probes of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Time between the starts of two probes.
    pub interval: Duration,
    /// Timeout of a probe.
    pub timeout: Duration,
    /// Maximum percentage by which jitter shortens the interval.
    pub jitter_percent: u8,
    /// Number of consecutive failures that make the target unhealthy.
    pub unhealthy_threshold: u32,
    /// Number of consecutive successes that make the target healthy.
    pub healthy_threshold: u32,
}

impl From<&HealthCheck> for Schedule {
    fn from(check: &HealthCheck) -> Self {
        Self {
            interval: check.interval.get(),
            timeout: check.timeout.get(),
            jitter_percent: check.jitter_percent,
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
        }
    }
}

/// The time from the start of a probe to the next one: `interval`, shortened by up to `jitter_percent`; `chance` is a
/// random number from 0 to 1. Jitter only shortens the interval, so that the time to detect a failure is bounded by
/// the settings.
#[must_use]
pub fn next_probe(interval: Duration, jitter_percent: u8, chance: f64) -> Duration {
    interval.mul_f64(1.0 - f64::from(jitter_percent.min(50)) / 100.0 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_shortens_the_interval() {
        let interval = Duration::from_secs(10);
        assert_eq!(next_probe(interval, 10, 0.0), interval);
        assert_eq!(next_probe(interval, 10, 1.0), Duration::from_secs(9));
        assert_eq!(next_probe(interval, 200, 1.0), Duration::from_secs(5));
    }
}
