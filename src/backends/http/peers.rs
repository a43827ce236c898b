//! What handshakes have shown of the servers behind one name.

use std::{collections::HashMap, net::IpAddr, time::Duration};

use jiff::Timestamp;
use tokio::time::Instant;

/// A server as handshakes have shown it; several behind one name as one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Peer {
    /// When the first of the certificates expires; none where none tells in a way that we understand.
    pub not_after: Option<Timestamp>,
    /// Whether HTTP/2 was agreed on with each of them.
    pub http2: bool,
}

/// What an address has shown holds for so long. A name may lead to other ones each time, and one of them may be dead: neither
/// says that a server is gone, or that it is still there.
const HOLDS: Duration = Duration::from_hours(1);

/// So many addresses are remembered.
const MAX: usize = 64;

/// By address, as each was seen last, and when.
#[derive(Default)]
pub(super) struct Peers(HashMap<IpAddr, (Peer, Instant)>);

impl Peers {
    pub(super) fn note(&mut self, address: IpAddr, peer: Peer, now: Instant) {
        self.0.insert(address, (peer, now));
        self.0.retain(|_, (_, seen)| now.duration_since(*seen) < HOLDS);
        if self.0.len() > MAX {
            let oldest = self.0.iter().min_by_key(|(_, (_, seen))| *seen).map(|(address, _)| *address);
            oldest.and_then(|oldest| self.0.remove(&oldest));
        }
    }

    pub(super) fn whole(&self) -> Option<Peer> {
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
    fn what_an_address_has_shown_holds_for_an_hour_after_it_was_seen_last() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        let [dead, alive] = [1, 2].map(|last| IpAddr::from([192, 0, 2, last]));
        peers.note(dead, expires(1), start);
        peers.note(alive, expires(2), start);
        peers.note(alive, expires(3), start + HOLDS - Duration::from_secs(1));
        assert_eq!(peers.whole(), Some(expires(1)));
        peers.note(alive, expires(3), start + HOLDS);
        assert_eq!(peers.whole(), Some(expires(3)));
    }

    #[test]
    fn of_too_many_addresses_those_that_were_seen_last_are_remembered() {
        let (mut peers, start) = (Peers::default(), Instant::now());
        for last in 0..=64_u8 {
            let now = start + Duration::from_secs(last.into());
            peers.note(IpAddr::from([192, 0, 2, last]), expires(last), now);
        }
        assert_eq!((peers.0.len(), peers.whole()), (MAX, Some(expires(1))));
    }
}
