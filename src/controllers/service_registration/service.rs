//! The one HttpEndpoint of all registrations of a service.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource, ResourceExt};

use super::{Name, ServiceRegistrations};
use crate::{
    api::v1alpha1::ServiceRegistration,
    cluster::service_publisher::{PublishOutcome, PublishedService, ServiceBackend},
    controllers::{Context, Error, ObjectIndex},
    domain::instances::{self, Instance, Object},
};

/// What came of it.
#[derive(Clone)]
pub(super) struct Outcome {
    pub(super) settled: PublishOutcome,
    /// The names of the HttpEndpoint's ports.
    pub(super) ports: BTreeSet<String>,
}

impl ServiceRegistrations {
    /// Makes the HttpEndpoint of this registration and its slices what all registrations of the service together ask for,
    /// gone included. Passes that come at the same time share one round of it.
    pub(super) async fn settle(
        &self,
        registration: &ServiceRegistration,
        cx: &Context,
    ) -> Result<Outcome, Error> {
        let name = Name::of(registration);
        let key = (name.namespace.clone(), name.service.clone());
        self.coalescer.run(key, async |before| self.settle_all(&name, before, cx).await).await
    }

    async fn settle_all(&self, name: &Name, before: Option<Outcome>, cx: &Context) -> Result<Outcome, Error> {
        let now = Timestamp::now();
        let all = self.pick(|other| name.service_of(other).then(|| self.instance(other, now)));
        let mut composition = instances::compose(all);
        // Of instances whose own pass has not looked yet, only the status is known, and that has refused addresses too.
        composition.wanted.retain(|wanted| cx.egress.endpoint(wanted.endpoint.address).is_ok());
        let predecessors: Vec<_> = composition.predecessors.into_iter().map(|object| object.uid).collect();
        if composition.owners.is_empty() {
            cx.registry.withdraw(&name.namespace, &predecessors, None, &cx.fence).await?;
            let settled = PublishOutcome::Done { next: None, families: Vec::new() };
            return Ok(Outcome { settled, ports: BTreeSet::new() });
        }
        let ports = composition.ports.iter().map(|port| port.name.clone()).collect();
        let wanted = PublishedService {
            namespace: name.namespace.clone(),
            service: name.service.clone(),
            owners: composition.owners.iter().map(owner_reference).collect(),
            predecessors,
            backend: ServiceBackend::Endpoints {
                ports: composition.ports,
                wanted: composition.wanted,
                drain: composition.drain,
            },
            server_name: None,
        };
        let outcome = Outcome { settled: cx.registry.settle(&wanted, &cx.fence).await?, ports };
        if before.is_some_and(|before| !alike(&before, &outcome)) {
            // Each of them says so in its own status.
            for owner in &composition.owners {
                self.wake(&name.namespace, &owner.name);
            }
        }
        Ok(outcome)
    }

    /// Why it cannot be registered, if another object has this instance.
    pub(super) fn duplicate(&self, registration: &ServiceRegistration) -> Option<Error> {
        let (name, uid) = (Name::of(registration), registration.uid());
        let older = || {
            let now = Timestamp::now();
            let called = self.pick(|other| name.is_of(other).then(|| self.instance(other, now)));
            let owner = instances::owner(&called, &name.id).map(|owner| owner.object.clone());
            owner.filter(|owner| Some(&owner.uid) != uid.as_ref())
        };
        // Once it is noted its going wakes this one; before, it may have gone unheard of.
        self.known.note(&older()?.uid, &name);
        let owner = older()?;
        Some(Error::Duplicate {
            what: format!("the instance {} of {}", name.id, name.service),
            owner: format!("the ServiceRegistration {}", owner.name),
        })
    }

    /// The instance of this object as it is known now.
    pub(super) fn instance(&self, registration: &ServiceRegistration, now: Timestamp) -> Instance {
        self.known.instance(registration, now)
    }

    /// Asks for a pass of all others that are called like this one: which of them is registered may change.
    pub(super) fn wake_others_called(&self, registration: &ServiceRegistration) {
        let (name, own) = (Name::of(registration), registration.name_any());
        let others = self.pick(|other| {
            (name.is_of(other) && other.meta().name.as_ref() != Some(&own)).then(|| other.name_any())
        });
        for other in others {
            self.wake(&name.namespace, &other);
        }
    }

    /// An instance is gone: asks for a pass of those that are called alike, and of one of its service, which sees to the
    /// endpoints that it may have left. With the last one, what is known of the service is dropped.
    pub(super) fn wake_heirs(&self, gone: &Name, uid: &str) {
        let others = self.pick(|other| {
            let others = gone.service_of(other) && other.meta().uid.as_deref() != Some(uid);
            others.then(|| (gone.is_of(other), other.name_any()))
        });
        if others.is_empty() {
            self.coalescer.forget(&(gone.namespace.clone(), gone.service.clone()));
        }
        // The same one each time: so many that go at once are few passes.
        let first = others.iter().map(|(_, name)| name).min();
        let heirs = others.iter().filter(|(heir, _)| *heir).map(|(_, name)| name);
        for other in heirs.chain(first) {
            self.wake(&gone.namespace, other);
        }
    }

    fn wake(&self, namespace: &str, name: &str) {
        self.peers().iter().for_each(|peers| peers.wake(namespace, name));
    }

    /// What `pick` takes of each registration.
    fn pick<T>(&self, pick: impl Fn(&ServiceRegistration) -> Option<T>) -> Vec<T> {
        self.peers().iter().flat_map(|peers| peers.filter_map(&pick)).collect()
    }

    fn peers(&self) -> Vec<Arc<ObjectIndex<ServiceRegistration>>> {
        self.peers.lock().clone()
    }
}

fn alike(one: &Outcome, other: &Outcome) -> bool {
    std::mem::discriminant(&one.settled) == std::mem::discriminant(&other.settled) && one.ports == other.ports
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
