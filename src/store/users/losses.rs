//! What is lost, or would be: counted for the guard, shown in its plan, and taken away when it lets it through.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{Run, Users, people, runs};
use crate::{
    domain::sync::{
        counts::Counts,
        guard::{Class, Losses},
        plan::{Op, Plan},
    },
    store::{
        Error,
        outbox::{self, Event},
        sql::{Column, Transaction, Value},
    },
};

/// What the guard holds back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Held {
    /// Since when, in milliseconds after 1970. It is a part of the plan's hash, so that an approval serves once.
    pub since: i64,
    /// Of which classes of losses, and why, each in one word.
    pub stops: Vec<(String, String)>,
    /// What is held back.
    pub plan: Plan,
}

/// Something that would be lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What is done.
    pub op: Op,
    /// To whom.
    pub subject: String,
    /// What more there is to say.
    pub detail: String,
}

/// What was lost so long ago does not count any more.
const WINDOW: Duration = Duration::from_hours(24);

const RECENT: &str = "select cast(coalesce(sum(count), 0) as bigint) from authlink_sync_losses \
                      where source = $1 and class = $2 and at > $3";
const FORGET: &str = "delete from authlink_sync_losses where source = $1 and at <= $2";
const PRESENT: [&str; 3] = [
    "select count(*) from authlink_identities where source = $1 and state = 'active'",
    "select count(*) from authlink_members where source = $1",
    "select count(*) from authlink_roles where source = $1",
];
const CANDIDATES: [&str; 2] = [
    "select count(*) from (select external_id from authlink_identities where source = $1 and state = 'active' \
     and missing_since is not null union select external_id from authlink_identities where source = $1 \
     and state = 'active' and enabled = 0) as lost",
    "select count(*) from authlink_members m left join authlink_groups g on g.source = m.source \
     and g.external_id = m.group_id where m.source = $1 and (m.lost = 1 or g.missing_since is not null)",
];
const USERS: &str = "select external_id, case when enabled = 0 then 'switched off' else 'missing' end \
                     from authlink_identities where source = $1 and state = 'active' \
                     and (missing_since is not null or enabled = 0) and external_id > $2 order by external_id limit $3";
const DUE: &str = "select external_id, user_id from authlink_identities where source = $1 and state = 'active' \
                   and (enabled = 0 or missing_since <= $2 and missing_runs >= $3) order by external_id limit $4";
const DISABLE: [&str; 2] = [
    "with new (id) as (",
    ") update authlink_identities set state = 'disabled' where source = $1 and external_id in (select id from new)",
];
const OLD: &str = "select external_id, user_id from authlink_identities where source = $1 and state = 'disabled' \
                   and missing_since <= $2 order by external_id limit $3";
const PURGE: [&str; 2] = [
    "with new (id) as (",
    ") update authlink_identities set state = 'purged', enabled = 0, username = null, username_key = null, email = null, \
     email_verified = 0, name = null, dn = null, dn_key = null, primary_group = null, link_key = null, attributes = null, \
     hash = null, missing_since = null, missing_runs = 0 where source = $1 and external_id in (select id from new)",
];
const PURGE_ROLES: [&str; 2] = [
    "with new (id) as (",
    ") delete from authlink_roles where user_id in (select u.id from authlink_users u join new on new.id = u.id \
     where u.state = 'deleted')",
];

/// A batch of what is taken away.
const BATCH: i64 = 1000;

