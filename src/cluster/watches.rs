//! Watches that fill stores: of metadata, and of our own kinds.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Debug,
    sync::Arc,
    time::{Duration, Instant},
};

use futures::{Stream, StreamExt};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::NamespaceResourceScope,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store, store::Writer},
        utils::Backoff,
        watcher,
    },
};
use parking_lot::Mutex;
use serde::de::DeserializeOwned;
use tokio_util::sync::CancellationToken;

use crate::domain::backoff::{Retry, delay};

/// Which namespaces are watched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All of them.
    Cluster,
    /// One.
    Namespace(String),
}

impl Scope {
    /// The API of a type in this scope.
    #[must_use]
    pub fn api<K>(&self, client: Client) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        match self {
            Self::Cluster => Api::all(client),
            Self::Namespace(namespace) => Api::namespaced(client, namespace),
        }
    }

    /// Whether the namespace is in it.
    #[must_use]
    pub fn covers(&self, namespace: &str) -> bool {
        match self {
            Self::Cluster => true,
            Self::Namespace(own) => own == namespace,
        }
    }

    /// The watch of a type in this scope, as readers of `/readyz` see it.
    #[must_use]
    pub fn part<K: Resource<DynamicType = ()>>(&self) -> String {
        match self {
            Self::Cluster => format!("{} in all namespaces", K::plural(&())),
            Self::Namespace(namespace) => format!("{} in namespace {namespace}", K::plural(&())),
        }
    }
}

/// What keeps the process from being ready, by the part that waits.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, String>>>);

impl Readiness {
    /// `part` waits for something.
    pub fn wait(&self, part: &str, why: impl Into<String>) {
        self.0.lock().insert(part.to_owned(), why.into());
    }

    /// Says why `part` still waits, if it does.
    pub fn explain(&self, part: &str, why: impl Into<String>) {
        if let Some(known) = self.0.lock().get_mut(part) {
            *known = why.into();
        }
    }

    /// `part` waits no longer.
    pub fn done(&self, part: &str) {
        self.0.lock().remove(part);
    }

    /// Each part that waits, and why.
    #[must_use]
    pub fn pending(&self) -> Vec<String> {
        let pending = self.0.lock();
        pending.iter().map(|(part, why)| format!("{part}: {why}")).collect()
    }
}

/// A watch that never ends, fills `writer` with the objects that have the label, and keeps `readiness` up to date.
pub fn watch<K>(
    api: Api<K>,
    label: Option<&str>,
    writer: Writer<K>,
    part: String,
    readiness: Readiness,
) -> impl Stream<Item = watcher::Event<K>> + use<K>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    readiness.wait(&part, "the first list is not here yet");
    watcher(api, watcher::Config { label_selector: label.map(str::to_owned), ..watcher::Config::default() })
        .modify(|object| {
            // Neither is ever read, and together they are most of an object's size.
            object.managed_fields_mut().clear();
            object.annotations_mut().remove("kubectl.kubernetes.io/last-applied-configuration");
        })
        .backoff(Pauses::default())
        .reflect(writer)
        .filter_map(move |event| {
            let event = match event {
                Ok(event) => {
                    if matches!(event, watcher::Event::InitDone) {
                        readiness.done(&part);
                    }
                    Some(event)
                }
                Err(error) => {
                    report(&error, &part, &readiness);
                    None
                }
            };
            std::future::ready(event)
        })
}

/// A failed watch is tried again by itself; only a first list that never came keeps the process from being ready.
fn report(error: &watcher::Error, part: &str, readiness: &Readiness) {
    if let watcher::Error::InitialListFailed(kube::Error::Api(status)) = error {
        let why = match status.code {
            404 => "the CRD is not installed",
            403 => "the right to list is missing",
            _ => "the first list failed",
        };
        // Of a later list, what was listed before goes on serving.
        readiness.explain(part, why);
    }
    tracing::warn!(%error, part, "a watch failed and is tried again");
}

/// How long a watch, or another reading that nothing goes on without, waits after it failed: a second, and each time longer, up to
/// ten seconds. After an outage of the API server a watch fails once more as a rule, since what it goes on from is too old: with the
/// customary 30 s a change would be seen after a minute.
#[derive(Default)]
pub(super) struct Pauses {
    failures: u32,
    last: Option<Instant>,
}

/// A watch that works for so long has recovered; that a list begins says nothing yet of how it ends.
const RECOVERED: Duration = Duration::from_secs(30);

impl Pauses {
    pub(super) fn after_a_failure(&mut self) -> Duration {
        if self.last.is_some_and(|last| last.elapsed() >= RECOVERED) {
            self.failures = 0;
        }
        self.last = Some(Instant::now());
        self.failures = self.failures.saturating_add(1);
        let pause = delay(Retry::Backoff, self.failures, rand::random());
        pause.min(Duration::from_secs(10).mul_f64(1.0 - 0.5 * rand::random::<f64>()))
    }
}

impl Iterator for Pauses {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        Some(self.after_a_failure())
    }
}

impl Backoff for Pauses {
    /// Time does it, see [`RECOVERED`].
    fn reset(&mut self) {}
}

/// One object that came, changed or went.
#[derive(Debug)]
pub struct Change<K: Resource<DynamicType = ()> + Clone + 'static> {
    /// Its namespace and name.
    pub key: ObjectRef<K>,
    /// The object as the store has it now; none where there is none of this name.
    pub object: Option<Arc<K>>,
    /// The uid of the object that went: it was deleted, maybe to be made again under the same name.
    pub gone: Option<String>,
}

