//! Attempts are made, one after the other by each worker: whoever ends one begins the next.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::{Duration, Instant},
};

use super::{Inner, Job, attempt::Report, flush::DeliveryResult, shards::lease_of};
use crate::{
    domain::delivery::{
        health::Change,
        outcome::Outcome,
        scheduler::{Attempt, Death, Decision, Flush, Step, Uid},
    },
    store::delivery::{AttemptRecord, Completion, Ending, FencingToken, FinalState, Origin},
};

/// What a worker does next.
pub(super) struct Task {
    step: Step<Job>,
    token: FencingToken,
}

impl Inner {
    /// Has everything done that there is to do.
    pub(super) fn dispatch(self: &Arc<Self>) {
        while let Some(task) = self.next_task() {
            let inner = Arc::clone(self);
            tokio::spawn(async move {
                let mut task = task;
                loop {
                    inner.work(task).await;
                    match inner.next_task() {
                        Some(next) => task = next,
                        None => break inner.arm(),
                    }
                }
            });
        }
        self.arm();
    }

    fn next_task(&self) -> Option<Task> {
        let held = self.shards.valid_until().is_some_and(|until| Instant::now() < until);
        if !held || !self.healthy.load(SeqCst) || self.stopping.load(SeqCst) {
            return None;
        }
        loop {
            let mut scheduler = self.scheduler.lock();
            let step = scheduler.next(self.clock.now());
            if scheduler.wants_load() {
                self.signals.load.notify_one();
            }
            drop(scheduler);
            let step = step?;
            let (Step::Send(attempt) | Step::Expire(attempt)) = &step;
            match self.shards.token(&attempt.uid) {
                Some(token) => return Some(Task { step, token }),
                // Lost just now: `disown` is on its way.
                None => self.give_back(&step),
            }
        }
    }

    fn give_back(&self, step: &Step<Job>) {
        let mut scheduler = self.scheduler.lock();
        let attempt = match step {
            Step::Send(attempt) => {
                let ended = Report::of(Outcome::Aborted, String::new()).ended;
                scheduler.finish(attempt, ended, self.clock.now());
                attempt
            }
            Step::Expire(attempt) => attempt,
        };
        scheduler.flushed(&attempt.uid, attempt.item.id, Flush::Unchanged);
    }

    async fn work(&self, Task { step, token }: Task) {
        match step {
            Step::Expire(attempt) => {
                let (origin, attempts) = (attempt.item.event.origin, attempt.item.attempts);
                let ending = self.dead(&attempt.uid, origin, attempts);
                self.end(&attempt, token, ending, None, Flush::Gone);
            }
            Step::Send(attempt) => {
                let Some(endpoint) = self.registry.get(&attempt.uid) else {
                    return self.give_back(&Step::Send(attempt));
                };
                let at = self.clock.now();
                let report = endpoint.send(&attempt.item.event.event).await;
                self.count(&attempt, &report, &endpoint.settings.namespace, &endpoint.settings.name);
                let record = record(&attempt, &report, at, endpoint.host());
                self.finish(&attempt, token, &report, record);
            }
        }
    }

    fn finish(&self, attempt: &Attempt<Job>, token: FencingToken, report: &Report, record: AttemptRecord) {
        let finished = self.scheduler.lock().finish(attempt, report.ended, self.clock.now());
        for change in finished.changes {
            self.tell(&attempt.uid, change);
        }
        if let Some(outage) = finished.outage {
            self.metrics.outage.set(outage.into());
            tracing::warn!(
                outage,
                "most webhooks cannot be reached: it is this cluster's way out, if not, it is over"
            );
        }
        let (ending, flush) = match finished.decision {
            Decision::Nothing => {
                let mut scheduler = self.scheduler.lock();
                return scheduler.flushed(&attempt.uid, attempt.item.id, Flush::Unchanged);
            }
            Decision::Delivered => {
                let (state, attempts) = (FinalState::Delivered, attempt.number());
                (Ending::Finished { state, attempts, dead_letter: None }, Flush::Gone)
            }
            Decision::Dead(death) => {
                let spent = attempt.item.attempts + u32::from(death == Death::AttemptsSpent);
                (self.dead(&attempt.uid, attempt.item.event.origin, spent), Flush::Gone)
            }
            Decision::Retry { attempts, at, wait } => {
                (Ending::Retry { attempts, due: at, wait }, Flush::Due(at))
            }
        };
        self.end(attempt, token, ending, Some(record), flush);
    }

