//! Combines the registrations of a service into the Service that they share.

use core::net::IpAddr; // The addresses of `std::net`, without its sockets.
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use jiff::Timestamp;

use super::endpoint_slices::{DesiredEndpoint, Drain, Endpoint, Port};

/// An instance: its registration and its health.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The object that registers it.
    pub object: Object,
    /// The creation time of the object.
    pub created: Timestamp,
    /// Its ID within the service.
    pub id: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its addresses, and whether the probes of each succeed.
    pub addresses: Vec<(IpAddr, bool)>,
    /// Its topology zone.
    pub zone: Option<String>,
    /// How long its addresses are drained.
    pub drain: Duration,
    /// Its stage of life.
    pub stage: Stage,
}

/// An object, by name and uid.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

/// The stage of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It gets new connections.
    Serving,
    /// It is drained by `spec.drain`: it gets no new connections.
    Draining,
    /// It is deleted, and drained for the remaining time.
    Terminating(Duration),
}

/// The desired Service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composition {
    /// Its ports.
    pub ports: Vec<Port>,
    /// Its endpoints.
    pub desired: Vec<DesiredEndpoint>,
    /// How removed addresses are drained.
    pub drain: Drain,
    /// The objects that own it, the oldest first.
    pub owners: Vec<Object>,
    /// All other objects of the service, which may have owned it before.
    pub predecessors: Vec<Object>,
}

impl Instance {
    /// The sort key that decides which of two instances with the same ID is registered: the lower one.
    fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.object.uid)
    }

    fn terminating(&self) -> bool {
        matches!(self.stage, Stage::Terminating(_))
    }
}

/// The instance that is registered with this ID: the oldest one that is not terminating.
#[must_use]
pub fn owner<'a>(instances: &'a [Instance], id: &str) -> Option<&'a Instance> {
    let with_id = instances.iter().filter(|instance| instance.id == id && !instance.terminating());
    with_id.min_by_key(|instance| instance.age())
}

/// Combines the instances of a service. A terminating instance is not an owner while there are others: if it is
/// deleted in the foreground, the garbage collector would delete the Service with it.
#[must_use]
pub fn compose(mut instances: Vec<Instance>) -> Composition {
    instances.sort_unstable_by(|one, other| {
        (one.terminating(), one.age()).cmp(&(other.terminating(), other.age()))
    });
    let object = |instance: &Instance| instance.object.clone();
    let mut predecessors: Vec<_> = instances.iter().map(object).collect();
    let mut ids = HashSet::new();
    instances.retain(|instance| instance.terminating() || ids.insert(instance.id.clone()));
    let (drained, present): (Vec<_>, Vec<_>) =
        instances.into_iter().partition(|instance| instance.stage == Stage::Terminating(Duration::ZERO));
    let all_terminating = present.iter().all(Instance::terminating);
    let owners = present.iter().filter(|instance| all_terminating || !instance.terminating());
    let owners: Vec<_> = owners.map(object).collect();
    let owning: HashSet<_> = owners.iter().map(|owner| &owner.uid).collect();
    predecessors.retain(|object| !owning.contains(&object.uid));
    Composition {
        ports: present.first().map(|oldest| oldest.ports.clone()).unwrap_or_default(),
        owners,
        predecessors,
        drain: Drain {
            time: present.iter().map(|instance| instance.drain).max().unwrap_or_default(),
            drained: drained.iter().flat_map(|gone| &gone.addresses).map(|(address, _)| *address).collect(),
        },
        desired: present.iter().flat_map(endpoints).collect(),
    }
}

