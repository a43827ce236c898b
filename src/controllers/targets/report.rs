//! What users read of an object's observed targets, the same for every kind that has some.

use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{ObservedTarget, TargetObservation, TargetSettings};
use crate::{
    api::{
        ConditionType, Managed, Reason,
        status::{CommonStatus, CredentialStatus, HealthStatus, Status},
    },
    controllers::{
        EventRecord, Report,
        error::{accepted, resolved},
    },
    domain::{
        conditions::ConditionUpdate,
        endpoints::{Endpoint, health_conditions},
    },
};

impl<S: TargetSettings> TargetObservation<S> {
    /// Conditions, health, endpoints and credentials; the kind adds what is its own.
    pub fn report<K: Managed>(&self, object: &K) -> Report<K::Status> {
        let mut report = Report::<K::Status> { conditions: vec![accepted()], ..Report::default() };
        if K::CONDITIONS.contains(&ConditionType::ResolvedRefs) {
            report.conditions.push(resolved());
        }
        let is_probed = self.targets.iter().any(|target| target.settings.is_probed());
        if is_probed {
            let endpoints: Vec<_> = self.targets.iter().map(ObservedTarget::endpoint).collect();
            report.conditions.extend(health_conditions(&endpoints, S::CONNECTED));
        } else {
            report.conditions.extend(unprobed());
        }
        let before = object.status().map(Status::common);
        let common = report.status.common_mut();
        common.health = is_probed.then(|| self.health(before)).flatten();
        common.endpoints = self.targets.iter().map(|target| target.status.clone()).collect();
        common.credentials = self.credentials(before);
        common.binding = before.and_then(|before| before.binding.clone());
        if let Some(refused) = &self.refused {
            let fault = refused.fault.message();
            let message =
                format!("the changed Secret does not work ({fault}) and is retried within ten minutes");
            report.degrade(Reason::PreviousCredentialInUse, &message);
            report.requeue_within(refused.retry_at.saturating_duration_since(Instant::now()));
        }
        if self.rotated {
            let message = "the changed credential was verified and replaces the previous one".to_owned();
            report.events.push(EventRecord { warning: false, reason: Reason::CredentialRotated, message });
        }
        report
    }

    /// Whether the status is about the same targets.
    #[must_use]
    pub fn is_of(&self, status: &CommonStatus) -> bool {
        let reported = status.endpoints.iter().map(|endpoint| (endpoint.address.as_str(), endpoint.port));
        reported.eq(self.targets.iter().map(|target| (target.settings.host(), target.settings.port())))
    }

    /// The health of the first target that works; where none does, of the first.
    pub(in crate::controllers) fn health(&self, before: Option<&CommonStatus>) -> Option<HealthStatus> {
        let best = self.targets.iter().find(|target| target.works()).or(self.targets.first());
        let mut health = best?.observation.status.clone();
        // A restart of the operator, or another interval of its probes, changes nothing.
        let known = before.filter(|before| self.is_of(before)).and_then(|before| before.health.as_ref());
        if let Some(known) = known.filter(|known| known.state == health.state) {
            health.since.clone_from(&known.since);
        }
        Some(health)
    }

    fn credentials(&self, before: Option<&CommonStatus>) -> Vec<CredentialStatus> {
        let Some(source) = &self.source else { return Vec::new() };
        // The time of the first login with this value: a restart of the operator is no reason to write it again.
        let known = before.and_then(|before| before.credentials.first());
        let known =
            known.filter(|known| known.secret == source.secret && known.fingerprint == source.fingerprint);
        let verified_time = known.and_then(|known| known.verified_time.clone()).or(self.verified.map(Time));
        let (secret, fingerprint) = (source.secret.clone(), source.fingerprint.clone());
        vec![CredentialStatus { secret, fingerprint, verified_time }]
    }
}

impl<S: TargetSettings> ObservedTarget<S> {
    fn endpoint(&self) -> Endpoint {
        let failure = self.observation.fault.as_ref().map(|fault| (fault.reason, fault.message()));
        Endpoint { name: self.settings.endpoint(), state: self.observation.state, failure }
    }
}

/// `Connected` and `Healthy` of what nobody probes.
pub(in crate::controllers) fn unprobed() -> [ConditionUpdate; 2] {
    [ConditionType::Connected, ConditionType::Healthy].map(|kind| {
        let message = "healthCheck.type is None: not probed, assumed healthy";
        ConditionUpdate::is_true(kind, Reason::NotProbed, message)
    })
}
