//! The log of attempts.

use std::time::Duration;

use super::{Deliveries, Origin, millis, time};
use crate::{
    domain::delivery::outcome::Outcome,
    store::{
        Error,
        sql::{Access, Value},
    },
};

/// An attempt, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptRecord {
    /// Of the object.
    pub endpoint: String,
    /// Of the event.
    pub event_id: String,
    /// 1 for the first one.
    pub number: u32,
    /// What it was made for.
    pub origin: Origin,
    /// When it began.
    pub at: Duration,
    /// How long it took.
    pub took: Duration,
    /// How it ended.
    pub outcome: Outcome,
    /// The status of the answer, if there was one.
    pub status: Option<u16>,
    /// The host that was called.
    pub host: String,
    /// What went wrong, in words without secrets.
    pub detail: String,
    /// The beginning of the answer's body, as it came.
    pub body: Vec<u8>,
}

/// An attempt in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LoggedAttempt {
    /// Later ones have greater numbers.
    pub id: i64,
    /// The attempt.
    pub record: AttemptRecord,
}

/// Which attempts are asked for.
#[derive(Clone, Debug, Default)]
pub struct AttemptFilter {
    /// Only those that ended in this way.
    pub outcome: Option<Outcome>,
    /// Only those of this event.
    pub event_id: Option<String>,
    /// Only those before this one: the last of the page before.
    pub before: Option<i64>,
}

pub(super) const INSERT: &str = "insert into authlink_attempts (endpoint, event_id, number, origin, at, took, \
                                 outcome, status, host, detail, body) values ";
const SELECT: &str = "select id, endpoint, event_id, number, origin, at, took, outcome, status, host, detail, body \
                      from authlink_attempts where endpoint = $1 and id < $2 and ($3 = '' or outcome = $3) \
                      and ($4 = '' or event_id = $4) order by id desc limit $5";

impl AttemptRecord {
    pub(super) fn values(&self) -> [Value<'_>; 11] {
        [
            (&self.endpoint).into(),
            (&self.event_id).into(),
            i64::from(self.number).into(),
            self.origin.number().into(),
            millis(self.at).into(),
            millis(self.took).into(),
            self.outcome.as_str().into(),
            self.status.map(i64::from).into(),
            (&self.host).into(),
            (&self.detail).into(),
            (&self.body[..]).into(),
        ]
    }
}

impl Deliveries<'_> {
    /// Writes an attempt into the log that belongs to no delivery.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn log(self, record: &AttemptRecord) -> Result<(), Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            transaction.fetch_many(INSERT, &[record.values()], "").await?;
            transaction.commit().await
        };
        self.0.operate("log", work).await
    }

    /// Attempts at an endpoint, the latest first, at most so many.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn attempts(
        self,
        endpoint: &str,
        filter: &AttemptFilter,
        limit: u32,
    ) -> Result<Vec<LoggedAttempt>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let outcome = filter.outcome.map_or("", Outcome::as_str);
            let event = filter.event_id.as_deref().unwrap_or_default();
            let values = [
                endpoint.into(),
                filter.before.unwrap_or(i64::MAX).into(),
                outcome.into(),
                event.into(),
                i64::from(limit).into(),
            ];
            let rows = transaction.fetch(SELECT, &values).await?;
            let attempts = rows.iter().map(|row| {
                let record = AttemptRecord {
                    endpoint: row.get(1)?,
                    event_id: row.get(2)?,
                    number: u32::try_from(row.get::<i64>(3)?).unwrap_or_default(),
                    origin: Origin::from_number(row.get(4)?),
                    at: time(row.get(5)?),
                    took: time(row.get(6)?),
                    outcome: Outcome::named(&row.get::<String>(7)?).unwrap_or(Outcome::ProtocolError),
                    status: row.get::<Option<i64>>(8)?.and_then(|status| u16::try_from(status).ok()),
                    host: row.get(9)?,
                    detail: row.get(10)?,
                    body: row.get(11)?,
                };
                Ok(LoggedAttempt { id: row.get(0)?, record })
            });
            let attempts = attempts.collect();
            transaction.commit().await?;
            attempts
        };
        self.0.operate("read", work).await
    }
}