fn endpoints(instance: &Instance) -> impl Iterator<Item = DesiredEndpoint> {
    let addresses: BTreeSet<_> = instance.addresses.iter().copied().collect();
    addresses.into_iter().map(|(address, healthy)| DesiredEndpoint {
        ports: instance.ports.clone(),
        endpoint: Endpoint {
            address,
            healthy,
            draining: instance.stage != Stage::Serving,
            zone: instance.zone.clone(),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn instance(uid: &str, created: i64, id: &str) -> Instance {
        let port = Port { name: "http".to_owned(), port: 8080, app_protocol: None };
        Instance {
            object: Object { name: format!("of-{uid}"), uid: uid.to_owned() },
            created: Timestamp::from_second(created).expect("a time"),
            id: id.to_owned(),
            ports: vec![port],
            addresses: vec![(format!("192.0.2.{created}").parse().expect("an address"), true)],
            zone: None,
            drain: Duration::from_secs(30),
            stage: Stage::Serving,
        }
    }

    /// The address of each endpoint, and whether it is drained.
    fn addresses(composition: &Composition) -> Vec<(String, bool)> {
        let endpoints = composition.desired.iter().map(|desired| &desired.endpoint);
        endpoints.map(|endpoint| (endpoint.address.to_string(), endpoint.draining)).collect()
    }

    fn uids(objects: &[Object]) -> String {
        objects.iter().map(|object| object.uid.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn of_two_with_the_same_id_the_older_is_registered_and_at_the_same_age_the_one_with_the_lower_uid() {
        let all =
            [instance("c", 2, "1"), instance("b", 1, "1"), instance("a", 1, "2"), instance("z", 1, "1")];
        assert_eq!(owner(&all, "1").map(|owner| owner.object.uid.as_str()), Some("b"));
        let composition = compose(all.to_vec());
        assert_eq!(
            (uids(&composition.owners), uids(&composition.predecessors)),
            ("a b".to_owned(), "z c".to_owned())
        );
        assert_eq!(owner(&all, "3"), None);
    }

    #[test]
    fn a_terminating_instance_frees_its_id_and_is_drained_for_the_remaining_time() {
        let mut all = vec![instance("a", 1, "1"), instance("b", 2, "1")];
        all[0].stage = Stage::Terminating(Duration::from_secs(3));
        assert_eq!(owner(&all, "1").map(|owner| owner.object.uid.as_str()), Some("b"));
        let composition = compose(all.clone());
        assert_eq!(
            (uids(&composition.owners), uids(&composition.predecessors)),
            ("b".to_owned(), "a".to_owned())
        );
        assert_eq!(
            addresses(&composition),
            [("192.0.2.2".to_owned(), false), ("192.0.2.1".to_owned(), true)]
        );
        all[0].stage = Stage::Terminating(Duration::ZERO);
        let composition = compose(all);
        assert_eq!(addresses(&composition), [("192.0.2.2".to_owned(), false)]);
        assert_eq!(composition.drain.drained, ["192.0.2.1".parse().expect("an address")].into());
    }

    #[test]
    fn the_last_instances_own_the_service_until_they_are_drained() {
        let mut last = vec![instance("a", 1, "1")];
        last[0].stage = Stage::Terminating(Duration::from_secs(3));
        assert_eq!(uids(&compose(last.clone()).owners), "a");
        last[0].stage = Stage::Terminating(Duration::ZERO);
        let composition = compose(last);
        assert_eq!((composition.owners.len(), composition.desired.len()), (0, 0));
        assert_eq!(uids(&composition.predecessors), "a");
    }

    #[test]
    fn the_ports_are_those_of_the_oldest_instance_and_the_drain_time_is_the_longest() {
        let mut all = vec![instance("a", 1, "1"), instance("b", 2, "2"), instance("c", 3, "3")];
        all[0].stage = Stage::Terminating(Duration::from_secs(3));
        all[1].ports[0].port = 9090;
        all[2].drain = Duration::from_mins(1);
        let composition = compose(all);
        assert_eq!((composition.ports[0].port, composition.drain.time), (9090, Duration::from_mins(1)));
        let ports: Vec<_> = composition.desired.iter().map(|desired| desired.ports[0].port).collect();
        assert_eq!(ports, [9090, 8080, 8080]);
    }

    #[test]
    fn an_instance_with_spec_drain_is_a_draining_endpoint() {
        let mut one = instance("a", 1, "1");
        one.stage = Stage::Draining;
        let composition = compose(vec![one]);
        assert_eq!(addresses(&composition), [("192.0.2.1".to_owned(), true)]);
        assert_eq!(uids(&composition.owners), "a");
    }
}