impl Users<'_> {
    /// What of a class would be lost, and of how many.
    ///
    /// # Errors
    /// What kept it from being counted.
    pub async fn losses(self, run: &Run, class: Class) -> Result<Losses, Error> {
        let day = i64::try_from(WINDOW.as_millis()).unwrap_or_default();
        reading!(self, "sync", |transaction| {
            let source = [run.source.into()];
            let at = class as usize;
            let candidates = match class {
                Class::Roles => super::roles::count_lost(transaction, run).await?,
                Class::Users | Class::Memberships => {
                    super::number(transaction, CANDIDATES[at], &source).await?
                }
            };
            if candidates == 0 {
                return Ok(Losses::default());
            }
            let present = super::number(transaction, PRESENT[at], &source).await?;
            let values = [run.source.into(), class.as_str().into(), (run.now() - day).into()];
            let recent = super::number(transaction, RECENT, &values).await?;
            Ok(Losses { candidates, present, recent })
        })
    }

    /// Some of what would be lost of a class, after this one.
    ///
    /// # Errors
    /// What kept it from being read.
    pub async fn candidates(
        self,
        run: &Run,
        class: Class,
        after: Option<&Candidate>,
        most: i64,
    ) -> Result<Vec<Candidate>, Error> {
        reading!(self, "sync", |transaction| {
            match class {
                Class::Users => {
                    let after = after.map_or("", |candidate| candidate.subject.as_str());
                    let rows =
                        transaction.fetch(USERS, &[run.source.into(), after.into(), most.into()]).await?;
                    rows.iter()
                        .map(|row| {
                            Ok(Candidate { op: Op::Disable, subject: row.get(0)?, detail: row.get(1)? })
                        })
                        .collect()
                }
                Class::Memberships => super::groups::lost(transaction, run, after, most).await,
                Class::Roles => super::roles::lost(transaction, run, after, most).await,
            }
        })
    }

    /// Disables a batch of those who are switched off, or have been missing since then or longer in so many looks; what was done, and
    /// how many identities it was done to. Nothing where the run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn disable(self, run: &Run, since: i64, looks: i64) -> Result<Option<(Counts, u64)>, Error> {
        in_run!(self, run, |transaction| {
            let values = [run.source.into(), since.into(), looks.into(), BATCH.into()];
            let (ids, users) = pairs(transaction, DUE, &values).await?;
            let columns = [Column::texts(&ids, String::as_str)];
            transaction.fetch_rows(DISABLE[0], &[run.source.into()], &columns, DISABLE[1]).await?;
            let turns = people::refresh(transaction, run, &users).await?;
            runs::lost(transaction, run, Class::Users, ids.len() as u64).await?;
            let counts = Counts { disabled: turns.disabled, updated: turns.updated, ..Counts::default() };
            Ok((counts, ids.len() as u64))
        })
    }

    /// Forgets what a batch of those were who have been missing since then or longer, but for their ids; how many. Nothing where the
    /// run has ended.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn purge(self, run: &Run, since: i64) -> Result<Option<u64>, Error> {
        let (ids, users) = reading!(self, "sync", |transaction| {
            pairs(transaction, OLD, &[run.source.into(), since.into(), BATCH.into()]).await
        })?;
        if ids.is_empty() {
            return Ok(Some(0));
        }
        in_run!(self, run, |transaction| {
            let columns = [Column::texts(&ids, String::as_str)];
            transaction.fetch_rows(PURGE[0], &[run.source.into()], &columns, PURGE[1]).await?;
            people::refresh(transaction, run, &users).await?;
            let columns = [Column::texts(&users, String::as_str)];
            transaction.fetch_rows(PURGE_ROLES[0], &[], &columns, PURGE_ROLES[1]).await?;
            let day = i64::try_from(WINDOW.as_millis()).unwrap_or_default();
            transaction.execute(FORGET, &[run.source.into(), (run.now() - day).into()]).await?;
            Ok(ids.len() as u64)
        })
    }
}

async fn pairs(
    transaction: &mut Transaction,
    statement: &'static str,
    values: &[Value<'_>],
) -> sqlx::Result<(Vec<String>, Vec<String>)> {
    let (mut ids, mut users) = (Vec::new(), Vec::new());
    for row in transaction.fetch(statement, values).await? {
        ids.push(row.get(0)?);
        users.push(row.get(1)?);
    }
    users.sort_unstable();
    users.dedup();
    Ok((ids, users))
}

/// Tells of groups.
pub(super) async fn tell_groups(
    transaction: &mut Transaction,
    run: &Run,
    kind: &'static str,
    groups: &[(String, String)],
) -> sqlx::Result<()> {
    let event = |(id, name): &(String, String)| Event {
        kind,
        subject: id.clone(),
        data: serde_json::json!({ "group": id, "name": name }).to_string(),
    };
    let events: Vec<_> = groups.iter().map(event).collect();
    outbox::write(transaction, run.source, run.now(), &events).await
}
