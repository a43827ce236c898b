//! What happened to users and groups: written in the same transaction as what it tells, and taken from here by a gateway, which makes
//! events of it.

use super::{
    Error, Store,
    sql::{Access, Column, Transaction},
};

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Event {
    /// Such as `user.created`.
    pub(super) kind: &'static str,
    /// The id of the user or the group.
    pub(super) subject: String,
    /// What there is to say, as JSON.
    pub(super) data: String,
}

/// Something that happened, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxEvent {
    /// The only one with this id; later ones have greater ids.
    pub id: String,
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
    /// Such as `user.created`.
    pub kind: String,
    /// The id of the user or the group.
    pub subject: String,
    /// When, in milliseconds after 1970.
    pub at: i64,
    /// What there is to say, as JSON.
    pub data: String,
}

const WRITE: &str = "insert into authlink_outbox (id, source, kind, subject, at, data) ";
const READ: &str = "select o.id, s.namespace, s.name, o.kind, o.subject, o.at, o.data from authlink_outbox o \
                    join authlink_sources s on s.id = o.source order by o.id limit $1";
const REMOVE: [&str; 2] =
    ["with new (id) as (", ") delete from authlink_outbox where id in (select id from new)"];

/// Events that wait for a gateway.
#[derive(Clone, Copy)]
pub struct Outbox<'a>(&'a Store);

impl Store {
    /// Events that wait for a gateway.
    #[must_use]
    pub fn outbox(&self) -> Outbox<'_> {
        Outbox(self)
    }
}

impl Outbox<'_> {
    /// The first ones.
    ///
    /// # Errors
    /// What kept them from being read.
    pub async fn first(self, most: i64) -> Result<Vec<OutboxEvent>, Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Read).await?;
            let rows = transaction.fetch(READ, &[most.into()]).await?;
            transaction.commit().await?;
            let event = |row: &super::sql::Row| {
                Ok(OutboxEvent {
                    id: row.get(0)?,
                    namespace: row.get(1)?,
                    name: row.get(2)?,
                    kind: row.get(3)?,
                    subject: row.get(4)?,
                    at: row.get(5)?,
                    data: row.get(6)?,
                })
            };
            rows.iter().map(event).collect()
        };
        self.0.operate("outbox", work).await
    }

    /// Removes these, which have been accepted.
    ///
    /// # Errors
    /// What kept them from being removed: they will be accepted once more, as the same events.
    pub async fn remove(self, events: &[OutboxEvent]) -> Result<(), Error> {
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let columns = [Column::texts(events, |event| &event.id)];
            transaction.fetch_rows(REMOVE[0], &[], &columns, REMOVE[1]).await?;
            transaction.commit().await
        };
        self.0.operate("outbox", work).await
    }
}

/// Writes events of a source that happened at `now`, in milliseconds after 1970.
pub(super) async fn write(
    transaction: &mut Transaction,
    source: i64,
    now: i64,
    events: &[Event],
) -> sqlx::Result<()> {
    let ids: Vec<_> = events.iter().map(|_| new_id(now)).collect();
    let columns = [
        Column::texts(&ids, String::as_str),
        Column::ints(events, |_| source),
        Column::texts(events, |event| event.kind),
        Column::texts(events, |event| &event.subject),
        Column::ints(events, |_| now),
        Column::texts(events, |event| &event.data),
    ];
    transaction.fetch_rows(WRITE, &[], &columns, "").await.map(drop)
}

/// An id that is the only one, and greater than those of earlier times (UUID version 7, RFC 9562), so that new rows stand together.
pub(super) fn new_id(now: i64) -> String {
    let millis = u64::try_from(now).unwrap_or_default();
    uuid::Builder::from_unix_timestamp_millis(millis, &rand::random()).into_uuid().hyphenated().to_string()
}
