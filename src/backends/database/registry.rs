//! The connection pools of this process: probes and queries with the same settings share one.

use std::{
    collections::HashMap,
    ops::Deref,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};

use super::{Database, ServerSettings, connect};
use crate::backends::{Fault, http::Egress};

/// The pools in use, by the key of their settings.
pub struct PoolRegistry {
    by_key: Mutex<HashMap<[u8; 32], Weak<PoolHandle>>>,
    egress: Egress,
}

/// A shared handle to a server and its pool; the pool closes when the last handle is dropped.
pub struct PoolHandle {
    server: Arc<dyn Database>,
    engine: &'static str,
    endpoint: String,
    saturated: AtomicBool,
}

impl PoolRegistry {
    /// An empty registry; connections are made through `egress`.
    #[must_use]
    pub fn new(egress: Egress) -> Self {
        Self { by_key: Mutex::default(), egress }
    }

    /// The pool for these settings. It connects on first use.
    ///
    /// # Errors
    /// A setting that the driver cannot use.
    pub fn handle(&self, settings: ServerSettings) -> Result<Arc<PoolHandle>, Fault> {
        let key = settings.key();
        let mut handles = self.handles();
        if let Some(handle) = handles.get(&key).and_then(Weak::upgrade) {
            return Ok(handle);
        }
        handles.retain(|_, handle| handle.strong_count() > 0);
        let (engine, endpoint) = (settings.engine.as_str(), settings.endpoint());
        let (interval, timeout) = (settings.pool.monitor_interval, settings.timeout);
        let handle = PoolHandle {
            server: connect(settings, self.egress.clone())?,
            engine,
            endpoint,
            saturated: false.into(),
        };
        let handle = Arc::new(handle);
        handles.insert(key, Arc::downgrade(&handle));
        tokio::spawn(maintain(Arc::downgrade(&handle), interval, timeout));
        Ok(handle)
    }

    /// Handles to all pools in use.
    #[must_use]
    pub fn in_use(&self) -> Vec<Arc<PoolHandle>> {
        self.handles().values().filter_map(Weak::upgrade).collect()
    }

    fn handles(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<PoolHandle>>> {
        self.by_key.lock()
    }
}

/// Maintains the pool at this interval until its last handle is dropped.
async fn maintain(handle: Weak<PoolHandle>, interval: Duration, timeout: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(handle) = handle.upgrade() else { return };
        handle.saturated.store(handle.pool().saturated(), Relaxed);
        let _ = tokio::time::timeout(timeout, handle.server.maintain()).await;
    }
}

impl PoolHandle {
    /// The engine, such as `postgresql`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The pool was saturated when last observed, which is every `pool.monitorInterval`.
    #[must_use]
    pub fn saturated(&self) -> bool {
        self.saturated.load(Relaxed)
    }
}

impl Deref for PoolHandle {
    type Target = Arc<dyn Database>;

    fn deref(&self) -> &Self::Target {
        &self.server
    }
}

impl Drop for PoolHandle {
    fn drop(&mut self) {
        let server = Arc::clone(&self.server);
        // Without a runtime (at exit) the kernel closes the sockets.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { server.close().await });
        }
    }
}
