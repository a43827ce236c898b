//! When and how patiently targets are probed.

use std::time::Duration;

use crate::api::shared::HealthCheck;

/// When and how patiently a target is probed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Schedule {
    /// Time from one probe's start to the next one's.
    pub interval: Duration,
    /// How long a probe may take.
    pub timeout: Duration,
    /// Each wait is shortened by up to so many percent.
    pub jitter_percent: u8,
    /// Failures that make it unhealthy.
    pub unhealthy_threshold: u32,
    /// Passes that make it healthy again.
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

/// The wait from one probe's start to the next one's: `interval`, shortened by up to `jitter_percent` as `chance`
/// (0 to 1) says. Jitter only shortens, so the promised time to notice a death holds.
#[must_use]
pub fn next_probe(interval: Duration, jitter_percent: u8, chance: f64) -> Duration {
    interval.mul_f64(1.0 - f64::from(jitter_percent.min(50)) / 100.0 * chance.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_only_shortens_the_wait() {
        let interval = Duration::from_secs(10);
        assert_eq!(next_probe(interval, 10, 0.0), interval);
        assert_eq!(next_probe(interval, 10, 1.0), Duration::from_secs(9));
        assert_eq!(next_probe(interval, 200, 1.0), Duration::from_secs(5));
    }
}
