//! The health state of a target, derived from its probes with hysteresis, so that it does not flap.

use jiff::Timestamp;

use crate::api::{Reason, status::HealthState};

/// The number of consecutive probes that change the state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures after which a healthy target becomes unhealthy; at least 1.
    pub unhealthy: u32,
    /// Successes after which an unhealthy target becomes healthy; at least 1.
    pub healthy: u32,
}

/// The health state of a target.
#[derive(Clone, Debug)]
pub struct Health {
    thresholds: Thresholds,
    state: HealthState,
    since: Timestamp,
    /// The reported reason of the failures; none while healthy.
    reason: Option<Reason>,
    failures: u32,
    successes: u32,
    /// The reason of the last failure, and how many consecutive failures had it.
    streak: Option<(Reason, u32)>,
    uptime: Uptime,
}

impl Health {
    /// Starts with the state `initial`: `Unknown` for a new target, or the state before a restart of the process.
    #[must_use]
    pub fn new(thresholds: Thresholds, initial: HealthState, now: Timestamp) -> Self {
        Self {
            thresholds,
            state: initial,
            since: now,
            reason: None,
            failures: 0,
            successes: 0,
            streak: None,
            uptime: Uptime::default(),
        }
    }

    /// Records the outcome of a probe. Returns whether the state or the reported reason changed.
    ///
    /// One success is enough to change `Unknown` to `Healthy`. While unhealthy, a new reason is reported once
    /// `unhealthy` consecutive failures had it, since a server that restarts fails for several reasons in turn.
    pub fn observe(&mut self, outcome: Result<(), Reason>, now: Timestamp) -> bool {
        self.uptime.add(outcome.is_ok(), now);
        match outcome {
            Ok(()) => self.succeed(now),
            Err(reason) => self.fail(reason, now),
        }
    }

    fn succeed(&mut self, now: Timestamp) -> bool {
        self.failures = 0;
        self.streak = None;
        self.successes += 1;
        let needed = if self.state == HealthState::Unhealthy { self.thresholds.healthy } else { 1 };
        self.state != HealthState::Healthy
            && self.successes >= needed
            && self.transition(HealthState::Healthy, None, now)
    }

    fn fail(&mut self, reason: Reason, now: Timestamp) -> bool {
        self.successes = 0;
        self.failures += 1;
        let times = match self.streak {
            Some((last, times)) if last == reason => times + 1,
            _ => 1,
        };
        self.streak = Some((reason, times));
        match self.state {
            HealthState::Unhealthy if self.reason != Some(reason) && times >= self.thresholds.unhealthy => {
                self.reason = Some(reason);
                true
            }
            HealthState::Unhealthy => false,
            _ if self.failures >= self.thresholds.unhealthy => {
                self.transition(HealthState::Unhealthy, Some(reason), now)
            }
            _ => false,
        }
    }

    fn transition(&mut self, state: HealthState, reason: Option<Reason>, now: Timestamp) -> bool {
        (self.state, self.reason, self.since) = (state, reason, now);
        true
    }

    /// The state.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// The time of the last change of the state.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// The reason why the target is unhealthy; none while healthy.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// The number of failures since the last success.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// The percentage of successful probes in the last hour, such as `99.9%`; none before the first probe.
    #[must_use]
    pub fn uptime_1h(&self) -> Option<String> {
        self.uptime.percentage()
    }
}

/// The probes of the last hour, per minute.
#[derive(Clone, Debug, Default)]
struct Uptime {
    /// (minute since 1970, successes, probes)
    minutes: Vec<(i64, u32, u32)>,
}

impl Uptime {
    fn add(&mut self, success: bool, now: Timestamp) {
        let minute = now.as_second() / 60;
        // Minutes in the future are from before the clock was set back.
        self.minutes.retain(|(then, ..)| (minute - 59..=minute).contains(then));
        if self.minutes.last().is_none_or(|last| last.0 != minute) {
            self.minutes.push((minute, 0, 0));
        }
        if let Some(last) = self.minutes.last_mut() {
            last.1 += u32::from(success);
            last.2 += 1;
        }
    }

