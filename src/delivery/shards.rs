//! Which endpoints this process sends to: each belongs to a shard, and each shard to one process at a time, by a lease in the store.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Instant,
};

use parking_lot::RwLock;

use crate::store::{Lease, delivery::FencingToken};

/// Enough that a few processes have about as many each.
const SHARDS: u64 = 64;

const PREFIX: &str = "delivery/shard/";
const MEMBER_PREFIX: &str = "delivery/member/";

/// The lease of an endpoint's shard.
#[must_use]
pub fn lease_of(uid: &str) -> String {
    // FNV-1a: the same in every version, for as long as there are processes of several.
    let hash = uid.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    name_of(hash % SHARDS)
}

fn name_of(shard: u64) -> String {
    format!("{PREFIX}{shard:02}")
}

/// The lease that says that a process is there.
pub(super) fn member(owner: &str) -> String {
    format!("{MEMBER_PREFIX}{owner}")
}

/// The shards of this process.
#[derive(Debug, Default)]
pub(super) struct Shards(RwLock<State>);

#[derive(Debug, Default)]
struct State {
    held: BTreeMap<String, Lease>,
    /// Those that another process is to have.
    retiring: BTreeSet<String>,
    /// How many processes share all of them.
    members: usize,
}

/// What is to be done about shards.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// To be taken, as many as `room` says of them.
    pub(super) free: Vec<String>,
    pub(super) room: usize,
    /// To be given to others.
    pub(super) retire: Vec<String>,
}

impl Shards {
    /// Under what this process sends to an endpoint, if it does.
    pub(super) fn token(&self, uid: &str) -> Option<FencingToken> {
        let lease = lease_of(uid);
        let epoch = self.0.read().held.get(&lease)?.epoch;
        Some(FencingToken { lease, epoch })
    }

    /// Until when all of them are held for sure.
    pub(super) fn valid_until(&self) -> Option<Instant> {
        self.0.read().held.values().map(|lease| lease.valid_until).min()
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.0.read().held.keys().cloned().collect()
    }

    pub(super) fn leases(&self) -> Vec<Lease> {
        self.0.read().held.values().cloned().collect()
    }

    pub(super) fn is_shared(&self) -> bool {
        self.0.read().members > 1
    }

    pub(super) fn retiring(&self) -> Vec<String> {
        self.0.read().retiring.iter().cloned().collect()
    }

    /// These are held now, and no others of those that were.
    pub(super) fn renewed(&self, leases: Vec<Lease>) -> Vec<String> {
        let mut state = self.0.write();
        let mut lost = std::mem::take(&mut state.held);
        for lease in leases {
            lost.remove(&lease.name);
            state.held.insert(lease.name.clone(), lease);
        }
        let State { held, retiring, .. } = &mut *state;
        retiring.retain(|name| held.contains_key(name));
        lost.into_keys().collect()
    }

    pub(super) fn taken(&self, leases: Vec<Lease>) {
        self.0.write().held.extend(leases.into_iter().map(|lease| (lease.name.clone(), lease)));
    }

    pub(super) fn remove(&self, name: &str) -> Option<Lease> {
        let mut state = self.0.write();
        state.retiring.remove(name);
        state.held.remove(name)
    }

    /// What follows from who holds what: everybody has an equal part.
    pub(super) fn plan(&self, holders: &[(String, String)]) -> Plan {
        let mut state = self.0.write();
        let members = holders.iter().filter(|(name, _)| name.starts_with(MEMBER_PREFIX)).count().max(1);
        state.members = members;
        let part = usize::try_from(SHARDS).unwrap_or(usize::MAX).div_ceil(members);
        let kept = state.held.len() - state.retiring.len();
        if kept > part {
            let names: Vec<_> =
                state.held.keys().filter(|name| !state.retiring.contains(*name)).cloned().collect();
            let retire = names.into_iter().take(kept - part).collect::<Vec<_>>();
            state.retiring.extend(retire.iter().cloned());
            return Plan { retire, ..Plan::default() };
        }
        let taken: BTreeSet<_> = holders.iter().map(|(name, _)| name.as_str()).collect();
        let free = (0..SHARDS).map(name_of).filter(|name| !taken.contains(name.as_str()));
        let free = free.filter(|name| !state.held.contains_key(name)).collect();
        Plan { free, room: part - kept, retire: Vec::new() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(name: &str) -> Lease {
        Lease { name: name.to_owned(), epoch: 1, valid_until: Instant::now() }
    }

    fn holders(of: &[(&str, &Shards)]) -> Vec<(String, String)> {
        let shards = of.iter().flat_map(|(owner, shards)| {
            shards.names().into_iter().map(|name| (name, (*owner).to_owned())).collect::<Vec<_>>()
        });
        let members = of.iter().map(|(owner, _)| (member(owner), (*owner).to_owned()));
        members.chain(shards).collect()
    }

    #[test]
    fn an_endpoint_always_has_the_same_shard() {
        assert_eq!(
            lease_of("0198c0de-0000-7000-8000-000000000001"),
            lease_of("0198c0de-0000-7000-8000-000000000001")
        );
        assert_eq!(lease_of(""), "delivery/shard/37", "the offset of FNV-1a");
        let used: BTreeSet<_> = (0..10_000).map(|n| lease_of(&format!("uid-{n}"))).collect();
        assert_eq!(used.len(), 64);
    }

    #[test]
    fn a_process_that_is_alone_takes_all_and_gives_half_to_one_that_comes() {
        let (one, two) = (Shards::default(), Shards::default());
        let plan = one.plan(&holders(&[("one", &one)]));
        assert_eq!((plan.free.len(), plan.room), (64, 64));
        one.taken(plan.free.iter().map(|name| lease(name)).collect());
        let both = || holders(&[("one", &one), ("two", &two)]);
        assert_eq!(two.plan(&both()), Plan { room: 32, ..Plan::default() }, "nothing is free");
        let retire = one.plan(&both()).retire;
        assert_eq!((retire.len(), one.plan(&both()).retire.len()), (32, 0), "each is asked once");
        for name in &retire {
            assert!(one.remove(name).is_some());
        }
        let plan = two.plan(&both());
        assert_eq!((plan.free, plan.room), (retire, 32));
    }

    #[test]
    fn what_is_not_renewed_is_lost() {
        let shards = Shards::default();
        shards.taken(vec![lease("a"), lease("b")]);
        assert_eq!(shards.renewed(vec![lease("b")]), ["a"]);
        assert_eq!(shards.names(), ["b"]);
    }
}
