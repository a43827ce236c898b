//! Who has logged in.

use std::time::Instant;

use super::{Run, Users, identities};
use crate::{
    domain::sync::{decide::State, dn, key::Key, record::UserRecord},
    store::{Error, sql::Access},
};

/// A user who has logged in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Person {
    /// The id.
    pub user: String,
    /// Whether the user may be let in.
    pub active: bool,
    /// The user name.
    pub username: Option<String>,
    /// The mail address.
    pub email: Option<String>,
    /// The name that people read.
    pub name: Option<String>,
    /// The names of the groups that have the user as a member, in order.
    pub groups: Vec<String>,
    /// In order.
    pub roles: Vec<Role>,
}

/// The object that a source is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SourceName {
    /// Its uid, which tells it from all others, for good.
    pub uid: String,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

/// A role.
pub type Role = String;

const SOURCE: &str = "insert into authlink_sources (id, uid, priority, authority, namespace, name) \
                      select coalesce(max(id), 0) + 1, $1, 0, 0, $2, $3 from authlink_sources where true \
                      on conflict (uid) do update set uid = excluded.uid returning id";
const SOURCES: &str = "select count(*) from authlink_sources";
const PERSON: &str = "select u.id, u.state, u.username, u.email, u.name, i.state from authlink_identities i \
                      join authlink_users u on u.id = i.user_id where i.source = $1 and i.external_id = $2";
const LOGIN: &str = "update authlink_users set last_login = $2 where id = $1";
const GROUPS: &str = "select g.name from authlink_members m join authlink_groups g on g.source = m.source \
                      and g.external_id = m.group_id where m.source = $1 and m.lost = 0 and m.member in ($2, $3) \
                      union select name from authlink_groups where source = $1 and relative_id = $4 order by 1";
const ROLES: &str = "select distinct role from authlink_roles where user_id = $1 order by role";

impl Users<'_> {
    /// Notes that a user of a source has logged in, with what the source says now, and gives who that is to us. One who is not known
    /// yet is by that.
    ///
    /// # Errors
    /// What kept it from being written.
    pub async fn logged_in(self, source: &SourceName, record: &UserRecord) -> Result<Option<Person>, Error> {
        let batch = [super::Incoming::new(record.clone())];
        let work = async {
            let mut transaction = self.0.begin(Access::Write).await?;
            let (at, started) = (Instant::now(), transaction.now().await?);
            let rows = transaction
                .fetch(SOURCE, &[(&source.uid).into(), (&source.namespace).into(), (&source.name).into()])
                .await?;
            let source: i64 = rows.first().ok_or(sqlx::Error::RowNotFound)?.get(0)?;
            let sources = super::number(&mut transaction, SOURCES, &[]).await?;
            let sources = i64::try_from(sources).unwrap_or(i64::MAX);
            let run = Run { id: String::new(), source, sources, started, at };
            identities::take(&mut transaction, &run, &batch).await?;
            let id = (&record.external_id).into();
            let rows = transaction.fetch(PERSON, &[source.into(), id]).await?;
            let Some(row) = rows.first() else { return Ok(None) };
            let user: String = row.get(0)?;
            let states: [String; 2] = [row.get(1)?, row.get(5)?];
            transaction.execute(LOGIN, &[(&user).into(), started.into()]).await?;
            let (entry, name) =
                (dn::key(&record.dn), Key::username(record.username(None).unwrap_or_default()));
            let values = [
                source.into(),
                entry.as_bytes().as_slice().into(),
                name.as_bytes().as_slice().into(),
                record.primary_group.as_deref().into(),
            ];
            let groups = transaction.fetch(GROUPS, &values).await?;
            let roles = transaction.fetch(ROLES, &[(&user).into()]).await?;
            let person = Person {
                active: states.iter().all(|state| state == State::Active.as_str()),
                username: row.get(2)?,
                email: row.get(3)?,
                name: row.get(4)?,
                groups: groups.iter().map(|row| row.get(0)).collect::<sqlx::Result<_>>()?,
                roles: roles.iter().map(|row| row.get(0)).collect::<sqlx::Result<_>>()?,
                user,
            };
            transaction.commit().await?;
            Ok(Some(person))
        };
        self.0.operate("login", work).await
    }
}
