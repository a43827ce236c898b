//! Events come in.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use super::{Deliveries, FencingToken, FinalState, HELD, Origin, counted, millis};
use crate::{
    domain::delivery::{event::Event, scheduler::Uid},
    store::{
        Error,
        sql::{Access, Transaction, Value},
    },
};

/// An event that is to be kept, with all that is to become of it.
#[derive(Clone, Debug)]
pub struct AcceptedEvent {
    /// Of its producer.
    pub namespace: String,
    /// The event.
    pub event: Event,
    /// Of what its producer has said, to tell whether another one of the same id is the same one.
    pub digest: [u8; 32],
    /// To whom it goes.
    pub deliveries: Vec<NewDelivery>,
}

/// A delivery that is to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// To whom.
    pub endpoint: Uid,
    /// The lease under which the endpoint is sent to: whoever holds it is told.
    pub lease: String,
    /// Whether it waits for those of the same subject.
    pub ordered: bool,
    /// What is to become of it.
    pub state: NewState,
}

/// What is to become of a delivery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NewState {
    /// It is sent.
    Pending,
    /// It is kept until somebody says what is to become of it.
    Held,
    /// It is not sent, and can be asked for.
    Skipped,
}

/// What became of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Acceptance {
    /// It is stored; of each delivery in order, its number in the store if it has one.
    Stored(Vec<Option<i64>>),
    /// It was there already, as this event.
    Duplicate(String),
    /// Another event has its id: nothing was stored.
    Conflict,
}

const REMEMBER: &str =
    "insert into authlink_dedupe (namespace, source, producer_id, event_id, digest, created) values ";
const UNLESS_KNOWN: &str = " on conflict (namespace, source, producer_id) do nothing returning event_id";
const KNOWN: &str = "select namespace, source, producer_id, event_id, digest from authlink_dedupe \
                     where (namespace, source, producer_id) in (values ";
const EVENTS: &str = "insert into authlink_events (id, namespace, producer_id, source, type, subject, occurred, \
                      accepted, form, content_type, extensions, data) values ";
const DELIVERIES: &str = "insert into authlink_deliveries (event_id, endpoint, replay, origin, subject, attempts, \
                          accepted, created, due, wait) values ";
const NUMBERS: &str = " returning id, event_id, endpoint";
const FINISHED: &str =
    "insert into authlink_finished (event_id, endpoint, state, replay, attempts, accepted, at) values ";
const SKIPPED: &str = "insert into authlink_endpoints (uid, skipped) values ";
const SKIPPED_MORE: &str =
    " on conflict (uid) do update set skipped = authlink_endpoints.skipped + excluded.skipped";
const WAKEUPS: &str = "insert into authlink_wakeups (shard, endpoint, pending) values ";

/// What a producer calls an event, and where.
type ProducerKey<'a> = (&'a str, &'a str, &'a str);

impl Deliveries<'_> {
    /// Keeps events, all that is to become of them, and what tells a second one from the first, in one transaction: once this returns, they
    /// survive whatever happens. `owner` is who asks: of endpoints whose leases it does not hold, the holder is told.
    ///
    /// # Errors
    /// What kept them from being stored, or from being known to be.
    pub async fn accept(
        self,
        owner: &str,
        events: &[AcceptedEvent],
        now: Duration,
    ) -> Result<Vec<Acceptance>, Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let deliveries = events.iter().flat_map(|event| &event.deliveries);
            let held = transaction.held_leases(owner, deliveries.map(|delivery| &*delivery.lease)).await?;
            let known = transaction.remember(events, now).await?;
            let fresh: Vec<_> = events
                .iter()
                .zip(&known)
                .filter(|(_, known)| known.is_none())
                .map(|(event, _)| event)
                .collect();
            transaction.insert_events(&fresh, now).await?;
            let numbers = transaction.insert_deliveries(&fresh, now).await?;
            transaction.insert_skipped(&fresh, now).await?;
            transaction.wake_others(&fresh, &held).await?;
            transaction.commit().await?;
            let stored = |event: &AcceptedEvent| {
                let number = |delivery: &NewDelivery| {
                    numbers.get(&(event.event.id.clone(), delivery.endpoint.to_string())).copied()
                };
                Acceptance::Stored(event.deliveries.iter().map(number).collect())
            };
            let all = events.iter().zip(known).map(|(event, known)| known.unwrap_or_else(|| stored(event)));
            Ok(all.collect())
        };
        self.0.operate("accept", work).await
    }
}

