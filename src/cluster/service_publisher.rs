//! Services without a selector, and the EndpointSlices that say where they lead: written by us alone. The objects own the
//! Service, and the Service its slices: so a slice is not written again whenever one of many owners comes or goes.

use std::{sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::{core::v1::Service, discovery::v1::EndpointSlice},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions},
    core::NamespaceResourceScope,
    runtime::reflector::{ObjectRef, Store},
};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    fence::Fence,
    objects::{covers, refusal},
    services, slices,
};
pub use super::{
    services::{PublishedService, ServiceBackend},
    slices::service_of,
};
use crate::{
    api::FIELD_MANAGER,
    domain::endpoint_slices::{DesiredEndpoint, Drain, Slice, plan},
};

/// The label by which our Services are watched.
pub const SERVICES: &str = "app.kubernetes.io/managed-by=authlink";

/// The label by which our slices are watched (KEP-752: whoever manages a slice says so).
pub const SLICES: &str = "endpointslice.kubernetes.io/managed-by=authlink.dev";

/// How long a reconcile waits for the watches to bring what it wrote.
const CACHE_SYNC_TIMEOUT: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublishOutcome {
    /// Service and slices are as they should be.
    Done {
        /// When the next drained address is to go.
        next: Option<Duration>,
        /// The Service's own address families; none where it has no address.
        families: Vec<String>,
    },
    /// The Service belongs to somebody else, who is named.
    Conflict(String),
    /// The API server refuses it, and why.
    Refused(String),
}

/// Our Services and slices, as last read.
pub struct ServicePublisher {
    client: Client,
    services: Store<Service>,
    slices: Store<EndpointSlice>,
}

impl ServicePublisher {
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

    /// Makes Service and slices what they should be. A Service of somebody else is not touched, nor are its slices. For
    /// one Service, one call at a time: each starts from what the watches have brought, and waits for what it wrote.
    ///
    /// # Errors
    /// What the API server says, and that this process may not write any more.
    pub async fn publish(
        &self,
        published: &PublishedService,
        fence: &Fence,
    ) -> Result<PublishOutcome, PublishError> {
        let service = match self.publish_service(published, fence).await {
            Ok(Found::Ours(service)) => service,
            Ok(Found::Foreign(owner)) => return Ok(PublishOutcome::Conflict(owner)),
            Err(failure) => return failure.refusal(),
        };
        let owner = service.controller_owner_ref(&());
        let families = service.spec.and_then(|spec| spec.ip_families).unwrap_or_default();
        // None: it went this moment, which requeues the owner.
        let Some(owner) = owner else { return Ok(PublishOutcome::Done { next: None, families }) };
        // Not blocking: some clusters allow that only with rights on the owner's finalizers.
        let owner = OwnerReference { block_owner_deletion: None, ..owner };
        match self.publish_slices(published, owner, fence).await {
            Ok(next) => Ok(PublishOutcome::Done { next, families }),
            Err(failure) => failure.refusal(),
        }
    }

    /// Removes what these objects alone have published, except under the name that is kept.
    ///
    /// # Errors
    /// What the API server says, and that this process may not write any more.
    pub async fn withdraw(
        &self,
        namespace: &str,
        uids: &[String],
        keep: Option<&str>,
        fence: &Fence,
    ) -> Result<(), PublishError> {
        for service in self.services_of(namespace, uids) {
            if Some(service.name_any().as_str()) != keep {
                // The slices first: without its Service nobody would find those that are left by a failure.
                for slice in self.slices_of(namespace, &service.name_any()) {
                    fence.check()?;
                    delete(&self.slices_in(namespace), &*slice).await?;
                }
                fence.check()?;
                delete(&self.services_in(namespace), &*service).await?;
            }
        }
        Ok(())
    }

