//! What is known of an endpoint by its answers.

use std::time::Duration;

use super::{
    circuit::{Circuit, Phase, Turn},
    disable::{DisablePolicy, DisableReason, Failing, Verdict},
    outcome::Outcome,
};

/// What an endpoint's answers have led to.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// Whether requests pass.
    pub circuit: Circuit,
    /// Failures since the last success, on a clock that stands still during outages of our own.
    pub failing: Option<Failing>,
    /// Since when it is disabled, and why.
    pub disabled: Option<(DisableReason, Duration)>,
    /// Counts since the endpoint was made.
    pub totals: Totals,
}

/// Counts since the endpoint was made, and its last answers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Deliveries that arrived.
    pub delivered: u64,
    /// Attempts that failed.
    pub failed: u64,
    /// Deliveries that were given up.
    pub dead: u64,
    /// When an attempt succeeded last, and how long it took.
    pub last_success: Option<(Duration, Duration)>,
    /// When one failed last, and how.
    pub last_failure: Option<(Duration, Outcome)>,
}

/// What outlives a process.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// The circuit is open until then.
    pub open_until: Option<Duration>,
    /// How many times in a row it opened.
    pub rounds: u32,
    /// Failures since the last success, by the usual clock.
    pub failing: Option<Failing>,
    /// Since when it is disabled, and why.
    pub disabled: Option<(DisableReason, Duration)>,
    /// Counts.
    pub totals: Totals,
}

/// What changed, for people to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// The circuit opened: nothing is sent for a while.
    CircuitOpened,
    /// The circuit closed.
    CircuitClosed,
    /// So many percent of the way to being disabled.
    DisableNotice(u8),
    /// It is disabled until somebody enables it.
    Disabled(DisableReason),
    /// It is enabled again.
    Enabled,
}

impl Health {
    /// As it was left; `lost` is the time of outages so far.
    #[must_use]
    pub fn restored(snapshot: &Snapshot, lost: Duration, now: Duration) -> Self {
        let moved = |failing: Failing| Failing { since: failing.since.saturating_sub(lost), ..failing };
        Self {
            circuit: Circuit::restored(snapshot.open_until, snapshot.rounds, now),
            failing: snapshot.failing.map(moved),
            disabled: snapshot.disabled,
            totals: snapshot.totals.clone(),
        }
    }

    /// As it is to be kept.
    #[must_use]
    pub fn snapshot(&self, lost: Duration) -> Snapshot {
        let moved = |failing: Failing| Failing { since: failing.since + lost, ..failing };
        let open_until = match self.circuit.phase() {
            Phase::Open { until } => Some(until),
            // A trial that is under way ends with the process.
            Phase::HalfOpen => Some(Duration::ZERO),
            Phase::Closed => None,
        };
        Snapshot {
            open_until,
            rounds: self.circuit.rounds(),
            failing: self.failing.map(moved),
            disabled: self.disabled,
            totals: self.totals.clone(),
        }
    }

    /// An attempt ended. `outage` is whether our own way out is missing, and `active` the time without that of outages.
    pub fn record(&mut self, ended: &Ended, policy: Option<DisablePolicy>) -> Vec<Change> {
        let Ended { outcome, trial, outage, now, active, took, seed } = *ended;
        let mut changes = Vec::new();
        let effect = outcome.effect();
        let ours = outage && effect.way_out != Some(true);
        let well = effect.circuit.filter(|well| *well || !ours);
        match self.circuit.end(trial, well, now, seed) {
            Some(Turn::Opened) => changes.push(Change::CircuitOpened),
            Some(Turn::Closed) => changes.push(Change::CircuitClosed),
            None => {}
        }
        if outcome == Outcome::Delivered {
            self.totals.delivered += 1;
            self.totals.last_success = Some((now, took));
        } else {
            self.totals.failed += 1;
            self.totals.last_failure = Some((now, outcome));
        }
        let verdict = match effect.policy {
            Some(true) => {
                self.failing = None;
                None
            }
            Some(false) if !ours => Failing::fail(&mut self.failing, policy, active),
            _ => None,
        };
        let disable = match (outcome, verdict) {
            (Outcome::Gone, _) => Some(DisableReason::Gone),
            (_, Some(Verdict::Disable)) => Some(DisableReason::TooManyFailures),
            (_, Some(Verdict::Notice(part))) => {
                changes.push(Change::DisableNotice(part));
                None
            }
            _ => None,
        };
        if let Some(reason) = disable.filter(|_| self.disabled.is_none()) {
            self.disabled = Some((reason, now));
            changes.push(Change::Disabled(reason));
        }
        changes
    }

    /// Somebody enables it: it starts anew.
    pub fn enable(&mut self) -> Option<Change> {
        self.circuit = Circuit::new();
        self.failing = None;
        self.disabled.take().map(|_| Change::Enabled)
    }
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug)]
pub struct Ended {
    /// How.
    pub outcome: Outcome,
    /// Whether it was the trial of an open circuit.
    pub trial: bool,
    /// Whether our own way out is missing.
    pub outage: bool,
    /// The time.
    pub now: Duration,
    /// The time without that of outages.
    pub active: Duration,
    /// How long it took.
    pub took: Duration,
    /// Of what is random about it.
    pub seed: u64,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(outcome: Outcome, hours: u64) -> Ended {
        let now = Duration::from_hours(hours);
        Ended { outcome, trial: false, outage: false, now, active: now, took: Duration::ZERO, seed: 0 }
    }

    fn record(health: &mut Health, outcome: Outcome, hours: u64) -> Vec<Change> {
        health.record(&ended(outcome, hours), Some(DisablePolicy::default()))
    }

    #[test]
    fn a_receiver_that_is_gone_disables_it_at_once_and_only_enabling_undoes_that() {
        let mut health = Health::default();
        assert_eq!(record(&mut health, Outcome::Gone, 1), [Change::Disabled(DisableReason::Gone)]);
        assert_eq!(record(&mut health, Outcome::Delivered, 2), [], "an answer that was under way");
        assert_eq!(health.disabled, Some((DisableReason::Gone, Duration::from_hours(1))));
        assert_eq!((health.enable(), health.disabled), (Some(Change::Enabled), None));
    }

    #[test]
    fn failures_during_an_outage_of_our_own_do_not_count_against_it() {
        let mut health = Health::default();
        for hours in 0..240 {
            let ended = Ended { outage: true, ..ended(Outcome::ConnectFailed, hours) };
            assert_eq!(health.record(&ended, Some(DisablePolicy::default())), []);
        }
        assert_eq!((health.failing, health.circuit.run()), (None, 0));
        // An answer is an answer, outage or not.
        let rejected = Ended { outage: true, ..ended(Outcome::Rejected, 241) };
        health.record(&rejected, None);
        assert_eq!(health.circuit.run(), 1);
    }

    #[test]
    fn what_a_process_knew_outlives_it() {
        let mut health = Health::default();
        for hours in 0..30 {
            record(&mut health, Outcome::ServerError, hours);
        }
        record(&mut health, Outcome::Gone, 31);
        let lost = Duration::from_hours(7);
        let snapshot = health.snapshot(lost);
        assert_eq!(snapshot.failing.map(|failing| failing.since), Some(lost), "by the usual clock");
        assert!(snapshot.open_until.is_some() && snapshot.disabled.is_some());
        assert_eq!(Health::restored(&snapshot, lost, Duration::from_hours(31)).snapshot(lost), snapshot);
    }
}
