//! The connection pool of every engine whose driver reports typed errors: `deadpool` counts and hands out connections, this module
//! decides how one is opened, how old it may grow and how a probe uses it.

mod run;

pub(super) use run::CANCEL_TIMEOUT;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use deadpool::managed::{
    self, Metrics, Object, PoolError, QueueMode, RecycleError, RecycleResult, TimeoutType, Timeouts,
};
use futures::{
    FutureExt,
    future::{BoxFuture, select_ok},
};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    Database, Server, ServerSettings,
    deadline::{Deadline, Stage},
    last_login::LastLogin,
    query::{BoundQuery, Completion, RowSink, RowStream, RunError},
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::Fault,
    domain::latency::Latencies,
    telemetry::metrics::Observed,
};

/// How connections of one engine are opened and used.
pub(super) trait Protocol: Send + Sync + 'static {
    /// An authenticated connection.
    type Connection: Send + 'static;

    /// Added to a query's timeout before the client cancels it, for servers that enforce the timeout themselves.
    const TIMEOUT_GRACE: Duration = Duration::ZERO;

    /// Connects and logs in.
    fn open(&self, deadline: Deadline) -> impl Future<Output = Result<Self::Connection, Fault>> + Send;

    /// Asks the server for version, role and identity.
    fn identify(
        &self,
        connection: &mut Self::Connection,
    ) -> impl Future<Output = Result<Server, Fault>> + Send;

    /// Checks a query without running it.
    fn check(
        &self,
        connection: &mut Self::Connection,
        query: &Query,
    ) -> impl Future<Output = Result<(), Fault>> + Send;

    /// Runs a query. After success or a query error the connection is unchanged and reusable. The future may be dropped at any point.
    fn run(
        &self,
        connection: &mut Self::Connection,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> impl Future<Output = Result<Completion, RunError>> + Send;

    /// Cancels on the server what the connection still runs; the connection is not used afterwards.
    fn cancel(&self, connection: &mut Self::Connection) -> impl Future<Output = ()> + Send;

    /// Closes the connection gracefully.
    fn close(connection: Self::Connection) -> impl Future<Output = ()> + Send;
}

/// A snapshot of the pool.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolView {
    /// Maximum number of connections.
    pub max: u32,
    /// Open connections.
    pub size: u32,
    /// Open and not in use.
    pub idle: u32,
    /// Callers waiting for a connection.
    pub waiting: u32,
    /// 95th percentile of the time that recent callers waited.
    pub acquire_p95: Duration,
}

impl PoolView {
    /// Every connection is in use.
    #[must_use]
    pub fn is_exhausted(&self) -> bool {
        self.size >= self.max && self.idle == 0
    }

    /// Every connection is in use, and callers wait.
    #[must_use]
    pub fn saturated(&self) -> bool {
        self.is_exhausted() && self.waiting > 0
    }
}

/// The fault of a caller that waited for `pool.acquireTimeout`.
pub(super) fn pool_exhausted() -> Fault {
    let detail = "connection pool exhausted: no connection became free within spec.pool.acquireTimeout";
    Fault::new(Reason::PoolSaturated, detail)
}

/// A pool of connections to one server.
pub(super) struct DatabasePool<P: Protocol> {
    pool: managed::Pool<Manager<P>>,
    settings: ServerSettings,
    acquire_times: Mutex<Latencies>,
}

struct Manager<P> {
    protocol: P,
    timeout: Duration,
    max_lifetime: Duration,
    last_login: LastLogin,
}

impl<P: Protocol> Manager<P> {
    async fn open(&self, deadline: Deadline) -> Result<P::Connection, Fault> {
        let opened = self.protocol.open(deadline).await;
        if opened.is_ok() {
            self.last_login.record();
        }
        opened
    }
}

impl<P: Protocol> managed::Manager for Manager<P> {
    type Type = P::Connection;
    type Error = Fault;

    async fn create(&self) -> Result<P::Connection, Fault> {
        // Boxed, as everything rare is: otherwise the future of each query would be larger.
        Box::pin(self.open(Deadline::within(self.timeout))).await
    }

