//! Where each instance is: by its last reconcile here, and until there is one by what an earlier process has left in the status.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use kube::{Resource, ResourceExt};
use parking_lot::{Mutex, MutexGuard};

use super::ProbeTarget;
use crate::{
    api::v1alpha1::ServiceRegistration,
    controllers::targets::{Member, works},
    domain::{
        endpoint_slices::Port,
        instances::{Instance, Object, Stage},
    },
};

/// What an instance is identified by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct InstanceName {
    pub(super) namespace: String,
    pub(super) service: String,
    pub(super) id: String,
}

impl InstanceName {
    pub(super) fn of(registration: &ServiceRegistration) -> Self {
        Self {
            namespace: registration.namespace().unwrap_or_default(),
            service: registration.spec.service_name.clone(),
            id: registration.spec.instance_id.clone(),
        }
    }

    pub(super) fn service_of(&self, registration: &ServiceRegistration) -> bool {
        registration.spec.service_name == self.service
            && registration.meta().namespace.as_deref() == Some(&self.namespace)
    }

    pub(super) fn is_of(&self, registration: &ServiceRegistration) -> bool {
        registration.spec.instance_id == self.id && self.service_of(registration)
    }
}

/// One of the declared addresses of an instance.
pub(super) struct InstanceAddress {
    /// The addresses that it resolves to.
    pub(super) addresses: Vec<IpAddr>,
    /// The membership in its monitor; none, where nothing is probed.
    pub(super) member: Option<Member<ProbeTarget>>,
}

/// What reconciles have found, by uid.
#[derive(Default)]
pub(super) struct InstanceCache(Mutex<HashMap<String, Entry>>);

struct Entry {
    name: InstanceName,
    /// None before the first reconcile.
    addresses: Option<Vec<InstanceAddress>>,
}

impl InstanceCache {
    /// Whether the object is known.
    pub(super) fn has(&self, uid: &str) -> bool {
        self.all().contains_key(uid)
    }

    /// Notes the name of an instance that somebody waits for.
    pub(super) fn note(&self, uid: &str, name: &InstanceName) {
        let fresh = || Entry { name: name.clone(), addresses: None };
        self.all().entry(uid.to_owned()).or_insert_with(fresh);
    }

    /// Notes where it is.
    pub(super) fn insert(&self, uid: &str, name: InstanceName, addresses: Vec<InstanceAddress>) {
        let before = self.all().insert(uid.to_owned(), Entry { name, addresses: Some(addresses) });
        // Not under the lock: the last member of a monitor ends it.
        drop(before);
    }

    /// The instance is gone or left alone; gives its name.
    pub(super) fn forget(&self, uid: &str) -> Option<InstanceName> {
        let gone = self.all().remove(uid);
        gone.map(|gone| gone.name)
    }

    /// Forgets all.
    pub(super) fn clear(&self) {
        let all = std::mem::take(&mut *self.all());
        drop(all);
    }

    /// The instance of this object as it is known now.
    pub(super) fn instance(&self, registration: &ServiceRegistration, now: Timestamp) -> Instance {
        let (meta, spec) = (registration.meta(), &registration.spec);
        let uid = meta.uid.clone().unwrap_or_default();
        let addresses = match self.all().get(&uid).and_then(|entry| entry.addresses.as_ref()) {
            Some(addresses) => addresses.iter().flat_map(InstanceAddress::endpoints).collect(),
            None => of_status(registration),
        };
        let mut ports: Vec<_> = spec
            .ports
            .iter()
            .map(|port| Port {
                name: port.name.clone(),
                port: port.port,
                app_protocol: port.app_protocol.clone(),
            })
            .collect();
        ports.sort();
        let stage = match left(registration, now) {
            Some(_) if addresses.is_empty() => Stage::Terminating(Duration::ZERO),
            Some(left) => Stage::Terminating(left),
            None if spec.drain => Stage::Draining,
            None => Stage::Serving,
        };
        Instance {
            object: Object { name: registration.name_any(), uid },
            created: meta.creation_timestamp.as_ref().map_or(Timestamp::MIN, |time| time.0),
            id: spec.instance_id.clone(),
            ports,
            addresses,
            zone: spec.zone.clone(),
            drain: drain(registration),
            stage,
        }
    }

    fn all(&self) -> MutexGuard<'_, HashMap<String, Entry>> {
        self.0.lock()
    }
}

impl InstanceAddress {
    fn endpoints(&self) -> impl Iterator<Item = (IpAddr, bool)> {
        let seen = self.member.as_ref().map(|member| member.last());
        let healthy = seen.is_none_or(|seen| seen.as_ref().is_some_and(works));
        self.addresses.iter().map(move |address| (*address, healthy))
    }
}

/// Where the status says that it is: what holds until the first reconcile of this process.
fn of_status(registration: &ServiceRegistration) -> Vec<(IpAddr, bool)> {
    let endpoints = registration.status.iter().flat_map(|status| &status.common.endpoints);
    let each = endpoints.flat_map(|endpoint| {
        let addresses = match endpoint.address.parse::<IpAddr>() {
            Ok(address) => Some(vec![address.to_canonical()]),
            Err(_) => resolved(registration, &endpoint.address),
        };
        addresses.into_iter().flatten().map(|address| (address, endpoint.ready))
    });
    each.collect()
}

/// The addresses that a host name resolves to, by the status.
pub(super) fn resolved(registration: &ServiceRegistration, host: &str) -> Option<Vec<IpAddr>> {
    let resolved = registration.status.as_ref()?.resolved.iter().find(|resolved| resolved.host == host)?;
    resolved.addresses.iter().map(|text| text.parse().ok()).collect()
}

fn drain(registration: &ServiceRegistration) -> Duration {
    Duration::from_secs(registration.spec.drain_seconds.into())
}

/// How much of its time to be drained a deleted instance has left; none for one that stays.
fn left(registration: &ServiceRegistration, now: Timestamp) -> Option<Duration> {
    let deleted = registration.meta().deletion_timestamp.as_ref()?.0;
    let drained = registration.status.as_ref().and_then(|status| status.draining_since.as_ref());
    let drained = drained.filter(|_| registration.spec.drain).map_or(deleted, |since| since.0.min(deleted));
    // The API server's clock may be ahead of ours.
    let over = Duration::try_from(now.duration_since(drained)).unwrap_or_default();
    Some(drain(registration).saturating_sub(over))
}
