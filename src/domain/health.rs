//! The verdict over a series of probes, with hysteresis: a target that answers now and then does not flap.

use jiff::Timestamp;

use crate::api::{Reason, status::HealthState};

/// How many probes in a row it takes to change the verdict.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Thresholds {
    /// Failures that make a healthy target unhealthy; at least 1.
    pub unhealthy: u32,
    /// Passes that make an unhealthy target healthy; at least 1.
    pub healthy: u32,
}

/// The verdict, and what it rests on.
#[derive(Clone, Debug)]
pub struct Health {
    thresholds: Thresholds,
    state: HealthState,
    since: Timestamp,
    /// The failure that the verdict names; none while healthy.
    reason: Option<Reason>,
    failures: u32,
    passes: u32,
    /// The reason of the last failure, and how many times in a row it came.
    streak: Option<(Reason, u32)>,
    hour: Uptime,
}

impl Health {
    /// Starts from what was known before: `Unknown` for a new target, or the verdict of an earlier process, which a
    /// restart is no reason to forget.
    #[must_use]
    pub fn new(thresholds: Thresholds, known: HealthState, now: Timestamp) -> Self {
        Self {
            thresholds,
            state: known,
            since: now,
            reason: None,
            failures: 0,
            passes: 0,
            streak: None,
            hour: Uptime::default(),
        }
    }

    /// Takes one probe's outcome, and tells whether the verdict (its state or its reason) is now another one.
    ///
    /// From `Unknown`, one pass makes a target healthy: there is nothing to flap from. While unhealthy, another
    /// reason replaces the reported one only once it came `unhealthy` times in a row, since a server that restarts
    /// gives several in turn.
    pub fn observe(&mut self, outcome: Result<(), Reason>, now: Timestamp) -> bool {
        self.hour.add(outcome.is_ok(), now);
        match outcome {
            Ok(()) => self.pass(now),
            Err(reason) => self.fail(reason, now),
        }
    }

    fn pass(&mut self, now: Timestamp) -> bool {
        self.failures = 0;
        self.streak = None;
        self.passes += 1;
        let needed = if self.state == HealthState::Unhealthy { self.thresholds.healthy } else { 1 };
        self.state != HealthState::Healthy
            && self.passes >= needed
            && self.turn(HealthState::Healthy, None, now)
    }

    fn fail(&mut self, reason: Reason, now: Timestamp) -> bool {
        self.passes = 0;
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
                self.turn(HealthState::Unhealthy, Some(reason), now)
            }
            _ => false,
        }
    }

    fn turn(&mut self, state: HealthState, reason: Option<Reason>, now: Timestamp) -> bool {
        (self.state, self.reason, self.since) = (state, reason, now);
        true
    }

    /// The verdict.
    #[must_use]
    pub fn state(&self) -> HealthState {
        self.state
    }

    /// When the verdict was reached.
    #[must_use]
    pub fn since(&self) -> Timestamp {
        self.since
    }

    /// Why it is unhealthy.
    #[must_use]
    pub fn reason(&self) -> Option<Reason> {
        self.reason
    }

    /// Failures since the last pass.
    #[must_use]
    pub fn consecutive_failures(&self) -> u32 {
        self.failures
    }

    /// The share of the last hour's probes that passed, as users read it.
    #[must_use]
    pub fn uptime_1h(&self) -> Option<String> {
        self.hour.share()
    }
}

/// Probes of the last hour, by minute.
#[derive(Clone, Debug, Default)]
struct Uptime {
    /// (minute since 1970, passed, all)
    minutes: Vec<(i64, u32, u32)>,
}

impl Uptime {
    fn add(&mut self, passed: bool, now: Timestamp) {
        let minute = now.as_second() / 60;
        // Those that are ahead are of a clock that was set back since.
        self.minutes.retain(|(then, ..)| (minute - 59..=minute).contains(then));
        if self.minutes.last().is_none_or(|last| last.0 != minute) {
            self.minutes.push((minute, 0, 0));
        }
        if let Some(last) = self.minutes.last_mut() {
            last.1 += u32::from(passed);
            last.2 += 1;
        }
    }

    /// In tenths of a percent, rounded down: 100% means that not one failed.
    fn share(&self) -> Option<String> {
        let (passed, all) = self
            .minutes
            .iter()
            .fold((0_u64, 0_u64), |sum, minute| (sum.0 + u64::from(minute.1), sum.1 + u64::from(minute.2)));
        let tenths = (passed * 1000).checked_div(all)?;
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
    fn a_target_that_was_healthy_before_needs_the_threshold_to_turn() {
        let mut health = Health::new(Thresholds { unhealthy: 2, healthy: 2 }, HealthState::Healthy, NOW);
        assert_eq!(observe(&mut health, &[REFUSED, REFUSED]), [false, true]);
    }

    #[test]
    fn one_pass_makes_an_unknown_target_healthy() {
        let mut health = health();
        assert_eq!(observe(&mut health, &[Ok(()), Ok(())]), [true, false]);
        assert_eq!(health.state(), HealthState::Healthy);
    }

    #[test]
    fn a_healthy_target_turns_unhealthy_at_the_threshold_and_not_before() {
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
    fn an_unhealthy_target_turns_healthy_after_two_passes_in_a_row() {
        let mut health = health();
        observe(&mut health, &[REFUSED, REFUSED, REFUSED]);
        assert_eq!(observe(&mut health, &[Ok(()), REFUSED, Ok(()), Ok(())]), [false, false, false, true]);
        assert_eq!(health.reason(), None);
    }

    #[test]
    fn a_server_that_restarts_all_the_time_does_not_flap() {
        let mut health = health();
        observe(&mut health, &[Ok(())]);
        let restarts = [REFUSED, STARTING, Ok(())].repeat(20);
        assert!(!observe(&mut health, &restarts).contains(&true));
    }

    #[test]
    fn another_reason_is_reported_once_it_lasts() {
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
    fn uptime_forgets_what_is_ahead_of_a_clock_that_was_set_back() {
        let mut health = health();
        health.observe(REFUSED, NOW + Duration::from_hours(2));
        health.observe(Ok(()), NOW + Duration::from_hours(1));
        assert_eq!(health.uptime_1h().as_deref(), Some("100%"));
        health.observe(REFUSED, NOW);
        assert_eq!(health.uptime_1h().as_deref(), Some("0%"));
        assert_eq!(health.hour.minutes.len(), 1);
    }
}
