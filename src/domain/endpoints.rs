//! Computes the conditions of an object from the health of its endpoints.

use super::conditions::ConditionUpdate;
use crate::api::{ConditionType, Reason, status::HealthState};

/// The health of one endpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// `host:port`.
    pub name: String,
    /// The state of its health check.
    pub state: HealthState,
    /// The failure of its probes, with the remedy.
    pub failure: Option<(Reason, String)>,
}

/// `Connected` and `Healthy`, which are true if at least one endpoint is healthy, and `Degraded` if only some are.
/// `connected` are the reason and the message of `Connected` if it is true.
#[must_use]
pub fn health_conditions(endpoints: &[Endpoint], connected: (Reason, &str)) -> Vec<ConditionUpdate> {
    let down: Vec<_> = endpoints.iter().filter(|endpoint| endpoint.state != HealthState::Healthy).collect();
    if down.len() < endpoints.len() {
        let mut updates = vec![
            ConditionUpdate::is_true(ConditionType::Connected, connected.0, connected.1),
            ConditionUpdate::is_true(ConditionType::Healthy, Reason::ProbeSucceeded, "the probes succeed"),
        ];
        if !down.is_empty() {
            updates.push(ConditionUpdate::is_true(
                ConditionType::Degraded,
                Reason::SomeEndpointsDown,
                describe(&down),
            ));
        }
        return updates;
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
            "probes fail, but healthCheck.unhealthyThreshold is not reached yet",
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

    fn conditions(states: &[HealthState]) -> Vec<(ConditionType, Option<bool>, Reason)> {
        let endpoints: Vec<_> = states.iter().map(|state| endpoint("db:1", *state)).collect();
        health_conditions(&endpoints, CONNECTED)
            .into_iter()
            .map(|update| (update.kind, update.holds, update.reason))
            .collect()
    }

    #[test]
    fn one_healthy_endpoint_is_enough_and_the_others_are_named() {
        let updates = health_conditions(
            &[endpoint("a:1", HealthState::Healthy), endpoint("b:2", HealthState::Unhealthy)],
            CONNECTED,
        );
        assert_eq!((updates[0].holds, updates[1].holds), (Some(true), Some(true)));
        assert_eq!(
            updates[2],
            ConditionUpdate::is_true(ConditionType::Degraded, Reason::SomeEndpointsDown, "b:2: refused")
        );
    }

    #[test]
    fn a_first_failure_makes_connected_false_and_leaves_healthy_unknown() {
        assert_eq!(
            conditions(&[HealthState::Unknown]),
            [
                (ConditionType::Connected, Some(false), Reason::ConnectionRefused),
                (ConditionType::Healthy, None, Reason::ThresholdNotReached),
            ]
        );
    }

    #[test]
    fn all_down_is_unhealthy() {
        assert_eq!(
            conditions(&[HealthState::Unhealthy, HealthState::Unhealthy]),
            [
                (ConditionType::Connected, Some(false), Reason::ConnectionRefused),
                (ConditionType::Healthy, Some(false), Reason::ProbeFailed),
            ]
        );
    }
}
