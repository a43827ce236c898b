//! The driver's pool, counted from its own events.

use std::sync::{
    Mutex, PoisonError,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use mongodb::event::cmap::CmapEvent;

use crate::{backends::database::PoolView, domain::latency::Latencies};

/// The driver's pool, counted from its own events.
#[derive(Default)]
pub(super) struct Counts {
    /// Open connections.
    pub(super) size: AtomicU32,
    lent: AtomicU32,
    waiting: AtomicU32,
    acquired: Mutex<Latencies>,
}

impl Counts {
    pub(super) fn count(&self, event: &CmapEvent) {
        let less = |count: &AtomicU32| {
            let _ = count.fetch_update(Relaxed, Relaxed, |count| count.checked_sub(1));
        };
        match event {
            CmapEvent::ConnectionReady(_) => drop(self.size.fetch_add(1, Relaxed)),
            CmapEvent::ConnectionClosed(_) => less(&self.size),
            CmapEvent::ConnectionCheckoutStarted(_) => drop(self.waiting.fetch_add(1, Relaxed)),
            CmapEvent::ConnectionCheckoutFailed(_) => less(&self.waiting),
            CmapEvent::ConnectionCheckedOut(event) => {
                less(&self.waiting);
                self.lent.fetch_add(1, Relaxed);
                self.acquired.lock().unwrap_or_else(PoisonError::into_inner).add(event.duration);
            }
            CmapEvent::ConnectionCheckedIn(_) => less(&self.lent),
            _ => {}
        }
    }

    pub(super) fn view(&self, max: u32) -> PoolView {
        let size = self.size.load(Relaxed);
        PoolView {
            max,
            size,
            idle: size.saturating_sub(self.lent.load(Relaxed)),
            waiting: self.waiting.load(Relaxed),
            acquire_p95: self
                .acquired
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .p95()
                .unwrap_or_default(),
        }
    }
}
