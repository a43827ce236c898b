//! What is asked of the store. The statements are the same for every engine but for the clock; the driver's types are not.

use std::time::Duration;

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

/// A statement in the words of each engine.
pub(super) struct Dialects {
    pub(super) sqlite: &'static str,
    pub(super) postgresql: &'static str,
}

/// Begins a transaction that writes. PostgreSQL would otherwise go on waiting for a lock when we have long given up; SQLite
/// lets only those wait for a lock who ask for it before they read.
pub(super) const AS_WRITER: Dialects =
    Dialects { sqlite: "begin immediate", postgresql: "begin; set local statement_timeout = '8s'" };

const AS_READER: Dialects =
    Dialects { sqlite: "begin", postgresql: "begin; set local statement_timeout = '8s'" };

/// Milliseconds after 1970.
const NOW: Dialects = Dialects {
    sqlite: "select cast(unixepoch('subsec') * 1000 as integer)",
    postgresql: "select cast(extract(epoch from clock_timestamp()) * 1000 as bigint)",
};

const SEEN: &str = "insert into authlink_replicas (replica, seen) values ($1, $2) \
                    on conflict (replica) do update set seen = excluded.seen";
const CLOSED: &str = "delete from authlink_circuits where replica = $1";
const CIRCUIT: &str = "insert into authlink_circuits (uid, replica, state) values ($1, $2, $3)";
const ROOM: &str = "delete from authlink_saturated where replica = $1";
const SATURATED: &str = "insert into authlink_saturated (uid, replica) values ($1, $2)";
const COUNTED: &str =
    "insert into authlink_counts (uid, slot, replica, requests, errors, limited, latencies, changed) ";
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
const REPLICAS: &str = "select count(*) from authlink_replicas where seen >= $1";
const CIRCUITS: &str = "select c.uid, max(c.state) from authlink_circuits c \
                        join authlink_replicas r on r.replica = c.replica where r.seen >= $1 group by c.uid";
const ALL_SATURATED: &str = "select distinct s.uid from authlink_saturated s \
                             join authlink_replicas r on r.replica = s.replica where r.seen >= $1";

/// Rows of one statement; each has 8 values, and SQLite takes 32766.
const AT_ONCE: usize = 1000;

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

