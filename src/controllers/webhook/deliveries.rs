//! What the delivery engine knows of an endpoint: read from the store, and told in the status.

mod reader;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::{
    api::{
        ConditionType, Reason,
        v1alpha1::Webhook,
        v1alpha1::webhook::{
            BreakerStatus, DeliveryCounts, EndpointState, LastFailure, LastSuccess, Ordering, WebhookStatus,
        },
    },
    backends::Fault,
    controllers::{Report, RequeueFn},
    delivery,
    domain::{
        conditions::{ConditionUpdate, advise},
        delivery::{disable::DisableReason, outcome::Outcome},
    },
    store::{self, delivery::ReplaySelection},
};
use kube::ResourceExt;
use reader::{Endpoint, Known};

pub use reader::DeliveryReader;

/// What the engine has written of an endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct DeliveryStats {
    /// What the circuit breaker does, and when it tries the endpoint again.
    pub(super) breaker: (BreakerStatus, Option<Timestamp>),
    /// Attempts that failed since the last one that succeeded.
    pub(super) consecutive_failures: u64,
    /// How far it is on the way to being disabled, in percent.
    pub(super) noticed: u8,
    /// Why it is disabled.
    pub(super) disabled: Option<DisableReason>,
    /// Whether each live gateway has loaded the object's generation: what is sent from now on is delivered by it.
    pub(super) loaded: bool,
    /// Deliveries since the object was made.
    pub(super) counts: DeliveryCounts,
    /// The last attempt that succeeded.
    pub(super) last_success: Option<LastSuccess>,
    /// The last attempt that failed.
    pub(super) last_failure: Option<LastFailure>,
    /// Whether events are held because the filter failed for them.
    pub(super) held_by_filter: bool,
    /// Whether a 4xx refused each attempt since the last one that succeeded, of which there were some.
    pub(super) all_rejected: bool,
    /// Whether the store outlives its pod; else why not.
    pub(super) durable: Option<Result<(), Reason>>,
}

/// Refusals in a row that are no accident.
const REJECTED: u32 = 3;

impl DeliveryStats {
    fn of(webhook: &Webhook, endpoint: &Endpoint, durable: Result<(), Reason>, now: Timestamp) -> Self {
        let store::delivery::EndpointState { snapshot, skipped, pending } = &endpoint.state;
        let totals = &snapshot.totals;
        let failures = snapshot.failing.map_or(0, |failing| failing.failures);
        let breaker = match snapshot.open_until.map(timestamp) {
            None => (BreakerStatus::Closed, None),
            Some(until) if until > now => (BreakerStatus::Open, Some(until)),
            Some(_) => (BreakerStatus::HalfOpen, None),
        };
        let rejected = totals.last_failure.is_some_and(|(_, outcome)| outcome == Outcome::Rejected);
        Self {
            breaker,
            consecutive_failures: failures.into(),
            noticed: snapshot.failing.map_or(0, |failing| failing.noticed),
            disabled: snapshot.disabled.map(|(reason, _)| reason),
            loaded: endpoint.loaded,
            counts: DeliveryCounts {
                delivered: totals.delivered,
                failed_attempts: totals.failed,
                pending: *pending,
                held: endpoint.held,
                skipped: *skipped,
                dead: totals.dead,
            },
            last_success: totals.last_success.map(|(at, took)| LastSuccess {
                time: Time(timestamp(at)),
                latency_ms: u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            }),
            last_failure: totals.last_failure.map(|(at, outcome)| {
                let record = endpoint.last_failed.as_ref().map(|attempt| &attempt.record);
                LastFailure {
                    time: Time(timestamp(at)),
                    code: record.and_then(|record| record.status),
                    reason: outcome.as_str().to_owned(),
                    message: record.map(|record| record.detail.clone()).unwrap_or_default(),
                    event_id: record.map(|record| record.event_id.clone()),
                }
            }),
            held_by_filter: endpoint.held > 0 && webhook.spec.filter.is_some(),
            all_rejected: rejected && failures >= REJECTED,
            durable: Some(durable),
        }
    }
}

fn timestamp(since_epoch: Duration) -> Timestamp {
    let millis = i64::try_from(since_epoch.as_millis()).unwrap_or(i64::MAX);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::MAX)
}