fn key(event: &AcceptedEvent) -> Option<ProducerKey<'_>> {
    Some((&event.namespace, &event.event.source, event.event.producer_id.as_deref()?))
}

impl Transaction {
    /// Of each event what it is, unless it is new.
    async fn remember(
        &mut self,
        events: &[AcceptedEvent],
        now: Duration,
    ) -> sqlx::Result<Vec<Option<Acceptance>>> {
        let mut firsts: HashMap<ProducerKey<'_>, &AcceptedEvent> = HashMap::new();
        for event in events {
            if let Some(key) = key(event) {
                firsts.entry(key).or_insert(event);
            }
        }
        if firsts.is_empty() {
            return Ok(vec![None; events.len()]);
        }
        // In one order, whoever inserts: otherwise two of them could wait for each other.
        let mut keys: Vec<_> = firsts.into_iter().collect();
        keys.sort_unstable_by_key(|(key, _)| *key);
        let rows = keys.iter().map(|((namespace, source, id), event)| {
            let own = [(&event.event.id).into(), (&event.digest[..]).into(), millis(now).into()];
            let [event, digest, created] = own;
            [(*namespace).into(), (*source).into(), (*id).into(), event, digest, created]
        });
        let rows: Vec<[Value<'_>; 6]> = rows.collect();
        let inserted = self.fetch_many(REMEMBER, &rows, UNLESS_KNOWN).await?;
        let new: HashSet<String> = inserted.iter().map(|row| row.get(0)).collect::<sqlx::Result<_>>()?;
        let mut owners: HashMap<[String; 3], (String, Vec<u8>)> = HashMap::new();
        let old = keys.iter().filter(|(_, event)| !new.contains(&event.event.id));
        let old: Vec<[Value<'_>; 3]> =
            old.map(|(key, _)| [key.0.into(), key.1.into(), key.2.into()]).collect();
        for row in self.fetch_many(KNOWN, &old, ")").await? {
            owners.insert([row.get(0)?, row.get(1)?, row.get(2)?], (row.get(3)?, row.get(4)?));
        }
        for (key, event) in &keys {
            if new.contains(&event.event.id) {
                let key = [key.0, key.1, key.2].map(str::to_owned);
                owners.insert(key, (event.event.id.clone(), event.digest.to_vec()));
            }
        }
        let known = |event: &AcceptedEvent| {
            let Some(key) = key(event) else { return Ok(None) };
            let key = [key.0, key.1, key.2].map(str::to_owned);
            // It was forgotten just now: whoever sends it again is the first.
            let (id, digest) = owners.get(&key).ok_or(sqlx::Error::RowNotFound)?;
            if *id == event.event.id {
                return Ok(None);
            }
            let same = digest[..] == event.digest;
            Ok(Some(if same { Acceptance::Duplicate(id.clone()) } else { Acceptance::Conflict }))
        };
        events.iter().map(known).collect()
    }

    async fn insert_events(&mut self, events: &[&AcceptedEvent], now: Duration) -> sqlx::Result<()> {
        let texts: Vec<_> = events
            .iter()
            .map(|event| {
                let extensions = serde_json::to_string(&event.event.extensions).unwrap_or_default();
                (event.event.time.to_string(), extensions)
            })
            .collect();
        let rows =
            events.iter().zip(&texts).map(|(AcceptedEvent { namespace, event, .. }, (time, extensions))| {
                [
                    (&event.id).into(),
                    namespace.into(),
                    event.producer_id.as_deref().into(),
                    (&event.source).into(),
                    (&event.event_type).into(),
                    event.subject.as_deref().into(),
                    time.into(),
                    millis(now).into(),
                    event.data.form.number().into(),
                    event.data.content_type.as_deref().into(),
                    extensions.into(),
                    (&event.data.bytes[..]).into(),
                ]
            });
        let rows: Vec<[Value<'_>; 12]> = rows.collect();
        self.fetch_many(EVENTS, &rows, "").await.map(drop)
    }

    /// The numbers of deliveries by event and endpoint.
    async fn insert_deliveries(
        &mut self,
        events: &[&AcceptedEvent],
        now: Duration,
    ) -> sqlx::Result<HashMap<(String, String), i64>> {
        let now = millis(now);
        let mut rows: Vec<[Value<'_>; 10]> = Vec::new();
        for AcceptedEvent { event, deliveries, .. } in events {
            for delivery in deliveries {
                let due = match delivery.state {
                    NewState::Pending => now,
                    NewState::Held => HELD,
                    NewState::Skipped => continue,
                };
                let subject = event.subject.as_deref().filter(|_| delivery.ordered);
                let (event, endpoint) = ((&event.id).into(), (&*delivery.endpoint).into());
                let (replay, origin, attempts) = (0.into(), Origin::Event.number().into(), 0.into());
                let (accepted, created, wait) = (now.into(), now.into(), 0.into());
                rows.push([
                    event,
                    endpoint,
                    replay,
                    origin,
                    subject.into(),
                    attempts,
                    accepted,
                    created,
                    due.into(),
                    wait,
                ]);
            }
        }
        let numbers = self.fetch_many(DELIVERIES, &rows, NUMBERS).await?;
        numbers.iter().map(|row| Ok(((row.get(1)?, row.get(2)?), row.get(0)?))).collect()
    }

    async fn insert_skipped(&mut self, events: &[&AcceptedEvent], now: Duration) -> sqlx::Result<()> {
        let (now, mut counts) = (millis(now), HashMap::<&str, i64>::new());
        let mut rows: Vec<[Value<'_>; 7]> = Vec::new();
        for AcceptedEvent { event, deliveries, .. } in events {
            for delivery in deliveries.iter().filter(|delivery| delivery.state == NewState::Skipped) {
                *counts.entry(&delivery.endpoint).or_default() += 1;
                let (event, endpoint) = ((&event.id).into(), (&*delivery.endpoint).into());
                let state = FinalState::Skipped.number().into();
                rows.push([event, endpoint, state, 0.into(), 0.into(), now.into(), now.into()]);
            }
        }
        self.fetch_many(FINISHED, &rows, "").await?;
        let mut counts: Vec<[Value<'_>; 2]> =
            counts.into_iter().map(|(uid, count)| [uid.into(), count.into()]).collect();
        sort_by_text(&mut counts);
        self.fetch_many(SKIPPED, &counts, SKIPPED_MORE).await.map(drop)
    }

    /// Tells the holders of leases that `held` has not what they have to look for.
    async fn wake_others(
        &mut self,
        events: &[&AcceptedEvent],
        held: &HashSet<FencingToken>,
    ) -> sqlx::Result<()> {
        let mut others = HashMap::<(&str, &str), u64>::new();
        for delivery in events.iter().flat_map(|event| &event.deliveries) {
            let ours = held.iter().any(|token| token.lease == delivery.lease);
            if !ours && delivery.state != NewState::Skipped {
                *others.entry((&delivery.lease, &delivery.endpoint)).or_default() += 1;
            }
        }
        let rows = others
            .into_iter()
            .map(|((lease, endpoint), pending)| [lease.into(), endpoint.into(), counted(pending).into()]);
        self.fetch_many(WAKEUPS, &rows.collect::<Vec<_>>(), "").await.map(drop)
    }

    /// Tells the holder of this lease to look for so many deliveries of an endpoint.
    pub(super) async fn wake(&mut self, lease: &str, endpoint: &str, pending: i64) -> sqlx::Result<()> {
        self.fetch_many(WAKEUPS, &[[lease.into(), endpoint.into(), pending.into()]], "").await.map(drop)
    }
}

/// In one order, whoever writes these rows: otherwise two of them could wait for each other.
pub(super) fn sort_by_text<const N: usize>(rows: &mut [[Value<'_>; N]]) {
    rows.sort_unstable_by_key(|row| match row[0] {
        Value::Text(text) => text.map(str::to_owned),
        _ => None,
    });
}
