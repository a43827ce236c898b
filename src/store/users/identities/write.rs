//! What is new of a batch, written.

use std::collections::HashSet;

use super::{Incoming, Merge, Plan, Run, Write};
use crate::{
    domain::sync::{
        decide::{Known, State, Verdict},
        dn,
        key::Key,
        linking::Link,
        record::UserRecord,
    },
    store::{
        outbox,
        sql::{Column, Transaction},
        users::{
            people::{self, UserRow, UserState},
            user_event,
        },
    },
};

/// A row of the identities.
struct IdentityRow<'a> {
    record: &'a UserRecord,
    user: String,
    state: State,
    enabled: bool,
    username: Option<&'a str>,
    email: Option<&'a str>,
    name: Option<&'a str>,
    username_key: Key,
    dn_key: Key,
    attributes: String,
    hash: &'a [u8],
}

const WRITE: [&str; 2] = [
    "insert into authlink_identities (source, external_id, user_id, state, enabled, username, username_key, email, \
     email_verified, name, dn, dn_key, primary_group, link_key, attributes, hash, missing_since, missing_runs) ",
    " on conflict (source, external_id) do update set user_id = excluded.user_id, state = excluded.state, \
     enabled = excluded.enabled, username = excluded.username, username_key = excluded.username_key, \
     email = excluded.email, email_verified = excluded.email_verified, name = excluded.name, dn = excluded.dn, \
     dn_key = excluded.dn_key, primary_group = excluded.primary_group, link_key = excluded.link_key, \
     attributes = excluded.attributes, hash = excluded.hash, missing_since = null, missing_runs = 0",
];
const SHARED: [&str; 2] = [
    "with new (user_id) as (",
    ") select distinct new.user_id from new join authlink_identities i on i.user_id = new.user_id \
     where i.source <> $1 and i.state <> 'purged'",
];

pub(super) async fn write(
    transaction: &mut Transaction,
    run: &Run,
    batch: &[Incoming],
    plan: Plan,
) -> sqlx::Result<Merge> {
    let rows: Vec<_> = plan.writes.iter().map(|write| identity(run, batch, write)).collect();
    write_identities(transaction, run, &rows).await?;
    let told = |write: &Write| match write.verdict {
        Verdict::Update(update) => update.is_told(),
        _ => true,
    };
    let (mut ids, mut versions) = (Vec::new(), Vec::new());
    for (write, row) in plan.writes.iter().zip(&rows).filter(|(write, _)| told(write)) {
        ids.push(row.user.clone());
        versions.extend(write.known.is_some().then(|| row.user.clone()));
    }
    // Users of several sources are put together; those of one are what it says.
    let mut shared = HashSet::new();
    if run.sources > 1 {
        let columns = [Column::texts(&ids, String::as_str)];
        for row in transaction.fetch_rows(SHARED[0], &[run.source.into()], &columns, SHARED[1]).await? {
            shared.insert(row.get::<String>(0)?);
        }
    }
    let before = people::read(transaction, &versions).await?;
    let (mut users, mut events) = (Vec::new(), Vec::new());
    for (write, row) in plan.writes.iter().zip(&rows).filter(|(write, _)| told(write)) {
        if shared.contains(&row.user) {
            continue;
        }
        let user = UserRow {
            id: row.user.clone(),
            state: if row.state == State::Active { UserState::Active } else { UserState::Disabled },
            username: row.username.map(str::to_owned),
            email: row.email.map(|email| (email.to_owned(), run.source)),
            name: row.name.map(str::to_owned),
            version: before.get(&row.user).map_or(0, |user| user.version) + 1,
        };
        let kind = match write.verdict {
            Verdict::Update(update) if update.reactivated => "user.reactivated",
            Verdict::Update(_) => "user.updated",
            _ => "user.created",
        };
        events.push(user_event(kind, &user));
        users.push(user);
    }
    people::write(transaction, run, &users).await?;
    outbox::write(transaction, run.source, run.now(), &events).await?;
    let shared: Vec<_> = shared.into_iter().collect();
    people::refresh(transaction, run, &shared).await?;
    Ok(plan.merge)
}

fn identity<'a>(run: &Run, batch: &'a [Incoming], write: &Write) -> IdentityRow<'a> {
    let record = &batch[write.index].record;
    let known = write.known.as_ref();
    let (state, enabled) = match write.verdict {
        Verdict::Update(update) => {
            let before = known.map_or(State::Active, |known| known.state);
            (if update.reactivated { State::Active } else { before }, update.enabled)
        }
        Verdict::Create { active } => (if active { State::Active } else { State::Disabled }, active),
        Verdict::Unchanged | Verdict::Duplicate => (State::Active, true),
    };
    let user = match (&write.link, known) {
        (Link::To(user), None) => user.clone(),
        (_, Some(known)) => known.user.clone(),
        _ => outbox::new_id(run.now()),
    };
    let kept = |of: fn(&Known) -> &Option<String>| known.and_then(|known| of(known).as_deref());
    let username = record.username(kept(|known| &known.username));
    IdentityRow {
        record,
        user,
        state,
        enabled,
        username,
        email: record.email(kept(|known| &known.email)),
        name: record.name(kept(|known| &known.name)),
        username_key: Key::username(username.unwrap_or_default()),
        dn_key: dn::key(&record.dn),
        attributes: attributes(record),
        hash: &batch[write.index].hash,
    }
}

/// What else is kept, as JSON: one value as itself, several as a list.
fn attributes(record: &UserRecord) -> String {
    let value = |values: &Vec<String>| match values.as_slice() {
        [only] => serde_json::Value::from(only.as_str()),
        several => several.into(),
    };
    let object: serde_json::Map<_, _> =
        record.attributes.iter().map(|(name, values)| (name.clone(), value(values))).collect();
    serde_json::Value::Object(object).to_string()
}

async fn write_identities(
    transaction: &mut Transaction,
    run: &Run,
    rows: &[IdentityRow<'_>],
) -> sqlx::Result<()> {
    let columns = [
        Column::ints(rows, |_| run.source),
        Column::texts(rows, |row| &row.record.external_id),
        Column::texts(rows, |row| &row.user),
        Column::texts(rows, |row| row.state.as_str()),
        Column::ints(rows, |row| i64::from(row.enabled)),
        Column::optional(rows, |row| row.username),
        Column::bytes(rows, |row| row.username_key.as_bytes().as_slice()),
        Column::optional(rows, |row| row.email),
        Column::ints(rows, |row| i64::from(row.record.email_verified)),
        Column::optional(rows, |row| row.name),
        Column::texts(rows, |row| &row.record.dn),
        Column::bytes(rows, |row| row.dn_key.as_bytes().as_slice()),
        Column::optional(rows, |row| row.record.primary_group.as_deref()),
        Column::optional(rows, |row| row.record.link_key.as_deref()),
        Column::texts(rows, |row| &row.attributes),
        Column::bytes(rows, |row| row.hash),
        Column::Ints(rows.iter().map(|_| None).collect()),
        Column::ints(rows, |_| 0),
    ];
    transaction.fetch_rows(WRITE[0], &[], &columns, WRITE[1]).await.map(drop)
}
