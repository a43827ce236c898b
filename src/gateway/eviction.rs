//! What is kept for objects goes with them.

use std::time::Duration;

use super::Gateway;

/// Changes that come within this time are one eviction.
const GATHER: Duration = Duration::from_secs(2);

/// A call that ends after its object was deleted leaves a series behind until the next eviction.
const AT_LEAST: Duration = Duration::from_mins(1);

impl Gateway {
    /// Lets go of what is kept for objects that were deleted; never ends.
    pub async fn evict(&self) {
        let mut changes = self.caches.changes();
        loop {
            tokio::select! {
                () = changes.next() => {}
                () = tokio::time::sleep(AT_LEAST) => {}
            }
            tokio::time::sleep(GATHER).await;
            self.families.all().for_each(|family| family.evict());
        }
    }
}
