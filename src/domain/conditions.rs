//! Computes the conditions of an object, and the Events for their transitions.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{ConditionType, Reason};

/// The new value of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// The condition type.
    pub kind: ConditionType,
    /// `True`, `False`, or none for `Unknown`.
    pub holds: Option<bool>,
    /// The reason.
    pub reason: Reason,
    /// The message. It has no counters and no times, so that the same state always has the same message.
    pub message: String,
}

impl ConditionUpdate {
    /// Sets the condition to true.
    pub fn is_true(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason, message: message.into() }
    }

    /// Sets the condition to false.
    pub fn is_false(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason, message: message.into() }
    }

    /// The value of an existing condition; none if its type or reason is not one of authlink's.
    #[must_use]
    pub fn from_condition(condition: &Condition) -> Option<Self> {
        let kind = *ConditionType::ALL.iter().find(|kind| kind.as_str() == condition.type_)?;
        let reason = *Reason::ALL.iter().find(|reason| reason.as_str() == condition.reason)?;
        let holds = match condition.status.as_str() {
            "True" => Some(true),
            "False" => Some(false),
            _ => None,
        };
        Some(Self { kind, holds, reason, message: condition.message.clone() })
    }

    /// Sets the condition to unknown.
    pub fn unknown(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: None, reason, message: message.into() }
    }
}

/// Appends the remedy of a reason to an error message.
#[must_use]
pub fn advise(reason: Reason, detail: &str) -> String {
    match reason.remedy() {
        "" => detail.to_owned(),
        remedy if detail.is_empty() => remedy.to_owned(),
        remedy => format!("{detail}: {remedy}"),
    }
}

/// Adds `Ready`, and the conditions of `always` that are missing from `found` as `Unknown`. `Ready` is false with the
/// reason of the first of `ready_when` that is false, unknown while one of them is unknown, and true otherwise.
#[must_use]
pub fn complete(
    always: &[ConditionType],
    ready_when: &[ConditionType],
    found: Vec<ConditionUpdate>,
) -> Vec<ConditionUpdate> {
    let update = |kind: &ConditionType| found.iter().find(|update| update.kind == *kind);
    let failing = ready_when.iter().filter_map(update).find(|update| update.holds == Some(false));
    let unknown = |kind: &&ConditionType| match update(kind) {
        Some(update) => update.holds.is_none(),
        None => always.contains(kind),
    };
    let ready = match (failing, ready_when.iter().find(unknown)) {
        (Some(failing), _) => {
            ConditionUpdate::is_false(ConditionType::Ready, failing.reason, failing.message.clone())
        }
        (None, Some(_)) => {
            ConditionUpdate::unknown(ConditionType::Ready, Reason::Pending, "not all checks have completed")
        }
        (None, None) => {
            ConditionUpdate::is_true(ConditionType::Ready, Reason::Available, "all checks succeed")
        }
    };
    let missing: Vec<_> = always
        .iter()
        .filter(|kind| update(kind).is_none())
        .map(|kind| {
            ConditionUpdate::unknown(*kind, Reason::Pending, "not checked because an earlier check failed")
        })
        .collect();
    std::iter::once(ready).chain(found).chain(missing).collect()
}

/// The conditions to write. The transition time of a condition changes only with its status.
#[must_use]
pub fn merge(
    old: &[Condition],
    updates: &[ConditionUpdate],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    updates
        .iter()
        .map(|update| {
            let status = match update.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let unchanged = old
                .iter()
                .find(|condition| condition.type_ == update.kind.as_str() && condition.status == status)
                // The schema's default has the Unix epoch: the first reconcile sets a real time.
                .filter(|condition| condition.last_transition_time.0 != Timestamp::UNIX_EPOCH);
            Condition {
                type_: update.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: update.reason.as_str().to_owned(),
                message: update.message.clone(),
                observed_generation: generation,
                last_transition_time: unchanged
                    .map_or(Time(now), |condition| condition.last_transition_time.clone()),
            }
        })
        .collect()
}

/// A transition of a condition that is reported as an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The condition type.
    pub kind: ConditionType,
    /// Whether the Event is a `Warning`.
    pub warning: bool,
    /// The reason.
    pub reason: Reason,
    /// The message.
    pub message: String,
}

