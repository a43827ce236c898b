//! Which addresses may be reached: what users write must never lead into this machine, its cloud or its cluster
//! (server-side request forgery; for EndpointSlices CVE-2021-25740).

mod ranges;

// `core::net` has the addresses and not the sockets.
use core::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use ipnet::IpNet;
use parking_lot::RwLock;

use ranges::{ALWAYS, GLOBAL_V6, LOOPBACK, NO_HOST, NOT_PUBLIC, find};

/// What the operator's settings say about addresses; never read from a namespaced object, whose author it restrains.
#[derive(Clone, Debug, Default)]
pub struct Egress {
    /// What may be called although it is not public. Loopback is opened only by an entry that lies wholly in it
    /// (`127.0.0.0/8`, `::1/128`), never by a wider one such as `0.0.0.0/0`.
    pub allowed: Vec<IpNet>,
    /// The cluster's own Service and Pod ranges, as far as somebody has set them.
    pub cluster: Vec<IpNet>,
    /// The cluster's own Service ranges, as it says itself.
    pub services: Learned,
    /// Where Pods find the API server; refused whatever is allowed.
    pub api_server: Option<IpAddr>,
}

/// Ranges that become known as the process runs. Clones share what they know.
#[derive(Clone, Debug, Default)]
pub struct Learned(Arc<RwLock<Vec<IpNet>>>);

impl Learned {
    /// Replaces what was known.
    pub fn set(&self, ranges: Vec<IpNet>) {
        *self.0.write() = ranges;
    }

    fn contains(&self, address: IpAddr) -> bool {
        self.0.read().iter().any(|net| net.contains(&address))
    }
}

/// An address that may not be reached.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{address} may not be reached: {meaning}{}", remedy(*.allowable))]
pub struct Refused {
    /// The address, as it was given.
    pub address: IpAddr,
    /// What its range is for.
    pub meaning: &'static str,
    /// Whether [`Egress::allowed`] could change the verdict.
    pub allowable: bool,
}

fn remedy(allowable: bool) -> &'static str {
    if allowable { "; the operator's egress settings can allow it" } else { "" }
}

impl Egress {
    /// Whether the address may stand in an EndpointSlice, where any client of the cluster finds it. Private ranges
    /// may; the cluster's own may not, since a Service would then lead around their NetworkPolicies. An IPv4-mapped
    /// address that may belongs there in its IPv4 form (`to_canonical`): the API server knows no other.
    ///
    /// # Errors
    /// With the reason, when it may not.
    pub fn endpoint(&self, address: IpAddr) -> Result<(), Refused> {
        let target = target_of(address);
        match self.never(target).or(self.of_cluster(target)).or_else(|| find(&[LOOPBACK, NO_HOST], target)) {
            Some(meaning) => Err(Refused { address, meaning, allowable: false }),
            None => Ok(()),
        }
    }

    /// Whether the gateway, or a probe of an HTTP target, may connect to the address: to public ones, and to those
    /// that are [`allowed`](Self::allowed).
    ///
    /// # Errors
    /// With the reason, when it may not.
    pub fn call(&self, address: IpAddr) -> Result<(), Refused> {
        let target = target_of(address);
        let refused = |meaning, allowable| Err(Refused { address, meaning, allowable });
        if let Some(meaning) = self.never(target) {
            return refused(meaning, false);
        }
        let mut allowed = self.allowed.iter().filter(|net| net.contains(&target));
        if let Some(meaning) = find(&[LOOPBACK], target) {
            let named = |net: &IpNet| LOOPBACK.iter().any(|(loopback, _)| loopback.contains(net));
            return if allowed.any(named) { Ok(()) } else { refused(meaning, true) };
        }
        if allowed.next().is_some() {
            return Ok(());
        }
        let public = target.is_ipv4() || GLOBAL_V6.contains(&target);
        match self.of_cluster(target).or_else(|| find(&[NO_HOST, NOT_PUBLIC], target)) {
            Some(meaning) => refused(meaning, true),
            None if !public => refused("it is outside of the global unicast addresses, 2000::/3", true),
            None => Ok(()),
        }
    }

