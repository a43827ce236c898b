//! Keeps the endpoints of the delivery engine equal to the Webhooks: after a watch said that one, or something that it names, has
//! changed, its settings are resolved anew.

use std::{collections::HashMap, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use http::{HeaderName, HeaderValue};
use jiff::Timestamp;
use kube::{ResourceExt, core::DeserializeGuard};
use parking_lot::Mutex;
use secrecy::ExposeSecret;
use tokio::{sync::Notify, time::timeout};
use tokio_util::sync::CancellationToken;

use super::super::{CallDeps, usage::Counters};
use crate::{
    api::{Managed, shared::Reference, v1alpha1::Webhook},
    cluster::{
        object_cache::{Change, ObjectCache},
        reference_index::{ObjectRef, ReferenceIndex},
    },
    delivery::{self, EndpointSettings, Engine, PayloadKind, Signing, SigningKey},
    domain::{
        delivery::{
            keys::{Key, Scheme},
            scheduler::{EndpointConfig, Uid},
        },
        webhook::expressions::EventView,
    },
    resolving::{
        Unresolved,
        webhook::{self as resolving, PayloadSource, ResolvedWebhook},
    },
};

/// How long reading what an object names may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);

/// How often an endpoint is resolved again whose settings could not be read from the API server.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);

/// How many are resolved at once.
const CONCURRENCY: usize = 16;

/// The Webhooks, and which of them the engine is to hear of.
#[derive(Clone)]
pub(super) struct Endpoints(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    changed: Notify,
    counters: Arc<Counters>,
    /// Each cancelled once a scope was listed.
    synced: Vec<CancellationToken>,
}

#[derive(Default)]
struct State {
    by_name: HashMap<Name, Arc<DeserializeGuard<Webhook>>>,
    index: ReferenceIndex<DeserializeGuard<Webhook>>,
    /// Those that changed, each with the number of its last change.
    due: HashMap<Name, u64>,
    last: u64,
    /// Whether the engine has heard of all that were there at the start.
    loaded: bool,
    /// The latest resource version that a watch has brought.
    version: u64,
    /// Objects that are gone, by uid.
    gone: Vec<Uid>,
}

/// Namespace and name.
type Name = (String, String);

/// What the engine has of a Webhook.
#[derive(PartialEq)]
struct Loaded {
    uid: Uid,
    generation: Option<i64>,
    /// Of everything that is not in the spec; none where it could not be resolved.
    resolved: Option<([u8; 32], crate::domain::webhook::signing::SigningKeys, Option<Uid>)>,
}

impl Endpoints {
    /// Follows the objects, and what they name.
    pub(super) fn follow(objects: &ObjectCache<Webhook>, counters: &Arc<Counters>) -> Self {
        let counters = Arc::clone(counters);
        let synced = objects.scopes().iter().map(|scope| scope.synced().clone()).collect();
        let inner = Arc::new(Inner { state: Mutex::default(), changed: Notify::new(), counters, synced });
        for scope in objects.scopes() {
            let (changed, referenced) = (Arc::clone(&inner), Arc::clone(&inner));
            scope.shared().listen(move |namespace, reference| referenced.mark(namespace, reference));
            scope.subscribe(move |change| changed.take(change));
        }
        Self(inner)
    }

    /// The uid of the Webhook of this name.
    pub(super) fn uid(&self, namespace: &str, name: &str) -> Option<Uid> {
        let state = self.0.state.lock();
        let object = state.by_name.get(&(namespace.to_owned(), name.to_owned()))?;
        object.uid().map(Uid::from)
    }

    /// Whether there is a Webhook of this name.
    pub(super) fn has(&self, namespace: &str, name: &str) -> bool {
        self.0.state.lock().by_name.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// Whether there is a Webhook in the namespace.
    pub(super) fn has_any(&self, namespace: &str) -> bool {
        self.0.state.lock().by_name.keys().any(|(of, _)| of == namespace)
    }

    /// Whether the engine has heard of every Webhook that there was when the process began: before that an event could miss one.
    pub(super) fn is_loaded(&self) -> bool {
        self.0.state.lock().loaded
    }

    /// The engine has every Webhook as of this resource version; none while it lacks one. Resource versions of one type can be
    /// compared as numbers (KEP-5504).
    pub(super) fn loaded_version(&self) -> Option<u64> {
        let state = self.0.state.lock();
        (state.loaded && state.due.is_empty()).then_some(state.version)
    }

    /// Tells the engine of every change until `stop` is cancelled.
    pub(super) async fn run(&self, deps: &CallDeps, stop: CancellationToken) {
        let engine = &deps.engine;
        for synced in &self.0.synced {
            if stop.run_until_cancelled(synced.cancelled()).await.is_none() {
                return;
            }
        }
        let mut loaded = HashMap::<Name, Loaded>::new();
        loop {
            let (due, gone) = self.0.due();
            for uid in gone {
                loaded.retain(|_, it| it.uid != uid);
                engine.remove_endpoint(&uid);
            }
            let references = deps.references.as_ref();
            let resolving = due.into_iter().map(|(name, change, object)| async move {
                let resolved =
                    timeout(RESOLVE_TIMEOUT, resolving::resolve(&object, references, Timestamp::now()));
                let resolved = resolved.await.map_err(|_| None).and_then(|it| it.map_err(Some));
                (name, change, object, resolved)
            });
            let mut resolving = stream::iter(resolving).buffer_unordered(CONCURRENCY);
            let mut retry = false;
            while let Some((name, change, object, resolved)) = resolving.next().await {
                let is_retried =
                    matches!(resolved, Err(None | Some(Unresolved::Cluster(_) | Unresolved::NotSynced(_))));
                let uid: Uid = object.uid().unwrap_or_default().into();
                if is_retried {
                    retry = true;
                    // The last good settings serve while the API server is away.
                    if loaded.get(&name).is_some_and(|it| it.uid == uid) {
                        continue;
                    }
                }
                let now = Loaded::of(&uid, &object, resolved.as_ref().ok());
                if loaded.get(&name) != Some(&now) {
                    set(engine, &object, resolved.map_err(why));
                    loaded.insert(name.clone(), now);
                }
                if !is_retried {
                    self.0.done(&name, change);
                }
            }
            self.0.passed(retry);
            tokio::select! {
                () = stop.cancelled() => return,
                () = self.0.changed.notified() => {}
                () = tokio::time::sleep(RETRY_INTERVAL), if retry => {}
            }
        }
    }
}

impl Inner {
    fn take(&self, change: &Change<Webhook>) {
        let key = (change.key.namespace.clone().unwrap_or_default(), change.key.name.clone());
        let mut state = self.state.lock();
        let version = change.object.as_ref().and_then(|it| it.resource_version()?.parse().ok());
        state.version = state.version.max(version.unwrap_or_default());
        state.gone.extend(change.gone.as_deref().map(Uid::from));
        let object = change.object.as_ref().filter(|object| object.0.is_ok());
        if let Some((object, webhook)) = object.and_then(|object| Some((object, object.0.as_ref().ok()?))) {
            state.index.set(&change.key, webhook.references());
            state.by_name.insert(key.clone(), Arc::clone(object));
            state.mark(key);
        } else {
            state.index.remove(&change.key);
            state.due.remove(&key);
            state.by_name.remove(&key);
        }
        drop(state);
        self.changed.notify_one();
    }

    fn mark(&self, namespace: &str, reference: &Reference) {
        let mut state = self.state.lock();
        let named: Vec<ObjectRef<_>> = state.index.referrers(namespace, reference).cloned().collect();
        if named.is_empty() {
            return;
        }
        for webhook in named {
            state.mark((namespace.to_owned(), webhook.name));
        }
        drop(state);
        self.changed.notify_one();
    }

    /// What is to be resolved, and what is gone. It stays due until it is done.
    fn due(&self) -> (Vec<(Name, u64, Webhook)>, Vec<Uid>) {
        let mut state = self.state.lock();
        let due = state.due.iter().filter_map(|(name, change)| {
            let webhook = state.by_name.get(name)?.0.as_ref().ok()?;
            Some((name.clone(), *change, webhook.clone()))
        });
        let due = due.collect();
        (due, std::mem::take(&mut state.gone))
    }

    /// The engine has it as of this change; it is due still if it has changed since.
    fn done(&self, name: &Name, change: u64) {
        let mut state = self.state.lock();
        if state.due.get(name) == Some(&change) {
            state.due.remove(name);
        }
    }
}

impl Inner {
    /// All that was due when a pass began has been resolved, apart from what is to be tried again.
    fn passed(&self, retry: bool) {
        let mut state = self.state.lock();
        state.loaded |= !retry;
        let is_current = state.loaded && state.due.is_empty();
        drop(state);
        if is_current {
            // The operator says Ready once it knows.
            self.counters.circuit_changed();
        }
    }
}

impl State {
    fn mark(&mut self, name: Name) {
        self.last += 1;
        self.due.insert(name, self.last);
    }
}

impl Loaded {
    fn of(uid: &Uid, webhook: &Webhook, resolved: Option<&ResolvedWebhook>) -> Self {
        let resolved = resolved.map(|it| {
            let dead_letter = it.dead_letter.as_ref().and_then(|it| it.uid()).map(Uid::from);
            (it.endpoint.key(uid), it.keys.clone(), dead_letter)
        });
        Self { uid: Arc::clone(uid), generation: webhook.metadata.generation, resolved }
    }
}

/// Tells the engine; of an endpoint that cannot be used what is accepted is held.
fn set(engine: &Engine, webhook: &Webhook, resolved: Result<ResolvedWebhook, String>) {
    let settings = resolved.and_then(|resolved| settings(webhook, resolved));
    let set = settings.or_else(|why| unusable(webhook, why)).map(|settings| engine.set_endpoint(settings));
    let problem = match set {
        Ok(Ok(())) => return,
        Ok(Err(fault)) => fault.message(),
        Err(problem) => problem,
    };
    let (namespace, name) = (webhook.namespace().unwrap_or_default(), webhook.name_any());
    tracing::warn!(namespace, name, problem, "the Webhook cannot be used: no event matches it");
}

fn why(error: Option<Unresolved>) -> String {
    error.map_or_else(|| "the API server does not answer".to_owned(), |error| error.to_string())
}

fn settings(webhook: &Webhook, resolved: ResolvedWebhook) -> Result<EndpointSettings, String> {
    let ResolvedWebhook { endpoint, delivery, keys, dead_letter } = resolved;
    let url = endpoint.uri().map_err(|fault| fault.message())?;
    let header = |(name, value): &(String, secrecy::SecretSlice<u8>)| {
        let name: HeaderName = name.parse().map_err(|_| format!("the header {name} cannot be sent"))?;
        let mut value = HeaderValue::from_bytes(value.expose_secret())
            .map_err(|_| format!("the value of the header {name} cannot be sent"))?;
        value.set_sensitive(true);
        Ok::<_, String>((name, value))
    };
    let mut headers = endpoint.headers.iter().map(header).collect::<Result<Vec<_>, _>>()?;
    let agent =
        HeaderValue::from_str(&endpoint.user_agent).map_err(|_| "userAgent cannot be sent".to_owned())?;
    headers.push((http::header::USER_AGENT, agent));
    let server_name = endpoint.certificate_name().map(str::to_owned);
    Ok(EndpointSettings {
        url,
        headers,
        signing: signing(&keys),
        tls: endpoint.tls,
        server_name,
        dead_letter: dead_letter.and_then(|it| it.uid()).map(Uid::from),
        unusable: None,
        ..of_delivery(webhook, delivery)
    })
}

/// What can be said of an endpoint that cannot be called.
fn unusable(webhook: &Webhook, why: String) -> Result<EndpointSettings, String> {
    let delivery = resolving::delivery(webhook).map_err(|error| error.to_string())?;
    Ok(EndpointSettings { unusable: Some(why), ..of_delivery(webhook, delivery) })
}

fn of_delivery(webhook: &Webhook, delivery: resolving::DeliverySettings) -> EndpointSettings {
    let filter = delivery.filter.map(|filter| -> delivery::Filter {
        Arc::new(move |event| filter.matches(&EventView::of(event)).map_err(|failure| failure.to_string()))
    });
    let payload = match delivery.payload {
        PayloadSource::Form(form) => PayloadKind::Form(form),
        PayloadSource::Template(template) => PayloadKind::Template(Arc::new(move |event| {
            template.payload(&EventView::of(event)).map_err(|failure| failure.to_string())
        })),
    };
    EndpointSettings {
        uid: webhook.uid().unwrap_or_default().into(),
        namespace: webhook.namespace().unwrap_or_default(),
        name: webhook.name_any(),
        url: http::Uri::default(),
        events: delivery.events,
        filter,
        headers: Vec::new(),
        signing: Signing::default(),
        payload,
        config: EndpointConfig {
            concurrency: delivery.concurrency,
            rate: delivery.rate,
            retry: delivery.retry,
            disable: delivery.disable,
            ordered: delivery.ordered,
            suspended: webhook.suspended(),
        },
        timeout: delivery.timeout,
        tls: crate::backends::transport::TlsSettings::default(),
        server_name: None,
        dead_letter: None,
        unusable: None,
    }
}

fn signing(keys: &crate::domain::webhook::signing::SigningKeys) -> Signing {
    let of = |scheme: Scheme| {
        let of = keys.by_scheme.iter().find(|(of, _)| *of == scheme).map(|(_, keys)| keys.as_slice());
        let of = of.unwrap_or_default().iter();
        of.map(|key| SigningKey { key: Key::clone(&key.key), expires: key.ends }).collect()
    };
    Signing {
        standard: of(Scheme::StandardWebhooks),
        hex_hmac: of(Scheme::HexHmac),
        github: of(Scheme::GitHub),
    }
}
