//! The servers that this process uses: whoever reaches the same one in the same way, be it to judge it or to run queries,
//! shares its pool.

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

/// The servers that are in use, by the key of their settings.
pub struct PoolRegistry {
    by_key: Mutex<HashMap<[u8; 32], Weak<PoolHandle>>>,
    egress: Egress,
}

/// A share in a server and its pool, which closes with the last one.
pub struct PoolHandle {
    server: Arc<dyn Database>,
    engine: &'static str,
    endpoint: String,
    saturated: AtomicBool,
}

impl PoolRegistry {
    /// None yet; they are connected to by `egress`.
    #[must_use]
    pub fn new(egress: Egress) -> Self {
        Self { by_key: Mutex::default(), egress }
    }

    /// A share in the server of these settings. It is connected to when it is first needed.
    ///
    /// # Errors
    /// A setting that the driver cannot use.
    pub fn share(&self, settings: ServerSettings) -> Result<Arc<PoolHandle>, Fault> {
        let key = settings.key();
        let mut servers = self.all();
        if let Some(share) = servers.get(&key).and_then(Weak::upgrade) {
            return Ok(share);
        }
        servers.retain(|_, share| share.strong_count() > 0);
        let (engine, endpoint) = (settings.engine.as_str(), settings.endpoint());
        let (interval, patience) = (settings.pool.monitor_interval, settings.timeout);
        let share = PoolHandle {
            server: connect(settings, self.egress.clone())?,
            engine,
            endpoint,
            saturated: false.into(),
        };
        let share = Arc::new(share);
        servers.insert(key, Arc::downgrade(&share));
        tokio::spawn(tend(Arc::downgrade(&share), interval, patience));
        Ok(share)
    }

    /// Those that somebody has a share in.
    #[must_use]
    pub fn in_use(&self) -> Vec<Arc<PoolHandle>> {
        self.all().values().filter_map(Weak::upgrade).collect()
    }

    fn all(&self) -> MutexGuard<'_, HashMap<[u8; 32], Weak<PoolHandle>>> {
        self.by_key.lock()
    }
}

/// Looks after the pool at this interval, as long as somebody has a share in it.
async fn tend(share: Weak<PoolHandle>, interval: Duration, patience: Duration) {
    loop {
        tokio::time::sleep(interval).await;
        let Some(share) = share.upgrade() else { return };
        share.saturated.store(share.pool().saturated(), Relaxed);
        let _ = tokio::time::timeout(patience, share.server.tend()).await;
    }
}

impl PoolHandle {
    /// Such as `postgresql`.
    #[must_use]
    pub fn engine(&self) -> &'static str {
        self.engine
    }

    /// `host:port`.
    #[must_use]
    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// The pool had no room for a caller when it was last looked at, which is every `pool.monitorInterval`.
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
        // Outside of a runtime (at exit) the sockets close by themselves.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move { server.close().await });
        }
    }
}
