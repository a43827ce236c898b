//! User sync: a source is read in batches, what is new of each is written at once, and who is missing is judged at the end.
//!
//! Memory is bounded by the batch and by 16 bytes for each entry that was seen. A run that ends anywhere, by a crash too, leaves whole
//! batches with their events; the next run reads again, and writes only what is new.

pub mod ldap;
pub mod login;
mod pass;
mod seen;
mod settle;
pub mod source;
mod write;

use std::{sync::Arc, time::Duration};

use tokio_util::sync::CancellationToken;

use crate::{
    backends::Fault,
    domain::sync::{
        counts::Counts,
        guard::Limits,
        method::{History, needs_full},
        plan::Plan,
        roles::RoleMapping,
        strikes::Patience,
    },
    store::{
        self, Store,
        users::{Finish, Held, RoleGroups, SourceRecord, Table},
    },
};
use pass::{Pass, Read};
use source::{Source, Start};

/// What a run is to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// Writes what is new.
    #[default]
    Apply,
    /// Only says what it would do, and does it when that plan is approved.
    Plan,
}

/// How a source is synced.
#[derive(Clone, Debug)]
pub struct SyncSettings {
    /// The source.
    pub source: SourceRecord,
    /// What a run is to do.
    pub mode: Mode,
    /// How many losses are believed.
    pub limits: Limits,
    /// How long who is missing is waited for.
    pub patience: Patience,
    /// Everything is read after so long, whatever a cursor tells.
    pub full_every: Duration,
    /// Everything is read now.
    pub force_full: bool,
    /// Which groups lead to which roles.
    pub roles: Vec<RoleMapping>,
    /// The hash of the plan that somebody has approved.
    pub approval: Option<String>,
    /// How long a run may take.
    pub deadline: Duration,
}

/// How whoever runs a sync stays in charge of it.
#[derive(Clone)]
pub struct Control {
    /// Ends the run in order.
    pub cancel: CancellationToken,
    /// Whether this process may still write: asked before each write.
    pub may_write: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Is told how far the run is, after each batch.
    pub progress: Arc<dyn Fn(Progress) + Send + Sync>,
}

impl Default for Control {
    fn default() -> Self {
        Self { cancel: CancellationToken::new(), may_write: Arc::new(|| true), progress: Arc::new(|_| {}) }
    }
}

/// What a run does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Phase {
    /// Reads the source.
    #[default]
    Reading,
    /// Judges who is missing.
    Settling,
}

/// How far a run is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// What it does.
    pub phase: Phase,
    /// What it has done.
    pub counts: Counts,
}

/// How a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Everything is as the source says.
    Succeeded,
    /// So it is, but for entries that cannot be used.
    PartialFailure,
    /// The source has nobody, and never had.
    NobodyFound,
    /// The source was not read to its end: nobody is taken for missing.
    Incomplete,
    /// The guard holds losses back.
    Held,
    /// There is a plan, and nothing was done.
    Planned,
}

impl Outcome {
    /// As the store keeps it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Succeeded => "Succeeded",
            Self::PartialFailure => "PartialFailure",
            Self::NobodyFound => "NobodyFound",
            Self::Incomplete => "Incomplete",
            Self::Held => "Held",
            Self::Planned => "Planned",
        }
    }
}

/// What a run has found and done.
#[derive(Clone, Debug)]
pub struct Report {
    /// Its id.
    pub run: String,
    /// How it ended.
    pub outcome: Outcome,
    /// What it has done.
    pub counts: Counts,
    /// Whether everything was read.
    pub full: bool,
    /// How changes are found, and why not in a better way; empty where that is the best.
    pub method: (&'static str, String),
    /// Why it is not complete.
    pub incomplete: Option<Fault>,
    /// What the guard holds back.
    pub held: Option<Held>,
    /// What would be done, of a run that only plans.
    pub plan: Option<Plan>,
    /// Whether no entry had the flag that every account has, so that nobody knows who is switched off.
    pub flags_missing: bool,
    /// Members of groups who are nobody that is known.
    pub unresolved: Option<u64>,
    /// What is wrong with groups in groups.
    pub role_groups: RoleGroups,
}

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The store does not work.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// It was told to end.
    #[error("the sync was cancelled")]
    Cancelled,
    /// Somebody else has begun a run of this source, or this process may not write any more.
    #[error("another process syncs this source now")]
    Fenced,
}

/// Syncs a source once.
///
/// # Errors
/// What kept it from being done; what the source did not give is a part of the report.
pub async fn run<S: Source>(
    store: &Store,
    source: &Arc<S>,
    settings: &SyncSettings,
    control: &Control,
) -> Result<Report, SyncError> {
    if !(control.may_write)() {
        return Err(SyncError::Fenced);
    }
    let begun = store.users().begin(&settings.source).await?;
    let run = begun.run.clone();
    let mut pass = Pass::new(store, source, settings, control, begun);
    let done = Box::pin(pass.run()).await;
    if matches!(done, Err(SyncError::Cancelled)) {
        let finish = Finish { outcome: "Cancelled", counts: pass.counts(), ..Finish::default() };
        let _ = store.users().finish(&run, &settings.source.config, &finish).await;
    }
    done
}

impl<S: Source> Pass<'_, S> {
    async fn run(&mut self) -> Result<Report, SyncError> {
        let plans = self.settings.mode == Mode::Plan;
        let begun = &self.begun;
        let same_config = begun.config.as_deref() == Some(self.settings.source.config.as_str());
        let history = History { full_at: begun.full_at, cursor: begun.cursor.is_some(), same_config };
        let full = plans
            || self.settings.force_full
            || needs_full(&history, self.settings.full_every, begun.run.now());
        let mut start = match (&begun.cursor, full) {
            (Some(cursor), false) => Start::Since(cursor.clone()),
            _ => Start::Full { resume: begun.resume.as_ref().map(|resume| resume.token.clone()) },
        };
        self.dry = plans;
        if matches!(start, Start::Full { resume: Some(_) }) && !plans {
            self.resume();
        }
        let mut read = self.read(start.clone()).await?;
        if let Read::FullNeeded(why) = read {
            tracing::info!(
                source = self.settings.source.uid,
                why,
                "changes cannot be read: reading everything"
            );
            start = Start::Full { resume: None };
            self.restart(plans);
            read = self.read(start.clone()).await?;
        }
        if let (true, None, Read::Ended(ending)) = (self.dry && !self.uncertain, self.stopped, &read) {
            let (users, groups) = (ending.users.clone(), ending.groups.clone());
            self.strike_missing(Table::Users, &users).await?;
            if let Some(groups) = groups {
                self.strike_missing(Table::Groups, &groups).await?;
            }
        }
        // What was planned, or held before the first row, is done by reading once more.
        let mut planned = self.finish_plan();
        if let (Read::Ended(_), Some(plan)) = (&read, &planned)
            && self.settings.approval.as_deref() == Some(plan.hash.as_str())
        {
            self.approve();
            start = Start::Full { resume: None };
            read = self.read(start.clone()).await?;
            planned = None;
        }
        Box::pin(self.settle(matches!(start, Start::Full { .. }), read, planned)).await
    }
}
