//! One database server as something that can be probed.

use std::{
    collections::hash_map::DefaultHasher,
    hash::{Hash, Hasher},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{
        Fault,
        database::{self, PoolHandle, PoolRegistry, PoolView, ServerSettings},
    },
    controllers::targets,
    probing::Target,
};

/// How a server is reached, and where its pool is kept.
#[derive(Clone)]
pub struct ProbeTarget {
    pub(super) settings: ServerSettings,
    pub(super) pools: Arc<PoolRegistry>,
}

/// A server, with its pool.
pub struct ServerProbe {
    backend: Arc<PoolHandle>,
    timeout: Duration,
    /// The result for the last list of queries, by a digest of it.
    checked: Mutex<Option<(u64, Invalid)>>,
    /// The identities of servers that have answered, in the order in which they did so first.
    seen: Mutex<Vec<String>>,
}

/// So many servers may take turns behind one address.
const MAX_SEEN: usize = 16;

/// The queries that cannot be prepared, by name.
type Invalid = Vec<(String, Fault)>;

/// What a probe learns.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// What the server says of itself.
    pub server: database::Server,
    /// The pool was exhausted when it was last checked.
    pub saturated: bool,
}

impl ServerProbe {
    fn new(ProbeTarget { settings, pools }: &ProbeTarget) -> Result<Self, Fault> {
        Ok(Self {
            timeout: settings.timeout,
            backend: pools.handle(settings.clone())?,
            checked: Mutex::default(),
            seen: Mutex::default(),
        })
    }

    /// The identity that was new last: of several servers behind one address, which of them answers is no news.
    fn newest(&self, identity: String) -> String {
        let mut seen = self.seen.lock();
        if !seen.contains(&identity) {
            if seen.len() == MAX_SEEN {
                seen.remove(0);
            }
            seen.push(identity.clone());
        }
        seen.last().cloned().unwrap_or(identity)
    }

    /// The pool as it is now.
    #[must_use]
    pub fn pool(&self) -> PoolView {
        self.backend.pool()
    }

    /// The queries that cannot be prepared, and why. The same list is checked once per connection pool.
    pub async fn check(&self, queries: &[Query]) -> Invalid {
        let mut digest = DefaultHasher::new();
        for query in queries {
            (&query.name, &query.statement, query.read_only).hash(&mut digest);
            query.params.hash(&mut digest);
        }
        let digest = digest.finish();
        let known = self.checked.lock().clone();
        if let Some((_, invalid)) = known.filter(|(of, _)| *of == digest) {
            return invalid;
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
                // The connection failed, which says nothing of the query: the next reconcile asks again.
                Err(_) => return invalid,
            }
        }
        *self.checked.lock() = Some((digest, invalid.clone()));
        invalid
    }
}

impl targets::TargetSettings for ProbeTarget {
    type Target = ServerProbe;

    const CONNECTED: (Reason, &'static str) = (Reason::LoginSucceeded, "network, TLS and login succeed");

    fn key(&self) -> [u8; 32] {
        self.settings.key()
    }

    fn target_key(&self) -> [u8; 32] {
        self.settings.target_key()
    }

    fn login_key(&self) -> [u8; 32] {
        self.settings.login_key()
    }

    fn host(&self) -> &str {
        &self.settings.host
    }

    fn port(&self) -> u16 {
        self.settings.port
    }

    fn target(&self) -> Result<ServerProbe, Fault> {
        ServerProbe::new(self)
    }
}

impl Target for ServerProbe {
    type Facts = Facts;

    async fn probe(&self) -> Result<Facts, Fault> {
        let mut server = self.backend.probe().await?;
        server.identity = server.identity.map(|identity| self.newest(identity));
        Ok(Facts { server, saturated: self.backend.saturated() })
    }
}
