//! The keys that sign: the Secret that keeps those in force, and what users read of them.
//!
//! A Secret has no history: what the spec's own Secret held before a change is known only because it was copied here.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::Time};
use kube::{Api, ResourceExt};
use secrecy::ExposeSecret;

use crate::{
    api::{
        Reason,
        v1alpha1::{
            Webhook,
            webhook::{ROTATE_ANNOTATION, SigningKeyStatus, SigningStatus},
        },
    },
    backends::webhook::key_fingerprint,
    cluster::{
        owned::{Desired, Over, SecretData},
        references::References,
    },
    controllers::{
        Error, EventRecord, ReconcileContext,
        discovery::endpoint_targets::RETRY_INTERVAL,
        owned::{OwnedOutcome, OwnedWriter, Owner},
    },
    domain::webhook::{
        key_ring::KeyRing,
        signing::{SigningPolicy, public_key, scheme_name},
    },
    resolving::{
        Lookup, Unresolved,
        webhook::{given_key, signing_policy},
    },
};

/// Where the public key is in the Secret, for people to read.
const PUBLIC: &str = "public";

/// The pause before a Secret is read once more that was written this moment.
const PENDING_INTERVAL: Duration = Duration::from_secs(1);

/// How long it is told that a key was lost.
const LOST_TOLD: Duration = Duration::from_hours(24);

/// What users read of the keys.
#[derive(Debug, Default)]
pub(super) struct Keys {
    /// Why nothing is signed, and so nothing is sent.
    pub(super) fault: Option<Fault>,
    pub(super) status: Option<SigningStatus>,
    pub(super) degraded: Vec<(Reason, String)>,
    pub(super) events: Vec<EventRecord>,
    pub(super) requeue_within: Option<Duration>,
}

/// Why there is no key.
#[derive(Debug)]
pub(super) enum Fault {
    /// The one that the spec names cannot be used.
    Given(Unresolved),
    /// There can be no Secret for it.
    Secret(Reason, String),
}

/// What the spec says, for whoever may write nothing.
pub(super) async fn look(webhook: &Webhook, references: &dyn References) -> Result<Keys, Error> {
    let namespace = webhook.namespace().unwrap_or_default();
    match given_key(webhook, Lookup { references, namespace: &namespace }).await {
        Err(Unresolved::Cluster(error)) => Err(error.into()),
        Err(missing) => Ok(Keys { fault: Some(Fault::Given(missing)), ..Keys::default() }),
        Ok(given) => {
            let mut keys = Keys::default();
            if let Some(given) = given {
                keys.name_unsigned(&signing_policy(webhook), &KeyRing::new(given.expose_secret()));
            }
            Ok(keys)
        }
    }
}

/// Makes the Secret what it should be.
pub(super) async fn ensure(
    writer: &OwnedWriter<Secret>,
    webhook: &Webhook,
    cx: &ReconcileContext,
) -> Result<Keys, Error> {
    let namespace = webhook.namespace().unwrap_or_default();
    let lookup = Lookup { references: cx.references.as_ref(), namespace: &namespace };
    let before = webhook.status.as_ref().and_then(|status| status.signing.clone());
    let given = match given_key(webhook, lookup).await {
        Err(Unresolved::Cluster(error)) => return Err(error.into()),
        Err(missing) => {
            let status = before.map(|before| SigningStatus { keys: Vec::new(), ..before });
            return Ok(Keys { fault: Some(Fault::Given(missing)), status, ..Keys::default() });
        }
        Ok(given) => given,
    };
    let given = given.as_ref().map(ExposeSecret::expose_secret);
    let (policy, name) = (signing_policy(webhook), webhook.signing_secret_name());
    // In this order: what is read is of this version or a later one, and nothing is written over another one.
    let meta = cx.references.secret_meta(&namespace, &name);
    let owner = OwnedWriter::<Secret>::owner_of(webhook, meta.as_ref().map(|meta| &meta.metadata));
    if owner == Owner::Other {
        return Ok(without_secret(webhook, given, Reason::SecretConflict, &name));
    }
    let kept = match owner {
        Owner::This => cx.references.secret(&namespace, &name).await?,
        _ => None,
    };
    let kept = kept.and_then(|secret| KeyRing::from_data(&secret.data).ok());
    let had_keys = before
        .as_ref()
        .is_some_and(|before| before.secret_name.as_deref() == Some(&*name) && !before.keys.is_empty());
    let lost = given.is_none() && kept.is_none() && had_keys;
    if lost && exists(cx, &namespace, &name).await? {
        // It was made a moment ago, and the watch brings it.
        return Ok(Keys::pending(before, &name));
    }

    let now = Timestamp::now();
    let asked = webhook.annotations().get(ROTATE_ANNOTATION);
    let answered = meta.as_ref().and_then(|meta| meta.annotations().get(ROTATE_ANNOTATION));
    let rotate = kept.is_some() && asked.is_some() && asked != answered;
    let was = kept.as_ref().map(KeyRing::to_data);
    let (ring, rotated) = policy.next(kept, given, rotate, &rand::random(), now);
    let values = ring.to_data();
    let is_kept = was.as_ref() == Some(&values)
        && asked == answered
        && OwnedWriter::<Secret>::is_owned(webhook, &name, cx);
    if !is_kept {
        let desired = Desired {
            name: name.clone(),
            annotations: asked
                .map(|asked| (ROTATE_ANNOTATION.to_owned(), asked.clone()))
                .into_iter()
                .collect(),
            data: SecretData { type_: "Opaque".to_owned(), values: with_public_key(values, &ring) },
            over: Over::Version(meta.and_then(|meta| meta.resource_version())),
        };
        match writer.write(webhook, desired, None, cx).await? {
            OwnedOutcome::Written(_) => {}
            OwnedOutcome::Pending => return Ok(Keys::pending(before, &name)),
            OwnedOutcome::Conflict(_) => {
                return Ok(without_secret(webhook, given, Reason::SecretConflict, &name));
            }
            OwnedOutcome::Refused(_) => {
                return Ok(without_secret(webhook, given, Reason::SecretRefused, &name));
            }
        }
    }
    let lost_before = before.and_then(|before| before.key_lost_time).map(|time| time.0);
    let lost = if lost { Some(now) } else { lost_before.filter(|lost| *lost + LOST_TOLD > now) };
    Ok(Keys::of(webhook, &policy, &ring, name, (rotated, lost), now))
}