/// The operations in the types of one driver.
macro_rules! engine {
    ($name:ident, $engine:ty) => {
        pub(super) mod $name {
            use std::time::Duration;

            use sqlx::{Pool, QueryBuilder, Row};

            use super::{
                ALL_SATURATED, AS_READER, AS_WRITER, AT_ONCE, CIRCUIT, CIRCUITS, CLOSED, COUNTED,
                COUNTED_AGAIN, ENTRIES, Entry, FORGOTTEN, LATE, LEFT, NOW, PURGE, REPLICAS, ROOM,
                ReplicaState, SATURATED, SEEN, Snapshot, counted, millis, stored,
            };
            use crate::domain::{breaker::State, usage::Counts};

            pub(in crate::store) async fn write(
                pool: &Pool<$engine>,
                replica: i64,
                entries: &[Entry],
                replica_state: &ReplicaState,
            ) -> sqlx::Result<()> {
                let mut transaction = pool.begin_with(AS_WRITER.$name).await?;
                let now: i64 = sqlx::query(NOW.$name).fetch_one(&mut *transaction).await?.try_get(0)?;
                sqlx::query(SEEN).bind(replica).bind(now).execute(&mut *transaction).await?;
                for statement in [CLOSED, ROOM] {
                    sqlx::query(statement).bind(replica).execute(&mut *transaction).await?;
                }
                for uid in &replica_state.saturated {
                    sqlx::query(SATURATED).bind(uid).bind(replica).execute(&mut *transaction).await?;
                }
                for (uid, state) in &replica_state.circuits {
                    let circuit =
                        sqlx::query(CIRCUIT).bind(uid).bind(replica).bind(i64::from(state.number()));
                    circuit.execute(&mut *transaction).await?;
                }
                for entries in entries.chunks(AT_ONCE) {
                    let mut statement = QueryBuilder::<$engine>::new(COUNTED);
                    statement.push_values(entries, |mut row, Entry { uid, slot, counts }| {
                        row.push_bind(uid)
                            .push_bind(slot)
                            .push_bind(replica)
                            .push_bind(stored(counts.requests));
                        row.push_bind(stored(counts.errors)).push_bind(stored(counts.limited));
                        row.push_bind(counts.latencies.to_string()).push_bind(now);
                    });
                    statement.push(COUNTED_AGAIN);
                    // Hardly ever the same number of rows twice.
                    statement.build().persistent(false).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }

            pub(in crate::store) async fn leave(pool: &Pool<$engine>, replica: i64) -> sqlx::Result<()> {
                let mut transaction = pool.begin_with(AS_WRITER.$name).await?;
                for statement in [CLOSED, ROOM, LEFT] {
                    sqlx::query(statement).bind(replica).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }

            pub(in crate::store) async fn purge(pool: &Pool<$engine>, oldest: i64) -> sqlx::Result<()> {
                let mut transaction = pool.begin_with(AS_WRITER.$name).await?;
                let now: i64 = sqlx::query(NOW.$name).fetch_one(&mut *transaction).await?.try_get(0)?;
                let forgotten = now - millis(FORGOTTEN);
                for (statement, limit) in PURGE.into_iter().zip([oldest, forgotten, forgotten, forgotten]) {
                    sqlx::query(statement).bind(limit).execute(&mut *transaction).await?;
                }
                transaction.commit().await
            }

            pub(in crate::store) async fn read(
                pool: &Pool<$engine>,
                oldest: i64,
                since: Option<i64>,
                alive: Duration,
            ) -> sqlx::Result<Snapshot> {
                let mut transaction = pool.begin_with(AS_READER.$name).await?;
                let at: i64 = sqlx::query(NOW.$name).fetch_one(&mut *transaction).await?.try_get(0)?;
                let since = since.map_or(i64::MIN, |since| since - millis(LATE));
                let rows = sqlx::query(ENTRIES).bind(since).bind(oldest).fetch_all(&mut *transaction).await?;
                let mut entries = Vec::with_capacity(rows.len());
                for row in rows {
                    let counts = Counts {
                        requests: counted(row.try_get(3)?),
                        errors: counted(row.try_get(4)?),
                        limited: counted(row.try_get(5)?),
                        latencies: row.try_get::<&str, _>(6)?.parse().unwrap_or_default(),
                    };
                    entries.push((
                        row.try_get(0)?,
                        Entry { uid: row.try_get(1)?, slot: row.try_get(2)?, counts },
                    ));
                }
                let alive = at - millis(alive);
                let replicas: i64 =
                    sqlx::query(REPLICAS).bind(alive).fetch_one(&mut *transaction).await?.try_get(0)?;
                let mut replica_state = ReplicaState::default();
                for row in sqlx::query(ALL_SATURATED).bind(alive).fetch_all(&mut *transaction).await? {
                    replica_state.saturated.push(row.try_get(0)?);
                }
                for row in sqlx::query(CIRCUITS).bind(alive).fetch_all(&mut *transaction).await? {
                    let state = u8::try_from(row.try_get::<i64, _>(1)?).ok().and_then(State::from_number);
                    let circuit = state.map(|state| row.try_get(0).map(|uid| (uid, state)));
                    replica_state.circuits.extend(circuit.transpose()?);
                }
                transaction.commit().await?;
                Ok(Snapshot {
                    at,
                    entries,
                    replicas: u32::try_from(replicas).unwrap_or(u32::MAX),
                    replica_state,
                })
            }
        }
    };
}

engine!(sqlite, sqlx::Sqlite);
engine!(postgresql, sqlx::Postgres);
