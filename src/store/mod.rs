//! The store: what must outlive a process and does not belong into the API server. SQLite for a process that is alone,
//! PostgreSQL for several. Nothing waits for it for longer than [`OPERATION_TIMEOUT`], and nobody who is served by the gateway at all.

mod error;
mod location;
mod schema;
mod target;
mod usage;

use std::{
    collections::BTreeSet,
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;

pub use error::Error;
pub use location::{InvalidLocation, Location};
pub use usage::{Entry, ReplicaState, Snapshot};

use crate::telemetry::metrics::StoreMetrics;
use location::Current;
use target::{Pool, Target};

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
        let current = Mutex::new(location.open()?);
        Ok(Self { location, current, prepared: false.into(), failing: Mutex::default(), metrics })
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

    /// Makes its tables ready for this version.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.operate("prepare", &self.pool(), async { Ok(()) }).await
    }

    /// Writes what a gateway counts, and that it lives: each entry takes the place of an earlier one of the same object and
    /// slot, `replica_state` of all earlier ones. A write that failed may be done again, whatever came of it.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn write(
        &self,
        replica: i64,
        entries: &[Entry],
        replica_state: &ReplicaState,
    ) -> Result<(), Error> {
        let pool = self.pool();
        let work = async {
            match &pool {
                Pool::Sqlite(pool) => usage::sqlite::write(pool, replica, entries, replica_state).await,
                Pool::Postgresql(pool) => {
                    usage::postgresql::write(pool, replica, entries, replica_state).await
                }
            }
        };
        self.operate("write", &pool, work).await
    }

    /// A gateway ends: it lives no more. What it has counted stays.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn leave(&self, replica: i64) -> Result<(), Error> {
        let pool = self.pool();
        let work = async {
            match &pool {
                Pool::Sqlite(pool) => usage::sqlite::leave(pool, replica).await,
                Pool::Postgresql(pool) => usage::postgresql::leave(pool, replica).await,
            }
        };
        self.operate("write", &pool, work).await
    }

    /// Deletes slots before this one, and gateways that have not written for an hour.
    ///
    /// # Errors
    /// What kept it from being deleted.
    pub async fn purge(&self, oldest: i64) -> Result<(), Error> {
        let pool = self.pool();
        let work = async {
            match &pool {
                Pool::Sqlite(pool) => usage::sqlite::purge(pool, oldest).await,
                Pool::Postgresql(pool) => usage::postgresql::purge(pool, oldest).await,
            }
        };
        self.operate("purge", &pool, work).await
    }

    /// What gateways have written of slots from `oldest` on: what is new since the snapshot at `since`, or everything. A
    /// gateway lives while it has written within `alive`.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn read(&self, oldest: i64, since: Option<i64>, alive: Duration) -> Result<Snapshot, Error> {
        let pool = self.pool();
        let work = async {
            match &pool {
                Pool::Sqlite(pool) => usage::sqlite::read(pool, oldest, since, alive).await,
                Pool::Postgresql(pool) => usage::postgresql::read(pool, oldest, since, alive).await,
            }
        };
        self.operate("read", &pool, work).await
    }

    /// Runs `work`, with the tables ready and no longer than it may take, and tells of how that went.
    async fn operate<T>(
        &self,
        operation: &'static str,
        pool: &Pool,
        work: impl Future<Output = Result<T, sqlx::Error>>,
    ) -> Result<T, Error> {
        let all = async {
            if !self.prepared.load(Relaxed) {
                schema::prepare(pool).await?;
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
                    tracing::warn!(store = self.place(), operation, %error, "the store does not work: what is counted stays in memory for an hour");
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

    fn pool(&self) -> Pool {
        let mut current = self.current.lock();
        if let Some(changed) = self.location.reopen(&mut current) {
            tracing::info!(store = changed.target.place(), "the store's URL has changed");
            *current = changed;
            self.prepared.store(false, Relaxed);
        }
        current.pool.clone()
    }

    /// Leaves connections that hang to themselves: a pool would wait for them.
    fn abandon(&self) {
        let mut current = self.current.lock();
        if matches!(current.target, Target::Postgresql(_)) {
            current.pool = current.target.pool();
        }
    }
}
