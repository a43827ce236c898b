//! One database server as something that can be probed.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{
        Fault,
        database::{self, Database, PoolView, Settings},
    },
    controllers::held,
    probing::Target,
};

/// A server, with its pool.
pub struct Server {
    backend: Arc<dyn Database>,
    engine: &'static str,
    endpoint: String,
    monitor_interval: Duration,
    timeout: Duration,
    saturated: AtomicBool,
    /// The verdicts on the last list of queries, by a digest of it.
    checked: Mutex<Option<(u64, Invalid)>>,
}

/// The queries that cannot be prepared, by name.
type Invalid = Vec<(String, Fault)>;

/// What a probe learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the server says of itself.
    pub server: database::Server,
    /// The pool had no room when it was last looked at.
    pub saturated: bool,
}

impl Server {
    /// Prepares a pool; it connects at the first probe.
    ///
    /// # Errors
    /// A setting that the driver cannot use.
    pub fn new(settings: Settings) -> Result<Self, Fault> {
        Ok(Self {
            engine: settings.engine.as_str(),
            endpoint: settings.endpoint(),
            monitor_interval: settings.pool.monitor_interval,
            timeout: settings.timeout,
            backend: database::connect(settings)?,
            saturated: AtomicBool::new(false),
            checked: Mutex::default(),
        })
    }

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

    /// The pool as it is now.
    #[must_use]
    pub fn pool(&self) -> PoolView {
        self.backend.pool()
    }

    /// The queries that cannot be prepared, and why. The same list is asked about once per connection pool.
    pub async fn check(&self, queries: &[Query]) -> Invalid {
        let mut digest = DefaultHasher::new();
        for query in queries {
            (&query.name, &query.statement, query.read_only).hash(&mut digest);
            query.params.hash(&mut digest);
        }
        let digest = digest.finish();
        let kept = self.checked.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some((_, verdicts)) = kept.filter(|(of, _)| *of == digest) {
            return verdicts;
        }
        let mut invalid = Vec::new();
        for query in queries {
            let Ok(checked) = tokio::time::timeout(self.timeout, self.backend.check(query)).await else {
                return invalid;
            };
            match checked.map_err(|fault| (fault.reason, fault)) {
                Ok(()) => {}
                Err((Reason::QueryInvalid | Reason::PermissionDenied, fault)) => {
                    invalid.push((query.name.clone(), fault));
                }
                // The connection failed, which says nothing of the query: the next pass asks again.
                Err(_) => return invalid,
            }
        }
        *self.checked.lock().unwrap_or_else(PoisonError::into_inner) = Some((digest, invalid.clone()));
        invalid
    }
}

impl held::Settings for Settings {
    type Target = Server;

    const CONNECTED: (Reason, &'static str) = (Reason::LoginSucceeded, "network, TLS and login succeed");

    fn key(&self) -> [u8; 32] {
        Settings::key(self)
    }

    fn target_key(&self) -> [u8; 32] {
        Settings::target_key(self)
    }

    fn host(&self) -> &str {
        &self.host
    }

    fn port(&self) -> u16 {
        self.port
    }

    fn target(&self) -> Result<Server, Fault> {
        Server::new(self.clone())
    }
}

impl Target for Server {
    type Facts = Facts;

    async fn probe(&self) -> Result<Facts, Fault> {
        let server = self.backend.probe().await?;
        Ok(Facts { server, saturated: self.saturated.load(Relaxed) })
    }

    fn tend_interval(&self) -> Duration {
        self.monitor_interval
    }

    async fn tend(&self) {
        self.saturated.store(self.backend.pool().saturated(), Relaxed);
        self.backend.tend().await;
    }

    async fn close(&self) {
        self.backend.close().await;
    }
}
