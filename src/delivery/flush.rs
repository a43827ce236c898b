//! What became of deliveries goes to the store, many at once.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::Inner;
use crate::{
    domain::delivery::scheduler::Flush,
    store::{
        Error,
        delivery::{Completion, EndpointUpdate},
    },
};

/// Results of one transaction, at the most, ...
const BATCH: usize = 200;
/// ... and how long the first of them waits for others.
const GATHER: Duration = Duration::from_millis(5);

/// What is known of endpoints is written so often, and whenever an end is written anyway.
const STATES: Duration = Duration::from_secs(1);

/// After so long the store is asked again.
const AGAIN: Duration = Duration::from_millis(250);

/// A delivery of which the store refuses what became of it is left alone for so long.
const REFUSED: Duration = Duration::from_mins(5);

/// What became of a delivery, and what that means once the store knows of it.
pub(super) struct DeliveryResult {
    pub(super) completion: Completion,
    pub(super) flush: Flush,
}

impl Inner {
    /// Writes results until `stop`, and then those that are there.
    pub(super) async fn flush(
        self: Arc<Self>,
        mut results: mpsc::UnboundedReceiver<DeliveryResult>,
        stop: CancellationToken,
    ) {
        let mut written = Instant::now();
        loop {
            let first = tokio::select! {
                biased;
                first = results.recv() => first,
                () = tokio::time::sleep_until((written + STATES).into()) => None,
                () = stop.cancelled() => {
                    self.write(Vec::new(), true).await;
                    return;
                }
            };
            let mut batch = Vec::with_capacity(BATCH);
            batch.extend(first);
            if !batch.is_empty() {
                gather(&mut results, &mut batch).await;
            }
            let states = written.elapsed() >= STATES;
            if states {
                written = Instant::now();
                self.metrics.pending.set(i64::try_from(self.scheduler.lock().pending()).unwrap_or(i64::MAX));
            }
            self.write(batch, states).await;
        }
    }

    async fn write(self: &Arc<Self>, batch: Vec<DeliveryResult>, states: bool) {
        let now = self.clock.now();
        let updates = if states { self.updates(now) } else { Vec::new() };
        if batch.is_empty() && updates.is_empty() {
            return;
        }
        let completions: Vec<_> = batch.iter().map(|result| result.completion.clone()).collect();
        let kept = self.complete(&completions, &updates, now).await;
        let mut scheduler = self.scheduler.lock();
        for (result, kept) in batch.iter().zip(kept) {
            let flush = match kept {
                Kept::Yes => result.flush,
                Kept::Fenced => {
                    self.metrics.fenced.inc();
                    Flush::Unchanged
                }
                Kept::Refused => Flush::Due(now + REFUSED),
            };
            scheduler.flushed(&result.completion.endpoint, result.completion.id, flush);
        }
        drop(scheduler);
        if !batch.is_empty() {
            self.metrics.batches.observe(f64::from(u32::try_from(batch.len()).unwrap_or(u32::MAX)));
        }
        if batch.iter().any(|result| has_dead_letter(&result.completion)) {
            self.signals.wakeups.notify_one();
        }
        self.dispatch();
    }

    fn updates(&self, now: Duration) -> Vec<EndpointUpdate> {
        let mut scheduler = self.scheduler.lock();
        let changed = scheduler.changed(now);
        let updates = changed.into_iter().filter_map(|(uid, snapshot)| {
            let token = self.shards.token(&uid)?;
            let pending = scheduler.pending_of(&uid);
            Some(EndpointUpdate { uid, token, snapshot, pending })
        });
        updates.collect()
    }

    /// Writes until it is written: there is no other place for it.
    async fn complete(
        &self,
        completions: &[Completion],
        updates: &[EndpointUpdate],
        now: Duration,
    ) -> Vec<Kept> {
        loop {
            match self.store.deliveries().complete(&self.owner, completions, updates, now).await {
                Ok(valid) => {
                    self.healthy.store(true, SeqCst);
                    return valid
                        .into_iter()
                        .map(|valid| if valid { Kept::Yes } else { Kept::Fenced })
                        .collect();
                }
                Err(Error::BadValue(_)) => return self.complete_each(completions, updates, now).await,
                Err(_) => {
                    self.healthy.store(false, SeqCst);
                    if self.stopping.load(SeqCst) {
                        return completions.iter().map(|_| Kept::Fenced).collect();
                    }
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    /// One of them has something that the store refuses: each alone, and if need be without its line in the log.
    async fn complete_each(
        &self,
        completions: &[Completion],
        updates: &[EndpointUpdate],
        now: Duration,
    ) -> Vec<Kept> {
        for update in updates {
            if let Err(error) = self.try_one(&[], std::slice::from_ref(update), now).await {
                tracing::error!(webhook = %update.uid, %error, "the state of a webhook cannot be stored");
            }
        }
        let mut all = Vec::with_capacity(completions.len());
        for completion in completions {
            let bare = Completion { attempt: None, ..completion.clone() };
            let mut kept = self.try_one(std::slice::from_ref(completion), &[], now).await;
            if kept.is_err() {
                kept = self.try_one(&[bare], &[], now).await;
            }
            all.push(kept.unwrap_or_else(|error| {
                let (webhook, event) = (&completion.endpoint, &completion.event_id);
                tracing::error!(%webhook, event, %error, "the result of a delivery cannot be stored");
                Kept::Refused
            }));
        }
        all
    }

    async fn try_one(
        &self,
        completion: &[Completion],
        update: &[EndpointUpdate],
        now: Duration,
    ) -> Result<Kept, Error> {
        loop {
            match self.store.deliveries().complete(&self.owner, completion, update, now).await {
                Ok(valid) if valid.iter().all(|valid| *valid) => return Ok(Kept::Yes),
                Ok(_) => return Ok(Kept::Fenced),
                Err(error @ Error::BadValue(_)) => return Err(error),
                Err(error) if self.stopping.load(SeqCst) => return Err(error),
                Err(_) => tokio::time::sleep(AGAIN).await,
            }
        }
    }
}

/// What the store has made of a result.
#[derive(Clone, Copy)]
enum Kept {
    Yes,
    /// Another process has the lease.
    Fenced,
    Refused,
}

async fn gather(results: &mut mpsc::UnboundedReceiver<DeliveryResult>, batch: &mut Vec<DeliveryResult>) {
    let until = tokio::time::sleep(GATHER);
    tokio::pin!(until);
    while batch.len() < BATCH {
        tokio::select! {
            biased;
            next = results.recv() => match next {
                Some(next) => batch.push(next),
                None => return,
            },
            () = &mut until => return,
        }
    }
}

fn has_dead_letter(completion: &Completion) -> bool {
    use crate::store::delivery::Ending;
    matches!(completion.ending, Ending::Finished { dead_letter: Some(_), .. })
}