    /// Lets no address be ready that this object alone has published: nobody probes it any more.
    ///
    /// # Errors
    /// What the API server says, and that this process may not write any more.
    pub async fn mark_endpoints_not_ready(
        &self,
        namespace: &str,
        uid: &str,
        fence: &Fence,
    ) -> Result<(), PublishError> {
        let api = self.slices_in(namespace);
        for service in self.services_of(namespace, &[uid.to_owned()]) {
            for stored in self.slices_of(namespace, &service.name_any()) {
                let Some(patch) = slices::not_ready_patch(&stored) else { continue };
                let patch = Patch::Merge(of_this(patch, stored.uid()));
                fence.check()?;
                match api.patch(&stored.name_any(), &PatchParams::default(), &patch).await {
                    Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => {}
                    answer => drop(answer?),
                }
                let key = ObjectRef::new(&stored.name_any()).within(namespace);
                watched(&self.slices, &key, stored.resource_version()).await;
            }
        }
        Ok(())
    }

    /// The Services that these objects alone have published.
    fn services_of(&self, namespace: &str, uids: &[String]) -> Vec<Arc<Service>> {
        let own = |meta: &ObjectMeta| {
            let owners = meta.owner_references.as_deref().unwrap_or_default();
            let all = !owners.is_empty() && owners.iter().all(|owner| uids.contains(&owner.uid));
            meta.namespace.as_deref() == Some(namespace) && all
        };
        let mut services = self.services.state();
        services.retain(|service| own(&service.metadata));
        services
    }

    /// The Service, or who owns the one of its name.
    async fn publish_service(
        &self,
        published: &PublishedService,
        fence: &Fence,
    ) -> Result<Found, PublishError> {
        let desired = services::write(published);
        let patch = services::replacing(&desired);
        let api = self.services_in(&published.namespace);
        let name = &published.service;
        let key = ObjectRef::new(name).within(&published.namespace);
        let right =
            |stored: &Service| services::is_ours(&stored.metadata, published) && covers(stored, &patch);
        let stored = self.services.get(&key);
        if let Some(right) = stored.as_ref().filter(|stored| right(stored)) {
            return Ok(Found::Ours(Box::new(Service::clone(right))));
        }
        fence.check()?;
        if stored.is_none() {
            // A create, not an apply: so a Service of somebody else is never taken.
            match api.create(&ours(), &desired).await {
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                answer => {
                    let made = answer?;
                    watched(&self.services, &key, None).await;
                    return Ok(Found::Ours(Box::new(made)));
                }
            }
        }
        let found = match stored {
            Some(stored) => stored,
            None => match api.get_opt(name).await? {
                Some(found) => Arc::new(found),
                // Gone this moment: whoever asks next makes it.
                None => return Ok(Found::Ours(Box::default())),
            },
        };
        if !services::is_ours(&found.metadata, published) {
            return Ok(Found::Foreign(services::owner_of(&found.metadata)));
        }
        // Not an apply: that would leave the ports that somebody else has added beside ours.
        let patch = Patch::Merge(of_this(patch, found.uid()));
        let written = api.patch(name, &PatchParams::default(), &patch).await?;
        if written.resource_version() != found.resource_version() {
            watched(&self.services, &key, found.resource_version()).await;
        }
        Ok(Found::Ours(Box::new(written)))
    }

