//! One connection pool for the engines whose drivers leave faults to be seen: `deadpool` lends, we say what a
//! connection is, how old it may grow and how a probe uses it.

mod run;

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
    logins::Logins,
    query::{Answer, Done, Rows, Run, Stop},
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::Fault,
    domain::latency::Latencies,
    telemetry::metrics::Observed,
};

/// How one engine's connections are made and used.
pub(super) trait Wire: Send + Sync + 'static {
    /// A connection that is logged in.
    type Connection: Send + 'static;

    /// How much longer than a query may take a server is waited for that ends it by itself.
    const PATIENCE: Duration = Duration::ZERO;

    /// A connection that was not used for so long is not trusted any more: for drivers that do not keep an idle one alive, since
    /// routers on the way forget those that keep silent.
    const REST: Duration = Duration::MAX;

    /// Connects and logs in.
    fn open(&self) -> impl Future<Output = Result<Self::Connection, Fault>> + Send;

    /// Asks the server who it is.
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

    /// Runs a query. A connection on which it ended, well or by a refusal, is as it was before. The future may be
    /// dropped at any point.
    fn run(
        &self,
        connection: &mut Self::Connection,
        run: &Run,
        rows: &mut Rows,
    ) -> impl Future<Output = Result<Done, Stop>> + Send;

    /// Ends on the server what the connection still runs; nobody uses it after that.
    fn abort(&self, connection: &mut Self::Connection) -> impl Future<Output = ()> + Send;

    /// Says goodbye.
    fn shut(connection: Self::Connection) -> impl Future<Output = ()> + Send;
}

/// The pool as it is now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PoolView {
    /// Connections at the most.
    pub max: u32,
    /// Open connections.
    pub size: u32,
    /// Open and free.
    pub idle: u32,
    /// Callers that wait.
    pub waiting: u32,
    /// 95 % of the last callers got theirs within this time.
    pub acquire_p95: Duration,
}

impl PoolView {
    /// Every connection is lent.
    #[must_use]
    pub fn is_lent(&self) -> bool {
        self.size >= self.max && self.idle == 0
    }

    /// Every connection is lent, and somebody waits.
    #[must_use]
    pub fn saturated(&self) -> bool {
        self.is_lent() && self.waiting > 0
    }
}

/// What a caller is told that waits in vain.
pub(super) fn is_full() -> Fault {
    Fault::new(Reason::PoolSaturated, "no connection of the pool came free within spec.pool.acquireTimeout")
}

/// A pool of one engine's connections to one server.
pub(super) struct Pooled<W: Wire> {
    pool: managed::Pool<Opener<W>>,
    settings: ServerSettings,
    acquired: Mutex<Latencies>,
}

struct Opener<W> {
    wire: W,
    max_lifetime: Duration,
    logins: Logins,
}

impl<W: Wire> Opener<W> {
    async fn open(&self) -> Result<W::Connection, Fault> {
        let opened = self.wire.open().await;
        if opened.is_ok() {
            self.logins.succeeded();
        }
        opened
    }
}

impl<W: Wire> managed::Manager for Opener<W> {
    type Type = W::Connection;
    type Error = Fault;

    async fn create(&self) -> Result<W::Connection, Fault> {
        // On the heap, as all that is rare: each query would carry the room for it about.
        Box::pin(self.open()).await
    }

    async fn recycle(&self, _: &mut W::Connection, metrics: &Metrics) -> RecycleResult<Fault> {
        if metrics.age() < self.max_lifetime && metrics.last_used() < W::REST {
            Ok(())
        } else {
            Err(RecycleError::message("older than pool.maxLifetime, or idle for too long"))
        }
    }
}

impl<W: Wire> Pooled<W> {
    pub(super) fn new(wire: W, settings: ServerSettings) -> Result<Self, Fault> {
        let max_lifetime = settings.pool.max_lifetime;
        let opener = Opener { wire, max_lifetime, logins: Logins::new(max_lifetime) };
        let pool = managed::Pool::builder(opener)
            .max_size(settings.pool.max as usize)
            // The one that was used last comes first: those that are too many grow idle.
            .queue_mode(QueueMode::Lifo)
            .runtime(deadpool::Runtime::Tokio1)
            .build()
            .map_err(|error| Fault::new(Reason::InvalidSpec, error.to_string()))?;
        Ok(Self { pool, settings, acquired: Mutex::default() })
    }

    async fn lend(&self) -> Result<Lent<W>, Fault> {
        let started = Instant::now();
        let lent = self.lend_within(self.settings.pool.acquire_timeout, Some(self.settings.timeout)).await;
        self.acquired.lock().add(started.elapsed());
        lent?.ok_or_else(is_full)
    }

    /// A connection for a probe, which has a time-out of its own. None if the pool has no room.
    async fn lend_now(&self) -> Result<Option<Lent<W>>, Fault> {
        self.lend_within(Duration::ZERO, None).await
    }

    /// None if the pool has no room for so long. To open a connection may take up to `create`.
    async fn lend_within(&self, wait: Duration, create: Option<Duration>) -> Result<Option<Lent<W>>, Fault> {
        let timeouts = Timeouts { wait: Some(wait), create, recycle: None };
        match self.pool.timeout_get(&timeouts).await {
            Ok(object) => Ok(Some(Lent(Some(object)))),
            Err(PoolError::Timeout(TimeoutType::Wait)) => Ok(None),
            Err(PoolError::Timeout(TimeoutType::Create)) => {
                let text = "no connection was there within spec.healthCheck.timeout";
                Err(Fault::new(Reason::Timeout, text))
            }
            Err(PoolError::Backend(fault)) => Err(self.settings.redact(fault)),
            Err(error) => Err(Fault::new(Reason::Unavailable, error.to_string())),
        }
    }