impl DeliveryReader {
    /// What the engine has written of the object's endpoint; none while nothing is known.
    pub(super) fn stats(&self, webhook: &Webhook, requeue: &RequeueFn) -> Option<DeliveryStats> {
        let uid = webhook.uid().unwrap_or_default();
        let version = webhook.resource_version().and_then(|version| version.parse().ok());
        let version = version.filter(|_| !is_enabled(webhook));
        let durable = if self.store().is_volatile() { Err(Reason::EphemeralVolume) } else { Ok(()) };
        match self.report(&uid, version, requeue) {
            Known::NotYet => None,
            Known::Unavailable => {
                let loaded = version.is_none();
                let durable = Some(Err(Reason::StoreUnavailable));
                Some(DeliveryStats { loaded, durable, ..DeliveryStats::default() })
            }
            Known::Endpoint(endpoint) => {
                Some(DeliveryStats::of(webhook, &endpoint, durable, Timestamp::now()))
            }
        }
    }

    /// Enables the endpoint, where it is disabled.
    pub(super) async fn enable(&self, webhook: &Webhook) -> Result<(), store::Error> {
        let uid = webhook.uid().unwrap_or_default();
        self.store().deliveries().enable(&uid, &delivery::lease_of(&uid)).await
    }

    /// Has deliveries made again that did not arrive, of events that were accepted since then.
    pub(super) async fn replay(&self, webhook: &Webhook, since: Duration) -> Result<u64, store::Error> {
        let uid = webhook.uid().unwrap_or_default();
        let selection =
            ReplaySelection { since: Some(since), only_failed: true, ..ReplaySelection::default() };
        let ordered = webhook.spec.delivery.ordering == Ordering::PerSubject;
        let now = Duration::from_millis(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default());
        self.store().deliveries().replay(&uid, &delivery::lease_of(&uid), &selection, ordered, now).await
    }

    /// Takes everything of the endpoint of this uid out of the store.
    pub(super) async fn cancel(&self, uid: &str) -> Result<(), Fault> {
        let deliveries = self.store().deliveries();
        let failed = |error: store::Error| Fault::new(Reason::StoreUnavailable, error.to_string());
        while deliveries.cancel(uid).await.map_err(failed)? > 0 {}
        while !deliveries.forget(uid).await.map_err(failed)? {}
        Ok(())
    }
}

/// Whether gateways have had this generation already: they are waited for once.
fn is_enabled(webhook: &Webhook) -> bool {
    let common = webhook.status.as_ref().map(|status| &status.common);
    let condition = common.and_then(|common| common.condition(ConditionType::Enabled));
    condition.is_some_and(|it| {
        it.reason != Reason::Pending.as_str() && it.observed_generation == webhook.metadata.generation
    })
}

/// Adds what the engine knows.
pub(super) fn report(stats: Option<&DeliveryStats>, report: &mut Report<WebhookStatus>) {
    let unknown = DeliveryStats { loaded: true, ..DeliveryStats::default() };
    let known = stats.unwrap_or(&unknown);
    report.conditions.extend([enabled(known), breaker(known), durable(known)]);
    if known.noticed > 0 && known.disabled.is_none() {
        let problem =
            format!("nothing was delivered for more than {}% of delivery.disableAfter", known.noticed);
        report.degrade(Reason::EndpointFailing, &problem);
    }
    if known.held_by_filter {
        report.degrade(Reason::ExpressionFailed, "the filter failed for events, which are held");
    }
    if known.all_rejected {
        report.degrade(Reason::DeliveriesRejected, "the receiver rejects every delivery");
    }
    if known.counts.dead > 0 {
        report.degrade(Reason::DeadLettersPresent, "there are dead letters");
    }
    if let Some(known) = stats {
        let status = &mut report.status;
        status.endpoint = Some(EndpointState {
            breaker: known.breaker.0,
            open_until: known.breaker.1.map(Time),
            consecutive_failures: known.consecutive_failures,
            disabled_reason: known.disabled.map(|reason| reason.as_str().to_owned()),
        });
        status.deliveries = Some(known.counts.clone());
        status.last_success.clone_from(&known.last_success);
        status.last_failure.clone_from(&known.last_failure);
    }
}

fn enabled(known: &DeliveryStats) -> ConditionUpdate {
    let kind = ConditionType::Enabled;
    let (reason, problem) = match known.disabled {
        Some(DisableReason::Gone) => {
            (Reason::Gone, "disabled because the receiver responded with 410 (Gone)")
        }
        Some(DisableReason::TooManyFailures) => {
            (Reason::TooManyFailures, "disabled because every attempt failed for delivery.disableAfter")
        }
        None if !known.loaded => {
            let message = "a gateway has not loaded this generation yet";
            return ConditionUpdate::unknown(kind, Reason::Pending, message);
        }
        None => return ConditionUpdate::is_true(kind, Reason::Enabled, "events are delivered"),
    };
    ConditionUpdate::is_false(kind, reason, advise(reason, problem))
}

