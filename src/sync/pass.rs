//! A pass over a source: what comes is written, and what was seen is kept.

use std::{collections::HashMap, sync::Arc};

use futures::FutureExt;
use tokio::{sync::mpsc, time::Instant};

use super::{
    Control, Phase, Progress, SyncError, SyncSettings,
    seen::Seen,
    source::{Batch, Coverage, Ending, ReadError, Source, Start, UserBatch},
    write::{self, retried, retried_read},
};
use crate::{
    api::Reason,
    backends::Fault,
    domain::sync::{
        counts::Counts,
        dn,
        guard::Stop,
        key::Key,
        plan::{Op, Plan, Planner},
        record::{Rejected, Unusable},
    },
    store::{
        Store,
        users::{Begun, Held, Incoming, MergeOptions, Run, Table, Told, Users},
    },
};

/// Batches that wait for the store: so that reading goes on while it writes, and memory stays bounded.
const WAITING: usize = 2;

#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub(super) struct Pass<'a, S> {
    pub(super) store: &'a Store,
    pub(super) source: &'a Arc<S>,
    pub(super) settings: &'a SyncSettings,
    pub(super) control: &'a Control,
    pub(super) begun: Begun,
    deadline: Instant,
    pub(super) counts: Counts,
    pub(super) seen: Seen,
    pub(super) seen_groups: Seen,
    /// Nothing is written.
    pub(super) dry: bool,
    /// What would be done.
    planner: Planner,
    /// New users who have the names of known ones, and whose.
    namesakes: Vec<(Incoming, String)>,
    /// There are too many of them.
    pub(super) stopped: Option<Stop>,
    /// They are known ones with new ids.
    rekey: bool,
    /// Somebody has approved what the guard would hold.
    pub(super) approved: bool,
    /// An entry could not be told from one that is missing.
    pub(super) uncertain: bool,
    pub(super) flags_seen: bool,
    pub(super) groups_touched: bool,
    /// Roles may have been lost.
    pub(super) roles_changed: bool,
    /// Most of a batch is as it was.
    quiet: bool,
}

/// How reading ended.
pub(super) enum Read {
    Ended(Ending),
    FullNeeded(String),
    Failed(Fault),
}

impl<'a, S: Source> Pass<'a, S> {
    pub(super) fn new(
        store: &'a Store,
        source: &'a Arc<S>,
        settings: &'a SyncSettings,
        control: &'a Control,
        begun: Begun,
    ) -> Self {
        Self {
            store,
            source,
            settings,
            control,
            quiet: begun.active > 0,
            begun,
            deadline: Instant::now() + settings.deadline,
            counts: Counts::default(),
            seen: Seen::new(),
            seen_groups: Seen::new(),
            dry: false,
            planner: Planner::default(),
            namesakes: Vec::new(),
            stopped: None,
            rekey: false,
            approved: false,
            uncertain: false,
            flags_seen: false,
            groups_touched: false,
            roles_changed: false,
        }
    }

