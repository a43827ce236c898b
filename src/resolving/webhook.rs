//! `Webhook`: how its endpoint is reached, what it is sent, and which keys sign.
//!
//! Each part is resolved by itself: the operator reports every fault, and a gateway needs all of it.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use kube::ResourceExt;
use secrecy::{ExposeSecret, SecretSlice};

use super::{Lookup, Unresolved, value};
use crate::{
    api::{
        Kind,
        shared::SecretValueRef,
        v1alpha1::{
            Webhook,
            database::TlsMode,
            webhook::{self as api, Backoff, DisableAfter, Header, Ordering, SigningKeyRef, Tls},
        },
    },
    backends::{transport::TlsSettings, webhook::EndpointSettings},
    cluster::references::References,
    domain::{
        delivery::{
            disable::DisablePolicy,
            event_type::Pattern,
            headers::{check_names, check_value},
            keys::without_line_end,
            payload::PayloadForm,
            retry::{RetryPolicy, Waits},
        },
        webhook::{
            expressions::{Filter, Template},
            key_ring::{CURRENT, KeyRing},
            signing::{SigningKeys, SigningPolicy},
            url::Target,
        },
    },
};

/// A spec with everything that it names.
#[derive(Clone, Debug)]
pub struct ResolvedWebhook {
    /// How the endpoint is reached.
    pub endpoint: EndpointSettings,
    /// What it is sent, and when.
    pub delivery: DeliverySettings,
    /// The keys that sign.
    pub keys: SigningKeys,
    /// The webhook that gets what was given up.
    pub dead_letter: Option<Arc<Webhook>>,
}

/// What an endpoint is sent, and when.
#[derive(Clone, Debug)]
pub struct DeliverySettings {
    /// Types of events; one that matches is enough.
    pub events: Vec<Pattern>,
    /// Which of them.
    pub filter: Option<Filter>,
    /// What is sent of an event.
    pub payload: PayloadSource,
    /// When failed deliveries are tried again.
    pub retry: RetryPolicy,
    /// When the endpoint is disabled; none for never.
    pub disable: Option<DisablePolicy>,
    /// How long an attempt may take.
    pub timeout: Duration,
    /// Attempts at once.
    pub concurrency: u32,
    /// So many attempts in such a time.
    pub rate: Option<(u32, Duration)>,
    /// Whether of the deliveries with the same subject each waits for the one before.
    pub ordered: bool,
}

/// What is sent of an event.
#[derive(Clone, Debug, PartialEq)]
pub enum PayloadSource {
    /// All of it, in a form.
    Form(PayloadForm),
    /// What an expression makes of it.
    Template(Template),
}

/// Looks up everything that the spec names.
///
/// # Errors
/// The first thing that is missing or cannot serve, by name.
pub async fn resolve(
    webhook: &Webhook,
    references: &dyn References,
    now: Timestamp,
) -> Result<ResolvedWebhook, Unresolved> {
    let lookup = Lookup { references, namespace: &webhook.namespace().unwrap_or_default() };
    let delivery = delivery(webhook)?;
    let keys = keys(webhook, lookup, now).await?;
    let (target, headers) = (target(webhook, lookup).await?, headers(webhook, lookup).await?);
    let endpoint = endpoint(webhook, target, headers, tls(webhook, lookup).await?);
    let dead_letter = match dead_letter(webhook, lookup) {
        // What is given up stays here until it is.
        Err(Unresolved::RefNotReady { .. }) => None,
        found => found?,
    };
    Ok(ResolvedWebhook { endpoint, delivery, keys, dead_letter })
}

/// How the endpoint is reached, from the parts.
#[must_use]
pub fn endpoint(
    webhook: &Webhook,
    target: Target,
    headers: Vec<(String, SecretSlice<u8>)>,
    tls: TlsSettings,
) -> EndpointSettings {
    let (user_agent, server_name) = (webhook.spec.user_agent.clone(), webhook.spec.tls.server_name.clone());
    EndpointSettings { target, headers, user_agent, tls, server_name }
}