    async fn recycle(&self, _: &mut P::Connection, metrics: &Metrics) -> RecycleResult<Fault> {
        if metrics.age() < self.max_lifetime {
            Ok(())
        } else {
            Err(RecycleError::message("older than pool.maxLifetime"))
        }
    }
}

impl<P: Protocol> DatabasePool<P> {
    pub(super) fn new(protocol: P, settings: ServerSettings) -> Result<Self, Fault> {
        let (timeout, max_lifetime) = (settings.timeout, settings.pool.max_lifetime);
        let manager = Manager { protocol, timeout, max_lifetime, last_login: LastLogin::new(max_lifetime) };
        let pool = managed::Pool::builder(manager)
            .max_size(settings.pool.max as usize)
            // The most recently used connection is reused first, so that the surplus grows idle.
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| Fault::new(Reason::InvalidSpec, error.to_string()))?;
        Ok(Self { pool, settings, acquire_times: Mutex::default() })
    }

    async fn acquire(&self) -> Result<PooledConnection<P>, Fault> {
        let started = Instant::now();
        let acquired =
            self.acquire_within(self.settings.pool.acquire_timeout, Some(self.settings.timeout)).await;
        self.acquire_times.lock().add(started.elapsed());
        acquired?.ok_or_else(pool_exhausted)
    }

    /// A connection for a probe, which has its own timeout. None if the pool is exhausted.
    async fn try_acquire(&self) -> Result<Option<PooledConnection<P>>, Fault> {
        self.acquire_within(Duration::ZERO, None).await
    }

    /// None if the pool stays exhausted for this long. Opening a connection may take up to `create`.
    async fn acquire_within(
        &self,
        wait: Duration,
        create: Option<Duration>,
    ) -> Result<Option<PooledConnection<P>>, Fault> {
        let timeouts = Timeouts { wait: Some(wait), create, recycle: None };
        match self.pool.timeout_get(&timeouts).await {
            Ok(object) => Ok(Some(PooledConnection(Some(object)))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Ok(None),
            Err(PoolError::Timeout(TimeoutType::Create)) => {
                let text = "connecting took longer than spec.healthCheck.timeout";
                Err(Fault::new(Reason::Timeout, text))
            }
            Err(PoolError::Backend(fault)) => Err(self.settings.redact(fault)),
            Err(error) => Err(Fault::new(Reason::Unavailable, error.to_string())),
        }
    }

    /// Identifies the server over a connection outside of the pool: an exhausted pool must not look like a dead server.
    async fn identify_unpooled(&self, deadline: Deadline) -> Result<Server, Fault> {
        let manager = self.pool.manager();
        let identified = async {
            let mut connection = manager.open(deadline).await?;
            let identify = manager.protocol.identify(&mut connection);
            let server = deadline.wait(Stage::Query, identify).await;
            P::close(connection).await;
            server
        };
        identified.await.map_err(|fault| self.settings.redact(fault))
    }

    async fn identify(
        &self,
        mut connection: PooledConnection<P>,
        deadline: Deadline,
    ) -> Result<Server, Fault> {
        let identify = self.pool.manager().protocol.identify(connection.get()?);
        let server = deadline.wait(Stage::Query, identify).await;
        if server.is_ok() {
            connection.release();
        }
        server.map_err(|fault| self.settings.redact(fault))
    }
}

