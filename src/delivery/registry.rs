//! The endpoints that there are.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use parking_lot::RwLock;

use super::attempt::{Endpoint, SharedEndpoint};
use crate::domain::delivery::scheduler::Uid;

/// Endpoints by uid, and by namespace.
#[derive(Default)]
pub(super) struct Registry(RwLock<State>);

#[derive(Default)]
struct State {
    by_uid: HashMap<Uid, SharedEndpoint>,
    by_namespace: HashMap<String, Vec<Uid>>,
    /// Those that are disabled, as others know; of its own the scheduler does.
    disabled: HashSet<String>,
}

impl Registry {
    pub(super) fn set(&self, endpoint: Endpoint) -> SharedEndpoint {
        let endpoint = Arc::new(endpoint);
        let uid = Arc::clone(&endpoint.settings.uid);
        let mut state = self.0.write();
        if state.by_uid.insert(Arc::clone(&uid), Arc::clone(&endpoint)).is_none() {
            state.by_namespace.entry(endpoint.settings.namespace.clone()).or_default().push(uid);
        }
        endpoint
    }

    pub(super) fn remove(&self, uid: &Uid) {
        let mut state = self.0.write();
        let Some(endpoint) = state.by_uid.remove(uid) else { return };
        let namespace = &endpoint.settings.namespace;
        let State { by_namespace, .. } = &mut *state;
        let Some(uids) = by_namespace.get_mut(namespace) else { return };
        uids.retain(|other| other != uid);
        if uids.is_empty() {
            by_namespace.remove(namespace);
        }
    }

    pub(super) fn get(&self, uid: &str) -> Option<SharedEndpoint> {
        self.0.read().by_uid.get(uid).cloned()
    }

    /// Calls `each` with the endpoints of a namespace.
    pub(super) fn in_namespace(&self, namespace: &str, mut each: impl FnMut(&SharedEndpoint)) {
        let state = self.0.read();
        let uids = state.by_namespace.get(namespace).into_iter().flatten();
        uids.filter_map(|uid| state.by_uid.get(uid)).for_each(&mut each);
    }

    pub(super) fn uids(&self) -> Vec<Uid> {
        self.0.read().by_uid.keys().cloned().collect()
    }

    pub(super) fn disabled_are(&self, uids: Vec<String>) {
        self.0.write().disabled = uids.into_iter().collect();
    }

    pub(super) fn is_disabled(&self, uid: &str) -> bool {
        self.0.read().disabled.contains(uid)
    }
}
