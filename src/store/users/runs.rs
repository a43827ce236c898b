//! Runs: the one that may write, and what it goes on from.

use std::time::{Duration, Instant};

use super::{Run, Users};
use crate::{
    domain::sync::{counts::Counts, guard::Class, key::Key},
    store::{
        Error, outbox,
        sql::{Access, Column, Transaction},
    },
};

/// What a source says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceRecord {
    /// Tells it from all others, for good.
    pub uid: String,
    /// The namespace and the name of the object.
    pub namespace: String,
    /// See [`Self::namespace`].
    pub name: String,
    /// Whose values are shown where a user has several sources: the lowest first.
    pub priority: i64,
    /// Whether it decides who may log in.
    pub authority: bool,
    /// A digest of all that decides what is read.
    pub config: String,
}

/// A run that has begun, and what it goes on from.
#[derive(Clone, Debug)]
pub struct Begun {
    /// The run.
    pub run: Run,
    /// Where to go on.
    pub cursor: Option<String>,
    /// What was read when the guard last let a run through.
    pub config: Option<String>,
    /// When the last complete run that read everything began, in milliseconds after 1970.
    pub full_at: Option<i64>,
    /// What the guard holds back.
    pub held: Option<super::Held>,
    /// How many users the source has that are usable.
    pub active: u64,
    /// Where a run that was broken off can go on, within an hour and with the same configuration.
    pub resume: Option<Resume>,
}

/// Where a run that was broken off can go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resume {
    /// The source's own word for it.
    pub token: String,
    /// What was seen until then.
    pub seen: Vec<Key>,
}

/// How a run ended.
#[derive(Clone, Debug, Default)]
pub struct Finish {
    /// One word.
    pub outcome: &'static str,
    /// What it has done.
    pub counts: Counts,
    /// The cursor for the next run, if there is a new one.
    pub cursor: Option<String>,
    /// Whether the old one is good for nothing.
    pub forget_cursor: bool,
    /// Whether everything was read.
    pub full: bool,
    /// Whether the guard has let it through, so that what it has read is what is normal.
    pub accepted: bool,
    /// What the guard holds back; nothing where the run was not complete, and what was held before still is.
    pub held: Option<Option<super::Held>>,
}

/// A run, as it is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunRecord {
    /// Its id.
    pub id: String,
    /// When it began, in milliseconds after 1970.
    pub started: i64,
    /// When it ended.
    pub ended: Option<i64>,
    /// How, in one word.
    pub outcome: Option<String>,
    /// What it has done.
    pub counts: Counts,
}

/// A run that was broken off longer ago begins anew.
const RESUMABLE: Duration = Duration::from_hours(1);

/// So many runs of a source are kept.
const KEPT: i64 = 100;

const SOURCE: &str = "insert into authlink_sources (id, uid, priority, authority, namespace, name) \
                      select coalesce(max(id), 0) + 1, $1, $2, $3, $4, $5 from authlink_sources where true \
                      on conflict (uid) do update set priority = excluded.priority, authority = excluded.authority \
                      returning id, cursor, config, full_at, held";
const SOURCES: &str = "select count(*) from authlink_sources";
const ACTIVE: &str = "select count(*) from authlink_identities where source = $1 and state = 'active'";
const BROKEN_OFF: &str = "select id, token from authlink_sync_runs where source = $1 and ended is null and config = $2 \
                          and token is not null and updated >= $3 order by started desc limit 1";
const END_OTHERS: &str =
    "update authlink_sync_runs set ended = $2, outcome = 'BrokenOff' where source = $1 and ended is null";
const BEGIN: &str =
    "insert into authlink_sync_runs (id, source, config, started, updated) values ($1, $2, $3, $4, $4)";
const SEEN: &str = "select seen from authlink_sync_seen where run = $1";
const TAKE_SEEN: &str = "update authlink_sync_seen set run = $2 where run = $1";
const FORGET_SEEN: &str = "delete from authlink_sync_seen where run in (select id from authlink_sync_runs where source = $1 \
                           and ended is not null)";
const TOKEN: &str = "update authlink_sync_runs set token = $2 where id = $1";
const SAW: [&str; 2] = [
    "with new (seen) as (",
    ") insert into authlink_sync_seen (run, seen) select $1, seen from new where true on conflict (run, seen) do nothing",
];
const FINISH: &str =
    "update authlink_sync_runs set ended = $2, outcome = $3, counts = $4, token = null where id = $1";
const FORGET_RUNS: &str = "delete from authlink_sync_runs where source = $1 and id not in \
                           (select id from authlink_sync_runs where source = $1 order by started desc, id desc limit $2)";
const CURSOR: &str = "update authlink_sources set cursor = $2 where id = $1";
const FULL: &str = "update authlink_sources set full_at = $2 where id = $1";
const CONFIG: &str = "update authlink_sources set config = $2 where id = $1";
const HELD: &str = "update authlink_sources set held = $2 where id = $1";
const RUNS: &str = "select r.id, r.started, r.ended, r.outcome, r.counts from authlink_sync_runs r \
                    join authlink_sources s on s.id = r.source where s.uid = $1 order by r.started desc, r.id desc";
const LOSSES: &str = "insert into authlink_sync_losses (source, class, at, count) values ($1, $2, $3, $4)";

