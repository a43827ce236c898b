//! Connections to one server that are kept for the next request.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use hyper::client::conn::http2;
use tokio::time::Instant;

use super::{Body, link::Link};

/// An unused connection is closed after this time, or up to twice that.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);

/// Unused connections that are kept.
const MAX_IDLE: usize = 128;

/// The connections to one server.
#[derive(Default)]
pub(super) struct Kept(Mutex<State>);

#[derive(Default)]
struct State {
    /// The one used last is used next.
    unused: Vec<Link>,
    /// Whether somebody closes those that nobody uses.
    tended: bool,
    /// One of HTTP/2 is for everybody.
    shared: Option<Shared>,
}

struct Shared {
    sender: http2::SendRequest<Body>,
    used: Instant,
}

impl Kept {
    /// A connection of HTTP/1.1 that has served somebody before.
    pub(super) fn unused(&self) -> Option<Link> {
        loop {
            // Looking at it is done outside of the lock.
            let mut link = self.state().unused.pop()?;
            if link.unused.elapsed() < IDLE_TIMEOUT && link.is_ready() {
                return Some(link);
            }
        }
    }

    /// Keeps a connection, if the server does so too.
    pub(super) fn keep(self: &Arc<Self>, mut link: Link) {
        if !link.is_ready() {
            return;
        }
        link.unused = Instant::now();
        let mut state = self.state();
        if state.unused.len() < MAX_IDLE {
            state.unused.push(link);
        }
        self.have_tended(state);
    }

    /// The connection of HTTP/2, if there is one.
    pub(super) fn shared(&self) -> Option<http2::SendRequest<Body>> {
        let mut state = self.state();
        let shared = state.shared.as_mut().filter(|shared| !shared.sender.is_closed())?;
        shared.used = Instant::now();
        Some(shared.sender.clone())
    }

    /// Keeps a connection of HTTP/2. What is under way on an earlier one goes on.
    pub(super) fn share(self: &Arc<Self>, sender: http2::SendRequest<Body>) {
        let mut state = self.state();
        state.shared = Some(Shared { sender, used: Instant::now() });
        self.have_tended(state);
    }

    fn have_tended(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        if let (false, Ok(runtime)) = (state.tended, tokio::runtime::Handle::try_current()) {
            state.tended = true;
            runtime.spawn(tend(Arc::downgrade(self)));
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn tend(kept: Weak<Kept>) {
    loop {
        tokio::time::sleep(IDLE_TIMEOUT).await;
        let Some(kept) = kept.upgrade() else { return };
        let mut state = kept.state();
        state.unused.retain_mut(|link| link.unused.elapsed() < IDLE_TIMEOUT && link.is_ready());
        state.shared.take_if(|shared| shared.used.elapsed() >= IDLE_TIMEOUT || shared.sender.is_closed());
        if state.unused.is_empty() && state.shared.is_none() {
            state.tended = false;
            return;
        }
    }
}
