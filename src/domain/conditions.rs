//! From what a pass found to the conditions that users read.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use crate::api::{ConditionType, Reason};

/// What one condition says after a pass.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// Which condition.
    pub kind: ConditionType,
    /// `True`, `False`, or none for `Unknown`.
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// Why, for people: no counters and no times, so that the same state always has the same text.
    pub message: String,
}

impl Verdict {
    /// The condition is true.
    pub fn yes(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(true), reason, message: message.into() }
    }

    /// The condition is false.
    pub fn no(kind: ConditionType, reason: Reason, message: impl Into<String>) -> Self {
        Self { kind, holds: Some(false), reason, message: message.into() }
    }

    /// What a condition says, where it is one of ours.
    #[must_use]
    pub fn of(condition: &Condition) -> Option<Self> {
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

/// Completes the verdicts of a pass: a condition of `always` that the pass did not get to is `Unknown`, and `Ready`
/// is false with the reason of the first that is false, in the order of `always`; then come those that only some
/// objects have.
#[must_use]
pub fn complete(always: &[ConditionType], found: Vec<Verdict>) -> Vec<Verdict> {
    let failing = always
        .iter()
        .chain(ConditionType::OPTIONAL)
        .filter(|kind| kind.gates_ready())
        .filter_map(|kind| found.iter().find(|verdict| verdict.kind == *kind))
        .find(|verdict| verdict.holds == Some(false));
    let unreached = |kind: &&ConditionType| found.iter().all(|verdict| verdict.kind != **kind);
    let unknown =
        |kind: &&ConditionType| found.iter().any(|verdict| verdict.kind == **kind && verdict.holds.is_none());
    let pending = always.iter().find(unreached).or_else(|| ConditionType::OPTIONAL.iter().find(unknown));
    let ready = match (failing, pending) {
        (Some(failing), _) => Verdict::no(ConditionType::Ready, failing.reason, failing.message.clone()),
        (None, Some(_)) => {
            Verdict::unknown(ConditionType::Ready, Reason::Pending, "not all checks could be made yet")
        }
        (None, None) => Verdict::yes(ConditionType::Ready, Reason::Available, "all checks pass"),
    };
    let unknown = always
        .iter()
        .filter(unreached)
        .map(|kind| Verdict::unknown(*kind, Reason::Pending, "an earlier check failed"))
        .collect::<Vec<_>>();
    std::iter::once(ready).chain(found).chain(unknown).collect()
}

/// The conditions to write: each keeps its old transition time unless its status changed.
#[must_use]
pub fn settle(
    old: &[Condition],
    verdicts: &[Verdict],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    verdicts
        .iter()
        .map(|verdict| {
            let status = match verdict.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let unchanged = old
                .iter()
                .find(|condition| condition.type_ == verdict.kind.as_str() && condition.status == status)
                // The schema's default has no real time: the first real pass sets it.
                .filter(|condition| condition.last_transition_time.0 != Timestamp::UNIX_EPOCH);
            Condition {
                type_: verdict.kind.as_str().to_owned(),
                status: status.to_owned(),
                reason: verdict.reason.as_str().to_owned(),
                message: verdict.message.clone(),
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
pub fn transitions(old: &[Condition], verdicts: &[Verdict]) -> Vec<Transition> {
    let mut events = Vec::new();
    for verdict in verdicts {
        let before = old.iter().find(|condition| condition.type_ == verdict.kind.as_str());
        let was = before.map(|condition| (condition.status.as_str(), condition.reason.as_str()));
        let worth = match (verdict.kind, verdict.holds) {
            (ConditionType::Ready, Some(true)) => was.is_some_and(|(status, _)| status == "False"),
            (ConditionType::Ready, Some(false)) | (ConditionType::Degraded, Some(true)) => {
                let status = if verdict.holds == Some(true) { "True" } else { "False" };
                was != Some((status, verdict.reason.as_str()))
            }
            _ => false,
        };
        if worth {
            events.push(Transition {
                kind: verdict.kind,
                warning: verdict.kind == ConditionType::Degraded || verdict.holds == Some(false),
                reason: verdict.reason,
                message: verdict.message.clone(),
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

    fn found(connected: Verdict, healthy: Option<Verdict>) -> Vec<Verdict> {
        complete(ALWAYS, std::iter::once(connected).chain(healthy).collect())
    }
    fn connected() -> Verdict {
        Verdict::yes(Connected, Reason::LoginSucceeded, "")
    }
    fn refused() -> Verdict {
        Verdict::no(Connected, Reason::ConnectionRefused, "nothing listens")
    }
    fn healthy() -> Verdict {
        Verdict::yes(Healthy, Reason::ProbeSucceeded, "")
    }

    #[test]
    fn ready_takes_the_reason_of_the_first_condition_that_is_false() {
        let verdicts = found(refused(), Some(Verdict::no(Healthy, Reason::ProbeFailed, "")));
        assert_eq!(verdicts[0], Verdict::no(Ready, Reason::ConnectionRefused, "nothing listens"));
    }

    #[test]
    fn what_the_pass_did_not_reach_is_unknown_and_keeps_ready_from_being_true() {
        let verdicts = found(connected(), None);
        assert_eq!((verdicts[0].kind, verdicts[0].holds), (Ready, None));
        assert_eq!(
            (verdicts[2].kind, verdicts[2].holds, verdicts[2].reason),
            (Healthy, None, Reason::Pending)
        );
    }

    #[test]
    fn ready_is_true_when_all_hold() {
        assert_eq!(found(connected(), Some(healthy()))[0].holds, Some(true));
    }

    #[test]
    fn the_transition_time_moves_only_when_the_status_changes() {
        let first = settle(&[], &[refused()], Some(1), Timestamp::constant(10, 0));
        let other_reason = Verdict::no(Connected, Reason::Timeout, "");
        let second = settle(&first, &[other_reason], Some(2), LATER);
        assert_eq!(second[0].last_transition_time, first[0].last_transition_time);
        assert_eq!((second[0].reason.as_str(), second[0].observed_generation), ("Timeout", Some(2)));
        assert_eq!(settle(&second, &[connected()], Some(2), LATER)[0].last_transition_time.0, LATER);
    }

    #[test]
    fn the_default_of_the_schema_gives_way_to_a_real_time() {
        let pending = Verdict::unknown(Healthy, Reason::Pending, "");
        let default = settle(&[], std::slice::from_ref(&pending), None, Timestamp::UNIX_EPOCH);
        assert_eq!(settle(&default, &[pending], None, LATER)[0].last_transition_time.0, LATER);
    }

    #[test]
    fn events_tell_of_loss_recovery_and_another_reason_and_of_nothing_else() {
        let good = found(connected(), Some(healthy()));
        let bad = found(refused(), None);
        let worse = found(Verdict::no(Connected, Reason::TlsFailed, ""), None);
        let conditions = |verdicts: &[Verdict]| settle(&[], verdicts, None, LATER);
        let reasons = |old: &[Verdict], new: &[Verdict]| {
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
        let degraded = [good.clone(), vec![Verdict::yes(Degraded, Reason::ServerReplaced, "")]].concat();
        assert_eq!(reasons(&good, &degraded), [(Reason::ServerReplaced, true)]);
        assert_eq!(reasons(&degraded, &good), []);
    }
}
