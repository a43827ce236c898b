//! The end of a run: who is missing, whether that may be believed, and what is taken away.

use super::{
    Outcome, Phase, Report, SyncError,
    pass::{Pass, Read},
    source::{Batch, Coverage, Ending, Source},
    write::{retried, retried_read},
};
use crate::{
    backends::Fault,
    domain::sync::{
        counts::Counts,
        guard::{Class, Losses, Stop},
        key::Key,
        plan::{Plan, Planner},
    },
    store::users::{Finish, Held, RoleGroups, Subject, Table, Told},
};

/// How many ids are looked at together.
const SCAN: i64 = 5000;
const LOOK: i64 = 1000;
const PLAN: i64 = 5000;

/// What the guard says.
#[derive(Default)]
struct Judgement {
    /// How much of each class would be lost.
    candidates: [u64; Class::ALL.len()],
    held: Option<Held>,
}

impl<S: Source> Pass<'_, S> {
    pub(super) async fn settle(
        &mut self,
        full: bool,
        read: Read,
        planned: Option<Plan>,
    ) -> Result<Report, SyncError> {
        self.tell(Phase::Settling);
        let (ending, fault) = match read {
            Read::Ended(ending) => {
                let fault =
                    [Some(&ending.users), ending.groups.as_ref()].into_iter().flatten().find_map(partial);
                (Some(ending), fault)
            }
            Read::FullNeeded(why) => (None, Some(Fault::new(crate::api::Reason::ProtocolError, why))),
            Read::Failed(fault) => (None, Some(fault)),
        };
        self.counts.references = ending.as_ref().map_or(0, |ending| ending.references);
        let mut report = Report {
            run: self.run_id().id.clone(),
            outcome: Outcome::Incomplete,
            counts: Counts::default(),
            full,
            method: ending.as_ref().map_or(("", String::new()), |ending| ending.method.clone()),
            incomplete: fault,
            held: self.begun.held.clone(),
            plan: None,
            flags_missing: self.source.has_flags() && !self.flags_seen && self.counts.seen > 0,
            unresolved: None,
            role_groups: RoleGroups::default(),
        };
        let mut finish = Finish::default();
        if let Some(ending) = ending {
            if let Some(plan) = planned {
                self.settle_plan(&ending, plan, &mut report, &mut finish);
            } else {
                self.settle_changes(full, &ending, &mut report, &mut finish).await?;
            }
        }
        report.counts = self.counts;
        finish.outcome = report.outcome.as_str();
        finish.counts = self.counts;
        let config = &self.settings.source.config;
        retried!(self.users().finish(self.run_id(), config, &finish))?;
        Ok(report)
    }

    /// There is only a plan: of a run that is to plan, or since known users come under new ids.
    fn settle_plan(&mut self, ending: &Ending, plan: Plan, report: &mut Report, finish: &mut Finish) {
        if report.incomplete.is_some() || ending.users != Coverage::Everything && self.stopped.is_none() {
            return;
        }
        if let Some(stop) = self.stopped {
            let stops = vec![("identifiers".to_owned(), stop.as_str().to_owned())];
            let held = Held { since: self.held_since(), stops, plan };
            (report.outcome, report.held) = (Outcome::Held, Some(held));
            finish.held = Some(report.held.clone());
            return;
        }
        (report.outcome, report.plan) = (Outcome::Planned, Some(plan));
    }

    async fn settle_changes(
        &mut self,
        full: bool,
        ending: &Ending,
        report: &mut Report,
        finish: &mut Finish,
    ) -> Result<(), SyncError> {
        if !self.uncertain {
            self.strike_missing(Table::Users, &ending.users).await?;
        }
        if let Some(coverage) = &ending.groups {
            self.strike_missing(Table::Groups, coverage).await?;
        }
        self.give_roles(report).await?;
        let complete = report.incomplete.is_none();
        if complete {
            finish.cursor.clone_from(&ending.cursor);
            finish.forget_cursor = full;
            finish.full = full;
        }
        if !complete {
            return Ok(());
        }
        let mut judgement = self.judge(full).await?;
        if self.is_approved(&judgement) && self.take_away(full, &judgement).await? {
            // Groups went with all that was in them: what that means for roles is judged by itself.
            self.groups_touched = true;
            self.give_roles(report).await?;
            judgement = self.judge(full).await?;
            if self.is_approved(&judgement) {
                self.take_away(full, &judgement).await?;
            }
        }
        if self.is_approved(&judgement) {
            finish.accepted = true;
            finish.held = Some(None);
            report.held = None;
            report.outcome = if self.seen.len() == 0 && full && self.begun.active == 0 {
                Outcome::NobodyFound
            } else if self.counts.failed > 0 || self.uncertain {
                Outcome::PartialFailure
            } else {
                Outcome::Succeeded
            };
        } else {
            report.held = judgement.held;
            finish.held = Some(report.held.clone());
            report.outcome = Outcome::Held;
        }
        if full && self.counts.failed < self.counts.seen {
            retried!(self.users().sweep(self.run_id()))?;
        }
        Ok(())
    }

    /// Notes who of all known was not seen.
    pub(super) async fn strike_missing(
        &mut self,
        table: Table,
        coverage: &Coverage,
    ) -> Result<(), SyncError> {
        if *coverage != Coverage::Everything {
            return Ok(());
        }
        let mut after = String::new();
        loop {
            self.may_write()?;
            let known = retried_read!(self.users().scan(self.run_id(), table, &after, SCAN))?;
            let Some(last) = known.last() else { return Ok(()) };
            after.clone_from(last);
            let seen = if table == Table::Users { &self.seen } else { &self.seen_groups };
            let missing: Vec<_> = known.into_iter().filter(|id| !seen.contains(Key::id(id))).collect();
            if missing.is_empty() {
                continue;
            }
            if self.dry {
                for id in &missing {
                    self.plan_loss(table, id);
                }
                match table {
                    Table::Users => self.counts.disabled += missing.len() as u64,
                    Table::Groups => self.counts.groups_changed += missing.len() as u64,
                }
                continue;
            }
            let struck = retried!(self.users().strike(self.run_id(), table, &missing, Told::ByLook))?;
            if table == Table::Users {
                self.counts.missing += struck;
            }
        }
    }

    async fn give_roles(&mut self, report: &mut Report) -> Result<(), SyncError> {
        let Counts { created, updated, reactivated, .. } = self.counts;
        let changed = self.groups_touched || created + updated + reactivated > 0;
        let accepted = self.begun.config.as_deref() == Some(self.settings.source.config.as_str());
        if !changed && accepted && self.begun.held.is_none() {
            return Ok(());
        }
        self.roles_changed = true;
        report.role_groups = retried!(self.users().map_roles(self.run_id(), &self.settings.roles))?;
        loop {
            self.may_write()?;
            let added = retried!(self.users().add_roles(self.run_id()))?;
            self.counts.roles_added += added;
            if added == 0 {
                break;
            }
        }
        if self.counts.groups > 0 {
            report.unresolved = Some(retried_read!(self.users().unresolved(self.run_id()))?);
        }
        Ok(())
    }

    /// Whether what would be lost is believed, or somebody has approved it.
    fn is_approved(&self, judgement: &Judgement) -> bool {
        let approves = |held: &Held| self.settings.approval.as_deref() == Some(held.plan.hash.as_str());
        self.approved || judgement.held.as_ref().is_none_or(approves)
    }

    /// Asks the guard, and has it make its plan where it stops.
    async fn judge(&mut self, full: bool) -> Result<Judgement, SyncError> {
        let (mut stops, mut judgement) = (Vec::new(), Judgement::default());
        let strict = self.is_strict();
        for class in Class::ALL {
            if class == Class::Roles && !self.roles_changed {
                continue;
            }
            let losses: Losses = retried_read!(self.users().losses(self.run_id(), class))?;
            judgement.candidates[class as usize] = losses.candidates;
            let nobody = class == Class::Users && full && self.seen.len() == 0 && losses.candidates > 0;
            let stop = if nobody {
                Some(Stop::NobodySeen)
            } else {
                self.settings.limits.check(class, losses, strict)
            };
            stops.extend(stop.map(|stop| (class, stop)));
        }
        if stops.is_empty() {
            return Ok(judgement);
        }
        let mut planner = Planner::default();
        for class in Class::ALL {
            let mut after = None;
            loop {
                let users = self.users();
                let some = retried_read!(users.candidates(self.run_id(), class, after.as_ref(), PLAN))?;
                for it in &some {
                    planner.add(it.op, &it.subject, &it.detail);
                }
                match some.into_iter().last() {
                    Some(last) => after = Some(last),
                    None => break,
                }
            }
        }
        let since = self.held_since();
        planner.salt(since);
        let names =
            stops.iter().map(|(class, stop)| (class.as_str().to_owned(), stop.as_str().to_owned())).collect();
        judgement.held = Some(Held { since, stops: names, plan: planner.finish() });
        Ok(judgement)
    }

    /// Takes away what may be; whether groups were deleted. What was approved is taken away at once; everybody else gets the time that
    /// they have.
    async fn take_away(&mut self, full: bool, judgement: &Judgement) -> Result<bool, SyncError> {
        let now = self.run_id().now();
        let approved = self.approved || judgement.held.is_some();
        let since = if approved { now } else { self.settings.patience.due_since(now) };
        let [users, memberships, roles] = judgement.candidates;
        if !full {
            if users > 0 {
                self.look(Table::Users, since).await?;
            }
            self.look(Table::Groups, since).await?;
        }
        // The listing was the look, where everything was read.
        let looks = if approved && full { 1 } else { 2 };
        let mut left = users > 0;
        while left {
            self.may_write()?;
            let users = self.users();
            let (counts, done) = retried!(users.disable(self.run_id(), since, looks))?;
            self.counts += counts;
            left = done > 0;
        }
        let (mut deleted, mut left) = (false, true);
        while left {
            self.may_write()?;
            let users = self.users();
            let (groups, members) = retried!(users.delete_groups(self.run_id(), since, looks))?;
            self.counts.groups_changed += groups;
            self.counts.memberships_lost += members;
            left = groups > 0;
            deleted |= left;
        }
        if memberships > 0 {
            self.counts.memberships_lost += retried!(self.users().drop_lost_members(self.run_id()))?;
        }
        if roles > 0 {
            let lost = retried!(self.users().drop_roles(self.run_id()))?;
            self.counts += lost;
        }
        let (before, mut left) = (self.settings.patience.purge_since(now), true);
        while let (Some(before), true) = (before, left) {
            self.may_write()?;
            let purged = retried!(self.users().purge(self.run_id(), before))?;
            self.counts.purged += purged;
            left = purged > 0;
        }
        Ok(deleted)
    }

    /// Looks for those once more of whom a cursor has told that they are gone.
    async fn look(&mut self, table: Table, since: i64) -> Result<(), SyncError> {
        let mut after = String::new();
        loop {
            let subjects =
                retried_read!(self.users().to_look_for(self.run_id(), table, since, &after, LOOK))?;
            let Some(last) = subjects.last() else { return Ok(()) };
            after.clone_from(&last.external_id);
            // Who cannot be looked for now is looked for the next time.
            let Ok(found) = self.source.find(table, &subjects).await else { return Ok(()) };
            let there: Vec<_> = ids(&found);
            self.take(found, false).await?;
            let gone: Vec<_> = subjects
                .into_iter()
                .map(|Subject { external_id, .. }| external_id)
                .filter(|id| !there.contains(&Key::id(id)))
                .collect();
            if !gone.is_empty() {
                retried!(self.users().strike(self.run_id(), table, &gone, Told::ByLook))?;
            }
        }
    }
}

fn partial(coverage: &Coverage) -> Option<Fault> {
    match coverage {
        Coverage::Partial(fault) => Some(fault.clone()),
        Coverage::Everything | Coverage::Changes => None,
    }
}

fn ids(batch: &Batch) -> Vec<Key> {
    match batch {
        Batch::Users(users) => {
            let rejected = users.rejected.iter().filter_map(|it| it.external_id.as_deref());
            users
                .records
                .iter()
                .map(|it| it.record.external_id.as_str())
                .chain(rejected)
                .map(Key::id)
                .collect()
        }
        Batch::Groups { records, rejected } => {
            let rejected = rejected.iter().filter_map(|it| it.external_id.as_deref());
            records.iter().map(|it| it.external_id.as_str()).chain(rejected).map(Key::id).collect()
        }
        Batch::Present(_, ids) | Batch::Gone(_, ids) => ids.iter().map(|id| Key::id(id)).collect(),
    }
}
