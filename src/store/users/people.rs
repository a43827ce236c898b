//! Users as they are put together from what their sources say.

use std::collections::{BTreeMap, HashMap};

use super::{Run, user_event};
use crate::{
    domain::sync::linking::{Facet, Merged, merge},
    store::{
        outbox::{self, Event},
        sql::{Column, Transaction},
    },
};

/// What a user is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum UserState {
    Active,
    Disabled,
    Deleted,
}

impl UserState {
    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Deleted => "deleted",
        }
    }

    fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Deleted].into_iter().find(|state| state.as_str() == text)
    }
}

/// A row of the users.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct UserRow {
    pub(super) id: String,
    pub(super) state: UserState,
    pub(super) username: Option<String>,
    /// With the source that it comes from.
    pub(super) email: Option<(String, i64)>,
    pub(super) name: Option<String>,
    pub(super) version: i64,
}

impl UserRow {
    fn put_together(id: String, merged: Merged, version: i64) -> Self {
        let Merged { active, username, email, name } = merged;
        let state = if active { UserState::Active } else { UserState::Disabled };
        Self { id, state, username, email, name, version }
    }
}

const WRITE: [&str; 2] = [
    "insert into authlink_users (id, state, username, email, email_source, name, version, created, updated) ",
    " on conflict (id) do update set state = excluded.state, username = excluded.username, email = excluded.email, \
     email_source = excluded.email_source, name = excluded.name, version = excluded.version, updated = excluded.updated",
];
const ROWS: [&str; 2] = [
    "with new (id) as (",
    ") select u.id, u.state, u.username, u.email, u.email_source, u.name, u.version from new \
     join authlink_users u on u.id = new.id",
];
const FACETS: [&str; 2] = [
    "with new (id) as (",
    ") select i.user_id, i.source, s.priority, s.authority, i.state, i.username, i.email, i.name from new \
     join authlink_identities i on i.user_id = new.id join authlink_sources s on s.id = i.source where i.state <> 'purged'",
];
const BUMP: [&str; 2] = [
    "with new (id) as (",
    ") update authlink_users set version = version + 1, updated = $1 where id in (select id from new) \
     returning id, state, username, email, email_source, name, version",
];

/// Writes users, new ones and those that there are, as they are given.
pub(super) async fn write(transaction: &mut Transaction, run: &Run, users: &[UserRow]) -> sqlx::Result<()> {
    let now = run.now();
    let columns = [
        Column::texts(users, |user| &user.id),
        Column::texts(users, |user| user.state.as_str()),
        Column::optional(users, |user| user.username.as_deref()),
        Column::optional(users, |user| user.email.as_ref().map(|(email, _)| email.as_str())),
        Column::Ints(users.iter().map(|user| user.email.as_ref().map(|(_, source)| *source)).collect()),
        Column::optional(users, |user| user.name.as_deref()),
        Column::ints(users, |user| user.version),
        Column::ints(users, |_| now),
        Column::ints(users, |_| now),
    ];
    transaction.fetch_rows(WRITE[0], &[], &columns, WRITE[1]).await.map(drop)
}

fn row(row: &crate::store::sql::Row) -> sqlx::Result<UserRow> {
    let email: Option<String> = row.get(3)?;
    let source: Option<i64> = row.get(4)?;
    let state = UserState::parse(&row.get::<String>(1)?).unwrap_or(UserState::Disabled);
    Ok(UserRow {
        id: row.get(0)?,
        state,
        username: row.get(2)?,
        email: email.zip(source),
        name: row.get(5)?,
        version: row.get(6)?,
    })
}

/// Reads users.
pub(super) async fn read(
    transaction: &mut Transaction,
    ids: &[String],
) -> sqlx::Result<HashMap<String, UserRow>> {
    let columns = [Column::texts(ids, String::as_str)];
    let rows = transaction.fetch_rows(ROWS[0], &[], &columns, ROWS[1]).await?;
    rows.iter().map(|found| row(found).map(|user| (user.id.clone(), user))).collect()
}

/// What has become of users after what their sources say was written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Turns {
    pub(super) updated: u64,
    pub(super) disabled: u64,
    pub(super) reactivated: u64,
    pub(super) deleted: u64,
}

/// Puts these users together anew, and writes and tells of those that have changed. One without any identity is deleted.
pub(super) async fn refresh(transaction: &mut Transaction, run: &Run, ids: &[String]) -> sqlx::Result<Turns> {
    let mut facets: BTreeMap<String, Vec<Facet>> = ids.iter().map(|id| (id.clone(), Vec::new())).collect();
    let columns = [Column::texts(ids, String::as_str)];
    for row in transaction.fetch_rows(FACETS[0], &[], &columns, FACETS[1]).await? {
        let state: String = row.get(4)?;
        let facet = Facet {
            source: row.get(1)?,
            priority: row.get(2)?,
            authority: row.get::<i64>(3)? != 0,
            active: state == "active",
            username: row.get(5)?,
            email: row.get(6)?,
            name: row.get(7)?,
        };
        facets.entry(row.get(0)?).or_default().push(facet);
    }
    let before = read(transaction, ids).await?;
    let (mut changed, mut events, mut turns) = (Vec::new(), Vec::new(), Turns::default());
    for (id, facets) in facets {
        let Some(before) = before.get(&id) else { continue };
        let after = if facets.is_empty() {
            let state = UserState::Deleted;
            UserRow { id, state, username: None, email: None, name: None, version: before.version + 1 }
        } else {
            UserRow::put_together(id, merge(facets), before.version + 1)
        };
        if (UserRow { version: before.version, ..after.clone() }) == *before {
            continue;
        }
        let (kind, count) = turn(before.state, after.state, &mut turns);
        *count += 1;
        events.push(user_event(kind, &after));
        changed.push(after);
    }
    write(transaction, run, &changed).await?;
    outbox::write(transaction, run.source, run.now(), &events).await?;
    Ok(turns)
}

fn turn(before: UserState, after: UserState, turns: &mut Turns) -> (&'static str, &mut u64) {
    match (before, after) {
        (before, after) if before == after => ("user.updated", &mut turns.updated),
        (_, UserState::Active) => ("user.reactivated", &mut turns.reactivated),
        (_, UserState::Disabled) => ("user.disabled", &mut turns.disabled),
        (_, UserState::Deleted) => ("user.deleted", &mut turns.deleted),
    }
}

/// Tells that something of these users has changed which is not in their rows, such as their roles.
pub(super) async fn touch(transaction: &mut Transaction, run: &Run, ids: &[String]) -> sqlx::Result<()> {
    let columns = [Column::texts(ids, String::as_str)];
    let rows = transaction.fetch_rows(BUMP[0], &[run.now().into()], &columns, BUMP[1]).await?;
    let events = rows.iter().map(|found| row(found).map(|user| user_event("user.updated", &user)));
    let events: Vec<Event> = events.collect::<sqlx::Result<_>>()?;
    outbox::write(transaction, run.source, run.now(), &events).await
}
