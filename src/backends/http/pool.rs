//! The connection pool of one server.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{
    IDLE_TIMEOUT,
    http1::Http1Connection,
    http2::{Http2Connection, Http2Stream},
    is_young,
};

/// Idle connections of HTTP/1.1 at most.
const MAX_IDLE: usize = 128;

/// Longest wait for a connection that another call establishes: with a server in trouble, each call has to find out in time.
const CONNECT_WAIT: Duration = Duration::from_secs(1);

/// The connections to one server.
#[derive(Default)]
pub(super) struct ConnectionPool {
    state: Mutex<State>,
    /// Held while a connection is established that may turn out to be shared (HTTP/2).
    connecting: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The last one in is the first one out.
    idle: Vec<Http1Connection>,
    /// Whether the task that closes idle connections runs.
    maintained: bool,
    /// Each is shared by as many calls as it has streams.
    http2: Vec<Http2Connection>,
    /// Whether the server chose HTTP/1.1 last, so that each call needs a connection of its own.
    http1_only: bool,
}

impl ConnectionPool {
    /// An idle connection of HTTP/1.1.
    pub(super) fn take_idle(&self) -> Option<Http1Connection> {
        loop {
            // Checked outside of the lock.
            let mut connection = self.state().idle.pop()?;
            if is_reusable(&mut connection) {
                return Some(connection);
            }
        }
    }

    /// Returns a connection to the pool, unless the server has closed it.
    pub(super) fn put_idle(self: &Arc<Self>, mut connection: Http1Connection) {
        connection.idle_since = Instant::now();
        if !is_reusable(&mut connection) {
            return;
        }
        let mut state = self.state();
        if state.idle.len() < MAX_IDLE {
            state.idle.push(connection);
        }
        self.start_maintenance(state);
    }

    /// A stream on a connection of HTTP/2 that has one left.
    pub(super) fn http2_stream(&self) -> Option<Http2Stream> {
        self.state().http2.iter_mut().find_map(Http2Connection::try_open)
    }

    /// Adds a connection of HTTP/2.
    pub(super) fn put_http2(self: &Arc<Self>, connection: Http2Connection) {
        let mut state = self.state();
        state.http2.push(connection);
        state.http1_only = false;
        self.start_maintenance(state);
    }

    /// The server chose HTTP/1.1.
    pub(super) fn note_http1(&self) {
        self.state().http1_only = true;
    }

    /// Leave to establish a connection, for one call at a time: whoever waited may find a stream of HTTP/2. None where the
    /// server speaks HTTP/1.1, and after `limit`.
    pub(super) async fn connect_permit(&self, limit: Duration) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let http1_only = || self.state().http1_only;
        if http1_only() {
            return None;
        }
        let permit = tokio::time::timeout(CONNECT_WAIT.min(limit), self.connecting.lock()).await.ok()?;
        (!http1_only()).then_some(permit)
    }

    fn start_maintenance(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if let (false, Ok(runtime)) = (state.maintained, tokio::runtime::Handle::try_current()) {
            state.maintained = true;
            runtime.spawn(maintain(Arc::downgrade(self)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn is_reusable(connection: &mut Http1Connection) -> bool {
    is_young(connection.created, connection.idle_since) && connection.is_ready()
}

/// Closes idle connections until there are none.
async fn maintain(pool: Weak<ConnectionPool>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT).await;
        let Some(pool) = pool.upgrade() else { return };
        let mut state = pool.state();
        state.idle.retain_mut(is_reusable);
        state.http2.retain(Http2Connection::is_reusable);
        if state.idle.is_empty() && state.http2.is_empty() {
            state.maintained = false;
            return;
        }
    }
}
