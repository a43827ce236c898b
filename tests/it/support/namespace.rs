//! A namespace of its own for each test, and the questions that tests ask of what is in it.

use std::{collections::BTreeMap, fs, time::Duration};

use authlink::{
    api::{status::Status, v1alpha1::Database},
    controllers::Object,
};
use futures::StreamExt;
use k8s_openapi::{
    api::{
        core::v1::{self as core, ConfigMap, Secret},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource,
    api::{DeleteParams, ListParams, Patch, PatchParams},
    core::NamespaceResourceScope,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{
    SOON,
    environment::{admin, operator_kubeconfig, tls_file, variable},
    eventually, password_secret,
};

/// Who the operators are.
const OPERATOR: &str = "system:serviceaccount:authlink-test:authlink";

/// A namespace that nobody else uses.
pub(crate) struct Namespace {
    pub(crate) name: String,
    pub(crate) client: Client,
}

/// An Event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Occurrence {
    pub(crate) kind: String,
    pub(crate) reason: String,
    pub(crate) note: String,
    /// How many times it was told; the API server keeps one Event of all.
    pub(crate) times: i32,
}

impl Namespace {
    /// With the Secret `login` of the user app, and the ConfigMap `ca` of the test authority.
    pub(crate) async fn create() -> Self {
        operator_kubeconfig(); // installs the CRDs
        Self::create_in(admin().await).await
    }

    /// The same in another cluster, which has the CRDs.
    pub(crate) async fn create_in(client: Client) -> Self {
        let name = format!("test-{:012x}", rand::random::<u64>() >> 16);
        let manifest = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        let params = PatchParams::apply("tests");
        let namespaces = Api::<core::Namespace>::all(client.clone());
        namespaces.patch(&name, &params, &Patch::Apply(&manifest)).await.expect("a namespace");
        let namespace = Self { name, client };
        namespace.apply::<Secret>(password_secret("login", "app", "app-secret")).await;
        namespace.certificates("ca", &tls_file("ca.pem")).await;
        namespace
    }

    /// A ConfigMap with these authorities.
    pub(crate) async fn certificates(&self, name: &str, pem: &str) {
        let map = json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": { "ca.crt": pem },
        });
        self.apply::<ConfigMap>(map).await;
    }

    pub(crate) fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), &self.name)
    }

    /// Like `kubectl apply --server-side`.
    pub(crate) async fn apply<K>(&self, manifest: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        let name = manifest["metadata"]["name"].as_str().expect("a name").to_owned();
        let params = PatchParams::apply("tests").force();
        let applied = self.api::<K>().patch(&name, &params, &Patch::Apply(&manifest)).await;
        applied.unwrap_or_else(|error| panic!("{name}: {error}"))
    }

    /// Applies a Database where the API server may be away.
    pub(crate) async fn try_database(&self, name: &str, spec: &super::Spec) -> Result<(), String> {
        let params = PatchParams::apply("tests").force();
        let applied = self.api::<Database>().patch(name, &params, &Patch::Apply(spec.named(name))).await;
        applied.map(drop).map_err(|error| error.to_string())
    }

    /// Applies a Database.
    pub(crate) async fn database(&self, name: &str, spec: &super::Spec) -> Database {
        self.apply(spec.named(name)).await
    }

    /// Asks for its deletion, and does not wait.
    pub(crate) async fn delete<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + Clone
            + std::fmt::Debug
            + DeserializeOwned,
    {
        self.api::<K>().delete(name, &DeleteParams::background()).await.expect(name);
    }

    /// Follows a Database until `holds` is true of one of its versions; none is missed.
    pub(crate) async fn until(
        &self,
        name: &str,
        deadline: Duration,
        what: &str,
        holds: impl Fn(&Database) -> bool,
    ) -> Database {
        self.follow(name, deadline, what, holds).await
    }

    /// The same for an object of any kind of ours.
    pub(crate) async fn follow<K: Object>(
        &self,
        name: &str,
        deadline: Duration,
        what: &str,
        holds: impl Fn(&K) -> bool,
    ) -> K {
        let mut versions = std::pin::pin!(watcher::watch_object(self.api::<K>(), name).default_backoff());
        let mut last = None;
        let found = async {
            while let Some(version) = versions.next().await {
                if let Ok(Some(version)) = version {
                    if holds(&version) {
                        return version;
                    }
                    last = Some(version);
                }
            }
            panic!("{name}: the watch ended");
        };
        match tokio::time::timeout(deadline, found).await {
            Ok(found) => found,
            Err(tokio::time::error::Elapsed { .. }) => {
                panic!("{name}: {what}: not within {deadline:?}; last seen: {}", describe(last.as_ref()))
            }
        }
    }

    /// Waits until every one of these conditions has this status and this reason, for the newest spec.
    pub(crate) async fn expect(&self, name: &str, wanted: &[(&str, &str, &str)]) -> Database {
        self.expect_of(name, wanted).await
    }

    /// The same for an object of any kind of ours.
    pub(crate) async fn expect_of<K: Object>(&self, name: &str, wanted: &[(&str, &str, &str)]) -> K {
        self.follow(name, SOON, &format!("{wanted:?}"), |object: &K| {
            let current = object.status().and_then(|status| status.common().observed_generation);
            current == object.meta().generation
                && wanted.iter().all(|(kind, status, reason)| {
                    condition(object, kind).is_some_and(|it| (&*it.status, &*it.reason) == (status, reason))
                })
        })
        .await
    }

    /// Waits until it is ready.
    pub(crate) async fn ready(&self, name: &str) -> Database {
        self.expect(name, &[("Ready", "True", "Available")]).await
    }

    /// The Events about the Database, oldest first.
    pub(crate) async fn events(&self, name: &str) -> Vec<Occurrence> {
        let mut events = self.api::<Event>().list(&ListParams::default()).await.expect("Events").items;
        events.retain(|event| {
            event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some(name))
        });
        events.sort_by_key(|event| event.event_time.clone());
        events
            .into_iter()
            .map(|event| Occurrence {
                kind: event.type_.unwrap_or_default(),
                reason: event.reason.unwrap_or_default(),
                note: event.note.unwrap_or_default(),
                times: event.series.map_or(1, |series| series.count),
            })
            .collect()
    }

    /// The Events about the Database once one has this reason: an Event follows the status that it tells of.
    pub(crate) async fn events_with(&self, name: &str, reason: &str) -> Vec<Occurrence> {
        eventually(SOON, reason, async || {
            let events = self.events(name).await;
            if events.iter().any(|event| event.reason == reason) {
                Ok(events)
            } else {
                Err(format!("{events:?}"))
            }
        })
        .await
    }

    /// Every write of an operator into this namespace, by the API server's audit log: verb, resource and subresource,
    /// and how many times.
    pub(crate) fn writes(&self) -> BTreeMap<String, usize> {
        let log = fs::read_to_string(variable("AUTHLINK_TEST_AUDIT")).expect("the audit log");
        let mut writes = BTreeMap::new();
        for line in log.lines().filter(|line| line.contains(&self.name)) {
            let Ok(entry) = serde_json::from_str::<Value>(line) else { continue };
            let object = &entry["objectRef"];
            let ours = object["namespace"] == self.name && entry["user"]["username"] == OPERATOR;
            let verb = entry["verb"].as_str().unwrap_or_default();
            if ours && entry["stage"] == "ResponseComplete" && !["get", "list", "watch"].contains(&verb) {
                let part = |name: &str| object[name].as_str().unwrap_or_default();
                *writes.entry(format!("{verb} {}/{}", part("resource"), part("subresource"))).or_default() +=
                    1;
            }
        }
        writes
    }

    /// How many times an operator wrote a status here.
    pub(crate) fn status_writes(&self) -> usize {
        self.writes().get("patch databases/status").copied().unwrap_or_default()
    }
}

/// The condition of this type.
pub(crate) fn condition<'a, K: Object>(object: &'a K, kind: &str) -> Option<&'a Condition> {
    object.status()?.common().conditions.iter().find(|condition| condition.type_ == kind)
}

/// Status and reason of each condition.
pub(crate) fn conditions<K: Object>(object: &K) -> BTreeMap<&str, (&str, &str)> {
    let all = object.status().into_iter().flat_map(|status| &status.common().conditions);
    all.map(|condition| (&*condition.type_, (&*condition.status, &*condition.reason))).collect()
}

fn describe<K: Object>(object: Option<&K>) -> String {
    let Some(object) = object else { return "nothing".to_owned() };
    let all = object.status().into_iter().flat_map(|status| &status.common().conditions);
    let lines = all.map(|it| format!("\n  {}={} {}: {}", it.type_, it.status, it.reason, it.message));
    lines.collect()
}
