//! Events and their deliveries.
//!
//! The table of deliveries holds what is unfinished and nothing else, so that it stays small however much was delivered. One process sends
//! to an endpoint at a time, the one that holds the lease of the endpoint's shard; so a delivery needs no lock of its own, and whoever
//! has lost the lease cannot write what became of one.

mod accept;
mod attempts;
mod complete;
mod endpoints;
mod load;
mod purge;
mod replay;

use std::{
    collections::{BTreeSet, HashSet},
    time::Duration,
};

pub use accept::{Acceptance, AcceptedEvent, NewDelivery, NewState};
pub use attempts::{AttemptFilter, AttemptRecord, LoggedAttempt};
pub use complete::{Completion, Ending, EndpointUpdate};
pub use endpoints::{EndpointState, PendingCount, Wakeup};
pub use load::{LoadedDeliveries, StoredDelivery};
pub use purge::{ExpiredDelivery, PurgeCursor, Retention};
pub use replay::ReplaySelection;

use super::{
    Store,
    sql::{Transaction, Value},
};

/// Events and their deliveries, in the store.
#[derive(Clone, Copy)]
pub struct Deliveries<'a>(&'a Store);

impl Store {
    /// Events and their deliveries.
    #[must_use]
    pub fn deliveries(&self) -> Deliveries<'_> {
        Deliveries(self)
    }
}

/// The lease under which something is written: of this name, in this epoch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FencingToken {
    /// Of the lease.
    pub lease: String,
    /// Of its holder.
    pub epoch: i64,
}

/// Where a delivery comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// An event was accepted.
    Event,
    /// Somebody asked for it again.
    Replay,
    /// Another endpoint's delivery was given up.
    DeadLetter,
    /// A test, which is in no table but the log of attempts.
    Test,
}

impl Origin {
    /// Its number in the store.
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Event => 0,
            Self::Replay => 1,
            Self::DeadLetter => 2,
            Self::Test => 3,
        }
    }

    /// The origin of this number.
    #[must_use]
    pub const fn from_number(number: i64) -> Self {
        match number {
            1 => Self::Replay,
            2 => Self::DeadLetter,
            3 => Self::Test,
            _ => Self::Event,
        }
    }
}

/// How a delivery ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FinalState {
    /// It has arrived.
    Delivered,
    /// It was given up.
    Dead,
    /// It was never tried: its endpoint was disabled when the event came.
    Skipped,
}

impl FinalState {
    const fn number(self) -> i64 {
        match self {
            Self::Delivered => 1,
            Self::Dead => 2,
            Self::Skipped => 3,
        }
    }
}

/// Due when somebody says so.
const HELD: i64 = i64::MAX;

fn millis(time: Duration) -> i64 {
    i64::try_from(time.as_millis()).unwrap_or(i64::MAX)
}

/// The time of these milliseconds, or none of those that never come.
fn time(millis: i64) -> Duration {
    Duration::from_millis(u64::try_from(millis).unwrap_or_default())
}

fn counted(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn count(stored: i64) -> u64 {
    u64::try_from(stored).unwrap_or_default()
}

const LEASES: &str = "select name, epoch, owner from authlink_leases where name in (";
/// Nobody else can get the leases before this transaction ends. In one order, as they are renewed: otherwise two transactions could wait
/// for each other.
const IN_SHARE: &str = ") order by name for share";
/// Who writes into SQLite is alone anyway.
const ALONE: &str = ")";

impl Transaction {
    /// Those of these leases that `owner` holds, and that nobody else gets before this transaction ends: what is written in it is written
    /// by their holder. That one has run out is of no interest as long as nobody has taken it.
    async fn held_leases<'a>(
        &mut self,
        owner: &str,
        leases: impl Iterator<Item = &'a str>,
    ) -> sqlx::Result<HashSet<FencingToken>> {
        let names: BTreeSet<&str> = leases.collect();
        let names: Vec<[Value<'_>; 1]> = names.into_iter().map(|name| [name.into()]).collect();
        let mut held = HashSet::new();
        for row in self.fetch_many(LEASES, &names, self.choose(ALONE, IN_SHARE)).await? {
            if row.get::<String>(2)? == owner {
                held.insert(FencingToken { lease: row.get(0)?, epoch: row.get(1)? });
            }
        }
        Ok(held)
    }

    /// Deletes rows by their ids.
    async fn delete_ids(&mut self, statement: &'static str, ids: &[i64]) -> sqlx::Result<()> {
        let rows: Vec<[Value<'_>; 1]> = ids.iter().map(|id| [(*id).into()]).collect();
        self.fetch_many(statement, &rows, ")").await.map(drop)
    }
}