    /// A delivery is given up, and goes to where its endpoint sends such.
    pub(super) fn dead(&self, uid: &Uid, origin: Origin, attempts: u32) -> Ending {
        let endpoint = self.registry.get(uid);
        if let Some(endpoint) = &endpoint {
            self.metrics.dead(&endpoint.settings.namespace, &endpoint.settings.name);
        }
        // What is a dead letter already goes nowhere else: two endpoints could send it to each other for ever.
        let letter = endpoint.filter(|_| origin != Origin::DeadLetter);
        let letter = letter.and_then(|endpoint| endpoint.settings.dead_letter.clone());
        let dead_letter = letter.map(|uid| (Arc::clone(&uid), lease_of(&uid)));
        Ending::Finished { state: FinalState::Dead, attempts, dead_letter }
    }

    fn end(
        &self,
        attempt: &Attempt<Job>,
        token: FencingToken,
        ending: Ending,
        record: Option<AttemptRecord>,
        flush: Flush,
    ) {
        let Job { event, accepted, replay, .. } = &attempt.item.event;
        let completion = Completion {
            id: attempt.item.id,
            endpoint: Arc::clone(&attempt.uid),
            event_id: event.id.clone(),
            accepted: *accepted,
            replay: *replay,
            token,
            ending,
            attempt: record,
        };
        // Nobody takes it once the engine has ended: whoever comes next sends it again.
        let _ = self.results.send(DeliveryResult { completion, flush });
    }

    fn count(&self, attempt: &Attempt<Job>, report: &Report, namespace: &str, name: &str) {
        let outcome = report.ended.outcome;
        self.metrics.attempt(namespace, name, outcome.as_str());
        if outcome == Outcome::Delivered {
            let latency = self.clock.now().saturating_sub(attempt.item.created);
            self.metrics.delivered(namespace, name, latency);
        }
    }

    pub(super) fn tell(&self, uid: &Uid, change: Change) {
        (self.settings.observer)(uid, change);
    }

    /// Sets the timer to when something changes by itself.
    pub(super) fn arm(&self) {
        let next = self.scheduler.lock().next_change();
        let mut armed = self.signals.armed.lock();
        if next.is_some_and(|next| armed.is_none_or(|armed| next < armed)) {
            *armed = next;
            self.signals.timer.notify_one();
        }
    }

    /// Does what is to be done when its time comes.
    pub(super) async fn keep_time(self: Arc<Self>) {
        loop {
            let next = *self.signals.armed.lock();
            let until = async {
                match next {
                    Some(next) => tokio::time::sleep_until(self.clock.instant_of(next).into()).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = until => {
                    *self.signals.armed.lock() = None;
                    self.dispatch();
                }
                () = self.signals.timer.notified() => {}
            }
        }
    }
}

fn record(attempt: &Attempt<Job>, report: &Report, at: Duration, host: &str) -> AttemptRecord {
    let job = &attempt.item.event;
    AttemptRecord {
        endpoint: attempt.uid.to_string(),
        event_id: job.event.id.clone(),
        number: attempt.number(),
        origin: job.origin,
        at,
        took: report.ended.took,
        outcome: report.ended.outcome,
        status: report.status,
        host: host.to_owned(),
        detail: report.detail.clone(),
        body: report.body.clone(),
    }
}
