//! The desired EndpointSlices of a Service, given the existing ones.
//!
//! An address stays in its slice, so that a change writes as few slices as possible. A removed address is drained
//! first: it is not ready and terminating, so that it gets no new connections while open ones can finish.

use core::net::IpAddr; // The addresses of `std::net`, without its sockets.
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;

/// The maximum number of endpoints of a slice, as in Kubernetes' own controller (`--max-endpoints-per-slice`).
pub const SLICE_SIZE: usize = 100;

/// A port of a Service.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Port {
    /// Its name, which maps the port of the Service to the port of the slices.
    pub name: String,
    /// TCP port of the endpoints.
    pub port: u16,
    /// The application protocol (`appProtocol`).
    pub app_protocol: Option<String>,
}

/// An endpoint of a slice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its address.
    pub address: IpAddr,
    /// Whether its probes succeed.
    pub healthy: bool,
    /// Whether it is drained: it gets no new connections.
    pub draining: bool,
    /// Its topology zone.
    pub zone: Option<String>,
}

/// An endpoint and its ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DesiredEndpoint {
    /// Its ports.
    pub ports: Vec<Port>,
    /// The endpoint.
    pub endpoint: Endpoint,
}

/// The address family of a slice.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of an address.
    #[must_use]
    pub const fn of(address: IpAddr) -> Self {
        if address.is_ipv4() { Self::V4 } else { Self::V6 }
    }

    /// The value of `EndpointSlice.addressType`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::V4 => "IPv4",
            Self::V6 => "IPv6",
        }
    }
}

/// An EndpointSlice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slice {
    /// Its name.
    pub name: String,
    /// The family of its endpoints.
    pub family: Family,
    /// The ports of its endpoints.
    pub ports: Vec<Port>,
    /// Its endpoints, at most [`SLICE_SIZE`].
    pub endpoints: Vec<Endpoint>,
    /// The removed addresses, with the times at which their draining started.
    pub draining_since: BTreeMap<IpAddr, Timestamp>,
}

impl Slice {
    /// The endpoints that are not drained.
    #[must_use]
    pub fn without_draining(self) -> Vec<DesiredEndpoint> {
        let endpoints = self.endpoints.into_iter().filter(|endpoint| !endpoint.draining);
        endpoints.map(|endpoint| DesiredEndpoint { ports: self.ports.clone(), endpoint }).collect()
    }
}

/// The desired slices of a Service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Every slice that should exist.
    pub slices: Vec<Slice>,
    /// The time until the next address is drained and can be removed.
    pub next: Option<Duration>,
}

/// How removed addresses are drained.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Drain {
    /// The time to drain.
    pub time: Duration,
    /// Addresses that are drained already and are removed immediately.
    pub drained: BTreeSet<IpAddr>,
}

type Group = (Family, Vec<Port>);

/// Plans the slices of a Service. A removed address is drained, unless it was already draining while it was still
/// desired.
#[must_use]
pub fn plan(
    service: &str,
    desired: &[DesiredEndpoint],
    existing: &[Slice],
    drain: &Drain,
    now: Timestamp,
) -> Plan {
    let mut missing = grouped(desired);
    let mut next = None;
    let mut slices: Vec<Slice> = existing
        .iter()
        .map(|slice| Slice { endpoints: Vec::new(), draining_since: BTreeMap::new(), ..slice.clone() })
        .collect();
    for (old, new) in existing.iter().zip(&mut slices) {
        let group = missing.get_mut(&(old.family, old.ports.clone()));
        let mut group = group;
        for endpoint in &old.endpoints {
            if let Some(kept) = group.as_mut().and_then(|group| group.remove(&endpoint.address)) {
                new.endpoints.push(kept);
                continue;
            }
            let since = old.draining_since.get(&endpoint.address).copied();
            if drain.drained.contains(&endpoint.address) || (endpoint.draining && since.is_none()) {
                continue;
            }
            // A clock that was set back, or that of another leader, must not extend the drain time.
            let since = since.map_or(now, |since| since.min(now));
            let drained = Duration::try_from(now.duration_since(since)).unwrap_or_default();
            let left = drain.time.checked_sub(drained).filter(|left| !left.is_zero());
            if let Some(left) = left {
                next = Some(next.map_or(left, |next: Duration| next.min(left)));
                new.draining_since.insert(endpoint.address, since);
                new.endpoints.push(Endpoint { draining: true, ..endpoint.clone() });
            }
        }
    }
    for ((family, ports), endpoints) in missing {
        assign(service, family, &ports, endpoints.into_values(), &mut slices);
    }
    slices.retain(|slice| !slice.endpoints.is_empty());
    Plan { slices, next }
}

