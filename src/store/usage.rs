//! What gateways count for each object, and how they stand.

use std::time::Duration;

use super::{
    Error, Store,
    sql::{Access, Value},
};
use crate::domain::{breaker::State, usage::Counts};

/// What a gateway has counted for an object in a slot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Of the object.
    pub uid: String,
    /// See [`crate::domain::usage::slot`].
    pub slot: i64,
    /// So far.
    pub counts: Counts,
}

/// What is not as it should be at a gateway right now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplicaState {
    /// The worst circuit of each object that has one which is not closed, by uid.
    pub circuits: Vec<(String, State)>,
    /// Objects whose pool has no room for callers, by uid.
    pub saturated: Vec<String>,
    /// The resource version as of which its delivery engine has every Webhook; none while it lacks one.
    pub webhooks: Option<u64>,
}

/// What gateways have written.
#[derive(Clone, Debug, Default)]
pub struct Snapshot {
    /// When it was taken: to ask for what is new since.
    pub at: i64,
    /// By the replica that has written it.
    pub entries: Vec<(i64, Entry)>,
    /// Gateways that live.
    pub replicas: u32,
    /// Of those that live: the worst circuit of each object, and every pool that one of them has no room in.
    pub replica_state: ReplicaState,
}

const SEEN: &str = "insert into authlink_replicas (replica, seen, webhooks) values ($1, $2, $3) \
                    on conflict (replica) do update set seen = excluded.seen, webhooks = excluded.webhooks";
const CLOSED: &str = "delete from authlink_circuits where replica = $1";
const CIRCUIT: &str = "insert into authlink_circuits (uid, replica, state) values ";
const ROOM: &str = "delete from authlink_saturated where replica = $1";
const SATURATED: &str = "insert into authlink_saturated (uid, replica) values ";
const COUNTED: &str =
    "insert into authlink_counts (uid, slot, replica, requests, errors, limited, latencies, changed) values ";
const COUNTED_AGAIN: &str = " on conflict (uid, slot, replica) do update set requests = excluded.requests, \
                             errors = excluded.errors, limited = excluded.limited, \
                             latencies = excluded.latencies, changed = excluded.changed";
const LEFT: &str = "delete from authlink_replicas where replica = $1";
const PURGE: [&str; 4] = [
    "delete from authlink_counts where slot < $1",
    "delete from authlink_saturated where replica in (select replica from authlink_replicas where seen < $1)",
    "delete from authlink_circuits where replica in (select replica from authlink_replicas where seen < $1)",
    "delete from authlink_replicas where seen < $1",
];
const ENTRIES: &str = "select replica, uid, slot, requests, errors, limited, latencies from authlink_counts \
                       where changed >= $1 and slot >= $2";
const WEBHOOKS: &str = "select webhooks from authlink_replicas where seen >= $1";
const REPLICAS: &str = "select count(*) from authlink_replicas where seen >= $1";
const CIRCUITS: &str = "select c.uid, max(c.state) from authlink_circuits c \
                        join authlink_replicas r on r.replica = c.replica where r.seen >= $1 group by c.uid";
const ALL_SATURATED: &str = "select distinct s.uid from authlink_saturated s \
                             join authlink_replicas r on r.replica = s.replica where r.seen >= $1";

/// A gateway that has not written for so long is forgotten.
const FORGOTTEN: Duration = Duration::from_hours(1);

/// What is written becomes visible some time after the moment that is written with it, and at most so long after.
const LATE: Duration = Duration::from_secs(30);

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

fn stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn counted(count: i64) -> u64 {
    u64::try_from(count).unwrap_or_default()
}

/// What gateways count, in the store.
#[derive(Clone, Copy)]
pub struct Usage<'a>(&'a Store);

impl Store {
    /// What gateways count.
    #[must_use]
    pub fn usage(&self) -> Usage<'_> {
        Usage(self)
    }
}