    pub(super) fn users(&self) -> Users<'a> {
        self.store.users()
    }

    pub(super) fn run_id(&self) -> &Run {
        &self.begun.run
    }

    pub(super) fn counts(&self) -> Counts {
        self.counts
    }

    /// Whether what is read has changed with the spec since the guard last let a run through.
    pub(super) fn is_strict(&self) -> bool {
        self.begun.config.as_deref().is_some_and(|config| config != self.settings.source.config)
    }

    /// Goes on with what a run that was broken off has seen.
    pub(super) fn resume(&mut self) {
        let seen = self.begun.resume.take().map(|resume| resume.seen).unwrap_or_default();
        for key in seen {
            self.seen.insert(key);
        }
    }

    /// Forgets what was read, and reads again.
    pub(super) fn restart(&mut self, dry: bool) {
        self.counts = Counts::default();
        (self.seen, self.seen_groups) = (Seen::new(), Seen::new());
        self.planner = Planner::default();
        self.namesakes.clear();
        (self.dry, self.stopped, self.uncertain) = (dry, None, false);
    }

    /// Does what was planned, or held before the first row.
    pub(super) fn approve(&mut self) {
        self.rekey = self.stopped.is_some();
        self.approved = true;
        self.restart(false);
    }

    /// The plan, where there is only a plan.
    pub(super) fn finish_plan(&mut self) -> Option<Plan> {
        if !self.dry {
            return None;
        }
        let mut planner = std::mem::take(&mut self.planner);
        if self.stopped.is_some() {
            planner.salt(self.held_since());
        }
        Some(planner.finish())
    }

    /// Since when something is held back.
    pub(super) fn held_since(&self) -> i64 {
        self.begun.held.as_ref().map_or(self.begun.run.started(), |held: &Held| held.since)
    }

    /// Reads the source, and takes what it gives.
    pub(super) async fn read(&mut self, start: Start) -> Result<Read, SyncError> {
        let (sender, mut batches) = mpsc::channel(WAITING);
        let (source, full) = (Arc::clone(self.source), matches!(start, Start::Full { .. }));
        let task = tokio::spawn(async move { source.read(start, sender).await });
        // Whoever reads ends with us.
        let _ending = AbortOnDrop(task.abort_handle());
        loop {
            let batch = tokio::select! {
                batch = batches.recv() => batch,
                () = self.control.cancel.cancelled() => return Err(SyncError::Cancelled),
                () = tokio::time::sleep_until(self.deadline) => {
                    return Ok(Read::Failed(Fault::new(Reason::Timeout, "the sync takes longer than it may")));
                }
            };
            let Some(batch) = batch else { break };
            self.take(batch, full).await?;
            self.tell(Phase::Reading);
        }
        let ended = match task.map(|joined| joined.map_err(|_| ())).await {
            Ok(Ok(ending)) => Read::Ended(ending),
            Ok(Err(ReadError::FullNeeded(why))) => Read::FullNeeded(why),
            Ok(Err(ReadError::Fault(fault))) => Read::Failed(fault),
            Ok(Err(ReadError::Stopped)) | Err(()) => {
                Read::Failed(Fault::new(Reason::ProtocolError, "reading the source broke off"))
            }
        };
        if let Read::Ended(Ending { users: Coverage::Everything | Coverage::Changes, .. }) = &ended {
            self.release().await?;
        }
        Ok(ended)
    }

    pub(super) fn tell(&self, phase: Phase) {
        (self.control.progress)(Progress { phase, counts: self.counts });
    }

    /// Whether this process may still write.
    pub(super) fn may_write(&self) -> Result<(), SyncError> {
        if (self.control.may_write)() { Ok(()) } else { Err(SyncError::Fenced) }
    }

    pub(super) async fn take(&mut self, batch: Batch, full: bool) -> Result<(), SyncError> {
        self.may_write()?;
        match batch {
            Batch::Users(batch) => self.take_users(batch, full).await,
            Batch::Groups { records, rejected } => {
                for id in records
                    .iter()
                    .map(|group| &group.external_id)
                    .chain(rejected.iter().filter_map(|it| it.external_id.as_ref()))
                {
                    self.seen_groups.insert(Key::id(id));
                }
                self.reject(rejected, false).await?;
                let merged = write::merge_groups(self.users(), &self.begun.run, &records, self.dry).await?;
                self.counts += merged.counts;
                self.groups_touched |= merged.touched;
                self.plan(merged.steps);
                Ok(())
            }
            Batch::Present(table, ids) => {
                let seen = if table == Table::Users { &mut self.seen } else { &mut self.seen_groups };
                for id in &ids {
                    seen.insert(Key::id(id));
                }
                Ok(())
            }
            Batch::Gone(table, ids) => {
                if self.dry {
                    return Ok(());
                }
                let struck = retried!(self.users().strike(self.run_id(), table, &ids, Told::ByCursor))?;
                if table == Table::Users {
                    self.counts.missing += struck;
                }
                Ok(())
            }
        }
    }

    async fn take_users(&mut self, batch: UserBatch, full: bool) -> Result<(), SyncError> {
        let UserBatch { records, mut rejected, skipped, token } = batch;
        self.counts.skipped += skipped;
        let records = self.note(records, &mut rejected, full);
        self.flags_seen |= records.iter().any(|incoming| incoming.record.enabled.is_some());
        let newly_seen: Vec<_> = match &token {
            Some(_) => records.iter().map(|incoming| Key::id(&incoming.record.external_id)).collect(),
            None => Vec::new(),
        };
        let options = MergeOptions {
            dry: self.dry,
            hold: self.begun.active > 0 && !self.rekey,
            rekey: self.rekey,
            quiet: self.quiet,
            mark: token.as_deref().filter(|_| !self.dry).map(|token| (token, newly_seen.as_slice())),
        };
        let merge = write::merge(self.users(), &self.begun.run, &records, options).await?;
        self.quiet = merge.counts.unchanged * 2 > merge.counts.seen;
        self.counts += merge.counts;
        self.plan(merge.steps);
        self.counts.failed -= merge.rejected.len() as u64;
        rejected.extend(merge.rejected);
        self.reject(rejected, full).await?;
        if merge.held.is_empty() {
            return Ok(());
        }
        let mut records: Vec<_> = records.into_iter().map(Some).collect();
        for (index, old) in merge.held {
            let Some(incoming) = records.get_mut(index).and_then(Option::take) else { continue };
            if self.dry && self.stopped.is_some() {
                self.planner.add(Op::Rekey, &old, &incoming.record.external_id);
            } else {
                self.namesakes.push((incoming, old));
            }
        }
        self.stop_if_too_many();
        Ok(())
    }

    /// Notes who was seen. Of two entries with one id in a batch the first one counts, or the last one if it is the same entry.
    fn note(&mut self, records: Vec<Incoming>, rejected: &mut Vec<Rejected>, full: bool) -> Vec<Incoming> {
        let mut unique: Vec<Incoming> = Vec::with_capacity(records.len());
        let mut places: HashMap<Key, usize> = HashMap::with_capacity(records.len());
        for mut incoming in records {
            let key = Key::id(&incoming.record.external_id);
            incoming.again = !self.seen.insert(key) && full;
            match places.get(&key) {
                None => {
                    places.insert(key, unique.len());
                    unique.push(incoming);
                }
                Some(place)
                    if dn::key(&unique[*place].record.dn) == dn::key(&incoming.record.dn) || !full =>
                {
                    incoming.again = unique[*place].again;
                    unique[*place] = incoming;
                }
                Some(_) => rejected.push(Rejected {
                    external_id: Some(incoming.record.external_id),
                    dn: incoming.record.dn,
                    reason: Unusable::DuplicateId,
                }),
            }
        }
        unique
    }

    /// Known users come under new ids: nothing more is written when they are too many to be leavers and joiners.
    fn stop_if_too_many(&mut self) {
        let allowed = self.settings.limits.allowed(self.begun.active, self.is_strict());
        if self.stopped.is_some() || (self.namesakes.len() as u64) <= allowed {
            return;
        }
        self.stopped = Some(Stop::IdentifiersChanged { allowed });
        // What was planned of other users is no part of what is to be approved.
        self.planner = Planner::default();
        self.dry = true;
        for (incoming, old) in self.namesakes.drain(..) {
            self.planner.add(Op::Rekey, &old, &incoming.record.external_id);
        }
    }

    /// Writes those who were held after all: they are few.
    async fn release(&mut self) -> Result<(), SyncError> {
        let held: Vec<_> = self.namesakes.drain(..).map(|(incoming, _)| incoming).collect();
        if held.is_empty() {
            return Ok(());
        }
        let options = MergeOptions { dry: self.dry, ..MergeOptions::default() };
        let merge = write::merge(self.users(), &self.begun.run, &held, options).await?;
        // They were counted as seen when they came.
        self.counts += Counts { seen: 0, ..merge.counts };
        self.plan(merge.steps);
        Ok(())
    }

    fn plan(&mut self, steps: Vec<(Op, String, String)>) {
        if self.dry && self.stopped.is_none() {
            for (op, subject, detail) in steps {
                self.planner.add(op, &subject, &detail);
            }
        }
    }

    /// Plans what is lost of who is missing.
    pub(super) fn plan_loss(&mut self, table: Table, subject: &str) {
        match table {
            Table::Users => self.planner.add(Op::Disable, subject, "missing"),
            Table::Groups => self.planner.add(Op::DeleteGroup, subject, "missing"),
        }
    }

    /// Keeps entries apart that cannot be used. Who is known is not missing for that.
    async fn reject(&mut self, rejected: Vec<Rejected>, users: bool) -> Result<(), SyncError> {
        if rejected.is_empty() {
            return Ok(());
        }
        self.counts.failed += rejected.len() as u64;
        if users {
            let nameless: Vec<_> =
                rejected.iter().filter(|it| it.external_id.is_none()).map(|it| dn::key(&it.dn)).collect();
            let known = if nameless.is_empty() {
                HashMap::new()
            } else {
                retried_read!(self.users().by_dn(self.run_id(), &nameless))?
            };
            for id in rejected.iter().filter_map(|it| it.external_id.as_ref()).chain(known.values().flatten())
            {
                self.seen.insert(Key::id(id));
            }
            self.uncertain |= nameless.iter().any(|key| known.get(key).is_none_or(|ids| ids.len() != 1));
        }
        if self.dry {
            return Ok(());
        }
        retried!(self.users().quarantine(self.run_id(), &rejected))
    }
}

struct AbortOnDrop(tokio::task::AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}