/// Fills a store with the objects of `api` that have the label, and calls `changed` for each that comes, changes or goes, those
/// that did so while the watch was interrupted included. The store has what `changed` is called with, and the token is cancelled
/// once it was called for all of the first list.
pub fn watch_changes<K, F: FnMut(Change<K>) + Send>(
    api: Api<K>,
    label: Option<&str>,
    part: String,
    readiness: &Readiness,
    mut changed: F,
) -> (Store<K>, CancellationToken, impl Future<Output = ()> + Send + use<K, F>)
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
{
    let (store, writer) = reflector::store();
    let events = watch(api, label, writer, part, readiness.clone());
    let (filled, synced) = (store.clone(), CancellationToken::new());
    let first_list = synced.clone();
    let run = async move {
        let mut events = std::pin::pin!(events);
        let mut differ = Differ::default();
        while let Some(event) = events.next().await {
            differ.take(&event).into_iter().for_each(|((namespace, name), gone)| {
                let key = ObjectRef::new(&name).within(&namespace);
                let object = filled.get(&key);
                changed(Change { key, object, gone });
            });
            if matches!(event, watcher::Event::InitDone) {
                first_list.cancel();
            }
        }
    };
    (store, synced, run)
}

/// Namespace and name.
type Name = (String, String);

/// Tells what changed from what is only listed again: the one place that knows of lists.
#[derive(Default)]
struct Differ {
    known: HashMap<Name, Version>,
    /// What the list of a new or restarted watch has brought so far; the store takes a list as a whole, at its end.
    listed: Option<HashMap<Name, Version>>,
}

/// Tells an object from an earlier one of the same name, and from itself before a change.
#[derive(Clone, Default, PartialEq)]
struct Version {
    uid: String,
    resource_version: Option<String>,
}

impl Differ {
    /// The objects that the event changes, each with the uid of the one that went by it.
    fn take<K: ResourceExt>(&mut self, event: &watcher::Event<K>) -> Vec<(Name, Option<String>)> {
        let name = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        let version = |object: &K| Version {
            uid: object.uid().unwrap_or_default(),
            resource_version: object.resource_version(),
        };
        match event {
            watcher::Event::Init => {
                self.listed = Some(HashMap::new());
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                self.listed.get_or_insert_default().insert(name(object), version(object));
                Vec::new()
            }
            watcher::Event::InitDone => {
                let before = std::mem::replace(&mut self.known, self.listed.take().unwrap_or_default());
                let came = self.known.iter().filter(|(key, now)| before.get(key) != Some(now));
                let came = came.map(|(key, now)| {
                    let gone = before.get(key).filter(|before| before.uid != now.uid);
                    (key.clone(), gone.map(|gone| gone.uid.clone()))
                });
                let went = before.iter().filter(|(key, _)| !self.known.contains_key(key));
                let went = went.map(|(key, before)| (key.clone(), Some(before.uid.clone())));
                came.chain(went).collect()
            }
            watcher::Event::Apply(object) => {
                let (key, now) = (name(object), version(object));
                let before = self.known.insert(key.clone(), now.clone());
                let gone = before.filter(|before| before.uid != now.uid);
                vec![(key, gone.map(|gone| gone.uid))]
            }
            watcher::Event::Delete(object) => {
                let key = name(object);
                self.known.remove(&key);
                vec![(key, object.uid())]
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};

    use super::*;

    fn secret(name: &str, version: &str) -> Secret {
        let (name, resource_version) = (Some(name.to_owned()), Some(version.to_owned()));
        Secret {
            metadata: ObjectMeta { name, resource_version, ..ObjectMeta::default() },
            ..Secret::default()
        }
    }

    #[test]
    fn a_watch_that_fails_pauses_longer_each_time_and_never_long() {
        let mut pauses = Pauses::default();
        let some: Vec<_> = pauses.by_ref().take(40).map(|pause| pause.as_secs_f64()).collect();
        assert!((0.5..=1.0).contains(&some[0]) && (1.0..=2.0).contains(&some[1]), "{some:?}");
        assert!(some[5..].iter().all(|pause| (5.0..=10.0).contains(pause)), "{some:?}");
        // As with the event that each list begins with.
        pauses.reset();
        assert!(pauses.next().is_some_and(|pause| pause >= Duration::from_secs(5)));
        pauses.last = Instant::now().checked_sub(RECOVERED);
        assert!(pauses.next().is_some_and(|pause| pause <= Duration::from_secs(1)));
    }

    #[test]
    fn what_changed_while_a_watch_was_interrupted_is_found() {
        use watcher::Event::{Init, InitApply, InitDone};
        let mut differ = Differ::default();
        let mut list = |secrets: &[Secret]| {
            let listed = secrets.iter().cloned().map(InitApply);
            let events = std::iter::once(Init).chain(listed).chain([InitDone]);
            let changes = events.flat_map(|event| differ.take(&event));
            let mut changes: Vec<_> = changes.map(|((_, name), gone)| (name, gone.is_some())).collect();
            changes.sort();
            changes
        };
        let changes = |expected: &[(&str, bool)]| -> Vec<_> {
            expected.iter().map(|(name, gone)| ((*name).to_owned(), *gone)).collect()
        };
        let first = list(&[secret("same", "1"), secret("changed", "2"), secret("gone", "3")]);
        assert_eq!(first, changes(&[("changed", false), ("gone", false), ("same", false)]));
        let mut remade = secret("remade", "6");
        let second = list(&[secret("same", "1"), secret("changed", "4"), remade.clone()]);
        assert_eq!(second, changes(&[("changed", false), ("gone", true), ("remade", false)]));
        remade.metadata.uid = Some("another".to_owned());
        let third = list(&[secret("same", "1"), secret("changed", "4"), remade]);
        assert_eq!(third, changes(&[("remade", true)]));
        assert_eq!(list(&[]).len(), 3);
    }
}
