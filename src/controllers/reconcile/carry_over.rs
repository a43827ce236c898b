//! What a reconcile takes over from the status that was there.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::{
    api::{
        ConditionType,
        status::{CommonStatus, LastError, Status},
    },
    controllers::{Object, object_state::PendingStatus},
    domain::conditions::ConditionUpdate,
};

/// A status without the numbers that move all the time: only a change of the rest is worth a write.
pub(super) fn without_numbers<S: Status>(status: &S) -> S {
    let mut rest = status.clone();
    rest.forget_numbers();
    rest
}

/// The object with the status that was written last, if the watch has not brought it yet.
pub(super) fn with_pending_status<K: Object>(
    object: &K,
    pending: Option<PendingStatus<K::Status>>,
) -> Cow<'_, K> {
    let version = object.resource_version().unwrap_or_default();
    match pending.filter(|pending| !pending.is_in(&version)) {
        Some(pending) => {
            let mut object = object.clone();
            *object.status_mut() = Some(pending.status);
            Cow::Owned(object)
        }
        None => Cow::Borrowed(object),
    }
}

/// The conditions as they are, without those that are only true while an object is reconciled or suspended.
pub(in crate::controllers) fn kept_conditions<S: Status>(current: &S) -> Vec<ConditionUpdate> {
    let kept = current.common().conditions.iter().filter_map(ConditionUpdate::from_condition);
    kept.filter(|it| !matches!(it.kind, ConditionType::Suspended | ConditionType::Reconciling)).collect()
}

/// The last failure seen, with the time at which it was first seen.
pub(super) fn last_error(
    current: &CommonStatus,
    updates: &[ConditionUpdate],
    now: Timestamp,
) -> Option<LastError> {
    let ready = updates.iter().find(|update| update.kind == ConditionType::Ready);
    let Some(failed) = ready.filter(|ready| ready.holds == Some(false)) else {
        return current.last_error.clone();
    };
    let reason = failed.reason.as_str();
    match &current.last_error {
        Some(last) if last.reason == reason && last.message == failed.message => Some(last.clone()),
        _ => Some(LastError {
            time: Some(Time(now)),
            reason: reason.to_owned(),
            message: failed.message.clone(),
        }),
    }
}
