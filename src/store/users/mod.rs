//! Users, as their sources say who they are.
//!
//! All that a run writes is written under its id, and only while that is the run of its source which has not ended: whoever begins a
//! run ends all others.

/// Writes something for a run, in one transaction; gives nothing where the run has ended.
macro_rules! in_run {
    ($users:expr, $run:expr, |$transaction:ident| $body:block) => {{
        let work = async {
            let Some(mut begun) = $users.open($run).await? else { return Ok(None) };
            let $transaction = &mut begun;
            let done: sqlx::Result<_> = async { $body }.await;
            let done = done?;
            begun.commit().await?;
            Ok(Some(done))
        };
        $users.0.operate("sync", work).await
    }};
}

/// Reads something, in one transaction.
macro_rules! reading {
    ($users:expr, $operation:literal, |$transaction:ident| $body:block) => {{
        let work = async {
            let mut begun = $users.0.begin($crate::store::sql::Access::Read).await?;
            let $transaction = &mut begun;
            let done: sqlx::Result<_> = async { $body }.await;
            let done = done?;
            begun.commit().await?;
            Ok(done)
        };
        $users.0.operate($operation, work).await
    }};
}

mod groups;
mod identities;
mod known;
mod login;
mod losses;
mod missing;
mod people;
mod quarantine;
mod roles;
mod runs;

use std::time::Instant;

use super::{
    Store,
    outbox::Event,
    sql::{Access, Transaction},
};

pub use groups::GroupsMerged;
pub use identities::{Incoming, Merge, MergeOptions};
pub use known::KnownCounts;
pub use login::{Person, Role, SourceName};
pub use losses::{Candidate, Held};
pub use missing::{Subject, Table, Told};
pub use roles::RoleGroups;
pub use runs::{Begun, Finish, Resume, RunRecord, SourceRecord};

/// A run, as whoever does it knows it.
#[derive(Clone, Debug)]
pub struct Run {
    /// Its id.
    pub id: String,
    /// The number of its source.
    pub source: i64,
    /// How many sources there are: with one, nobody has identities of several.
    sources: i64,
    /// When it began, by the store's clock and by ours.
    started: i64,
    at: Instant,
}

impl Run {
    /// The store's time, in milliseconds after 1970.
    #[must_use]
    pub fn now(&self) -> i64 {
        self.started + i64::try_from(self.at.elapsed().as_millis()).unwrap_or(i64::MAX / 2)
    }

    /// When it began.
    #[must_use]
    pub fn started(&self) -> i64 {
        self.started
    }
}

/// Users, in the store.
#[derive(Clone, Copy)]
pub struct Users<'a>(&'a Store);

impl Store {
    /// Users.
    #[must_use]
    pub fn users(&self) -> Users<'_> {
        Users(self)
    }
}

/// Locks the run, and says that it lives.
const LIVES: &str = "update authlink_sync_runs set updated = $2 where id = $1 and ended is null";

impl Users<'_> {
    /// Begins a transaction of a run; nothing where the run has ended, since somebody has begun another one.
    async fn open(self, run: &Run) -> sqlx::Result<Option<Transaction>> {
        let mut transaction = self.0.begin(Access::Write).await?;
        let lives = transaction.execute(LIVES, &[(&run.id).into(), run.now().into()]).await? > 0;
        Ok(lives.then_some(transaction))
    }
}

/// The first number of the first row.
async fn number(
    transaction: &mut Transaction,
    statement: &'static str,
    values: &[super::sql::Value<'_>],
) -> sqlx::Result<u64> {
    let rows = transaction.fetch(statement, values).await?;
    let number: i64 = rows.first().map_or(Ok(0), |row| row.get(0))?;
    Ok(u64::try_from(number).unwrap_or_default())
}

/// What is told of a user.
fn user_event(kind: &'static str, user: &people::UserRow) -> Event {
    let data = serde_json::json!({
        "user": user.id,
        "state": user.state.as_str(),
        "username": user.username,
        "email": user.email.as_ref().map(|(email, _)| email),
        "name": user.name,
        "version": user.version,
    });
    Event { kind, subject: user.id.clone(), data: data.to_string() }
}
