//! What TLS handshakes have shown of the servers behind one name.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

/// A server as TLS handshakes have shown it; several behind one name are combined.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// When the first of the certificates expires; none where none could be decoded.
    pub not_after: Option<Timestamp>,
    /// Whether each of them negotiated HTTP/2.
    pub http2: bool,
}

/// How long an address is remembered after its last handshake. A name may resolve to others each time, and one of them may be
/// dead: neither says that a server is gone, or that it is still there.
const RETENTION: Duration = Duration::from_hours(1);

/// At most so many addresses are remembered.
const MAX: usize = 64;

/// By address: the last handshake, and when it was.
#[derive(Default)]
pub(super) struct Peers(HashMap<IpAddr, (Peer, Instant)>);

impl Peers {
    pub(super) fn record(&mut self, address: IpAddr, peer: Peer, now: Instant) {
        self.0.insert(address, (peer, now));
        self.0.retain(|_, (_, seen)| now.duration_since(*seen) < RETENTION);
        if self.0.len() > MAX {
            let oldest = self.0.iter().min_by_key(|(_, (_, seen))| *seen).map(|(address, _)| *address);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
    }

    pub(super) fn combined(&self) -> Option<Peer> {
        self.0.values().map(|(peer, _)| *peer).reduce(|one, other| Peer {
            not_after: [one.not_after, other.not_after].into_iter().flatten().min(),
            http2: one.http2 && other.http2,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expires(second: u8) -> Peer {
        Peer { not_after: Timestamp::from_second(second.into()).ok(), http2: true }
    }

    #[test]
    fn an_address_is_remembered_for_an_hour_after_its_last_handshake() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        let [dead, alive] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        peers.record(dead, expires(1), start);
        peers.record(alive, expires(2), start);
        peers.record(alive, expires(3), start + RETENTION - Duration::from_secs(1));
        assert_eq!(peers.combined(), Some(expires(1)));
        peers.record(alive, expires(3), start + RETENTION);
        assert_eq!(peers.combined(), Some(expires(3)));
    }

    #[test]
    fn of_too_many_addresses_the_latest_are_remembered() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        for last in 0..=64_u8 {
            let now = start + Duration::from_secs(last.into());
            peers.record(IpAddr::from([192, 0, 2, last]), expires(last), now);
        }
        assert_eq!((peers.0.len(), peers.combined()), (MAX, Some(expires(1))));
    }
}
