//! Usage: what is counted for each object that is called, and how it gets into the store.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use axum::http::StatusCode;
use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::{
    domain::usage::{self, Call, SLOT, Tally},
    store::{Entry, ReplicaState, Store},
};

/// How long the final flush may take: what is left of the grace period of a pod.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The shortest time between two writes, however often circuits change.
const MIN_INTERVAL: Duration = Duration::from_secs(1);

/// What is counted, by the object's uid: a new client of an object goes on with its counts.
#[derive(Default)]
pub(super) struct Counters {
    tallies: Mutex<HashMap<String, Arc<Mutex<Tally>>>>,
    circuit_changed: Notify,
}

impl Counters {
    /// The tally of the object.
    pub(super) fn of(&self, uid: &str) -> Arc<Mutex<Tally>> {
        Arc::clone(self.tallies().entry(uid.to_owned()).or_default())
    }

    /// A circuit changed: it is written soon.
    pub(super) fn circuit_changed(&self) {
        self.circuit_changed.notify_one();
    }

    /// What has not been written yet.
    fn unwritten(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (uid, tally) in &*self.tallies() {
            let unwritten = tally.lock().unwritten();
            entries.extend(unwritten.into_iter().map(|(slot, counts)| Entry {
                uid: uid.clone(),
                slot,
                counts,
            }));
        }
        entries
    }

    fn written(&self, entries: &[Entry]) {
        let tallies = self.tallies();
        for Entry { uid, slot, counts } in entries {
            if let Some(tally) = tallies.get(uid) {
                tally.lock().written(*slot, counts.requests);
            }
        }
    }

    /// Drops old counts, and the tallies of objects that have no client any more.
    fn trim(&self, now: i64) {
        self.tallies().retain(|_, tally| {
            tally.lock().trim(now);
            Arc::strong_count(tally) > 1 || !tally.lock().is_empty()
        });
    }

    fn tallies(&self) -> MutexGuard<'_, HashMap<String, Arc<Mutex<Tally>>>> {
        self.tallies.lock()
    }
}

fn slot_now() -> i64 {
    usage::slot(Timestamp::now().as_second())
}

/// A call in flight: counted when it ends, also when its caller goes away.
pub(super) struct UsageGuard {
    tally: Arc<Mutex<Tally>>,
    started: Instant,
    call: Call,
}

impl UsageGuard {
    pub(super) fn start(tally: &Arc<Mutex<Tally>>) -> Self {
        Self { tally: Arc::clone(tally), started: Instant::now(), call: Call::default() }
    }

    /// The rate limit refused it.
    pub(super) fn limited(&mut self) {
        self.call.limited = true;
    }

    /// The caller is answered by this status.
    pub(super) fn answered(&mut self, status: StatusCode) {
        self.call.failed |= status.as_u16() >= 500;
    }

    /// The target has answered or failed: it took until now.
    pub(super) fn served(&mut self) {
        self.call.took = Some(self.started.elapsed());
    }
}

impl Drop for UsageGuard {
    fn drop(&mut self) {
        self.tally.lock().add(slot_now(), &self.call);
    }
}

impl Gateway {
    /// Writes the usage at this interval and soon after a circuit changed, and a last time when `stop` is cancelled.
    pub async fn report(&self, store: &Store, interval: Duration, stop: CancellationToken) {
        // A new one for each process: a restarted one must not overwrite what the one before has written.
        let replica = i64::from(rand::random::<u32>()) << 31 | i64::from(rand::random::<u32>() >> 1);
        let reporting = async {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut purged: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = self.counters.circuit_changed.notified() => {}
                }
                let written = self.write(store, replica).await;
                if written && purged.is_none_or(|purged| purged.elapsed() >= SLOT) {
                    // The store itself logs what fails.
                    let _ = store.usage().purge(usage::oldest(slot_now())).await;
                    purged = Some(Instant::now());
                }
                tokio::time::sleep(MIN_INTERVAL).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = reporting => {}
        }
        let final_flush = async {
            self.write(store, replica).await;
            store.usage().leave(replica).await
        };
        let _ = tokio::time::timeout(FINAL_FLUSH_TIMEOUT, final_flush).await;
    }

    async fn write(&self, store: &Store, replica: i64) -> bool {
        let entries = self.counters.unwritten();
        let mut replica_state = ReplicaState::default();
        self.families.all().for_each(|family| family.replica_state(&mut replica_state));
        let written = store.usage().write(replica, &entries, &replica_state).await.is_ok();
        if written {
            self.counters.written(&entries);
        }
        self.counters.trim(slot_now());
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_counts_when_it_ends_whichever_way() {
        let counters = Counters::default();
        let tally = counters.of("a");
        drop(UsageGuard::start(&tally));
        let mut failed = UsageGuard::start(&tally);
        failed.served();
        failed.answered(StatusCode::BAD_GATEWAY);
        drop(failed);
        let mut limited = UsageGuard::start(&counters.of("a"));
        limited.limited();
        limited.answered(StatusCode::TOO_MANY_REQUESTS);
        drop(limited);
        let [entry] = &counters.unwritten()[..] else { panic!("one slot") };
        let counts = &entry.counts;
        assert_eq!((counts.requests, counts.errors, counts.limited), (3, 1, 1));
        assert!(counts.latencies.p95().is_some());
    }

    #[test]
    fn an_object_that_is_gone_is_kept_until_its_counts_are_written() {
        let counters = Counters::default();
        drop(UsageGuard::start(&counters.of("gone")));
        let kept = counters.of("kept");
        counters.trim(slot_now());
        assert_eq!(counters.tallies().len(), 2);
        counters.written(&counters.unwritten());
        counters.trim(slot_now() + 1);
        assert_eq!(counters.tallies().keys().collect::<Vec<_>>(), ["kept"]);
        drop(kept);
    }
}
