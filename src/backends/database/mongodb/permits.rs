//! Places in the driver's pool, and what is in it by its own events.

use std::{
    collections::HashSet,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::{Duration, Instant},
};

use mongodb::event::cmap::CmapEvent;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::{
    backends::database::{PoolSettings, PoolView, logins::Logins},
    domain::latency::Latencies,
};

/// As many places as the pool may have connections. The driver has no bound for how long a caller waits, so that nobody asks
/// it for more than there are: a caller has a place from its beginning to its end, and the driver's connections in between.
pub(super) struct Places {
    max: u32,
    free: Semaphore,
    waiting: AtomicU32,
    acquired: Mutex<Latencies>,
    open: Mutex<HashSet<u32>>,
    pub(super) logins: Logins,
}

impl Places {
    pub(super) fn new(bounds: &PoolSettings) -> Self {
        Self {
            max: bounds.max,
            free: Semaphore::new(bounds.max as usize),
            waiting: AtomicU32::default(),
            acquired: Mutex::default(),
            open: Mutex::default(),
            logins: Logins::new(bounds.max_lifetime),
        }
    }

    /// What the driver tells of its connections.
    pub(super) fn count(&self, event: &CmapEvent) {
        match event {
            CmapEvent::ConnectionReady(event) => {
                self.logins.succeeded();
                held(&self.open).insert(event.connection_id);
            }
            // Of one that never was ready, too.
            CmapEvent::ConnectionClosed(event) => drop(held(&self.open).remove(&event.connection_id)),
            CmapEvent::ConnectionCheckedOut(event) => held(&self.acquired).add(event.duration),
            _ => {}
        }
    }

    /// A place, if one is free.
    pub(super) fn place_now(&self) -> Option<SemaphorePermit<'_>> {
        self.free.try_acquire().ok()
    }

    /// A place, if one comes free within this time.
    pub(super) async fn place_within(&self, wait: Duration) -> Option<SemaphorePermit<'_>> {
        if let Some(place) = self.place_now() {
            return Some(place);
        }
        let started = Instant::now();
        let _waiting = Waiting::at(&self.waiting);
        let place = tokio::time::timeout(wait, self.free.acquire()).await;
        held(&self.acquired).add(started.elapsed());
        place.ok()?.ok()
    }

    /// Nothing is connected.
    pub(super) fn is_empty(&self) -> bool {
        held(&self.open).is_empty()
    }

    pub(super) fn view(&self) -> PoolView {
        let free = u32::try_from(self.free.available_permits()).unwrap_or(u32::MAX);
        let lent = self.max.saturating_sub(free);
        let open = u32::try_from(held(&self.open).len()).unwrap_or(u32::MAX);
        // For some of those that have a place the driver still connects.
        let size = open.max(lent);
        PoolView {
            max: self.max,
            size,
            idle: size - lent,
            waiting: self.waiting.load(Relaxed),
            acquire_p95: held(&self.acquired).p95().unwrap_or_default(),
        }
    }
}

fn held<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

/// One that waits, until it has its place or goes away.
struct Waiting<'a>(&'a AtomicU32);

impl<'a> Waiting<'a> {
    fn at(count: &'a AtomicU32) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
