//! Events come in. Those that come at the same time share a transaction, and nobody is told of success before that is on the disk.

use std::{sync::Arc, time::Duration};

use tokio::sync::{mpsc, oneshot};

use super::{Engine, Inner, Job, clock::wall, shards::lease_of};
use crate::{
    domain::delivery::{
        event::{Event, event_id},
        scheduler::{Item, Uid},
    },
    store::{
        self,
        delivery::{Acceptance, AcceptedEvent, NewDelivery, NewState, Origin},
    },
};

/// Events of one transaction, about, and their bytes.
const BATCH: usize = 500;
const BATCH_BYTES: usize = 4 << 20;

/// Each delivery takes so much memory besides its event's data, about.
const OVERHEAD: usize = 512;

/// Why events were not accepted.
#[derive(Debug, thiserror::Error)]
pub enum AcceptError {
    /// As many are pending as may be.
    #[error("as many deliveries are pending as may be: try again later")]
    Backlog {
        /// When there may be room.
        retry_after: Duration,
    },
    /// The store did not take them, or did not say so.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// The process ends.
    #[error("the process ends: try again")]
    Stopping,
}

/// An event that was accepted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptedId {
    /// Ours, of this event or of the one that it was already; none where another event has its producer's id, and nothing was stored.
    pub id: Option<String>,
    /// Whether it was there already.
    pub duplicate: bool,
    /// The endpoints that it goes to; none of a duplicate, of which that is not known any more.
    pub matched: Vec<Matched>,
}

/// An endpoint that an event goes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Matched {
    /// Of the object.
    pub uid: Uid,
    /// Of the object.
    pub name: String,
    /// What becomes of it.
    pub state: MatchedState,
}

/// What becomes of an event at an endpoint that it matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MatchedState {
    /// It is sent.
    Pending,
    /// It is kept: the endpoint is suspended or cannot be called for now, or its filter has failed.
    Held,
    /// It is not sent and can be replayed: the endpoint is disabled.
    Skipped,
}

pub(super) struct AcceptRequest {
    events: Vec<(AcceptedEvent, Vec<Matched>)>,
    reply: oneshot::Sender<Result<Vec<AcceptedId>, AcceptError>>,
}

impl Engine {
    /// Accepts events of a namespace, all or none. Once this returns they are on the disk, each with a delivery for every endpoint that it
    /// matched.
    ///
    /// # Errors
    /// What kept them from being accepted, or from being known to be.
    pub async fn accept(&self, namespace: &str, events: Vec<Event>) -> Result<Vec<AcceptedId>, AcceptError> {
        let inner = &self.0;
        if inner.stopping.load(std::sync::atomic::Ordering::SeqCst) {
            return Err(AcceptError::Stopping);
        }
        let events: Vec<_> = events.into_iter().map(|event| inner.matched(namespace, event)).collect();
        inner.check_backlog(&events)?;
        let (reply, answer) = oneshot::channel();
        let stopping = |_| AcceptError::Stopping;
        inner.accepts.send(AcceptRequest { events, reply }).await.map_err(stopping)?;
        answer.await.map_err(|_| AcceptError::Stopping)?
    }
}

impl Inner {
    /// The event with an id, and whom it goes to.
    fn matched(&self, namespace: &str, event: Event) -> (AcceptedEvent, Vec<Matched>) {
        let millis = u64::try_from(wall().as_millisecond()).unwrap_or_default();
        let event = Event { id: event_id(millis, rand::random()), ..event };
        let (mut deliveries, mut matched) = (Vec::new(), Vec::new());
        self.registry.in_namespace(namespace, |endpoint| {
            let settings = &endpoint.settings;
            if !settings.events.iter().any(|pattern| pattern.matches(&event.event_type)) {
                return;
            }
            let wanted = settings.filter.as_ref().map_or(Ok(true), |filter| filter(&event));
            let disabled = self.is_disabled(&settings.uid);
            let (new, state) = match wanted {
                Ok(false) => return,
                _ if disabled => (NewState::Skipped, MatchedState::Skipped),
                // Nobody knows whether it is wanted before the filter is mended.
                Err(_) => (NewState::Held, MatchedState::Held),
                Ok(true) if endpoint.is_suspended() => (NewState::Pending, MatchedState::Held),
                Ok(true) => (NewState::Pending, MatchedState::Pending),
            };
            let (uid, name) = (Arc::clone(&settings.uid), settings.name.clone());
            let (lease, ordered) = (lease_of(&uid), settings.config.ordered);
            deliveries.push(NewDelivery { endpoint: Arc::clone(&uid), lease, ordered, state: new });
            matched.push(Matched { uid, name, state });
        });
        let (namespace, digest) = (namespace.to_owned(), event.digest());
        (AcceptedEvent { namespace, event, digest, deliveries }, matched)
    }

