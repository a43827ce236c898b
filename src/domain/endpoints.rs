//! From the health of each endpoint to the conditions of the object that has them.

use super::conditions::ConditionUpdate;
use crate::api::{ConditionType, Reason, status::HealthState};

/// The health of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub name: String,
    /// The verdict of its monitor.
    pub state: HealthState,
    /// Why its probes fail, and what to do about it.
    pub failure: Option<(Reason, String)>,
}

/// `Connected` (for the reason that it has where it is true) and `Healthy`, and `Degraded` where only some endpoints
/// are down. One that is healthy is enough.
#[must_use]
pub fn judge(endpoints: &[Endpoint], (connected, how): (Reason, &str)) -> Vec<ConditionUpdate> {
    let down: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.state != HealthState::Healthy).collect();
    if down.len() < endpoints.len() {
        let mut verdicts = vec![
            ConditionUpdate::is_true(ConditionType::Connected, connected, how),
            ConditionUpdate::is_true(ConditionType::Healthy, Reason::ProbeSucceeded, "the probes pass"),
        ];
        if !down.is_empty() {
            verdicts.push(ConditionUpdate::is_true(
                ConditionType::Degraded,
                Reason::SomeEndpointsDown,
                describe(&down),
            ));
        }
        return verdicts;
    }
    let (reason, message) = down
        .iter()
        .find_map(|endpoint| endpoint.failure.clone())
        .unwrap_or((Reason::Pending, "not probed yet".to_owned()));
    let message =
        if endpoints.len() == 1 { format!("{}: {message}", endpoints[0].name) } else { describe(&down) };
    let healthy = if endpoints.iter().any(|endpoint| endpoint.state == HealthState::Unknown) {
        ConditionUpdate::unknown(
            ConditionType::Healthy,
            Reason::ThresholdNotReached,
            "probes fail, fewer times than healthCheck.unhealthyThreshold",
        )
    } else {
        ConditionUpdate::is_false(ConditionType::Healthy, Reason::ProbeFailed, message.clone())
    };
    vec![ConditionUpdate::is_false(ConditionType::Connected, reason, message), healthy]
}

fn describe(down: &[&Endpoint]) -> String {
    let each = down.iter().map(|endpoint| match &endpoint.failure {
        Some((_, message)) => format!("{}: {message}", endpoint.name),
        None => format!("{}: not probed yet", endpoint.name),
    });
    each.collect::<Vec<_>>().join("; ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONNECTED: (Reason, &str) = (Reason::LoginSucceeded, "login succeeds");

    fn endpoint(name: &str, state: HealthState) -> Endpoint {
        let failure =
            (state != HealthState::Healthy).then(|| (Reason::ConnectionRefused, "refused".to_owned()));
        Endpoint { name: name.to_owned(), state, failure }
    }

    fn judged(states: &[HealthState]) -> Vec<(ConditionType, Option<bool>, Reason)> {
        let endpoints: Vec<_> = states.iter().map(|state| endpoint("db:1", *state)).collect();
        judge(&endpoints, CONNECTED)
            .into_iter()
            .map(|verdict| (verdict.kind, verdict.holds, verdict.reason))
            .collect()
    }

    #[test]
    fn one_healthy_endpoint_is_enough_and_the_others_are_named() {
        let verdicts = judge(
            &[endpoint("a:1", HealthState::Healthy), endpoint("b:2", HealthState::Unhealthy)],
            CONNECTED,
        );
        assert_eq!((verdicts[0].holds, verdicts[1].holds), (Some(true), Some(true)));
        assert_eq!(
            verdicts[2],
            ConditionUpdate::is_true(ConditionType::Degraded, Reason::SomeEndpointsDown, "b:2: refused")
        );
    }

    #[test]
    fn a_first_failure_is_told_at_once_and_is_not_yet_a_verdict() {
        assert_eq!(
            judged(&[HealthState::Unknown]),
            [
                (ConditionType::Connected, Some(false), Reason::ConnectionRefused),
                (ConditionType::Healthy, None, Reason::ThresholdNotReached),
            ]
        );
    }

    #[test]
    fn all_down_is_unhealthy() {
        assert_eq!(
            judged(&[HealthState::Unhealthy, HealthState::Unhealthy]),
            [
                (ConditionType::Connected, Some(false), Reason::ConnectionRefused),
                (ConditionType::Healthy, Some(false), Reason::ProbeFailed),
            ]
        );
    }
}
