//! What users read of an endpoint.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use secrecy::SecretSlice;

use super::{
    signing::{self, Keys},
    target::ProbeTarget,
};
use crate::{
    api::{
        ConditionType, Reason,
        status::{EndpointStatus, HealthState},
        v1alpha1::{
            Webhook,
            webhook::{VerificationMode, VerificationStatus, WebhookStatus},
        },
    },
    backends::{Fault, transport::TlsSettings, webhook::EndpointSettings},
    controllers::{
        Error, Report,
        discovery::endpoint_targets::RETRY_INTERVAL,
        error::{accepted, resolved},
        targets::{ObservedTarget, TargetObservation},
    },
    domain::{
        conditions::{ConditionUpdate, advise},
        webhook::url::Target,
    },
    resolving::{self, Unresolved},
};

/// What a spec names, each part by itself.
pub(super) struct Parts {
    pub(super) target: Result<Target, Unresolved>,
    pub(super) headers: Result<Vec<(String, SecretSlice<u8>)>, Unresolved>,
    pub(super) tls: Result<TlsSettings, Unresolved>,
    pub(super) dead_letter: Result<(), Unresolved>,
}

/// An endpoint as it was observed.
pub(super) struct Observed {
    pub(super) parts: Parts,
    pub(super) keys: Keys,
    /// Whether its addresses may be called.
    pub(super) address: Result<(), Fault>,
    /// None where it is not probed.
    pub(super) observation: Option<TargetObservation<ProbeTarget>>,
}

impl Parts {
    /// Whether all is there that a connection takes.
    pub(super) fn can_connect(&self) -> bool {
        self.target.is_ok() && self.headers.is_ok() && self.tls.is_ok()
    }

    pub(super) fn endpoint(&self, webhook: &Webhook) -> Option<EndpointSettings> {
        let (target, headers, tls) =
            (self.target.as_ref().ok()?, self.headers.as_ref().ok()?, self.tls.as_ref().ok()?);
        Some(resolving::webhook::endpoint(webhook, target.clone(), headers.clone(), tls.clone()))
    }
}

/// That the API server failed says nothing of the part, and what the spec says by itself is told as such.
pub(super) fn known<T>(part: Result<T, Unresolved>) -> Result<Result<T, Unresolved>, Error> {
    match part {
        Err(Unresolved::Cluster(error)) => Err(error.into()),
        Err(Unresolved::Invalid { field, problem }) if field != "spec.url" => {
            Err(Error::InvalidSpec { field, problem })
        }
        part => Ok(part),
    }
}

/// Whether the address is known, and must not be called.
pub(super) fn is_denied(fault: &Fault) -> bool {
    fault.reason == Reason::AddressDenied
}

pub(super) fn report(webhook: &Webhook, observed: &Observed) -> Report<WebhookStatus> {
    let Observed { parts, keys, address, observation } = observed;
    let mut report = Report::<WebhookStatus> { conditions: vec![accepted()], ..Report::default() };
    let given = match &keys.fault {
        Some(signing::Fault::Given(error)) => Some(error),
        _ => None,
    };
    let (url, headers, tls) =
        (parts.target.as_ref().err(), parts.headers.as_ref().err(), parts.tls.as_ref().err());
    let dead_letter = parts.dead_letter.as_ref().err();

    let not_found = [given, url, headers].into_iter().flatten().find(|error| is_missing(error));
    let not_found = not_found.or(tls).or(dead_letter.filter(|error| is_missing(error)));
    report.conditions.push(match not_found {
        Some(error) => refused(ConditionType::ResolvedRefs, error),
        None => resolved(),
    });
    report.conditions.extend(url_valid(parts, address, observation.as_ref()));
    let secret = given.or(headers).or(url.filter(|error| is_missing(error)));
    report.conditions.push(match (secret, &keys.fault) {
        (Some(error), _) => refused(ConditionType::SecretValid, error),
        (None, Some(signing::Fault::Secret(reason, problem))) => {
            ConditionUpdate::is_false(ConditionType::SecretValid, *reason, advise(*reason, problem))
        }
        (None, _) => {
            let message = match webhook.spec.signing.secret_ref {
                Some(_) => "the signing key and the headers from Secrets are valid",
                None => "the signing key is generated, and the headers from Secrets are valid",
            };
            ConditionUpdate::is_true(ConditionType::SecretValid, Reason::Valid, message)
        }
    });
    report.conditions.extend(reachable(webhook, observation.as_ref()));
    // Only a change helps (kstatus).
    if let Some(error) = not_found.or(secret).or(url) {
        let (reason, message) = (error.reason(), advise(error.reason(), &error.to_string()));
        report.conditions.push(ConditionUpdate::is_true(ConditionType::Stalled, reason, message));
    }
    if let Some(Unresolved::RefNotReady { what }) = dead_letter {
        report
            .degrade(Reason::RefNotReady, &format!("{what} is not ready; dead letters are kept until it is"));
    }
    for (reason, message) in &keys.degraded {
        report.degrade(*reason, message);
    }
    report.events.clone_from(&keys.events);
    if let Some(time) = keys.requeue_within {
        report.requeue_within(time);
    }
    if address.is_err() {
        report.requeue_within(RETRY_INTERVAL);
    }
    fill_status(&mut report.status, webhook, observed);
    report
}

