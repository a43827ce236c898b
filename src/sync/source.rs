//! What is synced: anything that lists users, and says whether the list is whole.

use futures::future::BoxFuture;
use tokio::sync::mpsc::Sender;

use crate::{
    backends::Fault,
    domain::sync::record::{GroupRecord, Rejected},
    store::users::{Incoming, Subject, Table},
};

/// Where a source is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Start {
    /// From the beginning, or from where a run was broken off.
    Full {
        /// The token of the last batch that was taken.
        resume: Option<String>,
    },
    /// What has changed since a cursor.
    Since(String),
}

/// A part of what a source has: at most about a thousand entries.
#[derive(Clone, Debug)]
pub enum Batch {
    /// Users, new or changed or as they were.
    Users(UserBatch),
    /// Groups.
    Groups {
        /// Those that can be used.
        records: Vec<GroupRecord>,
        /// Those that cannot.
        rejected: Vec<Rejected>,
    },
    /// Ids of what is there and as it was.
    Present(Table, Vec<String>),
    /// Ids of what is gone, or does not match any more.
    Gone(Table, Vec<String>),
}

/// Users.
#[derive(Clone, Debug, Default)]
pub struct UserBatch {
    /// Those that can be used.
    pub records: Vec<Incoming>,
    /// Those that cannot.
    pub rejected: Vec<Rejected>,
    /// How many accounts of the system were passed over.
    pub skipped: u64,
    /// Where to go on after this batch, for sources that can.
    pub token: Option<String>,
}

/// How much of users or groups was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Coverage {
    /// All there are: who was not mentioned is missing.
    Everything,
    /// What has changed: who was not mentioned is as before.
    Changes,
    /// Nobody knows how much.
    Partial(Fault),
}

/// How a source was read.
#[derive(Clone, Debug)]
pub struct Ending {
    /// Of users.
    pub users: Coverage,
    /// Of groups, where they are read.
    pub groups: Option<Coverage>,
    /// Where to go on the next time.
    pub cursor: Option<String>,
    /// References to other servers that were passed over.
    pub references: u64,
    /// How changes are found, and why not in a better way.
    pub method: (&'static str, String),
}

/// Why a source could not be read.
#[derive(Clone, Debug)]
pub enum ReadError {
    /// The cursor means nothing any more.
    FullNeeded(String),
    /// The source failed.
    Fault(Fault),
    /// Nobody listens any more.
    Stopped,
}

impl From<Fault> for ReadError {
    fn from(fault: Fault) -> Self {
        Self::Fault(fault)
    }
}

/// Something that has users.
pub trait Source: Send + Sync + 'static {
    /// Gives all of it, or what has changed, in batches. It waits while nobody takes them.
    fn read(&self, start: Start, batches: Sender<Batch>) -> BoxFuture<'_, Result<Ending, ReadError>>;

    /// Looks for these: gives those that are there.
    fn find<'a>(&'a self, table: Table, subjects: &'a [Subject]) -> BoxFuture<'a, Result<Batch, Fault>>;

    /// Whether every account has a flag that says whether it is switched on.
    fn has_flags(&self) -> bool {
        false
    }
}

/// Gives a batch.
///
/// # Errors
/// [`ReadError::Stopped`] when nobody takes it any more.
pub async fn give(batches: &Sender<Batch>, batch: Batch) -> Result<(), ReadError> {
    batches.send(batch).await.map_err(|_| ReadError::Stopped)
}
