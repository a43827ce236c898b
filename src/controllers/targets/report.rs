//! What users read of one look at an object's targets, the same for every kind that has some.

use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{TargetObservation, TargetSettings, works};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{CommonStatus, CredentialStatus, EndpointStatus, HealthStatus, Status},
    },
    controllers::{
        EventRecord, Report,
        error::{accepted, resolved},
    },
    domain::{
        conditions::{ConditionUpdate, advise},
        endpoints::{Endpoint, judge},
    },
};

impl<S: TargetSettings> TargetObservation<S> {
    /// Conditions, health, endpoints and credentials; the kind adds what is its own.
    pub fn report<K: Managed>(&self, object: &K) -> Report<K::Status> {
        let mut report = Report::<K::Status> { verdicts: vec![accepted()], ..Report::default() };
        if K::CONDITIONS.contains(&ConditionType::ResolvedRefs) {
            report.verdicts.push(resolved());
        }
        if self.is_probed() {
            report.verdicts.extend(judge(&self.endpoints(), S::CONNECTED));
        } else {
            report.verdicts.extend(unprobed());
        }
        let before = object.status().map(Status::common);
        let common = report.status.common_mut();
        common.health = self.is_probed().then(|| self.health(before)).flatten();
        common.endpoints = self.endpoint_statuses();
        common.credentials = self.credentials(before);
        common.binding = before.and_then(|before| before.binding.clone());
        if let Some(refused) = &self.refused {
            let fault = refused.fault.message();
            let message =
                format!("the changed Secret does not work ({fault}) and is tried again within ten minutes");
            report.degrade(Reason::PreviousCredentialInUse, &message);
            report.requeue_within(refused.again.saturating_duration_since(Instant::now()));
        }
        if self.rotated {
            let message = "the changed credential was verified and replaces the previous one".to_owned();
            report.notes.push(EventRecord { warning: false, reason: Reason::CredentialRotated, message });
        }
        report
    }

    fn is_probed(&self) -> bool {
        self.resolved.targets.iter().any(S::is_probed)
    }

    fn endpoints(&self) -> Vec<Endpoint> {
        let named = self.resolved.targets.iter().zip(&self.observations);
        named
            .map(|(settings, seen)| Endpoint {
                name: settings.endpoint(),
                state: seen.state,
                failure: seen.fault.as_ref().map(|fault| (fault.reason, fault.message())),
            })
            .collect()
    }

    fn endpoint_statuses(&self) -> Vec<EndpointStatus> {
        let named = self.resolved.targets.iter().zip(&self.observations);
        named
            .map(|(settings, seen)| EndpointStatus {
                address: settings.host().to_owned(),
                port: settings.port(),
                ready: works(seen),
                reason: match (&seen.fault, works(seen)) {
                    (Some(fault), false) => fault.reason.to_string(),
                    _ if !settings.is_probed() => Reason::NotProbed.to_string(),
                    _ => Reason::ProbeSucceeded.to_string(),
                },
                role: None,
            })
            .collect()
    }

    /// Whether the status is about the targets that were looked at.
    #[must_use]
    pub fn is_of(&self, status: &CommonStatus) -> bool {
        let told = status.endpoints.iter().map(|endpoint| (endpoint.address.as_str(), endpoint.port));
        told.eq(self.resolved.targets.iter().map(|settings| (settings.host(), settings.port())))
    }

    /// The health of the first target that works; where none does, of the first.
    fn health(&self, before: Option<&CommonStatus>) -> Option<HealthStatus> {
        let best = self.observations.iter().find(|seen| works(seen)).or(self.observations.first());
        let mut health = best?.status.clone();
        // A restart of the operator, or another rhythm of its probes, changes nothing.
        let known = before.filter(|before| self.is_of(before)).and_then(|before| before.health.as_ref());
        if let Some(known) = known.filter(|known| known.state == health.state) {
            health.since.clone_from(&known.since);
        }
        Some(health)
    }

    fn credentials(&self, before: Option<&CommonStatus>) -> Vec<CredentialStatus> {
        let Some(source) = &self.resolved.source else { return Vec::new() };
        // The time of the first login with this value: a restart of the operator is no reason to write it again.
        let known = before.and_then(|before| before.credentials.first());
        let known =
            known.filter(|known| known.secret == source.secret && known.fingerprint == source.fingerprint);
        let verified_time = known.and_then(|known| known.verified_time.clone()).or(self.verified.map(Time));
        let (secret, fingerprint) = (source.secret.clone(), source.fingerprint.clone());
        vec![CredentialStatus { secret, fingerprint, verified_time }]
    }
}

/// `Connected` and `Healthy` of what nobody probes.
pub(in crate::controllers) fn unprobed() -> [ConditionUpdate; 2] {
    [ConditionType::Connected, ConditionType::Healthy].map(|kind| {
        let message = "healthCheck.type is None: nothing is probed, and it is taken to be well";
        ConditionUpdate::is_true(kind, Reason::NotProbed, message)
    })
}

impl<S> Report<S> {
    /// Asks for another pass after this time, if none is due earlier.
    pub fn requeue_within(&mut self, time: Duration) {
        self.again = Some(self.again.map_or(time, |again| again.min(time)));
    }

    /// Adds to `Degraded`; several faults share the one condition, under the reason of the first.
    pub fn degrade(&mut self, reason: Reason, detail: &str) {
        let message = advise(reason, detail);
        let degraded = self.verdicts.iter_mut().find(|verdict| verdict.kind == ConditionType::Degraded);
        match degraded {
            Some(degraded) => degraded.message = format!("{}; {reason}: {message}", degraded.message),
            None => self.verdicts.push(ConditionUpdate::is_true(ConditionType::Degraded, reason, message)),
        }
    }
}
