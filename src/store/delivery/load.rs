//! Deliveries come back from the store.

use std::time::Duration;

use bytes::Bytes;

use super::{Deliveries, HELD, Origin, millis, time};
use crate::{
    domain::delivery::event::{Data, Event, Form},
    store::{
        Error,
        sql::{Access, Row, Transaction, Value},
    },
};

/// A delivery that is pending.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredDelivery {
    /// Its number.
    pub id: i64,
    /// Of the event's producer.
    pub namespace: String,
    /// What is delivered.
    pub event: Event,
    /// When the event was accepted.
    pub accepted: Duration,
    /// When the delivery was asked for.
    pub created: Duration,
    /// Attempts that are spent.
    pub attempts: u32,
    /// How many times it was asked for again.
    pub replay: u32,
    /// Where it comes from.
    pub origin: Origin,
}

/// Deliveries of an endpoint that are due.
#[derive(Clone, Debug, Default)]
pub struct LoadedDeliveries {
    /// In the order in which they are due.
    pub deliveries: Vec<StoredDelivery>,
    /// Whether there are no others.
    pub complete: bool,
    /// When the next one is due.
    pub next_due: Option<Duration>,
    /// With which subject to go on, where there are so many that they have to take turns.
    pub subject: Option<String>,
}

macro_rules! columns {
    () => {
        "select d.id, d.attempts, d.created, d.accepted, d.replay, d.origin, e.namespace, e.id, e.producer_id, e.source, \
         e.type, e.subject, e.occurred, e.form, e.content_type, e.extensions, e.data, d.subject "
    };
}

const DUE: &str = concat!(
    columns!(),
    "from authlink_deliveries d join authlink_events e on e.id = d.event_id \
     where d.endpoint = $1 and d.due <= $2 order by d.due, d.id limit $3"
);
const DUE_WITHOUT_SUBJECT: &str = concat!(
    columns!(),
    "from authlink_deliveries d join authlink_events e on e.id = d.event_id \
     where d.endpoint = $1 and d.due <= $2 and d.subject is null order by d.due, d.id limit $3"
);
/// The first delivery of each subject after `$4`, found by stepping from one subject to the next: others of the same subject are not
/// looked at, however many wait.
const FIRSTS: &str = concat!(
    "with recursive subjects (subject) as (\
     select min(subject) from authlink_deliveries where endpoint = $1 and subject > $4 \
     union all select (select min(n.subject) from authlink_deliveries n where n.endpoint = $1 and n.subject > s.subject) \
     from subjects s where s.subject is not null) ",
    columns!(),
    "from subjects s join authlink_deliveries d on d.id = (select min(f.id) from authlink_deliveries f \
     where f.endpoint = $1 and f.subject = s.subject) join authlink_events e on e.id = d.event_id \
     where s.subject is not null and d.due <= $2 limit $3"
);
const NEXT_DUE: &str =
    "select min(due) from authlink_deliveries where endpoint = $1 and due > $2 and due < $3";
const HELD_ONES: &str = concat!(
    columns!(),
    "from authlink_deliveries d join authlink_events e on e.id = d.event_id \
     where d.endpoint = $1 and d.due = $2 and d.id > $3 order by d.id limit 500"
);
const RELEASE: &str = "update authlink_deliveries set due = v.column2 from (values ";
const BY_ID: &str = ") as v where authlink_deliveries.id = v.column1";
/// A wait that is not over yet can only be as long as it was to be, whatever the clock did since.
const AFTER_CLOCK_CHANGE: &str =
    "update authlink_deliveries set due = $1 + wait where due > $1 + wait and due < $2";