    /// Asks over a connection of its own: that callers use all of the pool must not look like a dead server.
    async fn identify_beside(&self) -> Result<Server, Fault> {
        let opener = self.pool.manager();
        let asked = async {
            let mut connection = opener.open().await?;
            let answer = opener.wire.identify(&mut connection).await;
            W::shut(connection).await;
            answer
        };
        asked.await.map_err(|fault| self.settings.redact(fault))
    }

    async fn identify(&self, mut lent: Lent<W>) -> Result<Server, Fault> {
        let answer = self.pool.manager().wire.identify(lent.connection()?).await;
        if answer.is_ok() {
            lent.give_back();
        }
        answer.map_err(|fault| self.settings.redact(fault))
    }
}

impl<W: Wire> Database for Pooled<W> {
    fn probe(&self) -> BoxFuture<'_, Result<Server, Fault>> {
        async {
            if self.pool.manager().logins.is_due() {
                self.make_room().await;
                return self.identify_beside().await;
            }
            let Some(lent) = self.lend_now().await? else { return self.identify_beside().await };
            if lent.metrics().is_none_or(|metrics| metrics.recycle_count == 0) {
                return self.identify(lent).await;
            }
            let mut asked = self.identify(lent).boxed();
            match timeout(self.settings.timeout / 2, &mut asked).await {
                Ok(Ok(server)) => Ok(server),
                // The server may have restarted since: connections from before say nothing of now.
                Ok(Err(_)) => {
                    self.shut(|_| false).await;
                    match self.lend_now().await? {
                        Some(lent) => self.identify(lent).await,
                        None => self.identify_beside().await,
                    }
                }
                // It is slow, or this connection is dead without a word, as the others may be: whichever answers first tells.
                Err(_) => {
                    let fresh = async {
                        let server = self.identify_beside().await?;
                        self.shut(|_| false).await;
                        Ok(server)
                    };
                    select_ok([asked, fresh.boxed()]).await.map(|(server, _)| server)
                }
            }
        }
        .boxed()
    }

    fn check<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<(), Fault>> {
        async {
            let mut lent = self.lend().await?;
            let answer = self.pool.manager().wire.check(lent.connection()?, query).await;
            // A refused statement leaves the connection sound; a broken one is found out by the next probe.
            lent.give_back();
            answer.map_err(|fault| self.settings.redact(fault))
        }
        .boxed()
    }

    fn run(self: Arc<Self>, run: Run, observed: Observed) -> Answer {
        Answer::of(run.max_rows, observed, |asked| async move { self.serve(&run, asked).await })
    }

    fn tend(&self) -> BoxFuture<'_, ()> {
        async {
            let bounds = &self.settings.pool;
            let mut size = self.pool.status().size;
            self.shut(|metrics| {
                let spare = size > bounds.min as usize && metrics.last_used() >= bounds.idle_timeout;
                let keep = !spare && metrics.age() < bounds.max_lifetime;
                size -= usize::from(!keep);
                keep
            })
            .await;
            // As objects of the pool they go back whenever this ends, which may be in the middle: nobody has used them.
            let mut opened = Vec::new();
            while self.pool.status().size < bounds.min as usize {
                match self.lend().await {
                    Ok(mut lent) => opened.push(lent.0.take()),
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
            acquire_p95: self.acquired.lock().p95().unwrap_or_default(),
        }
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        async {
            self.shut(|_| false).await;
            self.pool.close();
        }
        .boxed()
    }
}

impl<W: Wire> Pooled<W> {
    /// Closes an idle connection if there are as many as the pool may have: the server may well not allow more.
    async fn make_room(&self) {
        let status = self.pool.status();
        let mut spare = status.size >= status.max_size;
        self.shut(|_| !std::mem::take(&mut spare)).await;
    }

    /// Closes the idle connections that are not to be kept.
    async fn shut(&self, mut keep: impl FnMut(Metrics) -> bool) {
        for connection in self.pool.retain(|_, metrics| keep(metrics)).removed {
            // Best effort: the server may be gone.
            let _ = timeout(Duration::from_secs(1), W::shut(connection)).await;
        }
    }
}

/// A lent connection. It goes back only when it is known to be sound: one that is dropped in the middle of an answer
/// (a timed-out probe) must not serve the next caller.
struct Lent<W: Wire>(Option<Object<Opener<W>>>);

impl<W: Wire> Lent<W> {
    fn connection(&mut self) -> Result<&mut W::Connection, Fault> {
        self.0.as_deref_mut().ok_or_else(|| Fault::new(Reason::Unavailable, "the connection was given back"))
    }

    fn metrics(&self) -> Option<&Metrics> {
        self.0.as_ref().map(Object::metrics)
    }

    fn give_back(&mut self) {
        self.0 = None;
    }
}

impl<W: Wire> Drop for Lent<W> {
    fn drop(&mut self) {
        if let Some(object) = self.0.take() {
            drop(Object::take(object));
        }
    }
}