impl Users<'_> {
    /// Begins a run, and ends every other one of the source.
    ///
    /// # Errors
    /// What kept it from beginning.
    pub async fn begin(self, source: &SourceRecord) -> Result<Begun, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let (at, now) = (Instant::now(), transaction.now().await?);
            let values = [
                (&source.uid).into(),
                source.priority.into(),
                i64::from(source.authority).into(),
                (&source.namespace).into(),
                (&source.name).into(),
            ];
            let rows = transaction.fetch(SOURCE, &values).await?;
            let row = rows.first().ok_or(sqlx::Error::RowNotFound)?;
            let (id, config): (i64, Option<String>) = (row.get(0)?, row.get(2)?);
            let (cursor, full_at): (Option<String>, Option<i64>) = (row.get(1)?, row.get(3)?);
            let held: Option<String> = row.get(4)?;
            let held = held.and_then(|text| serde_json::from_str(&text).ok());
            let sources = super::number(&mut transaction, SOURCES, &[]).await?;
            let active = super::number(&mut transaction, ACTIVE, &[id.into()]).await?;
            let run = Run {
                id: outbox::new_id(now),
                source: id,
                sources: i64::try_from(sources).unwrap_or(i64::MAX),
                started: now,
                at,
            };
            let oldest = now - i64::try_from(RESUMABLE.as_millis()).unwrap_or_default();
            let broken_off =
                transaction.fetch(BROKEN_OFF, &[id.into(), (&source.config).into(), oldest.into()]).await?;
            let mut resume = None;
            if let Some(row) = broken_off.first() {
                let (before, token): (String, String) = (row.get(0)?, row.get(1)?);
                let mut seen = Vec::new();
                for row in transaction.fetch(SEEN, &[(&before).into()]).await? {
                    seen.extend(Key::from_bytes(&row.get::<Vec<u8>>(0)?));
                }
                transaction.execute(TAKE_SEEN, &[(&before).into(), (&run.id).into()]).await?;
                resume = Some(Resume { token, seen });
            }
            transaction.execute(END_OTHERS, &[id.into(), now.into()]).await?;
            transaction.execute(FORGET_SEEN, &[id.into()]).await?;
            let values = [(&run.id).into(), id.into(), (&source.config).into(), now.into()];
            transaction.execute(BEGIN, &values).await?;
            transaction.commit().await?;
            Ok(Begun { run, cursor, config, full_at, held, active, resume })
        };
        self.0.operate("sync", work).await
    }

    /// Ends a run, and keeps what the next one goes on from; nothing where somebody has begun another one.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn finish(self, run: &Run, config: &str, finish: &Finish) -> Result<Option<()>, Error> {
        let counts = serde_json::to_string(&finish.counts).unwrap_or_default();
        let held =
            finish.held.as_ref().map(|held| held.as_ref().and_then(|held| serde_json::to_string(held).ok()));
        in_run!(self, run, |transaction| {
            let source = run.source.into();
            if finish.forget_cursor || finish.cursor.is_some() {
                transaction.execute(CURSOR, &[source, finish.cursor.as_deref().into()]).await?;
            }
            if finish.full {
                transaction.execute(FULL, &[source, run.started.into()]).await?;
            }
            if finish.accepted {
                transaction.execute(CONFIG, &[source, config.into()]).await?;
            }
            if let Some(held) = &held {
                transaction.execute(HELD, &[source, held.as_deref().into()]).await?;
            }
            let values = [(&run.id).into(), run.now().into(), finish.outcome.into(), (&counts).into()];
            transaction.execute(FINISH, &values).await?;
            transaction.execute(FORGET_SEEN, &[source]).await?;
            transaction.execute(FORGET_RUNS, &[source, KEPT.into()]).await.map(drop)
        })
    }

    /// The last runs of a source, the newest first.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn runs(self, uid: &str) -> Result<Vec<RunRecord>, Error> {
        reading!(self, "read", |transaction| {
            let mut runs = Vec::new();
            for row in transaction.fetch(RUNS, &[uid.into()]).await? {
                let counts: Option<String> = row.get(4)?;
                let counts = counts.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
                let (started, ended, outcome) = (row.get(1)?, row.get(2)?, row.get(3)?);
                runs.push(RunRecord { id: row.get(0)?, started, ended, outcome, counts });
            }
            Ok(runs)
        })
    }
}

/// Counts what was lost, for the guard of the next runs.
pub(super) async fn lost(
    transaction: &mut Transaction,
    run: &Run,
    class: Class,
    count: u64,
) -> sqlx::Result<()> {
    if count == 0 {
        return Ok(());
    }
    let count = i64::try_from(count).unwrap_or(i64::MAX);
    let values = [run.source.into(), class.as_str().into(), run.now().into(), count.into()];
    transaction.execute(LOSSES, &values).await.map(drop)
}

/// Notes how far a run is, where it can be resumed, in the transaction of what was read until there.
pub(super) async fn mark(
    transaction: &mut Transaction,
    run: &Run,
    token: &str,
    seen: &[Key],
) -> sqlx::Result<()> {
    let columns = [Column::bytes(seen, |key| key.as_bytes().as_slice())];
    transaction.fetch_rows(SAW[0], &[(&run.id).into()], &columns, SAW[1]).await?;
    transaction.execute(TOKEN, &[(&run.id).into(), token.into()]).await.map(drop)
}