fn delivery_of(row: &Row) -> sqlx::Result<StoredDelivery> {
    let small = |column| row.get::<i64>(column).map(|number| u32::try_from(number).unwrap_or(u32::MAX));
    let garbled = |error: &dyn std::fmt::Display| sqlx::Error::Decode(error.to_string().into());
    let data = Data {
        form: Form::from_number(row.get(13)?).unwrap_or(Form::Binary),
        content_type: row.get(14)?,
        bytes: Bytes::from(row.get::<Vec<u8>>(16)?),
    };
    let event = Event {
        id: row.get(7)?,
        producer_id: row.get(8)?,
        source: row.get(9)?,
        event_type: row.get(10)?,
        subject: row.get(11)?,
        time: row.get::<String>(12)?.parse().map_err(|error| garbled(&error))?,
        data,
        extensions: serde_json::from_str(&row.get::<String>(15)?).map_err(|error| garbled(&error))?,
    };
    Ok(StoredDelivery {
        id: row.get(0)?,
        attempts: small(1)?,
        created: time(row.get(2)?),
        accepted: time(row.get(3)?),
        replay: small(4)?,
        origin: Origin::from_number(row.get(5)?),
        namespace: row.get(6)?,
        event,
    })
}

impl Deliveries<'_> {
    /// Deliveries of an endpoint that are due, at most so many. With a subject, of each subject only the first one, beginning behind this
    /// one.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn due(
        self,
        endpoint: &str,
        now: Duration,
        limit: usize,
        after_subject: Option<&str>,
    ) -> Result<LoadedDeliveries, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let mut loaded = match after_subject {
                None => transaction.first_due(DUE, endpoint, now, limit).await?,
                Some(subject) => transaction.first_of_subjects(endpoint, now, limit, subject).await?,
            };
            let until = [endpoint.into(), millis(now).into(), HELD.into()];
            let rows = transaction.fetch(NEXT_DUE, &until).await?;
            let next: Option<i64> = rows.first().map(|row| row.get(0)).transpose()?.flatten();
            loaded.next_due = next.map(time);
            transaction.commit().await?;
            Ok(loaded)
        };
        self.0.operate("load", work).await
    }

    /// Deliveries of an endpoint that are held, behind the one of this number.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn held(self, endpoint: &str, after: i64) -> Result<Vec<StoredDelivery>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows = transaction.fetch(HELD_ONES, &[endpoint.into(), HELD.into(), after.into()]).await?;
            let held = rows.iter().map(delivery_of).collect();
            transaction.commit().await?;
            held
        };
        self.0.operate("load", work).await
    }

    /// Has these deliveries sent that were held.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn release(self, ids: &[i64], now: Duration) -> Result<(), Error> {
        let rows: Vec<[Value<'_>; 2]> = ids.iter().map(|id| [(*id).into(), millis(now).into()]).collect();
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            transaction.fetch_many(RELEASE, &rows, BY_ID).await?;
            transaction.commit().await
        };
        self.0.operate("complete", work).await
    }

    /// Corrects deliveries that wait for longer than they were to: the clock was set back since.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn correct_waits(self, now: Duration) -> Result<u64, Error> {
        let work = async {
            let mut transaction = self.0.begin_delivery(Access::Write).await?;
            let corrected =
                transaction.execute(AFTER_CLOCK_CHANGE, &[millis(now).into(), HELD.into()]).await?;
            transaction.commit().await?;
            Ok(corrected)
        };
        self.0.operate("load", work).await
    }
}

impl Transaction {
    async fn first_due(
        &mut self,
        statement: &'static str,
        endpoint: &str,
        now: Duration,
        limit: usize,
    ) -> sqlx::Result<LoadedDeliveries> {
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = self.fetch(statement, &[endpoint.into(), millis(now).into(), most.into()]).await?;
        let deliveries = rows.iter().map(delivery_of).collect::<sqlx::Result<Vec<_>>>()?;
        Ok(LoadedDeliveries { complete: deliveries.len() < limit, deliveries, ..LoadedDeliveries::default() })
    }

    async fn first_of_subjects(
        &mut self,
        endpoint: &str,
        now: Duration,
        limit: usize,
        after: &str,
    ) -> sqlx::Result<LoadedDeliveries> {
        let mut loaded = self.first_due(DUE_WITHOUT_SUBJECT, endpoint, now, limit).await?;
        let most = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows =
            self.fetch(FIRSTS, &[endpoint.into(), millis(now).into(), most.into(), after.into()]).await?;
        for row in &rows {
            loaded.deliveries.push(delivery_of(row)?);
        }
        let full = rows.len() >= limit;
        loaded.subject = rows.last().filter(|_| full).map(|row| row.get(17)).transpose()?;
        loaded.complete &= !full && after.is_empty();
        Ok(loaded)
    }
}
