//! Which addresses are allowed: specs must not make authlink or its clients connect to this machine, to the cloud's
//! metadata service or into the cluster (server-side request forgery; for EndpointSlices CVE-2021-25740).

mod ranges;

// `core::net` has the addresses and not the sockets.
use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::RwLock;

use ranges::{ALWAYS_DENIED, GLOBAL_V6, LOOPBACK, NOT_PUBLIC, NOT_UNICAST, find};

/// The egress policy, from the flags of the process. It restricts the authors of namespaced objects, and so is never
/// read from one.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// Allowed ranges that are not public. Loopback is allowed only by an entry within it (`127.0.0.0/8`, `::1/128`),
    /// never by a wider one such as `0.0.0.0/0`.
    pub allowed: Vec<IpNet>,
    /// The Service and Pod ranges of the cluster, from the flags.
    pub cluster: Vec<IpNet>,
    /// The Service ranges of the cluster, from its ServiceCIDRs.
    pub services: ServiceRanges,
    /// The address of the API server within the cluster, which is always denied.
    pub api_server: Option<IpAddr>,
}

/// Service ranges that are discovered at run time. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct ServiceRanges(Arc<RwLock<Vec<IpNet>>>);

impl ServiceRanges {
    /// Replaces the ranges.
    pub fn set(&self, ranges: Vec<IpNet>) {
        *self.0.write() = ranges;
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.read().iter().any(|net| net.contains(&address))
    }
}

/// An address that is not allowed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} is {} allowed: {range}", if *.allowable { "not" } else { "never" })]
pub struct AddressDenied {
    /// The address, as given.
    pub address: IpAddr,
    /// What the address range is used for.
    pub range: &'static str,
    /// Whether [`Egress::allowed`] can allow it.
    pub allowable: bool,
}

impl Egress {
    /// Whether the address is allowed in an EndpointSlice, which any client in the cluster can use. Private ranges
    /// are allowed; those of the cluster are not, since a Service would bypass the NetworkPolicies of its Pods. An
    /// IPv4-mapped address must be registered in its IPv4 form (`to_canonical`), the only one that the API server
    /// accepts.
    ///
    /// # Errors
    /// The address is not allowed.
    pub fn check_endpoint(&self, address: IpAddr) -> Result<(), AddressDenied> {
        let target = embedded_v4(address);
        let denied = self.always_denied(target).or(self.in_cluster(target));
        match denied.or_else(|| find(&[LOOPBACK, NOT_UNICAST], target)) {
            Some(range) => Err(AddressDenied { address, range, allowable: false }),
            None => Ok(()),
        }
    }

    /// Whether the gateway, or a probe of an HTTP target, may connect to the address: public addresses and
    /// [`allowed`](Self::allowed) ones are allowed.
    ///
    /// # Errors
    /// The address is not allowed.
    pub fn check_call(&self, address: IpAddr) -> Result<(), AddressDenied> {
        let target = embedded_v4(address);
        let denied = |range, allowable| Err(AddressDenied { address, range, allowable });
        if let Some(range) = self.always_denied(target) {
            return denied(range, false);
        }
        let mut allowed = self.allowed.iter().filter(|net| net.contains(&target));
        if let Some(range) = find(&[LOOPBACK], target) {
            let in_loopback = |net: &IpNet| LOOPBACK.iter().any(|(loopback, _)| loopback.contains(net));
            return if allowed.any(in_loopback) { Ok(()) } else { denied(range, true) };
        }
        if allowed.next().is_some() {
            return Ok(());
        }
        let public = target.is_ipv4() || GLOBAL_V6.contains(&target);
        match self.in_cluster(target).or_else(|| find(&[NOT_UNICAST, NOT_PUBLIC], target)) {
            Some(range) => denied(range, true),
            None if !public => denied("not a global unicast address (2000::/3)", true),
            None => Ok(()),
        }
    }

    /// Checks all addresses that a name resolves to. One that is not allowed denies the name: a name with both public
    /// and private addresses is an attack or a mistake, and the address that is used would be arbitrary.
    ///
    /// # Errors
    /// The first address that is not allowed.
    pub fn check_calls(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), AddressDenied> {
        addresses.into_iter().try_for_each(|address| self.check_call(address))
    }

