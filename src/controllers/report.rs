//! What a reconcile reports: the one way in which each of them ends.

use std::time::Duration;

use super::Error;
use crate::{
    api::{ConditionType, Managed, Reason, status::Status},
    domain::conditions::{ConditionUpdate, advise},
};

/// What a reconcile found, and when the next one is due.
#[derive(Debug, Default)]
pub struct Report<S> {
    /// One for each condition that the reconcile got to, and those that are only present while true.
    pub conditions: Vec<ConditionUpdate>,
    /// The rest of the status; the engine fills in the conditions and the observed generation.
    pub status: S,
    /// When to reconcile again although nothing changed; by default after [`crate::domain::backoff::RESYNC`].
    pub requeue_after: Option<Duration>,
    /// Events besides those for transitions of conditions.
    pub events: Vec<EventRecord>,
    /// What failed: it says which condition shows it, and when the reconcile is retried. The rest is reported all the same.
    pub error: Option<Error>,
}

/// An Event that is not a transition of a condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventRecord {
    /// Whether its type is `Warning`.
    pub warning: bool,
    /// Why.
    pub reason: Reason,
    /// For people.
    pub message: String,
}

impl<S: Status> Report<S> {
    /// What a reconcile that failed reports. Where a condition shows the error, nothing that was observed holds any more; an error
    /// of the operator's own says nothing of the object, and everything stays as it was.
    pub(super) fn of_error<K: Managed<Status = S>>(object: &K, error: Error) -> Self {
        let mut status = object.status().cloned().unwrap_or_default();
        let conditions = if error.condition().is_some() {
            status.forget_observations();
            error.conditions(K::CONDITIONS)
        } else {
            let mut kept = super::reconcile::kept_conditions(&status);
            kept.retain(|update| update.kind != ConditionType::Ready);
            kept
        };
        Self { conditions, status, error: Some(error), ..Self::default() }
    }
}

impl<S> Report<S> {
    /// Asks for another reconcile after this time, if none is due earlier.
    pub fn requeue_within(&mut self, time: Duration) {
        self.requeue_after = Some(self.requeue_after.map_or(time, |after| after.min(time)));
    }

    /// Adds to `Degraded`; several faults share the one condition, under the reason of the first.
    pub fn degrade(&mut self, reason: Reason, detail: &str) {
        let message = advise(reason, detail);
        let degraded = self.conditions.iter_mut().find(|update| update.kind == ConditionType::Degraded);
        match degraded {
            Some(degraded) => degraded.message = format!("{}; {reason}: {message}", degraded.message),
            None => {
                self.conditions.push(ConditionUpdate::is_true(ConditionType::Degraded, reason, message));
            }
        }
    }
}