/// What the spec says by itself.
///
/// # Errors
/// `Invalid`: what no schema rule can refuse.
pub fn delivery(webhook: &Webhook) -> Result<DeliverySettings, Unresolved> {
    let spec = &webhook.spec;
    let invalid = |field: &str, problem: String| Unresolved::Invalid { field: field.to_owned(), problem };
    let pattern = |text: &String| {
        Pattern::parse(text).map_err(|error| invalid("spec.events", format!("{text} {error}")))
    };
    let events = spec.events.iter().map(pattern).collect::<Result<_, _>>()?;
    check_names(spec.headers.iter().map(|header| header.name.as_str()))
        .map_err(|error| invalid("spec.headers", error.to_string()))?;
    let filter = spec.filter.as_deref().map(Filter::compile).transpose();
    let filter = filter.map_err(|error| invalid("spec.filter", error.to_string()))?;
    let template = spec.payload.template.as_deref().map(Template::compile).transpose();
    let template = template.map_err(|error| invalid("spec.payload.template", error.to_string()))?;
    let form = match spec.payload.form {
        api::PayloadForm::Standard => PayloadForm::Standard,
        api::PayloadForm::CloudEventsStructured => PayloadForm::Structured,
        api::PayloadForm::CloudEventsBinary => PayloadForm::Binary,
    };
    let delivery = &spec.delivery;
    Ok(DeliverySettings {
        events,
        filter,
        payload: template.map_or(PayloadSource::Form(form), PayloadSource::Template),
        retry: RetryPolicy::from(delivery),
        disable: match delivery.disable_after {
            DisableAfter::Never(_) => None,
            DisableAfter::After(time) => {
                Some(DisablePolicy { after: time.get(), ..DisablePolicy::default() })
            }
        },
        timeout: delivery.timeout.get(),
        concurrency: delivery.concurrency,
        rate: delivery.rate_limit.as_ref().map(|limit| (limit.requests, limit.per.get())),
        ordered: delivery.ordering == Ordering::PerSubject,
    })
}

impl From<&api::Delivery> for RetryPolicy {
    fn from(delivery: &api::Delivery) -> Self {
        let default = Self::default();
        let waits = match (&delivery.schedule, &delivery.backoff) {
            (Some(schedule), _) => Waits::List(schedule.iter().map(|wait| wait.get()).collect()),
            (None, Some(Backoff { initial, factor, max })) => {
                Waits::Exponential { base: initial.get(), factor: *factor, max: max.get() }
            }
            (None, None) => default.waits,
        };
        Self {
            waits,
            max_attempts: delivery.max_attempts,
            max_age: delivery.max_age.get(),
            max_retry_after: delivery.max_retry_after.get(),
        }
    }
}

/// Where events are sent.
///
/// # Errors
/// A url that cannot be used, or the Secret that holds it is missing.
pub async fn target(webhook: &Webhook, lookup: Lookup<'_>) -> Result<Target, Unresolved> {
    let allow_http = webhook.spec.verification.allow_http;
    let Some(SecretValueRef { name, key }) = &webhook.spec.url_secret_ref else {
        let url = webhook.spec.url.as_deref().unwrap_or_default();
        return Target::parse(url, allow_http).map_err(|error| Unresolved::Invalid {
            field: "spec.url".to_owned(),
            problem: error.to_string(),
        });
    };
    let secret = lookup.secret(name).await?;
    let invalid = |problem: String| Unresolved::SecretInvalidValue {
        name: format!("the Secret {name}"),
        key: key.clone(),
        problem,
    };
    let text = std::str::from_utf8(value(&secret, name, key)?);
    let text = text.map_err(|_| invalid("is not UTF-8 text".to_owned()))?;
    Target::parse(text, allow_http).map_err(|error| invalid(error.to_string()))
}

