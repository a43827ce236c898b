//! What is not needed any more goes, in small pieces, so that nobody waits for it.

use std::time::Duration;

use super::{Deliveries, Origin, counted, millis, time};
use crate::store::{
    Error,
    sql::{Access, Value},
};

/// How long things are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Events, with how their deliveries ended; longer where one is pending.
    pub events: Duration,
    /// Events with a delivery that was given up.
    pub dead: Duration,
    /// What producers call their events: in this time, one that is sent twice is one event.
    pub dedupe: Duration,
    /// Attempts.
    pub attempts: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        let days = |days: u64| Duration::from_hours(24 * days);
        Self { events: days(3), dead: days(14), dedupe: days(1), attempts: days(3) }
    }
}

/// Rows of one piece.
const PIECE: i64 = 500;

const CANCEL: &str = "delete from authlink_deliveries where id in \
                      (select id from authlink_deliveries where endpoint = $1 order by id limit $2)";
const FORGET: [&str; 2] = [
    "delete from authlink_finished where endpoint = $1 and event_id in \
     (select event_id from authlink_finished where endpoint = $1 limit $2)",
    "delete from authlink_attempts where id in \
     (select id from authlink_attempts where endpoint = $1 order by id limit $2)",
];
const FORGET_ENDPOINT: &str = "delete from authlink_endpoints where uid = $1";
const EXPIRED: &str = "select id, event_id, accepted, replay, origin, attempts from authlink_deliveries \
                       where endpoint = $1 and created <= $2 limit $3";

/// Whether an event is not needed: by no pending delivery, and by none that was given up lately.
const OLD_EVENTS: &str = "select id, accepted, cast(case when \
                          exists (select 1 from authlink_deliveries d where d.event_id = e.id) \
                          or exists (select 1 from authlink_finished f where f.event_id = e.id and f.state = 2 and f.at >= $5) \
                          then 0 else 1 end as bigint) from authlink_events e \
                          where accepted < $1 and (accepted, id) > ($2, $3) order by accepted, id limit $4";
const DELETE_EVENTS: &str = "delete from authlink_events where not exists \
                             (select 1 from authlink_deliveries d where d.event_id = authlink_events.id) and id in (";
const DELETE_FINISHED: &str = "delete from authlink_finished where not exists \
                               (select 1 from authlink_events e where e.id = authlink_finished.event_id) \
                               and event_id in (";
const OLD_DEDUPE: &str = "delete from authlink_dedupe where (namespace, source, producer_id) in \
                          (select namespace, source, producer_id from authlink_dedupe \
                          where created < $1 order by created limit $2)";
const OLD_ATTEMPTS: &str = "delete from authlink_attempts where at < $1 and id in \
                            (select id from authlink_attempts order by id limit $2)";

/// A delivery that has become too old.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpiredDelivery {
    /// Its number.
    pub id: i64,
    /// Its event.
    pub event_id: String,
    /// When the event was accepted.
    pub accepted: Duration,
    /// How many times it was asked for again.
    pub replay: u32,
    /// Where it comes from.
    pub origin: Origin,
    /// Attempts that are spent.
    pub attempts: u32,
}

/// How far events were looked at: behind this one.
pub type PurgeCursor = (Duration, String);

impl Deliveries<'_> {
    /// Cancels some deliveries of an endpoint that is gone. Gives how many; none when there are no more.
    ///
    /// # Errors
    /// What kept them from being cancelled.
    pub async fn cancel(self, endpoint: &str) -> Result<u64, Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let cancelled = transaction.execute(CANCEL, &[endpoint.into(), PIECE.into()]).await?;
            transaction.commit().await?;
            Ok(cancelled)
        };
        self.0.operate("purge", work).await
    }

    /// Forgets some of what is known of an endpoint that is gone; gives whether that was all.
    ///
    /// # Errors
    /// What kept it from being forgotten.
    pub async fn forget(self, endpoint: &str) -> Result<bool, Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let mut deleted = 0;
            for statement in FORGET {
                deleted += transaction.execute(statement, &[endpoint.into(), PIECE.into()]).await?;
            }
            transaction.execute(FORGET_ENDPOINT, &[endpoint.into()]).await?;
            transaction.commit().await?;
            Ok(deleted == 0)
        };
        self.0.operate("purge", work).await
    }

    /// Some deliveries of an endpoint that were asked for at this time or before.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn older(self, endpoint: &str, created: Duration) -> Result<Vec<ExpiredDelivery>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows =
                transaction.fetch(EXPIRED, &[endpoint.into(), millis(created).into(), PIECE.into()]).await?;
            let expired = rows.iter().map(|row| {
                let small = |column| row.get::<i64>(column).map(|it| u32::try_from(it).unwrap_or_default());
                Ok(ExpiredDelivery {
                    id: row.get(0)?,
                    event_id: row.get(1)?,
                    accepted: time(row.get(2)?),
                    replay: small(3)?,
                    origin: Origin::from_number(row.get(4)?),
                    attempts: small(5)?,
                })
            });
            let expired = expired.collect();
            transaction.commit().await?;
            expired
        };
        self.0.operate("load", work).await
    }

    /// Deletes some of what is older than it is kept, from events behind `cursor` on. Gives where to go on; none when there is no more.
    ///
    /// # Errors
    /// What kept it from being deleted.
    pub async fn purge_events(
        self,
        retention: &Retention,
        cursor: Option<PurgeCursor>,
        now: Duration,
    ) -> Result<Option<PurgeCursor>, Error> {
        let since = |time: Duration| millis(now.saturating_sub(time));
        let (after, after_id) = cursor.unwrap_or_default();
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let values = [
                since(retention.events).into(),
                millis(after).into(),
                (&after_id).into(),
                PIECE.into(),
                since(retention.dead).into(),
            ];
            let rows = transaction.fetch(OLD_EVENTS, &values).await?;
            let mut ids: Vec<String> = Vec::new();
            for row in &rows {
                if row.get::<i64>(2)? == 1 {
                    ids.push(row.get(0)?);
                }
            }
            let ids: Vec<[Value<'_>; 1]> = ids.iter().map(|id| [id.into()]).collect();
            transaction.fetch_many(DELETE_EVENTS, &ids, ")").await?;
            transaction.fetch_many(DELETE_FINISHED, &ids, ")").await?;
            let last = match rows.last() {
                Some(row) if counted(rows.len() as u64) == PIECE => Some((time(row.get(1)?), row.get(0)?)),
                _ => None,
            };
            transaction.commit().await?;
            Ok(last)
        };
        self.0.operate("purge", work).await
    }

    /// Deletes some old ids of producers and some old attempts; gives whether that was all.
    ///
    /// # Errors
    /// What kept them from being deleted.
    pub async fn purge_logs(self, retention: &Retention, now: Duration) -> Result<bool, Error> {
        let since = |time: Duration| millis(now.saturating_sub(time));
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let dedupe = [since(retention.dedupe).into(), PIECE.into()];
            let mut deleted = transaction.execute(OLD_DEDUPE, &dedupe).await?;
            let attempts = [since(retention.attempts).into(), PIECE.into()];
            deleted += transaction.execute(OLD_ATTEMPTS, &attempts).await?;
            transaction.commit().await?;
            Ok(deleted == 0)
        };
        self.0.operate("purge", work).await
    }
}