fn is_missing(error: &Unresolved) -> bool {
    matches!(
        error,
        Unresolved::SecretNotFound { .. }
            | Unresolved::SecretMissingKeys { .. }
            | Unresolved::SecretWrongType { .. }
            | Unresolved::RefNotFound { .. }
    )
}

fn refused(kind: ConditionType, error: &Unresolved) -> ConditionUpdate {
    ConditionUpdate::is_false(kind, error.reason(), advise(error.reason(), &error.to_string()))
}

fn url_valid(
    parts: &Parts,
    address: &Result<(), Fault>,
    observation: Option<&TargetObservation<ProbeTarget>>,
) -> Option<ConditionUpdate> {
    let valid = |message: &str| ConditionUpdate::is_true(ConditionType::UrlValid, Reason::Valid, message);
    let healthy = observation.is_some_and(|it| it.targets.iter().all(ObservedTarget::works));
    match (&parts.target, address) {
        // Which is told by the conditions of what the spec names.
        (Err(error), _) if is_missing(error) => None,
        (Err(error), _) => Some(refused(ConditionType::UrlValid, error)),
        // That nobody says what the name is, just now, is no news while the endpoint can be connected to.
        (Ok(_), Err(fault)) if is_denied(fault) || !healthy => {
            Some(ConditionUpdate::is_false(ConditionType::UrlValid, fault.reason, fault.message()))
        }
        (Ok(_), _) => Some(valid("the URL is valid and its addresses are allowed")),
    }
}

fn reachable(
    webhook: &Webhook,
    observation: Option<&TargetObservation<ProbeTarget>>,
) -> Option<ConditionUpdate> {
    let kind = ConditionType::EndpointReachable;
    if webhook.spec.verification.mode == VerificationMode::None {
        let message = "verification.mode is None: not probed, assumed to be reachable";
        return Some(ConditionUpdate::is_true(kind, Reason::NotProbed, message));
    }
    let target = observation?.targets.first()?;
    let (seen, name) = (&target.observation, target.settings.settings.endpoint());
    if seen.state == HealthState::Healthy {
        let status = target.facts().and_then(|facts| facts.status);
        let message = match (target.settings.mode(), status) {
            (VerificationMode::Challenge, _) => "the endpoint answered the challenge".to_owned(),
            (_, Some(status)) if status.is_server_error() => {
                format!("the endpoint responds, to HEAD with {status}")
            }
            _ => "the endpoint responds".to_owned(),
        };
        return Some(ConditionUpdate::is_true(kind, Reason::Reachable, message));
    }
    let (reason, message) = match &seen.fault {
        Some(fault) => (fault.reason, format!("{name}: {}", fault.message())),
        None => (seen.reason.unwrap_or(Reason::Pending), format!("{name}: not probed yet")),
    };
    Some(ConditionUpdate::is_false(kind, reason, message))
}

fn fill_status(status: &mut WebhookStatus, webhook: &Webhook, observed: &Observed) {
    let Observed { parts, keys, address, observation } = observed;
    let before = webhook.status.as_ref();
    status.webhook_id = webhook.uid();
    status.signing.clone_from(&keys.status);
    status.verification = before.and_then(|before| before.verification.clone());
    let target = observation.as_ref().and_then(|observation| observation.targets.first());
    status.common.endpoints = match (target, &parts.target) {
        (Some(target), _) => vec![target.status.clone()],
        (None, Ok(url)) => vec![EndpointStatus {
            address: url.host().to_owned(),
            port: url.port(),
            ready: address.is_ok() && webhook.spec.verification.mode == VerificationMode::None,
            reason: address.as_ref().err().map_or(Reason::NotProbed, |fault| fault.reason).to_string(),
            role: None,
        }],
        (None, Err(_)) => Vec::new(),
    };
    let Some(target) = target else { return };
    status.common.health = observation.as_ref().and_then(|it| it.health(before.map(|before| &before.common)));
    let (mode, url_digest) = (target.settings.mode().as_str().to_owned(), target.settings.url_digest());
    let known = status.verification.as_ref().is_some_and(|it| it.mode == mode && it.url_digest == url_digest);
    if !known {
        let time = Time(Timestamp::now());
        let asked = target.facts().map(|_| VerificationStatus { mode, url_digest, time });
        status.verification = asked;
    }
}
