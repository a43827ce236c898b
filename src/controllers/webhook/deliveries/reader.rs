//! What the gateways' delivery engine has written into the store, as last read.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::MissedTickBehavior;

use crate::{
    controllers::RequeueFn,
    domain::delivery::outcome::Outcome,
    store::{
        self, Store,
        delivery::{AttemptFilter, EndpointState, LoggedAttempt},
    },
};

/// Counts alone requeue an object at this interval at the most: each is a write of its status.
const COUNT_INTERVAL: Duration = Duration::from_secs(15);

/// Endpoints of one query.
const CHUNK: usize = 500;

/// What was read last is believed until so many reads have failed.
const BELIEVED: u32 = 4;

/// What the store says of deliveries, for the objects that were reported once.
pub struct DeliveryReader {
    store: Arc<Store>,
    interval: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    objects: HashMap<String, Object>,
    /// When the store could be read last.
    at: Option<Instant>,
    /// Gateways that live, and the resource version that each of them has loaded; none of one that has not loaded all.
    gateways: Vec<Option<u64>>,
}

struct Object {
    requeue: RequeueFn,
    /// The resource version that gateways are waited for.
    awaited: Option<u64>,
    read: Endpoint,
    reported: Endpoint,
    reported_at: Instant,
}

/// What is known of an endpoint.
#[derive(Clone, Debug, Default, PartialEq)]
pub(in super::super) struct Endpoint {
    pub(in super::super) state: EndpointState,
    /// Pending deliveries that are held.
    pub(in super::super) held: u64,
    /// The last attempt that failed.
    pub(in super::super) last_failed: Option<LoggedAttempt>,
    /// Whether each gateway that lives has the awaited version.
    pub(in super::super) loaded: bool,
}

/// How much is known.
#[derive(Clone, Debug, PartialEq)]
pub(in super::super) enum Known {
    /// The process has only just begun.
    NotYet,
    /// The store cannot be read.
    Unavailable,
    /// What was read last.
    Endpoint(Box<Endpoint>),
}

impl DeliveryReader {
    /// Nothing is known yet.
    #[must_use]
    pub fn new(store: Arc<Store>, interval: Duration) -> Self {
        Self { store, interval, state: Mutex::default() }
    }

    /// The store.
    pub(in super::super) fn store(&self) -> &Store {
        &self.store
    }

