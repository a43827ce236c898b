//! Leases are taken, renewed, and given to others.

use std::{sync::Arc, time::Duration};

use super::{
    Inner,
    shards::{Plan, member},
};
use crate::store::{Error, Lease};

/// How often other processes are asked after: those that share the work may have put something into the store.
const POLL: Duration = Duration::from_secs(1);
const POLL_SHARED: Duration = Duration::from_millis(200);

impl Inner {
    /// Has this process hold its part of the shards.
    pub(super) async fn keep_leases(self: Arc<Self>) {
        let mut membership = None;
        let mut corrected = false;
        loop {
            // The store logs what fails; leases that could not be renewed end by themselves.
            let kept = self.keep(&mut membership, &mut corrected).await;
            self.dispatch();
            let busy = kept.is_err() || !self.shards.retiring().is_empty();
            let pause = self.settings.lease_time / if busy { 15 } else { 3 };
            tokio::time::sleep(pause).await;
        }
    }

    async fn keep(&self, membership: &mut Option<Lease>, corrected: &mut bool) -> Result<(), Error> {
        let (leases, owner, time) = (self.store.leases(), &self.owner, self.settings.lease_time);
        if !*corrected {
            self.store.deliveries().correct_waits(self.clock.now()).await?;
            *corrected = true;
        }
        let mut held = self.shards.leases();
        held.extend(membership.take());
        let mut renewed = if held.is_empty() { held } else { leases.renew(owner, &held, time).await? };
        let name = member(owner);
        *membership = renewed.iter().position(|lease| lease.name == name).map(|at| renewed.swap_remove(at));
        let lost = self.shards.renewed(renewed);
        self.disown(&lost);
        if membership.is_none() {
            *membership = leases.acquire(owner, &[&name], time).await?.pop();
        }
        self.give_back_retired().await?;
        let Plan { free, room, retire } = self.shards.plan(&self.others(&leases.holders().await?));
        {
            let mut scheduler = self.scheduler.lock();
            self.endpoints_of(&retire).iter().for_each(|uid| scheduler.retire(uid));
        }
        let wanted: Vec<_> = free.iter().map(String::as_str).take(room).collect();
        if !wanted.is_empty() {
            let taken = leases.acquire(owner, &wanted, time).await?;
            let names: Vec<_> = taken.iter().map(|lease| lease.name.clone()).collect();
            self.shards.taken(taken);
            self.adoptable.lock().extend(self.endpoints_of(&names));
            self.signals.adopt.notify_one();
        }
        self.registry.disabled_are(self.store.deliveries().disabled().await?);
        Ok(())
    }

    /// What is held by this process' own name, and not by this process, is what an earlier one of the name had: it is free.
    fn others(&self, holders: &[(String, String)]) -> Vec<(String, String)> {
        let own: Vec<_> = self.shards.names();
        let name = member(&self.owner);
        let kept = |(lease, owner): &&(String, String)| {
            *owner != self.owner || *lease == name || own.contains(lease)
        };
        holders.iter().filter(kept).cloned().collect()
    }

    fn disown(&self, leases: &[String]) {
        let mut scheduler = self.scheduler.lock();
        self.endpoints_of(leases).iter().for_each(|uid| scheduler.disown(uid));
    }

    /// Shards of which another process is to have the endpoints are given back when nothing is under way.
    async fn give_back_retired(&self) -> Result<(), Error> {
        for name in self.shards.retiring() {
            let names = [name];
            let uids = self.endpoints_of(&names);
            let idle = {
                let scheduler = self.scheduler.lock();
                uids.iter().all(|uid| scheduler.is_idle(uid))
            };
            if idle {
                self.disown(&names);
                let lease: Vec<_> = self.shards.remove(&names[0]).into_iter().collect();
                self.store.leases().release(&self.owner, &lease).await?;
            }
        }
        Ok(())
    }

    /// Hears what others have to say to the holder of its leases.
    pub(super) async fn listen(self: Arc<Self>) {
        loop {
            let pause = if self.shards.is_shared() { POLL_SHARED } else { POLL };
            let _ = tokio::time::timeout(pause, self.signals.wakeups.notified()).await;
            let names = self.shards.names();
            let names: Vec<_> = names.iter().map(String::as_str).collect();
            if names.is_empty() {
                continue;
            }
            let Ok(wakeups) = self.store.deliveries().wakeups(&names).await else { continue };
            for wakeup in &wakeups {
                let uid = wakeup.endpoint.as_str().into();
                let mut scheduler = self.scheduler.lock();
                if !wakeup.enable {
                    scheduler.signal(&uid, wakeup.pending);
                } else if let Some(change) = scheduler.enable(&uid) {
                    drop(scheduler);
                    self.tell(&uid, change);
                }
            }
            if !wakeups.is_empty() {
                self.dispatch();
            }
        }
    }
}