impl Keys {
    /// The Secret was written this moment: it is read once more.
    fn pending(before: Option<SigningStatus>, name: &str) -> Self {
        let fault = before.is_none().then(|| {
            let problem = format!("the Secret {name} was written by another client; it is read again");
            Fault::Secret(Reason::Pending, problem)
        });
        Self { fault, status: before, requeue_within: Some(PENDING_INTERVAL), ..Self::default() }
    }

    fn of(
        webhook: &Webhook,
        policy: &SigningPolicy,
        ring: &KeyRing,
        name: String,
        (rotated, lost): (bool, Option<Timestamp>),
        now: Timestamp,
    ) -> Self {
        let mut keys = Self { status: Some(status(webhook, policy, ring)), ..Self::default() };
        keys.name_unsigned(policy, ring);
        if rotated {
            let message =
                "a new key signs deliveries; the previous one is used as well until its overlap ends"
                    .to_owned();
            keys.events.push(EventRecord { warning: false, reason: Reason::CredentialRotated, message });
        }
        let left = |end: Timestamp| Duration::try_from(end.duration_since(now)).unwrap_or_default();
        let ends = ring.next_end(policy.overlap).into_iter().chain(lost.map(|lost| lost + LOST_TOLD));
        keys.requeue_within = ends.map(left).min();
        if lost.is_some() {
            let message = format!("the Secret {name} was deleted, and a new signing key was generated");
            keys.degraded.push((Reason::SigningKeyLost, message));
        }
        if let Some(status) = &mut keys.status {
            status.secret_name = Some(name);
            status.key_lost_time = lost.map(Time);
        }
        keys
    }

    fn name_unsigned(&mut self, policy: &SigningPolicy, ring: &KeyRing) {
        let keys = policy.keys(ring);
        for (scheme, why) in keys.iter().flat_map(|keys| &keys.unsigned) {
            let message = format!(
                "the headers of the scheme {} are omitted: the signing key {why}",
                scheme_name(*scheme)
            );
            self.degraded.push((Reason::SchemeUnsigned, message));
        }
    }
}

/// Those in force, the newest first.
fn status(webhook: &Webhook, policy: &SigningPolicy, ring: &KeyRing) -> SigningStatus {
    let uid = webhook.uid().unwrap_or_default();
    let fingerprint = |key: &[u8]| key_fingerprint(&uid, key);
    let current = SigningKeyStatus { fingerprint: fingerprint(ring.current.expose_secret()), expires: None };
    let previous = ring.previous.iter().map(|key| SigningKeyStatus {
        fingerprint: fingerprint(key.value.expose_secret()),
        expires: Some(Time(key.ends(policy.overlap))),
    });
    SigningStatus { keys: std::iter::once(current).chain(previous).collect(), ..SigningStatus::default() }
}

/// There can be no Secret: a key that the spec names signs all the same, and has no overlap when it changes.
fn without_secret(webhook: &Webhook, given: Option<&[u8]>, reason: Reason, name: &str) -> Keys {
    let problem = match reason {
        Reason::SecretConflict => format!("the Secret {name} exists and is not managed by authlink"),
        _ => format!("the API server rejects the Secret {name}"),
    };
    let requeue_within = Some(RETRY_INTERVAL);
    let Some(given) = given else {
        return Keys { fault: Some(Fault::Secret(reason, problem)), requeue_within, ..Keys::default() };
    };
    let (policy, ring) = (signing_policy(webhook), KeyRing::new(given));
    let problem = format!("{problem}; without it a key rotation has no overlap");
    let mut keys = Keys { status: Some(status(webhook, &policy, &ring)), requeue_within, ..Keys::default() };
    keys.degraded.push((reason, problem));
    keys.name_unsigned(&policy, &ring);
    keys
}

fn with_public_key(mut values: BTreeMap<String, Vec<u8>>, ring: &KeyRing) -> BTreeMap<String, Vec<u8>> {
    let public = public_key(ring.current.expose_secret());
    values.extend(public.map(|public| (PUBLIC.to_owned(), public.into_bytes())));
    values
}

/// Asks the API server itself: what is watched may be a moment behind.
async fn exists(cx: &ReconcileContext, namespace: &str, name: &str) -> Result<bool, Error> {
    Ok(Api::<Secret>::namespaced(cx.client.clone(), namespace).get_metadata_opt(name).await?.is_some())
}