impl Usage<'_> {
    /// Writes what a gateway counts, and that it lives: each entry takes the place of an earlier one of the same object and
    /// slot, `replica_state` of all earlier ones. A write that failed may be done again, whatever came of it.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn write(
        self,
        replica: i64,
        entries: &[Entry],
        replica_state: &ReplicaState,
    ) -> Result<(), Error> {
        let latencies: Vec<_> = entries.iter().map(|entry| entry.counts.latencies.to_string()).collect();
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let now = transaction.now().await?;
            let webhooks = Value::Int(replica_state.webhooks.map(stored));
            transaction.execute(SEEN, &[replica.into(), now.into(), webhooks]).await?;
            for statement in [CLOSED, ROOM] {
                transaction.execute(statement, &[replica.into()]).await?;
            }
            let saturated: Vec<_> =
                replica_state.saturated.iter().map(|uid| [uid.into(), replica.into()]).collect();
            transaction.fetch_many(SATURATED, &saturated, "").await?;
            let circuits = replica_state.circuits.iter();
            let circuits: Vec<[Value<'_>; 3]> = circuits
                .map(|(uid, state)| [uid.into(), replica.into(), i64::from(state.number()).into()])
                .collect();
            transaction.fetch_many(CIRCUIT, &circuits, "").await?;
            let rows = entries.iter().zip(&latencies).map(|(Entry { uid, slot, counts }, latencies)| {
                let [requests, errors, limited] =
                    [counts.requests, counts.errors, counts.limited].map(stored);
                let (slot, replica) = ((*slot).into(), replica.into());
                let counted = [requests.into(), errors.into(), limited.into(), latencies.into()];
                let [requests, errors, limited, latencies] = counted;
                [uid.into(), slot, replica, requests, errors, limited, latencies, now.into()]
            });
            transaction.fetch_many(COUNTED, &rows.collect::<Vec<_>>(), COUNTED_AGAIN).await?;
            transaction.commit().await
        };
        self.0.operate("write", work).await
    }

    /// A gateway ends: it lives no more. What it has counted stays.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn leave(self, replica: i64) -> Result<(), Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            for statement in [CLOSED, ROOM, LEFT] {
                transaction.execute(statement, &[replica.into()]).await?;
            }
            transaction.commit().await
        };
        self.0.operate("write", work).await
    }

    /// Deletes slots before this one, and gateways that have not written for an hour.
    ///
    /// # Errors
    /// What kept it from being deleted.
    pub async fn purge(self, oldest: i64) -> Result<(), Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let forgotten = transaction.now().await? - millis(FORGOTTEN);
            for (statement, limit) in PURGE.into_iter().zip([oldest, forgotten, forgotten, forgotten]) {
                transaction.execute(statement, &[limit.into()]).await?;
            }
            transaction.commit().await
        };
        self.0.operate("purge", work).await
    }

    /// What gateways have written of slots from `oldest` on: what is new since the snapshot at `since`, or everything. A
    /// gateway lives while it has written within `alive`.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn read(self, oldest: i64, since: Option<i64>, alive: Duration) -> Result<Snapshot, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let at = transaction.now().await?;
            let since = since.map_or(i64::MIN, |since| since - millis(LATE));
            let mut entries = Vec::new();
            for row in transaction.fetch(ENTRIES, &[since.into(), oldest.into()]).await? {
                let counts = Counts {
                    requests: counted(row.get(3)?),
                    errors: counted(row.get(4)?),
                    limited: counted(row.get(5)?),
                    latencies: row.get::<String>(6)?.parse().unwrap_or_default(),
                };
                entries.push((row.get(0)?, Entry { uid: row.get(1)?, slot: row.get(2)?, counts }));
            }
            let alive = at - millis(alive);
            let rows = transaction.fetch(REPLICAS, &[alive.into()]).await?;
            let replicas: i64 = rows.first().map(|row| row.get(0)).transpose()?.unwrap_or_default();
            let mut replica_state = ReplicaState::default();
            for row in transaction.fetch(ALL_SATURATED, &[alive.into()]).await? {
                replica_state.saturated.push(row.get(0)?);
            }
            for row in transaction.fetch(CIRCUITS, &[alive.into()]).await? {
                let state = u8::try_from(row.get::<i64>(1)?).ok().and_then(State::from_number);
                let circuit = state.map(|state| row.get(0).map(|uid| (uid, state)));
                replica_state.circuits.extend(circuit.transpose()?);
            }
            transaction.commit().await?;
            let replicas = u32::try_from(replicas).unwrap_or(u32::MAX);
            Ok(Snapshot { at, entries, replicas, replica_state })
        };
        self.0.operate("read", work).await
    }

    /// Of each gateway that has written within `alive`, the resource version as of which it has every Webhook.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn webhook_versions(self, alive: Duration) -> Result<Vec<Option<u64>>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let alive = transaction.now().await? - millis(alive);
            let rows = transaction.fetch(WEBHOOKS, &[alive.into()]).await?;
            let versions =
                rows.iter().map(|row| row.get::<Option<i64>>(0).map(|version| version.map(counted)));
            let versions = versions.collect();
            transaction.commit().await?;
            versions
        };
        self.0.operate("read", work).await
    }
}
