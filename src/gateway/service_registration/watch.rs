//! A caller that watches a service.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use axum::{http::HeaderMap, response::sse::Event};
use futures::{Stream, stream};
use tokio::time::Instant;

use super::{Family, Filter, GET, Instance};
use crate::{cluster::object_cache::CacheChanges, gateway::call_guard::review};

/// How often the permission of the caller is reviewed; most reviews are answered from the cache.
const REVIEW_INTERVAL: Duration = Duration::from_secs(1);

pub(super) struct Watcher {
    family: Arc<Family>,
    namespace: String,
    service: String,
    filter: Filter,
    headers: HeaderMap,
    changes: CacheChanges,
    reviewed: Instant,
    /// What the caller knows.
    known: BTreeMap<String, Instance>,
    pending: Vec<Event>,
    first: bool,
}

impl Watcher {
    /// For a caller that was just admitted.
    pub(super) fn new(
        family: Arc<Family>,
        namespace: String,
        service: String,
        filter: Filter,
        headers: HeaderMap,
    ) -> Self {
        Self {
            changes: family.registrations.changes(),
            reviewed: Instant::now(),
            known: BTreeMap::new(),
            pending: Vec::new(),
            first: true,
            family,
            namespace,
            service,
            filter,
            headers,
        }
    }

    /// Ends when the process is to end, or the caller loses its permission.
    pub(super) fn events(self) -> impl Stream<Item = Result<Event, Infallible>> {
        stream::unfold(self, |mut watcher| async {
            loop {
                if !watcher.pending.is_empty() {
                    let event = watcher.pending.remove(0);
                    return Some((Ok(event), watcher));
                }
                if !watcher.changed().await {
                    return None;
                }
                watcher.compare();
            }
        })
    }

    /// Waits for a change; false at the end.
    async fn changed(&mut self) -> bool {
        if std::mem::take(&mut self.first) {
            return true;
        }
        let deps = Arc::clone(&self.family.deps);
        loop {
            tokio::select! {
                () = deps.stopping.cancelled() => return false,
                () = self.changes.next() => return true,
                () = tokio::time::sleep_until(self.reviewed + REVIEW_INTERVAL) => {
                    self.reviewed = Instant::now();
                    let object = (&*self.namespace, &*self.service);
                    if review(&deps.reviewer, &self.headers, &GET, object).await.is_err() {
                        return false;
                    }
                }
            }
        }
    }

    fn compare(&mut self) {
        let now = self.family.instances(&self.namespace, &self.service, &self.filter);
        let now: BTreeMap<_, _> = now.into_iter().map(|it| (it.id.clone(), it)).collect();
        for (id, instance) in &now {
            let serves = |it: &Instance| it.healthy && !it.draining;
            match self.known.get(id) {
                None => self.report("register", instance),
                Some(before) if serves(before) != serves(instance) => {
                    self.report("health_change", instance);
                }
                // To those who choose among the instances and call them, that is another one.
                Some(before) if declared(before) != declared(instance) => self.report("register", instance),
                Some(_) => {}
            }
        }
        let gone: Vec<_> = self.known.values().filter(|it| !now.contains_key(&it.id)).cloned().collect();
        for instance in gone {
            self.report("deregister", &instance);
        }
        self.known = now;
    }

    fn report(&mut self, event: &str, instance: &Instance) {
        // Serializing an instance does not fail.
        self.pending.extend(Event::default().event(event).json_data(instance).ok());
    }
}

/// What the spec declares of an instance. Not the load, which changes all the time.
fn declared(it: &Instance) -> impl PartialEq {
    (&it.addresses, &it.ports, &it.zone, it.weight, &it.labels)
}