    async fn publish_slices(
        &self,
        published: &PublishedService,
        owner: OwnerReference,
        fence: &Fence,
    ) -> Result<Option<Duration>, PublishError> {
        let api = self.slices_in(&published.namespace);
        let stored = self.slices_of(&published.namespace, &published.service);
        let existing: Vec<Slice> = stored.iter().filter_map(|slice| slices::read(slice)).collect();
        let planned = match &published.backend {
            ServiceBackend::Endpoints { desired: endpoints, drain, .. } => {
                plan(&published.service, endpoints, &existing, drain, Timestamp::now())
            }
            ServiceBackend::Name(_) => {
                plan(&published.service, &[], &[], &Drain::default(), Timestamp::now())
            }
        };
        let mut written = Vec::new();
        for slice in &planned.slices {
            let desired = slices::write(slice, &published.service, &owner);
            let patch = slices::replacing(&desired);
            let before = stored.iter().find(|stored| stored.name_any() == slice.name);
            if before.is_some_and(|before| existing.contains(slice) && covers(&**before, &patch)) {
                continue;
            }
            fence.check()?;
            if let Some(before) = before {
                let patch = Patch::Merge(of_this(patch, before.uid()));
                let after = api.patch(&slice.name, &PatchParams::default(), &patch).await?;
                if after.resource_version() == before.resource_version() {
                    continue;
                }
            } else {
                match api.create(&ours(), &desired).await {
                    Err(kube::Error::Api(status)) if status.is_already_exists() => {
                        // Somebody took the label away by which we watch it, or it was made by ourselves this moment.
                        let named = ListParams::default().fields(&format!("metadata.name={}", slice.name));
                        let found = api.list(&named).await?.items.pop();
                        let ours =
                            |it: &EndpointSlice| it.owner_references().iter().any(|it| it.uid == owner.uid);
                        let Some(found) = found.filter(ours) else {
                            return Err(kube::Error::Api(status).into());
                        };
                        let patch = Patch::Merge(of_this(patch, found.uid()));
                        api.patch(&slice.name, &PatchParams::default(), &patch).await?;
                    }
                    answer => drop(answer?),
                }
            }
            written.push((slice.name.clone(), before.and_then(|before| before.resource_version())));
        }
        for slice in stored {
            if planned.slices.iter().all(|planned| planned.name != slice.name_any()) {
                fence.check()?;
                delete(&api, &*slice).await?;
                written.push((slice.name_any(), slice.resource_version()));
            }
        }
        for (name, before) in written {
            watched(&self.slices, &ObjectRef::new(&name).within(&published.namespace), before).await;
        }
        Ok(planned.next)
    }

    /// Whether there is a Service of this name, as last read.
    #[must_use]
    pub fn has(&self, namespace: &str, service: &str) -> bool {
        self.services.get(&ObjectRef::new(service).within(namespace)).is_some()
    }

    /// The endpoints of a Service as last read, without those that leave it.
    pub fn endpoints(&self, namespace: &str, service: &str) -> Vec<DesiredEndpoint> {
        let slices = self.slices_of(namespace, service);
        slices.iter().filter_map(|slice| slices::read(slice)).flat_map(Slice::without_draining).collect()
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

/// Whose the Service of a name is.
enum Found {
    /// Ours, as it is now; without a uid if it is not there any more.
    Ours(Box<Service>),
    /// Of somebody else, who is named.
    Foreign(String),
}

/// Why it could not be published.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// What the API server says.
    #[error(transparent)]
    Cluster(#[from] kube::Error),
    /// This process may not write any more.
    #[error(transparent)]
    NotLeader(#[from] super::fence::NotLeader),
}

impl PublishError {
    fn refusal(self) -> Result<PublishOutcome, Self> {
        match &self {
            Self::Cluster(error) => {
                refusal(error).map(|why| PublishOutcome::Refused(why.to_owned())).ok_or(self)
            }
            Self::NotLeader(_) => Err(self),
        }
    }
}

fn ours() -> PostParams {
    PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() }
}

/// Waits until the watch has brought another version than this one, or none where it was deleted: whoever plans next
/// must not start from what was there before. A watch that is interrupted is not waited for without end.
async fn watched<K>(store: &Store<K>, key: &ObjectRef<K>, before: Option<String>)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let same = || store.get(key).and_then(|stored| stored.resource_version()) == before;
    let brought = async {
        while same() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    let _ = tokio::time::timeout(CACHE_SYNC_TIMEOUT, brought).await;
}

/// The patch for exactly this object: one that took its name is somebody else's, and in conflict.
fn of_this(mut patch: Value, uid: Option<String>) -> Value {
    patch["metadata"]["uid"] = uid.into();
    patch
}

/// Deletes exactly this object; that it is gone already, or another one, is fine.
async fn delete<K>(api: &Api<K>, object: &K) -> kube::Result<()>
where
    K: Resource<Scope = NamespaceResourceScope> + Clone + std::fmt::Debug + DeserializeOwned,
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