impl<P: Protocol> Database for DatabasePool<P> {
    fn probe(&self) -> BoxFuture<'_, Result<Server, Fault>> {
        async {
            let deadline = Deadline::within(self.settings.timeout);
            if self.pool.manager().last_login.is_due() {
                self.make_room().await;
                return self.identify_unpooled(deadline).await;
            }
            let Some(connection) = self.try_acquire().await? else {
                return self.identify_unpooled(deadline).await;
            };
            if connection.metrics().is_none_or(|metrics| metrics.recycle_count == 0) {
                return self.identify(connection, deadline).await;
            }
            let mut reused = self.identify(connection, deadline).boxed();
            match timeout(self.settings.timeout / 2, &mut reused).await {
                Ok(Ok(server)) => Ok(server),
                // The server may have restarted: older connections say nothing about it now.
                Ok(Err(_)) => {
                    self.retain_idle(|_| false).await;
                    match self.try_acquire().await? {
                        Some(connection) => self.identify(connection, deadline).await,
                        None => self.identify_unpooled(deadline).await,
                    }
                }
                // The server is slow, or this connection was dropped silently, as others may be: the first response decides.
                Err(_) => {
                    let fresh = async {
                        let server = self.identify_unpooled(deadline).await?;
                        self.retain_idle(|_| false).await;
                        Ok(server)
                    };
                    select_ok([reused, fresh.boxed()]).await.map(|(server, _)| server)
                }
            }
        }
        .boxed()
    }

    fn check<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<(), Fault>> {
        async {
            let mut connection = self.acquire().await?;
            let checked = self.pool.manager().protocol.check(connection.get()?, query).await;
            // A query error leaves the connection usable; a broken connection is found by the next probe.
            connection.release();
            checked.map_err(|fault| self.settings.redact(fault))
        }
        .boxed()
    }

    fn run(self: Arc<Self>, query: BoundQuery, observed: Observed) -> RowStream {
        RowStream::of(query.max_rows, observed, |sink| async move { self.serve(&query, sink).await })
    }

    fn maintain(&self) -> BoxFuture<'_, ()> {
        async {
            let bounds = &self.settings.pool;
            let mut size = self.pool.status().size;
            self.retain_idle(|metrics| {
                let surplus = size > bounds.min as usize && metrics.last_used() >= bounds.idle_timeout;
                let keep = !surplus && metrics.age() < bounds.max_lifetime;
                size -= usize::from(!keep);
                keep
            })
            .await;
            // Held as objects of the pool, so that they return to it even if this future is dropped: they are unused.
            let mut opened = Vec::new();
            while self.pool.status().size < bounds.min as usize {
                match self.acquire().await {
                    Ok(mut connection) => opened.push(connection.0.take()),
                    Err(_) => break, // The probe reports it.
                }
            }
        }
        .boxed()
    }

    fn pool(&self) -> PoolView {
        let status = self.pool.status();
        let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        PoolView {
            max: count(status.max_size),
            size: count(status.size),
            idle: count(status.available),
            waiting: count(status.waiting),
            acquire_p95: self.acquire_times.lock().p95().unwrap_or_default(),
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.retain_idle(|_| false).await;
            self.pool.close();
        }
        .boxed()
    }
}

impl<P: Protocol> DatabasePool<P> {
    /// Closes one idle connection of a full pool: the server may not allow another one.
    async fn make_room(&self) {
        let status = self.pool.status();
        let mut surplus = status.size >= status.max_size;
        self.retain_idle(|_| !std::mem::take(&mut surplus)).await;
    }

    /// Closes the idle connections for which `keep` is false.
    async fn retain_idle(&self, mut keep: impl FnMut(Metrics) -> bool) {
        for connection in self.pool.retain(|_, metrics| keep(metrics)).removed {
            // Best effort: the server may be gone.
            let _ = timeout(Duration::from_secs(1), P::close(connection)).await;
        }
    }
}

/// A guard for a connection of the pool. It returns to the pool only by [`Self::release`]; dropped earlier, for instance while a
/// response is still being read, it is closed.
struct PooledConnection<P: Protocol>(Option<Object<Manager<P>>>);

impl<P: Protocol> PooledConnection<P> {
    fn get(&mut self) -> Result<&mut P::Connection, Fault> {
        self.0.as_deref_mut().ok_or_else(|| Fault::new(Reason::Unavailable, "the connection was released"))
    }

    fn metrics(&self) -> Option<&Metrics> {
        self.0.as_ref().map(Object::metrics)
    }

    fn release(&mut self) {
        self.0 = None;
    }
}

impl<P: Protocol> Drop for PooledConnection<P> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