    /// Rounded down to tenths of a percent: 100% means that no probe failed.
    fn percentage(&self) -> Option<String> {
        let (successes, all) = self
            .minutes
            .iter()
            .fold((0_u64, 0_u64), |sum, minute| (sum.0 + u64::from(minute.1), sum.1 + u64::from(minute.2)));
        let tenths = (successes * 1000).checked_div(all)?;
        Some(if tenths % 10 == 0 {
            format!("{}%", tenths / 10)
        } else {
            format!("{}.{}%", tenths / 10, tenths % 10)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const NOW: Timestamp = Timestamp::UNIX_EPOCH;
    const REFUSED: Result<(), Reason> = Err(Reason::ConnectionRefused);
    const STARTING: Result<(), Reason> = Err(Reason::Unavailable);

    fn observe(health: &mut Health, outcomes: &[Result<(), Reason>]) -> Vec<bool> {
        outcomes.iter().map(|outcome| health.observe(*outcome, NOW)).collect()
    }

    fn health() -> Health {
        Health::new(Thresholds { unhealthy: 3, healthy: 2 }, HealthState::Unknown, NOW)
    }

    #[test]
    fn a_target_that_was_healthy_before_becomes_unhealthy_at_the_threshold() {
        let mut health = Health::new(Thresholds { unhealthy: 2, healthy: 2 }, HealthState::Healthy, NOW);
        assert_eq!(observe(&mut health, &[REFUSED, REFUSED]), [false, true]);
    }

    #[test]
    fn one_success_makes_an_unknown_target_healthy() {
        let mut health = health();
        assert_eq!(observe(&mut health, &[Ok(()), Ok(())]), [true, false]);
        assert_eq!(health.state(), HealthState::Healthy);
    }

    #[test]
    fn a_healthy_target_becomes_unhealthy_at_the_threshold_and_not_before() {
        let mut health = health();
        assert_eq!(
            observe(&mut health, &[Ok(()), REFUSED, REFUSED, REFUSED, REFUSED]),
            [true, false, false, true, false]
        );
        assert_eq!(
            (health.state(), health.reason()),
            (HealthState::Unhealthy, Some(Reason::ConnectionRefused))
        );
        assert_eq!(health.consecutive_failures(), 4);
    }

    #[test]
    fn an_unhealthy_target_becomes_healthy_after_two_consecutive_successes() {
        let mut health = health();
        observe(&mut health, &[REFUSED, REFUSED, REFUSED]);
        assert_eq!(observe(&mut health, &[Ok(()), REFUSED, Ok(()), Ok(())]), [false, false, false, true]);
        assert_eq!(health.reason(), None);
    }

    #[test]
    fn a_server_that_restarts_again_and_again_does_not_flap() {
        let mut health = health();
        observe(&mut health, &[Ok(())]);
        let restarts = [REFUSED, STARTING, Ok(())].repeat(20);
        assert!(!observe(&mut health, &restarts).contains(&true));
    }

    #[test]
    fn another_reason_is_reported_at_the_threshold() {
        let mut health = health();
        observe(&mut health, &[REFUSED, REFUSED, REFUSED]);
        assert_eq!(
            observe(&mut health, &[STARTING, REFUSED, STARTING, STARTING, STARTING]),
            [false, false, false, false, true]
        );
        assert_eq!(health.reason(), Some(Reason::Unavailable));
    }

    #[test]
    fn uptime_counts_one_hour_and_never_rounds_up() {
        let mut health = health();
        assert_eq!(health.uptime_1h(), None);
        health.observe(REFUSED, NOW);
        let later = NOW + Duration::from_mins(59);
        for _ in 0..1999 {
            health.observe(Ok(()), later);
        }
        assert_eq!(health.uptime_1h().as_deref(), Some("99.9%"));
        health.observe(Ok(()), NOW + Duration::from_hours(1));
        assert_eq!(health.uptime_1h().as_deref(), Some("100%"));
    }

    #[test]
    fn uptime_drops_minutes_in_the_future_when_the_clock_is_set_back() {
        let mut health = health();
        health.observe(REFUSED, NOW + Duration::from_hours(2));
        health.observe(Ok(()), NOW + Duration::from_hours(1));
        assert_eq!(health.uptime_1h().as_deref(), Some("100%"));
        health.observe(REFUSED, NOW);
        assert_eq!(health.uptime_1h().as_deref(), Some("0%"));
        assert_eq!(health.uptime.minutes.len(), 1);
    }
}
