//! Deliveries that are asked for again.

use std::time::Duration;

use super::{Deliveries, Origin, counted, millis};
use crate::store::{
    Error,
    sql::{Access, Value},
};

/// Which deliveries are asked for again.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReplaySelection {
    /// Of events that were accepted at this time or later.
    pub since: Option<Duration>,
    /// Of events that were accepted before this time.
    pub until: Option<Duration>,
    /// Only those that did not arrive: given up or skipped.
    pub only_failed: bool,
    /// Only that of this event.
    pub event_id: Option<String>,
}

/// Deliveries of one step.
const PIECE: i64 = 500;

const SELECT: &str = "select f.event_id, f.accepted, f.replay, e.subject from authlink_finished f \
                      join authlink_events e on e.id = f.event_id \
                      where f.endpoint = $1 and f.accepted >= $2 and f.accepted < $3 and f.state >= $4 \
                      and ($5 = '' or f.event_id = $5) and (f.accepted, f.event_id) > ($6, $7) \
                      order by f.accepted, f.event_id limit $8";
const INSERT: &str = "insert into authlink_deliveries (event_id, endpoint, replay, origin, subject, attempts, accepted, \
                      created, due, wait) values ";
const UNLESS_PENDING: &str = " on conflict (event_id, endpoint) do nothing returning id";

impl Deliveries<'_> {
    /// Has what is selected sent once more, with attempts and an age of its own, and tells the holder of the endpoint's lease. What is
    /// pending already is not sent twice. Gives how many deliveries were made.
    ///
    /// # Errors
    /// What kept the rest from being made.
    pub async fn replay(
        self,
        endpoint: &str,
        lease: &str,
        selection: &ReplaySelection,
        ordered: bool,
        now: Duration,
    ) -> Result<u64, Error> {
        let (mut cursor, mut made) = ((i64::MIN, String::new()), 0);
        loop {
            let (step, next) = self.replay_some(endpoint, lease, selection, ordered, now, &cursor).await?;
            made += step;
            match next {
                Some(next) => cursor = next,
                None => return Ok(made),
            }
        }
    }

    async fn replay_some(
        self,
        endpoint: &str,
        lease: &str,
        selection: &ReplaySelection,
        ordered: bool,
        now: Duration,
        after: &(i64, String),
    ) -> Result<(u64, Option<(i64, String)>), Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let values = [
                endpoint.into(),
                selection.since.map_or(i64::MIN, millis).into(),
                selection.until.map_or(i64::MAX, millis).into(),
                // 1 is what has arrived.
                if selection.only_failed { 2 } else { 1 }.into(),
                selection.event_id.as_deref().unwrap_or_default().into(),
                after.0.into(),
                (&after.1).into(),
                PIECE.into(),
            ];
            let found = transaction.fetch(SELECT, &values).await?;
            let mut again: Vec<(String, i64, i64, Option<String>)> = Vec::with_capacity(found.len());
            for row in &found {
                again.push((row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?));
            }
            let rows = again.iter().map(|(event, accepted, replay, subject)| {
                let subject = subject.as_deref().filter(|_| ordered);
                let now = Value::from(millis(now));
                let (replay, origin) = ((replay + 1).into(), Origin::Replay.number().into());
                let (event, endpoint) = (event.into(), endpoint.into());
                [
                    event,
                    endpoint,
                    replay,
                    origin,
                    subject.into(),
                    0.into(),
                    (*accepted).into(),
                    now,
                    now,
                    0.into(),
                ]
            });
            let rows: Vec<[Value<'_>; 10]> = rows.collect();
            let made = transaction.fetch_many(INSERT, &rows, UNLESS_PENDING).await?.len() as u64;
            if made > 0 {
                transaction.wake(lease, endpoint, counted(made)).await?;
            }
            transaction.commit().await?;
            let full = i64::try_from(again.len()).is_ok_and(|found| found == PIECE);
            Ok((made, again.pop().filter(|_| full).map(|(event, accepted, ..)| (accepted, event))))
        };
        self.0.operate("replay", work).await
    }
}
