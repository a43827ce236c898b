//! What a pass makes of the status that was there.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use crate::{
    api::{
        ConditionType, Managed,
        status::{CommonStatus, LastError, Status},
    },
    controllers::{Error, Object, Report, object_state::PendingStatus},
    domain::conditions::ConditionUpdate,
};

/// The meaning of a status: without the numbers that move all the time.
pub(super) fn meaning<S: Status>(status: &S) -> S {
    let mut meaning = status.clone();
    meaning.forget_numbers();
    meaning
}

/// The object with the status that was written last, if the watch has not brought it yet.
pub(super) fn with_status_as_written<K: Object>(
    object: &K,
    pending_status: Option<PendingStatus<K::Status>>,
) -> Cow<'_, K> {
    let version = object.resource_version().unwrap_or_default();
    match pending_status.filter(|pending_status| !pending_status.is_in(&version)) {
        Some(pending_status) => {
            let mut object = object.clone();
            *object.status_mut() = Some(pending_status.status);
            Cow::Owned(object)
        }
        None => Cow::Borrowed(object),
    }
}

/// The status as it is, with one more condition in place of those that are only true while a pass is over the object.
pub(super) fn keeping<S: Status>(current: &S, more: ConditionUpdate) -> Report<S> {
    let kept = current.common().conditions.iter().filter_map(ConditionUpdate::from_condition);
    let kept = kept.filter(|it| !matches!(it.kind, ConditionType::Suspended | ConditionType::Reconciling));
    Report { verdicts: kept.chain([more]).collect(), status: current.clone(), ..Report::default() }
}

/// What a pass says of an object that it could not get through for this reason.
pub(in crate::controllers) fn refused<K: Managed>(object: &K, error: &Error) -> Report<K::Status> {
    let mut status = object.status().cloned().unwrap_or_default();
    status.forget_observations();
    Report { verdicts: error.verdicts(K::CONDITIONS), status, ..Report::default() }
}

/// The last failure seen, with the time it was first seen.
pub(super) fn last_error(
    current: &CommonStatus,
    verdicts: &[ConditionUpdate],
    now: Timestamp,
) -> Option<LastError> {
    let ready = verdicts.iter().find(|verdict| verdict.kind == ConditionType::Ready);
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
