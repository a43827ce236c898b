//! The special-purpose address ranges.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// A range, and what it is used for.
pub(super) type Range = (IpNet, &'static str);

/// What the first range that contains the address is used for.
pub(super) fn find(tables: &[&[Range]], target: IpAddr) -> Option<&'static str> {
    tables.iter().copied().flatten().find(|(net, _)| net.contains(&target)).map(|(_, purpose)| *purpose)
}

const fn v4(address: [u8; 4], length: u8) -> IpNet {
    let [a, b, c, d] = address;
    IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length))
}

/// The range whose address starts with these three groups and ends with the last.
const fn v6(first: [u16; 3], last: u16, length: u8) -> IpNet {
    let [a, b, c] = first;
    IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, last), length))
}

const METADATA: &str = "cloud metadata service";

/// Denied even if an allowed range contains them: no API that users call is there.
pub(super) const ALWAYS_DENIED: &[Range] = &[
    (v4([169, 254, 169, 254], 32), METADATA),
    (v4([169, 254, 0, 0], 16), "link-local address"),
    (v6([0xfd00, 0xec2, 0], 0, 32), METADATA), // AWS: ::254 machines', ::23 pods'
    (v6([0xfd20, 0xce, 0], 0x254, 128), METADATA), // Google
    (v6([0xfd00, 0x42, 0], 0x42, 128), METADATA), // Scaleway
    (v4([168, 63, 129, 16], 32), METADATA),    // Azure, a public address
    (v4([100, 100, 100, 200], 32), METADATA),  // Alibaba
    (v4([192, 0, 0, 192], 32), METADATA),      // Oracle
    (v4([0, 0, 0, 0], 32), "unspecified address, which connects to this machine"),
    (v6([0, 0, 0], 0, 128), "unspecified address, which connects to this machine"),
];

/// Denied unless an allowed range lies within it.
pub(super) const LOOPBACK: &[Range] =
    &[(v4([127, 0, 0, 0], 8), "loopback address"), (v6([0, 0, 0], 1, 128), "loopback address")];

/// Not the address of a single reachable host.
pub(super) const NOT_UNICAST: &[Range] = &[
    (v4([0, 0, 0, 0], 8), "address of \"this network\" (RFC 1122 3.2.1.3)"),
    (v4([224, 0, 0, 0], 4), "multicast address"),
    (v4([255, 255, 255, 255], 32), "broadcast address"),
    (v6([0x64, 0xff9b, 1], 0, 48), "local-use IPv4/IPv6 translation prefix (RFC 8215)"),
    (v6([0, 0, 0], 0, 8), "reserved address (RFC 4291 2.4)"),
    (v6([0xfe80, 0, 0], 0, 10), "link-local address"),
    (v6([0xff00, 0, 0], 0, 8), "multicast address"),
];

/// Not routed on the internet, from the registries of RFC 6890.
pub(super) const NOT_PUBLIC: &[Range] = &[
    (v4([10, 0, 0, 0], 8), "private address (RFC 1918)"),
    (v4([172, 16, 0, 0], 12), "private address (RFC 1918)"),
    (v4([192, 168, 0, 0], 16), "private address (RFC 1918)"),
    (v4([100, 64, 0, 0], 10), "shared address space of carriers (RFC 6598)"),
    (v4([192, 0, 0, 0], 24), "IETF protocol assignment (RFC 6890)"),
    (v4([192, 0, 2, 0], 24), "documentation address (RFC 5737)"),
    (v4([198, 51, 100, 0], 24), "documentation address (RFC 5737)"),
    (v4([203, 0, 113, 0], 24), "documentation address (RFC 5737)"),
    (v4([192, 88, 99, 0], 24), "6to4 relay (RFC 7526)"),
    (v4([198, 18, 0, 0], 15), "benchmarking address (RFC 2544)"),
    (v4([240, 0, 0, 0], 4), "reserved address (RFC 1112 4)"),
    (v6([0xfc00, 0, 0], 0, 7), "unique local address (RFC 4193)"),
    (v6([0xfec0, 0, 0], 0, 10), "site-local address (RFC 3879)"),
    (v6([0x100, 0, 0], 0, 64), "discard-only address (RFC 6666)"),
    (v6([0x2001, 0, 0], 0, 23), "IETF protocol assignment, such as Teredo (RFC 2928)"),
    (v6([0x2001, 0xdb8, 0], 0, 32), "documentation address (RFC 3849)"),
    (v6([0x3fff, 0, 0], 0, 20), "documentation address (RFC 9637)"),
    (v6([0x5f00, 0, 0], 0, 16), "segment routing (SRv6) SID (RFC 9602)"),
];

/// The global unicast addresses of IPv6 (RFC 4291 2.4).
pub(super) const GLOBAL_V6: IpNet = v6([0x2000, 0, 0], 0, 3);