    /// Reads the store, and requeues each object of which it says something new; never ends.
    pub async fn follow(&self) {
        let mut ticks = tokio::time::interval(self.interval);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            // The store itself tells of what fails.
            if self.read().await.is_ok() {
                self.changed().into_iter().for_each(|requeue| requeue());
            }
        }
    }

    /// What is known of the object, which is requeued when something new is. Gateways are waited for until they have loaded
    /// `version`, if any.
    pub(in super::super) fn report(&self, uid: &str, version: Option<u64>, requeue: &RequeueFn) -> Known {
        let mut state = self.state();
        let fresh = state.at.is_some_and(|at| at.elapsed() < self.interval * BELIEVED);
        let loaded = state.has_loaded(version);
        let object = state.objects.entry(uid.to_owned()).or_insert_with(|| Object {
            requeue: Arc::clone(requeue),
            awaited: None,
            read: Endpoint::default(),
            reported: Endpoint::default(),
            reported_at: Instant::now(),
        });
        (object.awaited, object.read.loaded) = (version, loaded);
        (object.reported, object.reported_at) = (object.read.clone(), Instant::now());
        let endpoint = Box::new(object.read.clone());
        match (fresh, state.at) {
            (true, _) => Known::Endpoint(endpoint),
            (false, None) => Known::NotYet,
            (false, Some(_)) => Known::Unavailable,
        }
    }

    /// The object is gone.
    pub(in super::super) fn forget(&self, uid: &str) {
        self.state().objects.remove(uid);
    }

    async fn read(&self) -> Result<(), store::Error> {
        let uids: Vec<String> = self.state().objects.keys().cloned().collect();
        let (deliveries, mut found) = (self.store.deliveries(), Vec::new());
        let gateways = self.store.usage().webhook_versions(self.interval * 3).await?;
        for uids in uids.chunks(CHUNK) {
            let uids: Vec<_> = uids.iter().map(String::as_str).collect();
            found.extend(deliveries.endpoints(&uids).await?);
        }
        let pending: Vec<_> = found.iter().filter(|(_, it)| it.pending > 0).map(|(uid, _)| &**uid).collect();
        let mut held = HashMap::new();
        for uids in pending.chunks(CHUNK) {
            held.extend(deliveries.held_counts(uids).await?);
        }
        // The total counts what was given up ever; a dead letter that was delivered by a replay is none any more.
        let given_up = found
            .iter()
            .filter(|(_, it)| it.snapshot.totals.dead > 0)
            .map(|(uid, _)| &**uid)
            .collect::<Vec<_>>();
        let mut dead = HashMap::new();
        for uids in given_up.chunks(CHUNK) {
            dead.extend(deliveries.dead_counts(uids).await?);
        }
        let mut failed = Vec::new();
        for (uid, endpoint) in &found {
            let last = endpoint.snapshot.totals.last_failure;
            let known = self.state().objects.get(uid).map(|it| it.read.state.snapshot.totals.last_failure);
            if let Some((_, outcome)) = last
                && known != Some(last)
            {
                failed.push((uid.clone(), self.last_failed(uid, outcome).await?));
            }
        }
        let mut state = self.state();
        (state.at, state.gateways) = (Some(Instant::now()), gateways);
        for (uid, mut endpoint) in found {
            endpoint.snapshot.totals.dead = dead.get(&uid).copied().unwrap_or_default();
            if let Some(object) = state.objects.get_mut(&uid) {
                object.read.held = held.get(&uid).copied().unwrap_or_default();
                object.read.state = endpoint;
            }
        }
        for (uid, attempt) in failed {
            if let Some(object) = state.objects.get_mut(&uid) {
                object.read.last_failed = attempt;
            }
        }
        let State { objects, gateways, .. } = &mut *state;
        for object in objects.values_mut() {
            object.read.loaded = has_loaded(gateways, object.awaited);
        }
        Ok(())
    }

    async fn last_failed(&self, uid: &str, outcome: Outcome) -> Result<Option<LoggedAttempt>, store::Error> {
        let filter = AttemptFilter { outcome: Some(outcome), ..AttemptFilter::default() };
        Ok(self.store.deliveries().attempts(uid, &filter, 1).await?.pop())
    }

    /// Those of which something is known that was not reported.
    fn changed(&self) -> Vec<RequeueFn> {
        let state = self.state();
        let news = state.objects.values().filter(|object| {
            let (read, reported) = (&object.read, &object.reported);
            let at_once = read.summary() != reported.summary();
            at_once || read != reported && object.reported_at.elapsed() >= COUNT_INTERVAL
        });
        news.map(|object| Arc::clone(&object.requeue)).collect()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

impl State {
    fn has_loaded(&self, version: Option<u64>) -> bool {
        has_loaded(&self.gateways, version)
    }
}

/// Whether each gateway that lives, of which there must be one, has this version.
fn has_loaded(gateways: &[Option<u64>], version: Option<u64>) -> bool {
    let Some(version) = version else { return true };
    !gateways.is_empty() && gateways.iter().all(|loaded| loaded.is_some_and(|loaded| loaded >= version))
}

impl Endpoint {
    /// What is worth a write at once.
    fn summary(&self) -> impl PartialEq + use<> {
        let snapshot = &self.state.snapshot;
        let noticed = snapshot.failing.map(|failing| failing.noticed);
        let (open, disabled) = (snapshot.open_until.is_some(), snapshot.disabled.map(|(reason, _)| reason));
        (open, disabled, noticed, self.loaded, snapshot.totals.dead > 0, snapshot.totals.delivered > 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_loaded_once_each_gateway_has_it_and_there_is_one() {
        assert!(!has_loaded(&[], Some(7)), "nobody delivers");
        assert!(!has_loaded(&[Some(7), None], Some(7)) && !has_loaded(&[Some(7), Some(6)], Some(7)));
        assert!(has_loaded(&[Some(7), Some(8)], Some(7)));
        assert!(has_loaded(&[], None), "it was loaded before");
    }
}