/// The user's own headers, as they are sent.
///
/// # Errors
/// A Secret that is missing, or has a value that cannot be sent.
pub async fn headers(
    webhook: &Webhook,
    lookup: Lookup<'_>,
) -> Result<Vec<(String, SecretSlice<u8>)>, Unresolved> {
    let mut headers = Vec::new();
    for Header { name: header, value: plain, value_ref } in &webhook.spec.headers {
        let sent = match value_ref {
            None => plain.clone().unwrap_or_default().into_bytes(),
            Some(SecretValueRef { name, key }) => {
                let secret = lookup.secret(name).await?;
                let sent = check_value(header, value(&secret, name, key)?);
                let invalid = |error| Unresolved::SecretInvalidValue {
                    name: format!("the Secret {name}"),
                    key: key.clone(),
                    problem: format!("cannot be sent: {error}"),
                };
                sent.map_err(invalid)?.to_vec()
            }
        };
        headers.push((header.clone(), sent.into()));
    }
    Ok(headers)
}

/// How connections are protected.
///
/// # Errors
/// What is missing, or cannot serve.
pub async fn tls(webhook: &Webhook, lookup: Lookup<'_>) -> Result<TlsSettings, Unresolved> {
    let Tls { ca_ref, client_cert_ref, .. } = &webhook.spec.tls;
    lookup.tls(TlsMode::VerifyFull, ca_ref.as_ref(), client_cert_ref.as_ref()).await
}

/// The webhook that gets what was given up.
///
/// # Errors
/// It does not exist or is not ready, or what it gives up comes back here.
pub fn dead_letter(webhook: &Webhook, lookup: Lookup<'_>) -> Result<Option<Arc<Webhook>>, Unresolved> {
    let Some(reference) = &webhook.spec.dead_letter_ref else { return Ok(None) };
    let referrer = (Kind::Webhook, &*webhook.name_any());
    lookup.resource::<Webhook>(referrer, "spec.deadLetterRef", &reference.name).map(Some)
}

/// What the spec says of signing.
#[must_use]
pub fn signing_policy(webhook: &Webhook) -> SigningPolicy {
    let signing = &webhook.spec.signing;
    SigningPolicy {
        schemes: signing.schemes.iter().map(|scheme| (*scheme).into()).collect(),
        key_type: signing.key_type,
        overlap: signing.rotation.overlap.get(),
        single: signing.rotation.single_signature,
    }
}

/// The key that the spec names; none where it names none.
///
/// # Errors
/// It is missing, or is of no use for any of the schemes.
pub async fn given_key(webhook: &Webhook, lookup: Lookup<'_>) -> Result<Option<SecretSlice<u8>>, Unresolved> {
    let Some(SigningKeyRef { name, key }) = &webhook.spec.signing.secret_ref else { return Ok(None) };
    let secret = lookup.secret(name).await?;
    let given = without_line_end(value(&secret, name, key)?);
    signing_policy(webhook).check(given).map_err(|error| Unresolved::SecretInvalidValue {
        name: format!("the Secret {name}"),
        key: key.clone(),
        problem: error.to_string(),
    })?;
    Ok(Some(given.to_vec().into()))
}

/// The keys that sign: those that the operator keeps, with the one that the spec names as the newest.
///
/// # Errors
/// There is none yet, or what the spec names is missing or of no use.
pub async fn keys(webhook: &Webhook, lookup: Lookup<'_>, now: Timestamp) -> Result<SigningKeys, Unresolved> {
    let given = given_key(webhook, lookup).await?;
    // Only the operator says which Secret is its own.
    let signing = webhook.status.as_ref().and_then(|status| status.signing.as_ref());
    let kept = match signing.and_then(|signing| signing.secret_name.as_deref()) {
        Some(name) => lookup.references.secret(lookup.namespace, name).await?,
        None => None,
    };
    let kept = kept.and_then(|secret| KeyRing::from_data(&secret.data).ok());
    let mut ring = match (kept, &given) {
        (Some(ring), _) => ring,
        (None, Some(given)) => KeyRing::new(given.expose_secret()),
        (None, None) => return Err(Unresolved::SecretNotFound { name: webhook.signing_secret_name() }),
    };
    if let Some(given) = &given {
        ring.rotate(given.expose_secret(), now);
    }
    let policy = signing_policy(webhook);
    ring.expire(policy.overlap, now);
    policy.keys(&ring).map_err(|error| Unresolved::SecretInvalidValue {
        name: format!("the Secret {}", webhook.signing_secret_name()),
        key: CURRENT.to_owned(),
        problem: error.to_string(),
    })
}