fn breaker(known: &DeliveryStats) -> ConditionUpdate {
    let kind = ConditionType::BreakerClosed;
    match known.breaker.0 {
        BreakerStatus::Closed => {
            ConditionUpdate::is_true(kind, Reason::BreakerClosed, "the circuit breaker is closed")
        }
        BreakerStatus::Open | BreakerStatus::HalfOpen => {
            let problem = "the circuit breaker is open because too many attempts failed; deliveries wait";
            ConditionUpdate::is_false(kind, Reason::BreakerOpen, advise(Reason::BreakerOpen, problem))
        }
    }
}

fn durable(known: &DeliveryStats) -> ConditionUpdate {
    let kind = ConditionType::Durable;
    match known.durable {
        None => ConditionUpdate::unknown(kind, Reason::Pending, "no gateway has opened the store yet"),
        Some(Ok(())) => {
            ConditionUpdate::is_true(kind, Reason::StoreDurable, "the store survives the loss of its Pod")
        }
        Some(Err(reason)) => {
            let problem = match reason {
                Reason::EphemeralVolume => {
                    "the volume of the store is deleted with its Pod, and events with it"
                }
                _ => "the store is unavailable; no event is accepted",
            };
            ConditionUpdate::is_false(kind, reason, advise(reason, problem))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ConditionType::{BreakerClosed, Degraded, Durable, Enabled};

    fn reported(stats: Option<&DeliveryStats>) -> Report<WebhookStatus> {
        let mut report = Report::default();
        super::report(stats, &mut report);
        report
    }

    fn said(stats: Option<&DeliveryStats>) -> Vec<(ConditionType, Option<bool>, Reason)> {
        let conditions = reported(stats).conditions.into_iter();
        conditions.map(|update| (update.kind, update.holds, update.reason)).collect()
    }

    #[test]
    fn without_an_engine_nothing_is_disabled_and_nothing_is_known_of_the_store() {
        let unknown = [
            (Enabled, Some(true), Reason::Enabled),
            (BreakerClosed, Some(true), Reason::BreakerClosed),
            (Durable, None, Reason::Pending),
        ];
        assert_eq!(said(None), unknown);
        assert_eq!(reported(None).status, WebhookStatus::default());
    }

    #[test]
    fn each_thing_that_the_engine_knows_has_its_reason() {
        let loaded = DeliveryStats { loaded: true, ..DeliveryStats::default() };
        for (disabled, reason) in
            [(DisableReason::Gone, Reason::Gone), (DisableReason::TooManyFailures, Reason::TooManyFailures)]
        {
            let stats = DeliveryStats { disabled: Some(disabled), ..loaded.clone() };
            assert_eq!(said(Some(&stats))[0], (Enabled, Some(false), reason));
        }
        assert_eq!(said(Some(&DeliveryStats::default()))[0], (Enabled, None, Reason::Pending));
        for breaker in [BreakerStatus::Open, BreakerStatus::HalfOpen] {
            let stats = DeliveryStats { breaker: (breaker, None), ..loaded.clone() };
            assert_eq!(said(Some(&stats))[1], (BreakerClosed, Some(false), Reason::BreakerOpen));
        }
        for (durable, expected) in [
            (Ok(()), (Durable, Some(true), Reason::StoreDurable)),
            (Err(Reason::EphemeralVolume), (Durable, Some(false), Reason::EphemeralVolume)),
            (Err(Reason::StoreUnavailable), (Durable, Some(false), Reason::StoreUnavailable)),
        ] {
            let stats = DeliveryStats { durable: Some(durable), ..loaded.clone() };
            assert_eq!(said(Some(&stats))[2], expected);
        }
        let counts = DeliveryCounts { dead: 1, ..DeliveryCounts::default() };
        let faults = [
            (DeliveryStats { held_by_filter: true, ..loaded.clone() }, Reason::ExpressionFailed),
            (DeliveryStats { noticed: 50, ..loaded.clone() }, Reason::EndpointFailing),
            (DeliveryStats { all_rejected: true, ..loaded.clone() }, Reason::DeliveriesRejected),
            (DeliveryStats { counts, ..loaded }, Reason::DeadLettersPresent),
        ];
        for (stats, reason) in faults {
            assert_eq!(said(Some(&stats))[3], (Degraded, Some(true), reason));
        }
    }
}
