//! The store: what must outlive a process and does not belong into the API server. SQLite for a process that is alone,
//! PostgreSQL for several. Nothing waits for it for longer than [`OPERATION_TIMEOUT`], and nobody who is served by the gateway at all.

pub mod delivery;
mod error;
mod leases;
mod location;
mod outbox;
mod schema;
mod sql;
mod target;
mod usage;
pub mod users;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

pub use error::Error;
pub use leases::{Lease, Leases};
pub use location::{InvalidLocation, Location};
pub use outbox::{Outbox, OutboxEvent};
pub use usage::{Entry, ReplicaState, Snapshot, Usage};

pub use target::FileLock;

use crate::telemetry::metrics::StoreMetrics;
use location::Current;
use sql::{Access, Transaction};
use target::{Pools, Target};

/// How long one operation may take, connecting included.
pub const OPERATION_TIMEOUT: Duration = Duration::from_secs(10);

/// The store of a process, or of several.
pub struct Store {
    location: Location,
    current: Mutex<Current>,
    /// Whether its tables are known to be there.
    prepared: AtomicBool,
    /// The operations that failed the last time: the log tells when the first fails and when none does any more, the metric of
    /// each failure.
    failing: Mutex<BTreeSet<&'static str>>,
    metrics: StoreMetrics,
}

impl Store {
    /// The store of a URL such as `sqlite:///path/file.db`, `sqlite::memory:` or `postgres://user:password@host/database`.
    /// Nothing is opened before it is needed, and what cannot be opened is tried again with the next operation.
    ///
    /// # Errors
    /// An invalid URL, or a file that cannot be read. The text has nothing of the URL.
    pub fn new(location: Location, metrics: StoreMetrics) -> Result<Self, InvalidLocation> {
        let current = location.open()?;
        Ok(Self::of(location, current, metrics))
    }

    /// One that ends with the process.
    #[must_use]
    pub fn in_memory(metrics: StoreMetrics) -> Self {
        Self::of(Location::Memory, Current::in_memory(), metrics)
    }

    fn of(location: Location, current: Current, metrics: StoreMetrics) -> Self {
        let current = Mutex::new(current);
        Self { location, current, prepared: false.into(), failing: Mutex::default(), metrics }
    }

    /// Where it is, without user and password.
    #[must_use]
    pub fn place(&self) -> String {
        self.current.lock().target.place()
    }

    /// Whether it ends with the process.
    #[must_use]
    pub fn is_volatile(&self) -> bool {
        matches!(self.current.lock().target, Target::Memory(_))
    }

    /// Whether several processes may use it at once.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        matches!(self.current.lock().target, Target::Postgresql(_))
    }

    /// The sole right to a file, for as long as the value is there; none while another process has it. Where there is no file, anybody
    /// gets it.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn lock(&self) -> std::io::Result<Option<FileLock>> {
        self.current.lock().target.lock()
    }

    /// Makes its tables ready for this version.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.operate("prepare", async { Ok(()) }).await
    }

    /// Runs `work`, with the tables ready and no longer than it may take, and tells of how that went.
    async fn operate<T>(
        &self,
        operation: &'static str,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let all = async {
            if !self.prepared.load(Relaxed) {
                schema::prepare(&self.pools().all).await?;
                self.prepared.store(true, Relaxed);
            }
            work.await.map_err(Error::from)
        };
        let done = tokio::time::timeout(OPERATION_TIMEOUT, all)
            .await
            .unwrap_or(Err(Error::TimedOut(OPERATION_TIMEOUT)));
        let mut failing = self.failing.lock();
        let healthy = failing.is_empty();
        match &done {
            Ok(_) => {
                if failing.remove(operation) && failing.is_empty() {
                    tracing::info!(store = self.place(), "the store works again");
                }
            }
            Err(error) => {
                self.metrics.failed(operation);
                failing.insert(operation);
                if healthy {
                    tracing::warn!(store = self.place(), operation, %error, "the store does not work");
                }
                // Another server may be there next time, without tables.
                self.prepared.store(false, Relaxed);
                // A server that refuses may be one that was the primary: the next connection finds the new one.
                if !matches!(error, Error::Newer { .. }) {
                    self.abandon();
                }
            }
        }
        done
    }

    /// Begins a transaction, for [`Self::operate`].
    async fn begin(&self, access: Access) -> sqlx::Result<Transaction> {
        Transaction::begin(&self.pools().all, access).await
    }

    /// The same for what is written of deliveries, which has connections of its own: it is written all the time, and what SQLite
    /// remembers of a file is good for as long as nobody else writes.
    async fn begin_delivery(&self, access: Access) -> sqlx::Result<Transaction> {
        Transaction::begin(&self.pools().delivery, access).await
    }

    fn pools(&self) -> Pools {
        let mut current = self.current.lock();
        if let Some(changed) = self.location.reopen(&mut current) {
            tracing::info!(store = changed.target.place(), "the store's URL has changed");
            *current = changed;
            self.prepared.store(false, Relaxed);
        }
        current.pools.clone()
    }

    /// Leaves connections to themselves that hang, for which a pool would wait, or whose transaction SQLite has rolled back of its own
    /// accord, such as on a full disk: `sqlx` would go on taking it for open.
    fn abandon(&self) {
        let mut current = self.current.lock();
        if !matches!(current.target, Target::Memory(_)) {
            current.pools = current.target.pools();
        }
    }
}
