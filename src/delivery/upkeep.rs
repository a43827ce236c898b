//! What is done now and then, and what people ask for.

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use super::{Engine, Inner, clock::wall, flush::DeliveryResult, shards::lease_of};
use crate::{
    domain::delivery::{
        event::{Event, event_id},
        outcome::Outcome,
        scheduler::{Flush, Uid},
    },
    store::{
        self,
        delivery::{AttemptRecord, Completion, Origin, ReplaySelection},
    },
};

/// How often deliveries are looked for that have become too old where they wait.
const SWEEP: Duration = Duration::from_secs(30);
/// How often what is pending is counted anew.
const RECOUNT: u32 = 10;

/// How often is deleted what is not needed any more, ...
const PURGE: Duration = Duration::from_mins(1);
/// ... and the time between two pieces of it, which belongs to others.
const BETWEEN: Duration = Duration::from_millis(20);

/// Why no test was sent.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TestError {
    /// There is no such endpoint.
    #[error("there is no such webhook at this gateway yet: try again in a moment")]
    Unknown,
    /// Nothing is sent to it.
    #[error("the webhook is suspended: set spec.suspend to false")]
    Suspended,
    /// It cannot be called.
    #[error("{0}")]
    Unusable(String),
}

/// How a test went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TestReport {
    /// The event's id.
    pub event_id: String,
    /// How it ended.
    pub outcome: Outcome,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// How long it took.
    pub took: Duration,
    /// What went wrong.
    pub detail: String,
    /// The beginning of the answer's body, unless it was a success.
    pub body: Vec<u8>,
}

impl Engine {
    /// Sends an event to an endpoint once, whatever its types and its filter are: the way of a delivery, of which nothing is counted and
    /// nothing follows.
    ///
    /// # Errors
    /// Why nothing was sent.
    pub async fn test(&self, uid: &Uid, event: Event) -> Result<TestReport, TestError> {
        let endpoint = self.0.registry.get(uid).ok_or(TestError::Unknown)?;
        if endpoint.settings.config.suspended {
            return Err(TestError::Suspended);
        }
        if let Some(why) = &endpoint.settings.unusable {
            return Err(TestError::Unusable(why.clone()));
        }
        let millis = u64::try_from(wall().as_millisecond()).unwrap_or_default();
        let event = Event { id: event_id(millis, rand::random()), ..event };
        let at = self.0.clock.now();
        let report = endpoint.send(&event).await;
        let record = AttemptRecord {
            endpoint: uid.to_string(),
            event_id: event.id.clone(),
            number: 1,
            origin: Origin::Test,
            at,
            took: report.ended.took,
            outcome: report.ended.outcome,
            status: report.status,
            host: endpoint.host().to_owned(),
            detail: report.detail.clone(),
            body: report.body.clone(),
        };
        // The answer is what was asked for, in the log or not.
        let _ = self.0.store.deliveries().log(&record).await;
        Ok(TestReport {
            event_id: event.id,
            outcome: report.ended.outcome,
            status: report.status,
            took: report.ended.took,
            detail: report.detail,
            body: report.body,
        })
    }

    /// Has deliveries made once more; gives how many. Those that are pending are not made twice.
    ///
    /// # Errors
    /// What kept the rest from being made.
    pub async fn replay(&self, uid: &Uid, selection: &ReplaySelection) -> Result<u64, store::Error> {
        let endpoint = self.0.registry.get(uid);
        let ordered = endpoint.is_some_and(|endpoint| endpoint.settings.config.ordered);
        let now = self.0.clock.now();
        let made = self.0.store.deliveries().replay(uid, &lease_of(uid), selection, ordered, now).await;
        self.0.signals.wakeups.notify_one();
        made
    }

    /// Enables an endpoint that is disabled; one that is not starts anew as well.
    ///
    /// # Errors
    /// What kept it from being enabled.
    pub async fn enable(&self, uid: &Uid) -> Result<(), store::Error> {
        self.0.store.deliveries().enable(uid, &lease_of(uid)).await?;
        self.0.signals.wakeups.notify_one();
        Ok(())
    }

    /// Cancels all deliveries of an endpoint that is gone, and forgets it; gives how many were cancelled.
    ///
    /// # Errors
    /// What kept the rest from being cancelled: it may be done again.
    pub async fn cancel(&self, uid: &Uid) -> Result<u64, store::Error> {
        self.remove_endpoint(uid);
        let mut cancelled = 0;
        loop {
            match self.0.store.deliveries().cancel(uid).await? {
                0 => break,
                some => cancelled += some,
            }
        }
        while !self.0.store.deliveries().forget(uid).await? {}
        Ok(cancelled)
    }
}

impl Inner {
    /// Gives up what has become too old where nothing is sent.
    pub(super) async fn sweep(self: Arc<Self>) {
        let mut round = 0_u32;
        loop {
            tokio::time::sleep(SWEEP).await;
            round = round.wrapping_add(1);
            let backlogs = self.scheduler.lock().backlogs();
            for (uid, max_age, _) in backlogs {
                // The store logs what fails; the next round tries again.
                let _ = self.expire(&uid, max_age).await;
                if round.is_multiple_of(RECOUNT)
                    && let Ok(pending) = self.store.deliveries().pending_of(&uid).await
                {
                    self.scheduler.lock().recounted(&uid, pending);
                }
            }
        }
    }

    async fn expire(self: &Arc<Self>, uid: &Uid, max_age: Duration) -> Result<(), store::Error> {
        let Some(oldest) = self.clock.now().checked_sub(max_age) else { return Ok(()) };
        loop {
            let expired = self.store.deliveries().older(uid, oldest).await?;
            let Some(token) = self.shards.token(uid) else { return Ok(()) };
            let ids = expired.iter().map(|delivery| delivery.id).collect();
            let claimed = self.scheduler.lock().claim(uid, ids);
            if claimed.is_empty() {
                return Ok(());
            }
            for delivery in expired.into_iter().filter(|delivery| claimed.contains(&delivery.id)) {
                let ending = self.dead(uid, delivery.origin, delivery.attempts);
                let completion = Completion {
                    id: delivery.id,
                    endpoint: Arc::clone(uid),
                    event_id: delivery.event_id,
                    accepted: delivery.accepted,
                    replay: delivery.replay,
                    token: token.clone(),
                    ending,
                    attempt: None,
                };
                let _ = self.results.send(DeliveryResult { completion, flush: Flush::Gone });
            }
            while !self.stopping.load(SeqCst)
                && self.scheduler.lock().unfinished().1 > self.settings.limits.unflushed
            {
                tokio::time::sleep(BETWEEN).await;
            }
        }
    }

    /// Deletes what is not needed any more.
    pub(super) async fn purge(self: Arc<Self>) {
        loop {
            tokio::time::sleep(PURGE).await;
            // One process is enough: the one that has the first shard.
            if self.shards.names().first().is_some_and(|name| name.ends_with("/00")) {
                // The store logs what fails; the next round tries again.
                let _ = self.purge_all().await;
            }
        }
    }

    async fn purge_all(&self) -> Result<(), store::Error> {
        let (deliveries, retention) = (self.store.deliveries(), &self.settings.retention);
        while !deliveries.purge_logs(retention, self.clock.now()).await? {
            tokio::time::sleep(BETWEEN).await;
        }
        let mut cursor = None;
        loop {
            cursor = deliveries.purge_events(retention, cursor, self.clock.now()).await?;
            if cursor.is_none() {
                return Ok(());
            }
            tokio::time::sleep(BETWEEN).await;
        }
    }
}