/// One endpoint for each address and set of ports. Of several, a healthy one and one that is not drained is
/// preferred.
fn grouped(desired: &[DesiredEndpoint]) -> BTreeMap<Group, BTreeMap<IpAddr, Endpoint>> {
    let mut groups = BTreeMap::<Group, BTreeMap<IpAddr, Endpoint>>::new();
    for DesiredEndpoint { ports, endpoint } in desired {
        let group = groups.entry((Family::of(endpoint.address), ports.clone())).or_default();
        let better =
            |known: &Endpoint| (endpoint.healthy, !endpoint.draining) > (known.healthy, !known.draining);
        if group.get(&endpoint.address).is_none_or(better) {
            group.insert(endpoint.address, endpoint.clone());
        }
    }
    groups
}

/// Adds endpoints to slices with free capacity, and then to new ones.
fn assign(
    service: &str,
    family: Family,
    ports: &[Port],
    endpoints: impl Iterator<Item = Endpoint>,
    slices: &mut Vec<Slice>,
) {
    let mut names: BTreeSet<String> = slices.iter().map(|slice| slice.name.clone()).collect();
    for endpoint in endpoints {
        let fits = |slice: &&mut Slice| {
            slice.family == family && slice.ports == ports && slice.endpoints.len() < SLICE_SIZE
        };
        if let Some(slice) = slices.iter_mut().find(fits) {
            slice.endpoints.push(endpoint);
            continue;
        }
        let name = (0..).map(|number: u32| format!("{service}-{}-{number}", family.as_str().to_lowercase()));
        let Some(name) = name.into_iter().find(|name| !names.contains(name)) else { return };
        names.insert(name.clone());
        slices.push(Slice {
            name,
            family,
            ports: ports.to_vec(),
            endpoints: vec![endpoint],
            draining_since: BTreeMap::new(),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: Duration = Duration::from_secs(30);
    const DRAIN: &Drain = &Drain { time: TIME, drained: BTreeSet::new() };

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(seconds).expect("a time")
    }

    fn port(port: u16) -> Vec<Port> {
        vec![Port { name: "sql".to_owned(), port, app_protocol: None }]
    }

    fn desired(address: &str, healthy: bool) -> DesiredEndpoint {
        let address = address.parse().expect("an address");
        DesiredEndpoint {
            ports: port(5432),
            endpoint: Endpoint { address, healthy, draining: false, zone: None },
        }
    }

    fn many(count: u32) -> Vec<DesiredEndpoint> {
        let address = |number: u32| core::net::Ipv4Addr::from(0xC000_0200 + number).to_string();
        (0..count).map(|number| desired(&address(number), true)).collect()
    }

    fn addresses(plan: &Plan) -> Vec<(String, bool)> {
        let all = plan.slices.iter().flat_map(|slice| &slice.endpoints);
        all.map(|endpoint| (endpoint.address.to_string(), endpoint.draining)).collect()
    }

    #[test]
    fn each_family_and_each_set_of_ports_has_slices_of_its_own() {
        let mut all =
            vec![desired("192.0.2.1", true), desired("2001:db8::1", true), desired("192.0.2.2", true)];
        all[2].ports = port(5433);
        let plan = plan("db", &all, &[], DRAIN, at(0));
        let names: Vec<_> = plan.slices.iter().map(|slice| (slice.name.as_str(), slice.family)).collect();
        assert_eq!(names, [("db-ipv4-0", Family::V4), ("db-ipv4-1", Family::V4), ("db-ipv6-0", Family::V6)]);
    }

    #[test]
    fn a_slice_has_up_to_a_hundred_endpoints_and_a_change_does_not_write_the_others() {
        let first = plan("db", &many(2000), &[], DRAIN, at(0));
        assert_eq!(first.slices.len(), 20);
        assert!(first.slices.iter().all(|slice| slice.endpoints.len() == SLICE_SIZE));
        let mut changed = many(2001);
        changed[1234].endpoint.healthy = false;
        let second = plan("db", &changed, &first.slices, DRAIN, at(1));
        let differing = second.slices.iter().filter(|slice| !first.slices.contains(slice)).count();
        assert_eq!((second.slices.len(), differing), (21, 2));
    }

    #[test]
    fn a_removed_address_is_drained_first() {
        let two = [desired("192.0.2.1", true), desired("192.0.2.2", true)];
        let before = plan("db", &two, &[], DRAIN, at(0));
        let draining = plan("db", &two[..1], &before.slices, DRAIN, at(10));
        assert_eq!(addresses(&draining), [("192.0.2.1".to_owned(), false), ("192.0.2.2".to_owned(), true)]);
        assert_eq!(draining.next, Some(TIME));
        let later = plan("db", &two[..1], &draining.slices, DRAIN, at(25));
        assert_eq!(
            (later.slices.clone(), later.next),
            (draining.slices.clone(), Some(Duration::from_secs(15)))
        );
        let gone = plan("db", &two[..1], &later.slices, DRAIN, at(40));
        assert_eq!((addresses(&gone), gone.next), (vec![("192.0.2.1".to_owned(), false)], None));
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_extend_the_drain_time() {
        let before = plan("db", &many(1), &[], DRAIN, at(0));
        let draining = plan("db", &[], &before.slices, DRAIN, at(100));
        let back = plan("db", &[], &draining.slices, DRAIN, at(40));
        assert_eq!((back.slices.len(), back.next), (1, Some(TIME)));
        assert_eq!(plan("db", &[], &back.slices, DRAIN, at(70)).slices, []);
    }

    #[test]
    fn an_address_that_is_added_again_while_it_is_drained_stays() {
        let one = [desired("192.0.2.1", true)];
        let before = plan("db", &one, &[], DRAIN, at(0));
        let draining = plan("db", &[], &before.slices, DRAIN, at(10));
        let back = plan("db", &one, &draining.slices, DRAIN, at(20));
        assert_eq!((back.slices, back.next), (before.slices, None));
    }

    #[test]
    fn without_a_drain_time_an_address_is_removed_immediately() {
        let before = plan("db", &many(1), &[], DRAIN, at(0));
        assert_eq!(plan("db", &[], &before.slices, &Drain::default(), at(1)).slices, []);
    }

    #[test]
    fn an_address_that_was_drained_while_it_was_desired_is_not_drained_again() {
        let mut one = [desired("192.0.2.1", true)];
        one[0].endpoint.draining = true;
        let before = plan("db", &one, &[], DRAIN, at(0));
        assert_eq!(addresses(&before), [("192.0.2.1".to_owned(), true)]);
        assert_eq!(plan("db", &[], &before.slices, DRAIN, at(1)).slices, []);
        one[0].endpoint.draining = false;
        let back = plan("db", &one, &before.slices, DRAIN, at(2));
        assert_eq!(addresses(&back), [("192.0.2.1".to_owned(), false)]);
        let drained = Drain { time: TIME, drained: [one[0].endpoint.address].into() };
        assert_eq!(plan("db", &[], &back.slices, &drained, at(3)).slices, []);
    }

    #[test]
    fn an_address_of_two_targets_is_one_endpoint_and_healthy_if_one_of_them_is() {
        let plan = plan("db", &[desired("192.0.2.1", false), desired("192.0.2.1", true)], &[], DRAIN, at(0));
        let endpoints: Vec<_> = plan.slices.iter().flat_map(|slice| &slice.endpoints).collect();
        assert_eq!((endpoints.len(), endpoints[0].healthy), (1, true));
    }
}
