//! The one Service of all registrations of a service.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::{Controller, InstanceName};
use crate::{
    api::v1alpha1::ServiceRegistration,
    cluster::service_publisher::{PublishOutcome, PublishedService, ServiceBackend},
    controllers::{Error, ObjectIndex, ReconcileContext},
    domain::instances::{self, Instance, Object},
};

/// What came of publishing it.
#[derive(Clone)]
pub(super) struct ServiceOutcome {
    pub(super) outcome: PublishOutcome,
    /// The names of the Service's ports.
    pub(super) ports: BTreeSet<String>,
}

impl Controller {
    /// Makes the Service of this registration and its slices what all registrations of the service together ask for,
    /// absent included. Reconciles at the same time share one run of it.
    pub(super) async fn publish(
        &self,
        registration: &ServiceRegistration,
        cx: &ReconcileContext,
    ) -> Result<ServiceOutcome, Error> {
        let name = InstanceName::of(registration);
        let key = (name.namespace.clone(), name.service.clone());
        self.coalescer.run(key, async |before| self.publish_all(&name, before, cx).await).await
    }

    async fn publish_all(
        &self,
        name: &InstanceName,
        before: Option<ServiceOutcome>,
        cx: &ReconcileContext,
    ) -> Result<ServiceOutcome, Error> {
        let now = Timestamp::now();
        let all = self.pick(|other| name.service_of(other).then(|| self.instance(other, now)));
        let mut composition = instances::compose(all);
        // Of instances that were not reconciled yet, only the status is known, and that has refused addresses too.
        composition.desired.retain(|desired| cx.egress.check_endpoint(desired.endpoint.address).is_ok());
        let predecessors: Vec<_> = composition.predecessors.into_iter().map(|object| object.uid).collect();
        if composition.owners.is_empty() {
            cx.publisher.withdraw(&name.namespace, &predecessors, None, &cx.fence).await?;
            let outcome = PublishOutcome::Done { next: None, families: Vec::new() };
            return Ok(ServiceOutcome { outcome, ports: BTreeSet::new() });
        }
        let ports = composition.ports.iter().map(|port| port.name.clone()).collect();
        let desired = PublishedService {
            namespace: name.namespace.clone(),
            service: name.service.clone(),
            owners: composition.owners.iter().map(owner_reference).collect(),
            predecessors,
            backend: ServiceBackend::Endpoints {
                ports: composition.ports,
                desired: composition.desired,
                drain: composition.drain,
            },
            server_name: None,
        };
        let outcome = ServiceOutcome { outcome: cx.publisher.publish(&desired, &cx.fence).await?, ports };
        if before.is_some_and(|before| !alike(&before, &outcome)) {
            // Each of them says so in its own status.
            for owner in &composition.owners {
                self.requeue(&name.namespace, &owner.name);
            }
        }
        Ok(outcome)
    }

    /// Why it cannot be registered, if another object has this instance.
    pub(super) fn duplicate(&self, registration: &ServiceRegistration) -> Option<Error> {
        let (name, uid) = (InstanceName::of(registration), registration.uid());
        let older = || {
            let now = Timestamp::now();
            let called = self.pick(|other| name.is_of(other).then(|| self.instance(other, now)));
            let owner = instances::owner(&called, &name.id).map(|owner| owner.object.clone());
            owner.filter(|owner| Some(&owner.uid) != uid.as_ref())
        };
        // Once it is noted, its end requeues this one; before, it may have gone unnoticed.
        self.instances.note(&older()?.uid, &name);
        let owner = older()?;
        Some(Error::Duplicate {
            what: format!("the instance {} of {}", name.id, name.service),
            owner: format!("the ServiceRegistration {}", owner.name),
        })
    }

    /// The instance of this object as it is known now.
    pub(super) fn instance(&self, registration: &ServiceRegistration, now: Timestamp) -> Instance {
        self.instances.instance(registration, now)
    }

    /// Requeues all others of the same instance name: which of them is registered may change.
    pub(super) fn requeue_namesakes(&self, registration: &ServiceRegistration) {
        let (name, own) = (InstanceName::of(registration), registration.name_any());
        let others = self.pick(|other| {
            (name.is_of(other) && other.meta().name.as_ref() != Some(&own)).then(|| other.name_any())
        });
        for other in others {
            self.requeue(&name.namespace, &other);
        }
    }

    /// An instance is gone: requeues its namesakes, and one of its service, which sees to the endpoints that it may have left.
    /// With the last one, what is known of the service is dropped.
    pub(super) fn requeue_heirs(&self, gone: &InstanceName, uid: &str) {
        let others = self.pick(|other| {
            let others = gone.service_of(other) && other.meta().uid.as_deref() != Some(uid);
            others.then(|| (gone.is_of(other), other.name_any()))
        });
        if others.is_empty() {
            self.coalescer.forget(&(gone.namespace.clone(), gone.service.clone()));
        }
        // The same one each time: so many that go at once are few reconciles.
        let first = others.iter().map(|(_, name)| name).min();
        let heirs = others.iter().filter(|(heir, _)| *heir).map(|(_, name)| name);
        for other in heirs.chain(first) {
            self.requeue(&gone.namespace, other);
        }
    }

    fn requeue(&self, namespace: &str, name: &str) {
        self.indexes().iter().for_each(|index| index.requeue(namespace, name));
    }

    /// What `pick` takes of each registration.
    fn pick<T>(&self, pick: impl Fn(&ServiceRegistration) -> Option<T>) -> Vec<T> {
        self.indexes().iter().flat_map(|index| index.filter_map(&pick)).collect()
    }

    fn indexes(&self) -> Vec<Arc<ObjectIndex<ServiceRegistration>>> {
        self.indexes.lock().clone()
    }
}

fn alike(one: &ServiceOutcome, other: &ServiceOutcome) -> bool {
    std::mem::discriminant(&one.outcome) == std::mem::discriminant(&other.outcome) && one.ports == other.ports
}

fn owner_reference(owner: &Object) -> OwnerReference {
    OwnerReference {
        api_version: ServiceRegistration::api_version(&()).into_owned(),
        kind: ServiceRegistration::kind(&()).into_owned(),
        name: owner.name.clone(),
        uid: owner.uid.clone(),
        ..OwnerReference::default()
    }
}