/// The transitions to report as Events.
///
/// `Ready` is reported when it becomes false, when it becomes true again and when its reason changes while it is
/// false; `Degraded` when it becomes true. The first `Ready=True` is not reported: it is the expected outcome, and
/// the status has it.
#[must_use]
pub fn transitions(old: &[Condition], updates: &[ConditionUpdate]) -> Vec<Transition> {
    let mut events = Vec::new();
    for update in updates {
        let before = old.iter().find(|condition| condition.type_ == update.kind.as_str());
        let was = before.map(|condition| (condition.status.as_str(), condition.reason.as_str()));
        let report = match (update.kind, update.holds) {
            (ConditionType::Ready, Some(true)) => was.is_some_and(|(status, _)| status == "False"),
            (ConditionType::Ready, Some(false)) | (ConditionType::Degraded, Some(true)) => {
                let status = if update.holds == Some(true) { "True" } else { "False" };
                was != Some((status, update.reason.as_str()))
            }
            _ => false,
        };
        if report {
            events.push(Transition {
                kind: update.kind,
                warning: update.kind == ConditionType::Degraded || update.holds == Some(false),
                reason: update.reason,
                message: update.message.clone(),
            });
        }
    }
    events
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConditionType::{Connected, Degraded, Healthy, Ready};

    const ALWAYS: &[ConditionType] = &[Connected, Healthy];
    const LATER: Timestamp = Timestamp::constant(1_000, 0);

    fn found(connected: ConditionUpdate, healthy: Option<ConditionUpdate>) -> Vec<ConditionUpdate> {
        complete(ALWAYS, ALWAYS, std::iter::once(connected).chain(healthy).collect())
    }
    fn connected() -> ConditionUpdate {
        ConditionUpdate::is_true(Connected, Reason::LoginSucceeded, "")
    }
    fn refused() -> ConditionUpdate {
        ConditionUpdate::is_false(Connected, Reason::ConnectionRefused, "nothing listens")
    }
    fn healthy() -> ConditionUpdate {
        ConditionUpdate::is_true(Healthy, Reason::ProbeSucceeded, "")
    }

    #[test]
    fn ready_takes_the_reason_of_the_first_condition_that_is_false() {
        let updates = found(refused(), Some(ConditionUpdate::is_false(Healthy, Reason::ProbeFailed, "")));
        assert_eq!(
            updates[0],
            ConditionUpdate::is_false(Ready, Reason::ConnectionRefused, "nothing listens")
        );
    }

    #[test]
    fn a_condition_that_was_not_checked_is_unknown_and_so_is_ready() {
        let updates = found(connected(), None);
        assert_eq!((updates[0].kind, updates[0].holds), (Ready, None));
        assert_eq!((updates[2].kind, updates[2].holds, updates[2].reason), (Healthy, None, Reason::Pending));
    }

    #[test]
    fn ready_is_true_when_all_conditions_are_true() {
        assert_eq!(found(connected(), Some(healthy()))[0].holds, Some(true));
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_changes() {
        let first = merge(&[], &[refused()], Some(1), Timestamp::constant(10, 0));
        let other_reason = ConditionUpdate::is_false(Connected, Reason::Timeout, "");
        let second = merge(&first, &[other_reason], Some(2), LATER);
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("Timeout", Some(2)));
        assert_eq!(merge(&second, &[connected()], Some(2), LATER)[0].last_transition_time.0, LATER);
    }

    #[test]
    fn the_time_of_the_schemas_default_is_replaced_by_a_real_time() {
        let pending = ConditionUpdate::unknown(Healthy, Reason::Pending, "");
        let default = merge(&[], std::slice::from_ref(&pending), None, Timestamp::UNIX_EPOCH);
        assert_eq!(merge(&default, &[pending], None, LATER)[0].last_transition_time.0, LATER);
    }

    #[test]
    fn events_report_failure_recovery_and_another_reason_and_nothing_else() {
        let good = found(connected(), Some(healthy()));
        let bad = found(refused(), None);
        let worse = found(ConditionUpdate::is_false(Connected, Reason::TlsFailed, ""), None);
        let conditions = |updates: &[ConditionUpdate]| merge(&[], updates, None, LATER);
        let reasons = |old: &[ConditionUpdate], new: &[ConditionUpdate]| {
            transitions(&conditions(old), new)
                .iter()
                .map(|event| (event.reason, event.warning))
                .collect::<Vec<_>>()
        };
        assert_eq!(transitions(&[], &good), []);
        assert_eq!(reasons(&good, &good), []);
        assert_eq!(reasons(&good, &bad), [(Reason::ConnectionRefused, true)]);
        assert_eq!(reasons(&bad, &bad), []);
        assert_eq!(reasons(&bad, &worse), [(Reason::TlsFailed, true)]);
        assert_eq!(reasons(&bad, &good), [(Reason::Available, false)]);
        let degraded =
            [good.clone(), vec![ConditionUpdate::is_true(Degraded, Reason::ServerReplaced, "")]].concat();
        assert_eq!(reasons(&good, &degraded), [(Reason::ServerReplaced, true)]);
        assert_eq!(reasons(&degraded, &good), []);
    }
}
