//! From what a reconcile found to the conditions that users read.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{ConditionType, Reason};

/// What a reconcile says of one condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionUpdate {
    /// Which condition.
    pub kind: ConditionType,
    /// `True`, `False`, or none for `Unknown`.
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// Why, for people: no counters and no times, so that the same state always has the same text.
    pub message: String,
}

impl ConditionUpdate {
    /// The condition is true.
    pub fn is_true(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason, message: message.into() }
    }

    /// The condition is false.
    pub fn is_false(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason, message: message.into() }
    }

    /// What a condition says, where it is one of ours.
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

    /// It is not known whether the condition is true.
    pub fn unknown(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: None, reason, message: message.into() }
    }
}

/// Appends to a failure's text what to do about it.
#[must_use]
pub fn advise(reason: Reason, detail: &str) -> String {
    match reason.remedy() {
        "" => detail.to_owned(),
        remedy if detail.is_empty() => remedy.to_owned(),
        remedy => format!("{detail}: {remedy}"),
    }
}

/// Completes what a reconcile found: a condition of `always` that it did not get to is `Unknown`, and `Ready` is false with the
/// reason of the first of `ready_when` that is false, and unknown while one of them is.
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
            ConditionUpdate::unknown(ConditionType::Ready, Reason::Pending, "not all checks are done yet")
        }
        (None, None) => ConditionUpdate::is_true(ConditionType::Ready, Reason::Available, "all checks pass"),
    };
    let unreached: Vec<_> = always
        .iter()
        .filter(|kind| update(kind).is_none())
        .map(|kind| ConditionUpdate::unknown(*kind, Reason::Pending, "an earlier check failed"))
        .collect();
    std::iter::once(ready).chain(found).chain(unreached).collect()
}

/// The conditions to write: each keeps its old transition time unless its status changed.
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
                // The schema's default has no real time: the first reconcile sets it.
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

/// A change of a condition that is worth an Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// Which condition.
    pub kind: ConditionType,
    /// Whether the change is for the worse.
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// Why, for people.
    pub message: String,
}

/// The Events that a change of conditions deserves.
///
/// `Ready` is reported when it is lost, when it comes back and when its reason changes while it is lost; `Degraded`
/// when it comes. The first success is not an Event: nothing happened to the object, and its status says it.
#[must_use]
pub fn transitions(old: &[Condition], updates: &[ConditionUpdate]) -> Vec<Transition> {
    let mut events = Vec::new();
    for update in updates {
        let before = old.iter().find(|condition| condition.type_ == update.kind.as_str());
        let was = before.map(|condition| (condition.status.as_str(), condition.reason.as_str()));
        let worth = match (update.kind, update.holds) {
            (ConditionType::Ready, Some(true)) => was.is_some_and(|(status, _)| status == "False"),
            (ConditionType::Ready, Some(false)) | (ConditionType::Degraded, Some(true)) => {
                let status = if update.holds == Some(true) { "True" } else { "False" };
                was != Some((status, update.reason.as_str()))
            }
            _ => false,
        };
        if worth {
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
    fn what_the_reconcile_did_not_reach_is_unknown_and_keeps_ready_from_being_true() {
        let updates = found(connected(), None);
        assert_eq!((updates[0].kind, updates[0].holds), (Ready, None));
        assert_eq!((updates[2].kind, updates[2].holds, updates[2].reason), (Healthy, None, Reason::Pending));
    }

    #[test]
    fn ready_is_true_when_all_hold() {
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
    fn the_default_of_the_schema_gives_way_to_a_real_time() {
        let pending = ConditionUpdate::unknown(Healthy, Reason::Pending, "");
        let default = merge(&[], std::slice::from_ref(&pending), None, Timestamp::UNIX_EPOCH);
        assert_eq!(merge(&default, &[pending], None, LATER)[0].last_transition_time.0, LATER);
    }

    #[test]
    fn events_tell_of_loss_recovery_and_another_reason_and_of_nothing_else() {
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