    fn is_disabled(&self, uid: &Uid) -> bool {
        let own = self.scheduler.lock().is_disabled(uid);
        own.unwrap_or_else(|| self.registry.is_disabled(uid))
    }

    fn check_backlog(&self, events: &[(AcceptedEvent, Vec<Matched>)]) -> Result<(), AcceptError> {
        let (most_each, most) = self.settings.max_pending;
        let scheduler = self.scheduler.lock();
        let mut deliveries = events.iter().flat_map(|(event, _)| &event.deliveries);
        let full = scheduler.pending() >= most
            || deliveries.any(|delivery| scheduler.pending_of(&delivery.endpoint) >= most_each);
        if full { Err(AcceptError::Backlog { retry_after: Duration::from_secs(10) }) } else { Ok(()) }
    }

    /// Takes all requests that there are, writes them, and answers.
    pub(super) async fn accept_all(self: Arc<Self>, mut requests: mpsc::Receiver<AcceptRequest>) {
        while let Some(first) = requests.recv().await {
            let size = |request: &AcceptRequest| {
                request.events.iter().map(|(event, _)| event.event.data.bytes.len()).sum::<usize>()
            };
            let (mut events, mut bytes) = (first.events.len(), size(&first));
            let mut batch = vec![first];
            while events < BATCH && bytes < BATCH_BYTES {
                let Ok(next) = requests.try_recv() else { break };
                events += next.events.len();
                bytes += size(&next);
                batch.push(next);
            }
            self.accept_batch(batch).await;
        }
    }

    async fn accept_batch(self: &Arc<Self>, batch: Vec<AcceptRequest>) {
        let mut events = Vec::new();
        let mut requests = Vec::with_capacity(batch.len());
        for AcceptRequest { events: own, reply } in batch {
            let (own, matched): (Vec<_>, Vec<_>) = own.into_iter().unzip();
            requests.push((matched, reply));
            events.extend(own);
        }
        let now = self.clock.now();
        let mut left = &events[..];
        match self.store.deliveries().accept(&self.owner, &events, now).await {
            Ok(acceptances) => {
                let mut acceptances = acceptances.into_iter();
                for (matched, reply) in requests {
                    let (own, others) = left.split_at(matched.len());
                    left = others;
                    let answers = own.iter().zip(matched).zip(acceptances.by_ref());
                    let answers = answers
                        .map(|((event, matched), acceptance)| self.hand_over(event, matched, acceptance, now))
                        .collect();
                    // Whoever has asked may be gone.
                    let _ = reply.send(Ok(answers));
                }
            }
            // One of them may be what the store refuses: each alone.
            Err(store::Error::BadValue(_)) if requests.len() > 1 => {
                for (matched, reply) in requests {
                    let (own, others) = left.split_at(matched.len());
                    left = others;
                    let events = own.iter().cloned().zip(matched).collect();
                    Box::pin(self.accept_batch(vec![AcceptRequest { events, reply }])).await;
                }
            }
            Err(error) => {
                // It may have been written all the same.
                let mut scheduler = self.scheduler.lock();
                for delivery in events.iter().flat_map(|event| &event.deliveries) {
                    scheduler.signal(&delivery.endpoint, 0);
                }
                drop(scheduler);
                let text = error.to_string();
                for (_, reply) in requests {
                    let _ = reply.send(Err(AcceptError::Store(store::Error::Refused(text.clone()))));
                }
            }
        }
        self.dispatch();
    }

    /// What was stored goes to the scheduler.
    fn hand_over(
        &self,
        event: &AcceptedEvent,
        matched: Vec<Matched>,
        acceptance: Acceptance,
        now: Duration,
    ) -> AcceptedId {
        let numbers = match acceptance {
            Acceptance::Duplicate(id) => {
                return AcceptedId { id: Some(id), duplicate: true, matched: Vec::new() };
            }
            Acceptance::Conflict => return AcceptedId { id: None, duplicate: true, matched: Vec::new() },
            Acceptance::Stored(numbers) => numbers,
        };
        self.metrics.accepted.inc();
        let shared = Arc::new(event.event.clone());
        let (size, seed) = (shared.data.bytes.len() + OVERHEAD, shared.seed());
        let mut scheduler = self.scheduler.lock();
        for (delivery, number) in event.deliveries.iter().zip(numbers) {
            let Some(id) = number else { continue };
            if delivery.state == NewState::Held {
                scheduler.signal(&delivery.endpoint, 1);
                continue;
            }
            let event = Arc::clone(&shared);
            let job = Job { event, accepted: now, replay: 0, origin: Origin::Event };
            let item = Item { id, attempts: 0, created: now, size, seed, event: job };
            scheduler.arrived(&delivery.endpoint, item);
        }
        drop(scheduler);
        AcceptedId { id: Some(event.event.id.clone()), duplicate: false, matched }
    }
}
