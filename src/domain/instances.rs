//! From the registrations of one service to the one Service that they share.

use core::net::IpAddr; // The addresses of `std::net`, without its sockets.
use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

use jiff::Timestamp;

use super::endpoint_slices::{DesiredEndpoint, Drain, Endpoint, Port};

/// An instance as it was registered, and as it is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Instance {
    /// The object that registers it.
    pub object: Object,
    /// When it was created.
    pub created: Timestamp,
    /// What it is called among the instances.
    pub id: String,
    /// Its ports.
    pub ports: Vec<Port>,
    /// Where it is, and the verdict of the probes on each address.
    pub addresses: Vec<(IpAddr, bool)>,
    /// The failure domain that it is in.
    pub zone: Option<String>,
    /// How long an address of it is drained.
    pub drain: Duration,
    /// What it wants to be.
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

/// What an instance wants to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Used.
    Serving,
    /// There, without new connections.
    Draining,
    /// Gone, after what is left of its time to be drained.
    Leaving(Duration),
}

/// What a Service should be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Composition {
    /// Its own ports.
    pub ports: Vec<Port>,
    /// Where it backend.
    pub desired: Vec<DesiredEndpoint>,
    /// How addresses leave it.
    pub drain: Drain,
    /// The objects that it stands for, the oldest first.
    pub owners: Vec<Object>,
    /// All others, which may have owned it before.
    pub predecessors: Vec<Object>,
}

impl Instance {
    /// Of two instances with one id, the one for which this is less has it.
    fn age(&self) -> (Timestamp, &str) {
        (self.created, &self.object.uid)
    }

    fn leaving(&self) -> bool {
        matches!(self.stage, Stage::Leaving(_))
    }
}

/// The instance that has this id: the oldest that is not leaving.
#[must_use]
pub fn owner<'a>(instances: &'a [Instance], id: &str) -> Option<&'a Instance> {
    let with_id = instances.iter().filter(|instance| instance.id == id && !instance.leaving());
    with_id.min_by_key(|instance| instance.age())
}

/// Puts the instances of a service together. One that leaves is no owner while others stay: whoever deletes it in the
/// foreground would have the Service deleted with it.
#[must_use]
pub fn compose(mut instances: Vec<Instance>) -> Composition {
    instances.sort_unstable_by(|one, other| (one.leaving(), one.age()).cmp(&(other.leaving(), other.age())));
    let object = |instance: &Instance| instance.object.clone();
    let mut predecessors: Vec<_> = instances.iter().map(object).collect();
    let mut ids = HashSet::new();
    instances.retain(|instance| instance.leaving() || ids.insert(instance.id.clone()));
    let (over, here): (Vec<_>, Vec<_>) =
        instances.into_iter().partition(|instance| instance.stage == Stage::Leaving(Duration::ZERO));
    let all_leave = here.iter().all(Instance::leaving);
    let owners = here.iter().filter(|instance| all_leave || !instance.leaving());
    let owners: Vec<_> = owners.map(object).collect();
    let owning: HashSet<_> = owners.iter().map(|owner| &owner.uid).collect();
    predecessors.retain(|object| !owning.contains(&object.uid));
    Composition {
        ports: here.first().map(|oldest| oldest.ports.clone()).unwrap_or_default(),
        owners,
        predecessors,
        drain: Drain {
            time: here.iter().map(|instance| instance.drain).max().unwrap_or_default(),
            over: over.iter().flat_map(|gone| &gone.addresses).map(|(address, _)| *address).collect(),
        },
        desired: here.iter().flat_map(desired).collect(),
    }
}

fn desired(instance: &Instance) -> impl Iterator<Item = DesiredEndpoint> {
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

    fn leading_to(composition: &Composition) -> Vec<(String, bool)> {
        let endpoints = composition.desired.iter().map(|desired| &desired.endpoint);
        endpoints.map(|endpoint| (endpoint.address.to_string(), endpoint.draining)).collect()
    }

    fn uids(objects: &[Object]) -> String {
        objects.iter().map(|object| object.uid.as_str()).collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn of_two_with_one_id_the_older_has_it_and_of_two_as_old_the_one_with_the_lower_uid() {
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
    fn one_that_leaves_gives_its_id_up_and_is_drained_for_the_rest_of_its_time() {
        let mut all = vec![instance("a", 1, "1"), instance("b", 2, "1")];
        all[0].stage = Stage::Leaving(Duration::from_secs(3));
        assert_eq!(owner(&all, "1").map(|owner| owner.object.uid.as_str()), Some("b"));
        let composition = compose(all.clone());
        assert_eq!(
            (uids(&composition.owners), uids(&composition.predecessors)),
            ("b".to_owned(), "a".to_owned())
        );
        assert_eq!(
            leading_to(&composition),
            [("192.0.2.2".to_owned(), false), ("192.0.2.1".to_owned(), true)]
        );
        all[0].stage = Stage::Leaving(Duration::ZERO);
        let composition = compose(all);
        assert_eq!(leading_to(&composition), [("192.0.2.2".to_owned(), false)]);
        assert_eq!(composition.drain.over, ["192.0.2.1".parse().expect("an address")].into());
    }

    #[test]
    fn the_last_ones_own_the_service_while_they_leave_and_with_them_all_is_gone() {
        let mut last = vec![instance("a", 1, "1")];
        last[0].stage = Stage::Leaving(Duration::from_secs(3));
        assert_eq!(uids(&compose(last.clone()).owners), "a");
        last[0].stage = Stage::Leaving(Duration::ZERO);
        let composition = compose(last);
        assert_eq!((composition.owners.len(), composition.desired.len()), (0, 0));
        assert_eq!(uids(&composition.predecessors), "a");
    }

    #[test]
    fn the_ports_are_those_of_the_oldest_that_stays_and_the_time_to_drain_is_the_longest() {
        let mut all = vec![instance("a", 1, "1"), instance("b", 2, "2"), instance("c", 3, "3")];
        all[0].stage = Stage::Leaving(Duration::from_secs(3));
        all[1].ports[0].port = 9090;
        all[2].drain = Duration::from_mins(1);
        let composition = compose(all);
        assert_eq!((composition.ports[0].port, composition.drain.time), (9090, Duration::from_mins(1)));
        let ports: Vec<_> = composition.desired.iter().map(|desired| desired.ports[0].port).collect();
        assert_eq!(ports, [9090, 8080, 8080]);
    }

    #[test]
    fn an_instance_that_drains_by_wish_is_there_without_new_connections() {
        let mut one = instance("a", 1, "1");
        one.stage = Stage::Draining;
        let composition = compose(vec![one]);
        assert_eq!(leading_to(&composition), [("192.0.2.1".to_owned(), true)]);
        assert_eq!(uids(&composition.owners), "a");
    }
}