    /// Whether all that a name resolves to may be called. One address that may not refuses the whole answer: a name
    /// with public and private addresses is an attack or a mistake, and which one is connected to is a matter of luck.
    ///
    /// # Errors
    /// With the first address that may not.
    pub fn vet(&self, addresses: impl IntoIterator<Item = IpAddr>) -> Result<(), Refused> {
        addresses.into_iter().try_for_each(|address| self.call(address))
    }

    fn never(&self, target: IpAddr) -> Option<&'static str> {
        let api_server = (self.api_server == Some(target)).then_some("it is the cluster's API server");
        api_server.or_else(|| find(&[ALWAYS], target))
    }

    fn of_cluster(&self, target: IpAddr) -> Option<&'static str> {
        let own = self.cluster.iter().any(|net| net.contains(&target)) || self.services.contains(target);
        own.then_some("it belongs to the cluster's own Services or Pods")
    }
}

/// Where packets to an address go in the end: for an IPv6 address that stands for an IPv4 one (IPv4-mapped, RFC 4291
/// 2.5.5.2; NAT64, RFC 6052 2.1; 6to4, RFC 3056 2) that one, else the address itself.
fn target_of(address: IpAddr) -> IpAddr {
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
    fn the_api_server_is_refused_whatever_is_allowed() {
        let api_server = address("10.96.0.1");
        let egress = Egress { api_server: Some(api_server), ..egress(&["10.0.0.0/8"], &[]) };
        assert!(egress.call(address("10.96.0.2")).is_ok());
        for way in
            [egress.call(api_server), egress.call(address("::ffff:10.96.0.1")), egress.endpoint(api_server)]
        {
            assert!(way.is_err_and(|refused| !refused.allowable));
        }
    }

    /// The first and the last address of each range.
    const NOT_CALLED: &str = "
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

    /// What lies beside them.
    const CALLED: &str = "
        1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 169.253.255.255
        169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.88.98.255 192.167.255.255 192.169.0.0
        198.17.255.255 198.20.0.0 198.51.101.0 203.0.112.255 223.255.255.255 168.63.129.17
        2001:200:: 2001:db7:ffff::1 2606:4700::1111 3fff:1000::
    ";

    /// The addresses in a text, and for IPv4 ones the IPv6 addresses that stand for them.
    fn forms(text: &str) -> Vec<IpAddr> {
        let disguised = |given: &str| match address(given) {
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
            .flat_map(|given| [vec![given.to_owned()], disguised(given)].concat())
            .map(|form| address(&form))
            .collect()
    }

    #[test]
    fn only_public_addresses_are_called_whatever_form_they_have() {
        let egress = Egress::default();
        for form in forms(NOT_CALLED) {
            assert!(egress.call(form).is_err(), "{form}");
        }
        for form in forms(CALLED) {
            assert_eq!(egress.call(form), Ok(()), "{form}");
        }
    }

    #[test]
    fn the_operator_can_allow_private_ranges() {
        let egress = egress(&["10.1.0.0/16", "fd12::/16", "203.0.113.0/24"], &[]);
        for text in ["10.1.2.3", "::ffff:10.1.2.3", "64:ff9b::a01:203", "fd12::1", "203.0.113.9", "1.1.1.1"] {
            assert_eq!(egress.call(address(text)), Ok(()), "{text}");
        }
        assert!(egress.call(address("10.2.0.1")).is_err());
    }

    #[test]
    fn loopback_is_opened_by_its_own_name_alone() {
        let wide = egress(&["0.0.0.0/0", "::/0", "126.0.0.0/7"], &[]);
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert!(wide.call(address(text)).is_err(), "{text}");
        }
        let named = egress(&["127.0.0.0/8", "::1/128"], &[]);
        for text in ["127.0.0.1", "127.8.8.8", "::1", "::ffff:127.0.0.1"] {
            assert_eq!(named.call(address(text)), Ok(()), "{text}");
        }
        let one = egress(&["127.0.0.2/32"], &[]);
        assert_eq!(one.call(address("127.0.0.2")), Ok(()));
        assert!(one.call(address("127.0.0.1")).is_err());
        assert!(named.endpoint(address("127.0.0.1")).is_err(), "allowing a call allows no endpoint");
    }

    #[test]
    fn the_credentials_of_the_cloud_and_this_machine_are_never_allowed() {
        let egress =
            egress(&["0.0.0.0/0", "::/0", "169.254.169.254/32", "fd00:ec2::254/128", "0.0.0.0/32"], &[]);
        let always =
            "169.254.169.254 169.254.0.1 fd00:ec2::254 fd00:ec2::23 fd20:ce::254 fd00:42::42 168.63.129.16
            100.100.100.200 192.0.0.192 0.0.0.0 ::";
        for form in forms(always) {
            assert!(egress.call(form).is_err_and(|refused| !refused.allowable), "{form}");
            assert!(egress.endpoint(form).is_err(), "{form}");
        }
    }

    #[test]
    fn the_clusters_own_ranges_are_neither_called_nor_endpoints() {
        let cluster = ["34.118.224.0/20", "fd00:10::/32"];
        let own = egress(&[], &cluster);
        for text in ["34.118.224.1", "::ffff:34.118.224.1", "fd00:10::7"] {
            assert!(own.call(address(text)).is_err_and(|refused| refused.allowable), "{text}");
            assert!(own.endpoint(address(text)).is_err_and(|refused| !refused.allowable), "{text}");
        }
        assert_eq!(own.endpoint(address("34.118.240.0")), Ok(()));
        let allowed = egress(&["34.118.224.0/20"], &cluster);
        assert_eq!(allowed.call(address("34.118.224.1")), Ok(()));
        assert!(allowed.endpoint(address("34.118.224.1")).is_err(), "allowing a call allows no endpoint");
    }

    #[test]
    fn private_addresses_are_endpoints_and_those_of_no_single_host_are_not() {
        let egress = Egress::default();
        for form in forms("10.0.0.1 172.16.0.1 192.168.1.1 100.64.0.1 192.0.2.10 fd12::1 2606::1") {
            assert_eq!(egress.endpoint(form), Ok(()), "{form}");
        }
        let refused =
            "0.0.0.0 0.1.2.3 127.0.0.1 169.254.1.1 224.0.0.1 255.255.255.255 :: ::1 fe80::1 ff02::1";
        for form in forms(refused) {
            assert!(egress.endpoint(form).is_err(), "{form}");
        }
    }

    #[test]
    fn an_answer_that_mixes_public_and_private_addresses_is_refused() {
        let mixed = ["1.1.1.1", "10.0.0.1", "8.8.8.8"].map(address);
        assert_eq!(Egress::default().vet(mixed).unwrap_err().address, address("10.0.0.1"));
        assert_eq!(egress(&["10.0.0.0/8"], &[]).vet(mixed), Ok(()));
        assert_eq!(Egress::default().vet(["1.1.1.1", "2606:4700::1111"].map(address)), Ok(()));
    }

    #[test]
    fn a_refusal_says_the_address_the_reason_and_the_way_out() {
        let text = |address: &str| Egress::default().call(address.parse().unwrap()).unwrap_err().to_string();
        assert_eq!(
            text("10.0.0.1"),
            "10.0.0.1 may not be reached: it is private (RFC 1918); the operator's egress settings can allow it"
        );
        assert_eq!(
            text("::ffff:169.254.169.254"),
            "::ffff:169.254.169.254 may not be reached: a cloud gives its machines' credentials there"
        );
    }
}
