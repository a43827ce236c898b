//! Connections to one server that are kept for the next request.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use hyper::client::conn::http2;
use parking_lot::{Mutex, MutexGuard};
use tokio::time::Instant;

use super::{Body, http1::Http1Connection};

/// An unused connection is closed after this time, or up to twice that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// A connection takes no more requests when it is older: the name may lead elsewhere by now.
const MAX_AGE: Duration = Duration::from_mins(5);

/// Unused connections that are kept.
const MAX_IDLE: usize = 128;

/// Who has waited so long for another one's connection makes one: of a server in trouble, each has to find out in time.
const TURN: Duration = Duration::from_secs(1);

/// The connections to one server.
#[derive(Default)]
pub(super) struct ConnectionPool {
    state: Mutex<State>,
    /// Held while a connection is made that may be for everybody.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    /// The one used last is used next.
    unused: Vec<Http1Connection>,
    /// Whether somebody closes those that nobody uses.
    tended: bool,
    /// One of HTTP/2 is for everybody.
    shared: Option<Shared>,
    /// Whether the server chose HTTP/1.1 last, so that everybody needs a connection of his own.
    alone: bool,
}

struct Shared {
    sender: http2::SendRequest<Body>,
    made: Instant,
    used: Instant,
}

impl ConnectionPool {
    /// A connection of HTTP/1.1 that has served somebody before.
    pub(super) fn unused(&self) -> Option<Http1Connection> {
        loop {
            // Looking at it is done outside of the lock.
            let mut link = self.state().unused.pop()?;
            if is_fresh(&mut link) {
                return Some(link);
            }
        }
    }

    /// Keeps a connection, if the server does so too.
    pub(super) fn keep(self: &Arc<Self>, mut link: Http1Connection) {
        link.unused = Instant::now();
        if !is_fresh(&mut link) {
            return;
        }
        let mut state = self.state();
        if state.unused.len() < MAX_IDLE {
            state.unused.push(link);
        }
        self.have_tended(state);
    }

    /// The connection of HTTP/2, if there is one.
    pub(super) fn shared(&self) -> Option<http2::SendRequest<Body>> {
        let mut state = self.state();
        let shared = state.shared.as_mut().filter(|shared| shared.is_fresh())?;
        shared.used = Instant::now();
        Some(shared.sender.clone())
    }

    /// Keeps a connection of HTTP/2. What is under way on an earlier one goes on.
    pub(super) fn share(self: &Arc<Self>, sender: http2::SendRequest<Body>) {
        let mut state = self.state();
        let now = Instant::now();
        state.shared = Some(Shared { sender, made: now, used: now });
        state.alone = false;
        self.have_tended(state);
    }

    /// The server chose HTTP/1.1.
    pub(super) fn serve_alone(&self) {
        self.state().alone = true;
    }

    /// Who gets it connects; whoever waits for it may find a connection of HTTP/2 then. None where there will be none to find,
    /// and after this time.
    pub(super) async fn turn(&self, within: Duration) -> Option<tokio::sync::MutexGuard<'_, ()>> {
        let alone = || self.state().alone;
        if alone() {
            return None;
        }
        let turn = tokio::time::timeout(TURN.min(within), self.turn.lock()).await.ok()?;
        (!alone()).then_some(turn)
    }

    fn have_tended(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if let (false, Ok(runtime)) = (state.tended, tokio::runtime::Handle::try_current()) {
            state.tended = true;
            runtime.spawn(tend(Arc::downgrade(self)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock()
    }
}

fn is_fresh(link: &mut Http1Connection) -> bool {
    is_young(link.made, link.unused) && link.is_ready()
}

impl Shared {
    fn is_fresh(&self) -> bool {
        is_young(self.made, self.used) && !self.sender.is_closed()
    }
}

fn is_young(made: Instant, used: Instant) -> bool {
    used.elapsed() < IDLE_TIMEOUT && made.elapsed() < MAX_AGE
}

async fn tend(kept: Weak<ConnectionPool>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut state = kept.state();
        state.unused.retain_mut(is_fresh);
        state.shared.take_if(|shared| !shared.is_fresh());
        if state.unused.is_empty() && state.shared.is_none() {
            state.tended = false;
            return;
        }
    }
}
