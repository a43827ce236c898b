//! What is held for objects goes with them.

use std::{collections::HashSet, time::Duration};

use kube::Resource;

use super::Gateway;

/// Changes that come together are one evict.
const GATHER: Duration = Duration::from_secs(2);

/// A call that ends after its object went leaves a series behind until then.
const AT_LEAST: Duration = Duration::from_mins(1);

impl Gateway {
    /// Lets go of what is held for objects that are gone, metrics included; never ends.
    pub async fn evict(&self) {
        let mut changes = (self.apis.changes(), self.databases.changes(), self.registrations.changes());
        loop {
            tokio::select! {
                () = changes.0.next() => {}
                () = changes.1.next() => {}
                () = changes.2.next() => {}
                () = tokio::time::sleep(AT_LEAST) => {}
            }
            tokio::time::sleep(GATHER).await;
            self.apis.evict();
            self.databases.evict();
            self.metrics.queries.retain(|namespace, name| self.databases.has(namespace, name));
            let registrations = self.registrations.all();
            let named = registrations.iter().filter_map(|guard| {
                let it = guard.0.as_ref().ok()?;
                Some((it.meta().namespace.as_deref()?, it.spec.service_name.as_str()))
            });
            let registered: HashSet<_> = named.collect();
            self.metrics.gateway.retain(|kind, namespace, name| match kind {
                "ExternalApi" => self.apis.has(namespace, name),
                "Database" => self.databases.has(namespace, name),
                _ => registered.contains(&(namespace, name)),
            });
        }
    }
}
