//! What is counted for each object that is record, and the way of it into the store.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use parking_lot::{Mutex, MutexGuard};
use tokio::{sync::Notify, time::MissedTickBehavior};
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::{
    domain::usage::{self, Call, SLOT, Tally},
    store::{Entry, ReplicaState, Store},
};

/// How long the last write may take: what is left of the time that a process gets to end.
const FINAL_FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// The least time between two writes, however often circuits turn.
const PAUSE: Duration = Duration::from_secs(1);

/// What is counted, by the object's uid: an object that is made ready anew goes on usage.
#[derive(Default)]
pub(super) struct Counters {
    tallies: Mutex<HashMap<String, Arc<Mutex<Tally>>>>,
    turned: Notify,
}

impl Counters {
    /// That of the object.
    pub(super) fn of(&self, uid: &str) -> Arc<Mutex<Tally>> {
        Arc::clone(self.tallies().entry(uid.to_owned()).or_default())
    }

    /// A circuit turned: it is written soon.
    pub(super) fn turned(&self) {
        self.turned.notify_one();
    }

    /// What has not been written yet.
    fn unwritten(&self) -> Vec<Entry> {
        let mut entries = Vec::new();
        for (uid, tally) in &*self.tallies() {
            let unwritten = lock(tally).unwritten();
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
                lock(tally).written(*slot, counts.requests);
            }
        }
    }

    /// Drops what is old, and the tallies of objects that are ready no more.
    fn trim(&self, now: i64) {
        self.tallies().retain(|_, tally| {
            lock(tally).trim(now);
            Arc::strong_count(tally) > 1 || !lock(tally).is_empty()
        });
    }

    fn tallies(&self) -> MutexGuard<'_, HashMap<String, Arc<Mutex<Tally>>>> {
        self.tallies.lock()
    }
}

fn lock(tally: &Mutex<Tally>) -> MutexGuard<'_, Tally> {
    tally.lock()
}

fn slot_now() -> i64 {
    usage::slot(Timestamp::now().as_second())
}

/// A call that is under way: counted when it ends, also when its caller goes away.
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

    /// It is answered by this status.
    pub(super) fn answered(&mut self, status: u16) {
        self.call.failed |= status >= 500;
    }

    /// The target has answered, or failed to: it took until now.
    pub(super) fn served(&mut self) {
        self.call.took = Some(self.started.elapsed());
    }
}

impl Drop for UsageGuard {
    fn drop(&mut self) {
        lock(&self.tally).add(slot_now(), &self.call);
    }
}

impl Gateway {
    /// Writes what is counted at this interval and soon after a circuit turned; once `stop` is cancelled once more.
    pub async fn report(&self, store: &Store, interval: Duration, stop: CancellationToken) {
        // Of its own for each process: one that is restarted goes on where nobody else writes.
        let replica = i64::from(rand::random::<u32>()) << 31 | i64::from(rand::random::<u32>() >> 1);
        let reporting = async {
            let mut ticks = tokio::time::interval(interval);
            ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
            let mut purged: Option<Instant> = None;
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    () = self.counters.turned.notified() => {}
                }
                let written = self.write(store, replica).await;
                if written && purged.is_none_or(|purged| purged.elapsed() >= SLOT) {
                    // The store itself tells of what fails.
                    let _ = store.purge(usage::oldest(slot_now())).await;
                    purged = Some(Instant::now());
                }
                tokio::time::sleep(PAUSE).await;
            }
        };
        tokio::select! {
            () = stop.cancelled() => {}
            () = reporting => {}
        }
        let final_flush = async {
            self.write(store, replica).await;
            store.leave(replica).await
        };
        let _ = tokio::time::timeout(FINAL_FLUSH_TIMEOUT, final_flush).await;
    }

    async fn write(&self, store: &Store, replica: i64) -> bool {
        let entries = self.counters.unwritten();
        let replica_state = ReplicaState { circuits: self.open_circuits(), saturated: self.saturated() };
        let written = store.write(replica, &entries, &replica_state).await.is_ok();
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
        failed.answered(502);
        drop(failed);
        let mut limited = UsageGuard::start(&counters.of("a"));
        limited.limited();
        limited.answered(429);
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
