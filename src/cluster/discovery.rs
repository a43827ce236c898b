//! Services without a selector, and the EndpointSlices that say where they lead: written by us alone.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServicePort, ServiceSpec},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::{
        apis::meta::v1::{ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::reflector::{ObjectRef, Store},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

pub use super::slices::service_of;
use super::{fence::Fence, slices};
use crate::{
    api::FIELD_MANAGER,
    domain::discovery::{Port, Slice, Wanted, plan},
};

/// The label by which our Services are watched.
pub const SERVICES: &str = "app.kubernetes.io/managed-by=authlink";

/// The label by which our slices are watched (KEP-752: whoever manages a slice says so).
pub const SLICES: &str = "endpointslice.kubernetes.io/managed-by=authlink.dev";

/// The host name that the servers' certificates are for: what a client should verify, whatever name it connected to.
const SERVER_NAME: &str = "authlink.dev/server-name";

/// What is registered under one name.
pub struct Registration {
    /// The namespace of its owners.
    pub namespace: String,
    /// The Service's name.
    pub service: String,
    /// The objects that it stands for; with the last of them it goes.
    pub owners: Vec<OwnerReference>,
    /// Where it leads.
    pub leads: Leads,
    /// The host name that the servers' certificates are for.
    pub server_name: Option<String>,
}

/// Where a Service leads.
pub enum Leads {
    /// To addresses.
    Endpoints {
        /// The Service's own ports.
        ports: Vec<Port>,
        /// The addresses.
        wanted: Vec<Wanted>,
        /// How long an address that leaves is drained.
        drain: Duration,
    },
    /// To another name, by CNAME.
    Name(String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Settled {
    /// Service and slices are as they should be.
    Done {
        /// When the next drained address is to go.
        next: Option<Duration>,
    },
    /// The Service belongs to somebody else, who is named.
    Conflict(String),
    /// The API server refuses it, and why.
    Refused(String),
}

/// Our Services and slices, as last read.
pub struct Registry {
    client: Client,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
}

impl Registry {
    /// Over what is watched.
    #[must_use]
    pub fn new(client: Client, services: Store<Service>, slices: Store<EndpointSlice>) -> Self {
        Self { client, services, slices }
    }

    /// Waits for the first list of both.
    pub async fn ready(&self) {
        // Fails only when a watch has ended for good, which none does.
        let _ = self.services.wait_until_ready().await;
        let _ = self.slices.wait_until_ready().await;
    }

    /// Makes Service and slices what they should be. A Service of somebody else is not touched, nor are its slices.
    ///
    /// # Errors
    /// What the API server says, and that this process may not write any more.
    pub async fn settle(&self, wanted: &Registration, fence: &Fence) -> Result<Settled, Failure> {
        match self.settle_service(wanted, fence).await {
            Ok(Ok(())) => {}
            Ok(Err(owner)) => return Ok(Settled::Conflict(owner)),
            Err(failure) => return failure.refusal(),
        }
        match self.settle_slices(wanted, fence).await {
            Ok(next) => Ok(Settled::Done { next }),
            Err(failure) => failure.refusal(),
        }
    }

    /// Removes what the object of this uid has registered alone, except under the name that is kept.
    ///
    /// # Errors
    /// What the API server says, and that this process may not write any more.
    pub async fn withdraw(
        &self,
        namespace: &str,
        uid: &str,
        keep: Option<&str>,
        fence: &Fence,
    ) -> Result<(), Failure> {
        let own = |meta: &ObjectMeta| {
            let owners = meta.owner_references.as_deref().unwrap_or_default();
            meta.namespace.as_deref() == Some(namespace) && owners.len() == 1 && owners[0].uid == uid
        };
        for service in self.services.state() {
            if own(&service.metadata) && Some(service.name_any().as_str()) != keep {
                fence.check()?;
                delete(&self.services_in(namespace), &*service).await?;
            }
        }
        for slice in self.slices.state() {
            if own(&slice.metadata) && slices::service(&slice) != keep {
                fence.check()?;
                delete(&self.slices_in(namespace), &*slice).await?;
            }
        }
        Ok(())
    }

    /// The Service, or who owns the one of its name.
    async fn settle_service(
        &self,
        wanted: &Registration,
        fence: &Fence,
    ) -> Result<Result<(), String>, Failure> {
        let desired = service(wanted);
        let api = self.services_in(&wanted.namespace);
        let name = &wanted.service;
        let stored = self.services.get(&ObjectRef::new(name).within(&wanted.namespace));
        if stored
            .as_ref()
            .is_some_and(|stored| is_ours(&stored.metadata, wanted) && covers(&**stored, &desired))
        {
            return Ok(Ok(()));
        }
        fence.check()?;
        if stored.is_none() {
            // A create, not an apply: so a Service of somebody else is never taken.
            let params =
                PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
            match api.create(&params, &desired).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                answer => return Ok(answer.map(|_| Ok(()))?),
            }
        }
        let found = match stored {
            Some(stored) => stored,
            None => match api.get_opt(name).await? {
                Some(found) => Arc::new(found),
                // Gone this moment: whoever asks next makes it.
                None => return Ok(Ok(())),
            },
        };
        if !is_ours(&found.metadata, wanted) {
            return Ok(Err(owner_of(&found.metadata)));
        }
        // Not an apply: that would leave the ports that somebody else has added beside ours.
        api.patch(name, &PatchParams::default(), &Patch::Merge(replacing(&desired))).await?;
        Ok(Ok(()))
    }

    async fn settle_slices(&self, wanted: &Registration, fence: &Fence) -> Result<Option<Duration>, Failure> {
        let api = self.slices_in(&wanted.namespace);
        let stored = self.slices_of(&wanted.namespace, &wanted.service);
        let existing: Vec<Slice> = stored.iter().filter_map(|slice| slices::read(slice)).collect();
        let planned = match &wanted.leads {
            Leads::Endpoints { wanted: endpoints, drain, .. } => {
                plan(&wanted.service, endpoints, &existing, *drain, Timestamp::now())
            }
            Leads::Name(_) => plan(&wanted.service, &[], &[], Duration::ZERO, Timestamp::now()),
        };
        for slice in &planned.slices {
            let desired = slices::write(slice, &wanted.service, &wanted.owners);
            let before = stored.iter().find(|stored| stored.name_any() == slice.name);
            match before {
                Some(before) if existing.contains(slice) && covers(&**before, &desired) => {}
                Some(_) => {
                    fence.check()?;
                    apply(&api, &slice.name, &desired).await?;
                }
                None => {
                    fence.check()?;
                    let params =
                        PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
                    match api.create(&params, &desired).await {
                        // Made this moment by ourselves: the watch brings it, and starts another pass.
                        Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                        answer => drop(answer?),
                    }
                }
            }
        }
        for slice in stored {
            if planned.slices.iter().all(|planned| planned.name != slice.name_any()) {
                fence.check()?;
                delete(&api, &*slice).await?;
            }
        }
        Ok(planned.next)
    }

    fn slices_of(&self, namespace: &str, service: &str) -> Vec<Arc<EndpointSlice>> {
        let of = |slice: &EndpointSlice| {
            slice.namespace().as_deref() == Some(namespace) && slices::service(slice) == Some(service)
        };
        let mut found = self.slices.state();
        found.retain(|slice| of(slice));
        found.sort_by_key(|slice| slice.name_any());
        found
    }

    fn services_in(&self, namespace: &str) -> Api<Service> {
        Api::namespaced(self.client.clone(), namespace)
    }

    fn slices_in(&self, namespace: &str) -> Api<EndpointSlice> {
        Api::namespaced(self.client.clone(), namespace)
    }
}

/// Why it could not be settled.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// What the API server says.
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    /// This process may not write any more.
    #[error(transparent)]
    NotLeader(#[from] super::fence::NotLeader),
}

impl Failure {
    /// A right that the operator lacks, a policy or a name that cannot be: no retry helps.
    fn refusal(self) -> Result<Settled, Self> {
        match self {
            Self::Cluster(kube::Error::Api(status)) if status.is_forbidden() || status.is_invalid() => {
                Ok(Settled::Refused(status.message.clone()))
            }
            failure => Err(failure),
        }
    }
}

fn service(wanted: &Registration) -> Service {
    let spec = match &wanted.leads {
        Leads::Name(name) => ServiceSpec {
            type_: Some("ExternalName".to_owned()),
            external_name: Some(name.clone()),
            ..ServiceSpec::default()
        },
        Leads::Endpoints { ports, .. } => ServiceSpec {
            type_: Some("ClusterIP".to_owned()),
            ports: Some(ports.iter().map(service_port).collect()),
            ..ServiceSpec::default()
        },
    };
    let server_name = wanted.server_name.clone().map(|name| (SERVER_NAME.to_owned(), name));
    Service {
        metadata: ObjectMeta {
            name: Some(wanted.service.clone()),
            labels: Some([("app.kubernetes.io/managed-by".to_owned(), FIELD_MANAGER.to_owned())].into()),
            annotations: Some(server_name.into_iter().collect()),
            owner_references: Some(wanted.owners.clone()),
            ..ObjectMeta::default()
        },
        spec: Some(spec),
        ..Service::default()
    }
}

/// As a merge patch (RFC 7396) that also removes what the other form of a Service has.
fn replacing(desired: &Service) -> Value {
    let mut patch = json!(desired);
    for (part, field) in [("spec", "externalName"), ("spec", "ports"), ("annotations", SERVER_NAME)] {
        let part = if part == "spec" { &mut patch[part] } else { &mut patch["metadata"][part] };
        if part.get(field).is_none() {
            part[field] = Value::Null;
        }
    }
    patch
}

fn service_port(port: &Port) -> ServicePort {
    ServicePort {
        name: Some(port.name.clone()),
        port: port.port.into(),
        target_port: Some(IntOrString::Int(port.port.into())),
        protocol: Some("TCP".to_owned()),
        app_protocol: port.app_protocol.clone(),
        ..ServicePort::default()
    }
}

/// Whether one of the objects that it stands for owns it.
fn is_ours(meta: &ObjectMeta, wanted: &Registration) -> bool {
    let owners = meta.owner_references.iter().flatten();
    owners.into_iter().any(|owner| wanted.owners.iter().any(|ours| ours.uid == owner.uid))
}

fn owner_of(meta: &ObjectMeta) -> String {
    match meta.owner_references.iter().flatten().next() {
        Some(owner) => format!("the {} {}", owner.kind, owner.name),
        None => "somebody else".to_owned(),
    }
}

/// Whether the stored object has everything that is desired; what the API server has added by itself does not count.
fn covers<K: Serialize>(stored: &K, desired: &K) -> bool {
    match (serde_json::to_value(stored), serde_json::to_value(desired)) {
        (Ok(stored), Ok(desired)) => has(&stored, &desired),
        _ => false,
    }
}

fn has(stored: &Value, desired: &Value) -> bool {
    match (stored, desired) {
        (Value::Object(stored), Value::Object(desired)) => desired.iter().all(|(key, desired)| {
            let nothing = desired.as_object().is_some_and(serde_json::Map::is_empty);
            stored.get(key).map_or(nothing, |stored| has(stored, desired))
        }),
        (Value::Array(stored), Value::Array(desired)) => {
            stored.len() == desired.len()
                && stored.iter().zip(desired).all(|(stored, desired)| has(stored, desired))
        }
        (stored, desired) => stored == desired,
    }
}

async fn apply<K>(api: &Api<K>, name: &str, desired: &K) -> kube::Result<()>
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    let params = PatchParams::apply(FIELD_MANAGER).force();
    api.patch(name, &params, &Patch::Apply(desired)).await.map(drop)
}

/// Deletes exactly this object; that it is gone already, or another one, is fine.
async fn delete<K>(api: &Api<K>, object: &K) -> kube::Result<()>
where
    K: kube::Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
{
    let uid = object.meta().uid.clone();
    let params = DeleteParams {
        preconditions: Some(Preconditions { uid, resource_version: None }),
        ..DeleteParams::default()
    };
    match api.delete(&object.name_any(), &params).await {
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        answer => answer.map(drop),
    }
}