    fn always_denied(&self, target: IpAddr) -> Option<&'static str> {
        let api_server = (self.api_server == Some(target)).then_some("API server of the cluster");
        api_server.or_else(|| find(&[ALWAYS_DENIED], target))
    }

    fn in_cluster(&self, target: IpAddr) -> Option<&'static str> {
        let own = self.cluster.iter().any(|net| net.contains(&target)) || self.services.contains(target);
        own.then_some("Service or Pod range of the cluster")
    }
}

/// The IPv4 address that is embedded in an IPv6 address (IPv4-mapped, RFC 4291 2.5.5.2; NAT64, RFC 6052 2.1; 6to4,
/// RFC 3056 2), to which packets are delivered; otherwise the address itself.
fn embedded_v4(address: IpAddr) -> IpAddr {
    let IpAddr::V6(outer) = address else { return address };
    match outer.segments() {
        [0, 0, 0, 0, 0, 0xffff, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        | [0x2002, high, low, ..] => IpAddr::V4(Ipv4Addr::from_bits(u32::from(high) << 16 | u32::from(low))),
        _ => address,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn egress(allowed: &[&str], cluster: &[&str]) -> Egress {
        let nets = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
        Egress { allowed: nets(allowed), cluster: nets(cluster), ..Egress::default() }
    }

    #[test]
    fn the_api_server_is_denied_even_if_its_range_is_allowed() {
        let api_server = address("10.96.0.1");
        let egress = Egress { api_server: Some(api_server), ..egress(&["10.0.0.0/8"], &[]) };
        assert!(egress.check_call(address("10.96.0.2")).is_ok());
        let checks = [
            egress.check_call(api_server),
            egress.check_call(address("::ffff:10.96.0.1")),
            egress.check_endpoint(api_server),
        ];
        for check in checks {
            assert!(check.is_err_and(|denied| !denied.allowable));
        }
    }

    /// The first and the last address of each denied range.
    const DENIED: &str = "
        0.0.0.0 0.255.255.255  10.0.0.0 10.255.255.255  100.64.0.0 100.127.255.255  127.0.0.1 127.255.255.255
        169.254.0.0 169.254.169.254 169.254.255.255  172.16.0.0 172.31.255.255  192.0.0.0 192.0.0.255
        192.0.2.0 192.0.2.255  192.88.99.0 192.88.99.255  192.168.0.0 192.168.255.255  198.18.0.0 198.19.255.255
        198.51.100.0 198.51.100.255  203.0.113.0 203.0.113.255  224.0.0.0 239.255.255.255  240.0.0.0
        255.255.255.255  168.63.129.16
        :: ::1 ::127.0.0.1 ff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  64:ff9b:1:: 64:ff9b:1:ffff:ffff:ffff:ffff:ffff
        100:: 100::ffff:ffff:ffff:ffff  2001:: 2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff
        2001:db8:: 2001:db8:ffff:ffff:ffff:ffff:ffff:ffff  3fff:: 3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff
        5f00:: 5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff  fc00:: fd00:ec2::254 fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
        fe80:: febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff  fec0:: feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff
        ff00:: ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff  4000::1 e000::1
    ";

    /// Addresses next to them.
    const ALLOWED: &str = "
        1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
        169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.88.98.255 192.167.255.255 192.169.0.0
        198.17.255.255 198.20.0.0 198.51.101.0 203.0.112.255 223.255.255.255 168.63.129.17
        2001:200:: 2001:db7:ffff::1 2606:4700::1111 3fff:1000::
    ";

    /// The addresses in a text, and for IPv4 ones the IPv6 addresses that embed them.
    fn forms(text: &str) -> Vec<IpAddr> {
        let embedding = |given: &str| match address(given) {
            IpAddr::V4(inner) => {
                let (high, low) = (inner.to_bits() >> 16, inner.to_bits() & 0xffff);
                vec![
                    format!("::ffff:{inner}"),
                    format!("64:ff9b::{inner}"),
                    format!("2002:{high:x}:{low:x}::5"),
                ]
            }
            IpAddr::V6(_) => vec![],
        };
        text.split_whitespace()
            .flat_map(|given| [vec![given.to_owned()], embedding(given)].concat())
            .map(|form| address(&form))
            .collect()
    }

    #[test]
    fn only_public_addresses_are_allowed_in_every_form() {
        let egress = Egress::default();
        for form in forms(DENIED) {
            assert!(egress.check_call(form).is_err(), "{form}");
        }
        for form in forms(ALLOWED) {
            assert_eq!(egress.check_call(form), Ok(()), "{form}");
        }
    }

    #[test]
    fn private_ranges_can_be_allowed() {
        let egress = egress(&["10.1.0.0/16", "fd12::/16", "203.0.113.0/24"], &[]);
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1", "203.0.113.9", "1.1.1.1"] {
            assert_eq!(egress.check_call(address(text)), Ok(()), "{text}");
        }
        assert!(egress.check_call(address("10.2.0.1")).is_err());
    }

    #[test]
    fn loopback_is_allowed_only_by_an_entry_within_it() {
        let wide = egress(&["0.0.0.0/0", "::/0", "126.0.0.0/7"], &[]);
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(wide.check_call(address(text)).is_err(), "{text}");
        }
        let named = egress(&["127.0.0.0/8", "::1/128"], &[]);
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(named.check_call(address(text)), Ok(()), "{text}");
        }
        let one = egress(&["127.0.0.2/32"], &[]);
        assert_eq!(one.check_call(address("127.0.0.2")), Ok(()));
        assert!(one.check_call(address("127.0.0.1")).is_err());
        assert!(named.check_endpoint(address("127.0.0.1")).is_err(), "allowing a call allows no endpoint");
    }

    #[test]
    fn metadata_services_and_this_machine_are_never_allowed() {
        let egress =
            egress(&["0.0.0.0/0", "::/0", "169.254.169.254/32", "fd00:ec2::254/128", "0.0.0.0/32"], &[]);
        let always =
            "169.254.169.254 169.254.0.1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 168.63.129.16
            100.100.100.200 192.0.0.192 0.0.0.0 ::";
        for form in forms(always) {
            assert!(egress.check_call(form).is_err_and(|denied| !denied.allowable), "{form}");
            assert!(egress.check_endpoint(form).is_err(), "{form}");
        }
    }

    #[test]
    fn the_ranges_of_the_cluster_are_denied_for_calls_and_endpoints() {
        let cluster = ["34.118.224.0/20", "fd00:10::/32"];
        let own = egress(&[], &cluster);
        for text in ["34.118.224.1", "::ffff:34.118.224.1", "fd00:10::7"] {
            assert!(own.check_call(address(text)).is_err_and(|denied| denied.allowable), "{text}");
            assert!(own.check_endpoint(address(text)).is_err_and(|denied| !denied.allowable), "{text}");
        }
        assert_eq!(own.check_endpoint(address("34.118.240.0")), Ok(()));
        let allowed = egress(&["34.118.224.0/20"], &cluster);
        assert_eq!(allowed.check_call(address("34.118.224.1")), Ok(()));
        assert!(
            allowed.check_endpoint(address("34.118.224.1")).is_err(),
            "allowing a call allows no endpoint"
        );
    }

    #[test]
    fn private_addresses_are_allowed_as_endpoints_and_those_that_are_not_unicast_are_denied() {
        let egress = Egress::default();
        for form in forms("10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 192.0.2.10 fd12::1 2606::1") {
            assert_eq!(egress.check_endpoint(form), Ok(()), "{form}");
        }
        let denied = "0.0.0.0 0.1.2.3 127.0.0.1 169.254.1.1 224.0.0.1 255.255.255.255 :: ::1 fe80::1 ff02::1";
        for form in forms(denied) {
            assert!(egress.check_endpoint(form).is_err(), "{form}");
        }
    }

    #[test]
    fn a_name_with_public_and_private_addresses_is_denied() {
        let mixed = ["1.1.1.1", "10.0.0.1", "8.8.8.8"].map(address);
        assert_eq!(Egress::default().check_calls(mixed).unwrap_err().address, address("10.0.0.1"));
        assert_eq!(egress(&["10.0.0.0/8"], &[]).check_calls(mixed), Ok(()));
        assert_eq!(Egress::default().check_calls(["1.1.1.1", "2606:4700::1111"].map(address)), Ok(()));
    }

    #[test]
    fn a_denial_names_the_address_the_range_and_whether_it_can_be_allowed() {
        let text =
            |address: &str| Egress::default().check_call(address.parse().unwrap()).unwrap_err().to_string();
        assert_eq!(text("10.0.0.1"), "10.0.0.1 is not allowed: private address (RFC 1918)");
        assert_eq!(
            text("::ffff:169.254.169.254"),
            "::ffff:169.254.169.254 is never allowed: cloud metadata service"
        );
    }
}
