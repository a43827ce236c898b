//! Semaphore permits for the driver's pool, and its state from the driver's own events.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use mongodb::event::cmap::CmapEvent;
use parking_lot::Mutex;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    backends::database::{PoolSettings, PoolView, last_login::LastLogin},
    domain::latency::Latencies,
};

/// As many permits as the pool may have connections. The driver does not bound how long a caller waits, so callers wait here instead:
/// each holds a permit for as long as its query runs.
pub(super) struct Permits {
    max: u32,
    semaphore: Semaphore,
    waiting: AtomicU32,
    acquire_times: Mutex<Latencies>,
    open_connections: Mutex<HashSet<u32>>,
    pub(super) last_login: LastLogin,
}

impl Permits {
    pub(super) fn new(bounds: &PoolSettings) -> Self {
        Self {
            max: bounds.max,
            semaphore: Semaphore::new(bounds.max as usize),
            waiting: AtomicU32::default(),
            acquire_times: Mutex::default(),
            open_connections: Mutex::default(),
            last_login: LastLogin::new(bounds.max_lifetime),
        }
    }

    /// Handles an event of the driver's connection pool.
    pub(super) fn handle(&self, event: &CmapEvent) {
        match event {
            CmapEvent::ConnectionReady(event) => {
                self.last_login.record();
                self.open_connections.lock().insert(event.connection_id);
            }
            // Also sent for connections that never became ready.
            CmapEvent::ConnectionClosed(event) => {
                self.open_connections.lock().remove(&event.connection_id);
            }
            CmapEvent::ConnectionCheckedOut(event) => self.acquire_times.lock().add(event.duration),
            _ => {}
        }
    }

    /// A permit, if one is free.
    pub(super) fn try_acquire(&self) -> Option<SemaphorePermit<'_>> {
        self.semaphore.try_acquire().ok()
    }

    /// A permit, if one becomes free within this time.
    pub(super) async fn acquire(&self, timeout: Duration) -> Option<SemaphorePermit<'_>> {
        if let Some(permit) = self.try_acquire() {
            return Some(permit);
        }
        let started = Instant::now();
        let _waiting = WaitingGuard::new(&self.waiting);
        let permit = tokio::time::timeout(timeout, self.semaphore.acquire()).await;
        self.acquire_times.lock().add(started.elapsed());
        permit.ok()?.ok()
    }

    /// No connection is open.
    pub(super) fn is_disconnected(&self) -> bool {
        self.open_connections.lock().is_empty()
    }

    pub(super) fn view(&self) -> PoolView {
        let free = u32::try_from(self.semaphore.available_permits()).unwrap_or(u32::MAX);
        let in_use = self.max.saturating_sub(free);
        let open = u32::try_from(self.open_connections.lock().len()).unwrap_or(u32::MAX);
        // For some permits the driver is still connecting.
        let size = open.max(in_use);
        PoolView {
            max: self.max,
            size,
            idle: size - in_use,
            waiting: self.waiting.load(Relaxed),
            acquire_p95: self.acquire_times.lock().p95().unwrap_or_default(),
        }
    }
}

/// Counts a waiting caller until dropped.
struct WaitingGuard<'a>(&'a AtomicU32);

impl<'a> WaitingGuard<'a> {
    fn new(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for WaitingGuard<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
