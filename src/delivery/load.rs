//! Deliveries that wait in the store come into memory, and endpoints to this process.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{Inner, Job, attempt::SharedEndpoint, shards::lease_of};
use crate::{
    domain::delivery::scheduler::{Item, Load, Uid},
    store::{
        Error,
        delivery::{Completion, Ending, EndpointState, FinalState, StoredDelivery},
    },
};

/// Questions to the store at once.
pub(super) const LOADERS: usize = 2;

/// After so long the store is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// Each delivery takes so much memory besides its event's data, about.
const OVERHEAD: usize = 512;

/// So many endpoints are asked about one by one; more of them by counting all.
const FEW: usize = 8;

impl Inner {
    /// Loads what the scheduler wants.
    pub(super) async fn load(self: Arc<Self>) {
        // Where to go on, of endpoints with more subjects than can be looked at at once.
        let mut subjects: HashMap<Uid, String> = HashMap::new();
        loop {
            self.signals.load.notified().await;
            loop {
                let Some(load) = self.scheduler.lock().load() else { break };
                if self.load_one(&load, &mut subjects).await.is_err() {
                    tokio::time::sleep(AGAIN).await;
                    self.scheduler.lock().not_loaded(&load.uid);
                }
                self.dispatch();
            }
        }
    }

    async fn load_one(&self, load: &Load, subjects: &mut HashMap<Uid, String>) -> Result<(), Error> {
        let subject = subjects.remove(&load.uid).unwrap_or_default();
        let subject = load.ordered.then_some(subject.as_str());
        let due = self.store.deliveries().due(&load.uid, self.clock.now(), load.limit, subject).await?;
        if let Some(subject) = due.subject {
            subjects.insert(Arc::clone(&load.uid), subject);
        }
        let items = due.deliveries.into_iter().map(item_of).collect();
        self.scheduler.lock().loaded(&load.uid, items, due.complete, due.next_due);
        Ok(())
    }

    /// Takes over endpoints of shards that this process holds.
    pub(super) async fn adopt(self: Arc<Self>) {
        loop {
            self.signals.adopt.notified().await;
            let mut uids = std::mem::take(&mut *self.adoptable.lock());
            uids.sort_unstable();
            uids.dedup();
            {
                let scheduler = self.scheduler.lock();
                uids.retain(|uid| self.shards.token(uid).is_some() && !scheduler.owns(uid));
            }
            if uids.is_empty() {
                continue;
            }
            if self.adopt_all(&uids).await.is_err() {
                self.adoptable.lock().extend(uids);
                tokio::time::sleep(AGAIN).await;
                self.signals.adopt.notify_one();
            }
            self.dispatch();
        }
    }

    async fn adopt_all(self: &Arc<Self>, uids: &[Uid]) -> Result<(), Error> {
        let deliveries = self.store.deliveries();
        let names: Vec<_> = uids.iter().map(|uid| &**uid).collect();
        let mut states: HashMap<String, EndpointState> =
            deliveries.endpoints(&names).await?.into_iter().collect();
        let mut pending = HashMap::new();
        if uids.len() > FEW {
            for count in deliveries.pending().await? {
                pending.insert(count.endpoint, (count.pending, count.due));
            }
        } else {
            for uid in uids {
                let count = deliveries.pending_of(uid).await?;
                // When they are due is found out by asking for them.
                pending.insert(uid.to_string(), (count, (count > 0).then_some(Duration::ZERO)));
            }
        }
        for uid in uids {
            let state = states.remove(&**uid).unwrap_or_default();
            let (count, due) = pending.get(&**uid).copied().unwrap_or_default();
            // It may have been lost meanwhile.
            if self.shards.token(uid).is_some() {
                self.scheduler.lock().own(uid, &state.snapshot, count, due, self.clock.now());
            }
            let filtered =
                self.registry.get(uid).filter(|endpoint| count > 0 && endpoint.settings.filter.is_some());
            if let Some(endpoint) = filtered {
                tokio::spawn(Arc::clone(self).release_held(endpoint));
            }
        }
        Ok(())
    }

    /// Asks the filter of an endpoint about what is held because it failed.
    pub(super) async fn release_held(self: Arc<Self>, endpoint: SharedEndpoint) {
        let (uid, Some(filter)) = (&endpoint.settings.uid, &endpoint.settings.filter) else { return };
        let mut after = i64::MIN;
        // What goes wrong is tried again when the filter changes, or somebody takes the endpoint over.
        while let Ok(held) = self.store.deliveries().held(uid, after).await {
            let Some(last) = held.last() else { return };
            after = last.id;
            let mut wanted = Vec::new();
            let mut unwanted = Vec::new();
            for delivery in &held {
                match filter(&delivery.event) {
                    Ok(true) => wanted.push(delivery.id),
                    Ok(false) => unwanted.extend(self.unwanted(uid, delivery)),
                    Err(_) => {}
                }
            }
            let now = self.clock.now();
            let released = self.store.deliveries().release(&wanted, now).await;
            let dropped = self.store.deliveries().complete(&self.owner, &unwanted, &[], now).await;
            if released.and(dropped).is_err() {
                return;
            }
            self.scheduler.lock().signal(uid, 0);
            self.dispatch();
        }
    }

    fn unwanted(&self, uid: &Uid, delivery: &StoredDelivery) -> Option<Completion> {
        Some(Completion {
            id: delivery.id,
            endpoint: Arc::clone(uid),
            event_id: delivery.event.id.clone(),
            accepted: delivery.accepted,
            replay: delivery.replay,
            token: self.shards.token(uid)?,
            ending: Ending::Finished { state: FinalState::Skipped, attempts: 0, dead_letter: None },
            attempt: None,
        })
    }

    /// Endpoints of these shards.
    pub(super) fn endpoints_of(&self, leases: &[String]) -> Vec<Uid> {
        let mut uids = self.registry.uids();
        uids.retain(|uid| leases.contains(&lease_of(uid)));
        uids
    }
}

fn item_of(delivery: StoredDelivery) -> Item<Job> {
    let StoredDelivery { id, event, accepted, created, attempts, replay, origin, .. } = delivery;
    let (size, seed) = (event.data.bytes.len() + OVERHEAD, event.seed());
    let event = Job { event: Arc::new(event), accepted, replay, origin };
    Item { id, attempts, created, size, seed, event }
}
