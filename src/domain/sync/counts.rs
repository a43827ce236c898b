//! What a run has done, in numbers.

use std::ops::AddAssign;

use serde::{Deserialize, Serialize};

/// What a run has done, or would do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Counts {
    /// Entries that were read.
    pub seen: u64,
    /// Users that are new.
    pub created: u64,
    /// Users that have changed.
    pub updated: u64,
    /// Entries that were as before.
    pub unchanged: u64,
    /// Users that are not usable any more.
    pub disabled: u64,
    /// Users that are usable again.
    pub reactivated: u64,
    /// Users that are gone for good.
    pub purged: u64,
    /// Users that were taken for one of another source.
    pub linked: u64,
    /// Users that have got another id of the source.
    pub rekeyed: u64,
    /// Entries that cannot be used.
    pub failed: u64,
    /// Users for whom it cannot be told whose they are.
    pub conflicts: u64,
    /// Accounts of the system, such as computers.
    pub skipped: u64,
    /// References to other servers that were passed over.
    pub references: u64,
    /// Users who were missing and are waited for.
    pub missing: u64,
    /// Groups that were read.
    pub groups: u64,
    /// Groups that are new, changed or gone.
    pub groups_changed: u64,
    /// Members that groups have got.
    pub memberships_added: u64,
    /// Members that groups have lost.
    pub memberships_lost: u64,
    /// Roles that users have got.
    pub roles_added: u64,
    /// Roles that users have lost.
    pub roles_lost: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, more: Self) {
        // Each field is named, so that a new one cannot be forgotten.
        let Self {
            seen,
            created,
            updated,
            unchanged,
            disabled,
            reactivated,
            purged,
            linked,
            rekeyed,
            failed,
            conflicts,
            skipped,
            references,
            missing,
            groups,
            groups_changed,
            memberships_added,
            memberships_lost,
            roles_added,
            roles_lost,
        } = more;
        self.seen += seen;
        self.created += created;
        self.updated += updated;
        self.unchanged += unchanged;
        self.disabled += disabled;
        self.reactivated += reactivated;
        self.purged += purged;
        self.linked += linked;
        self.rekeyed += rekeyed;
        self.failed += failed;
        self.conflicts += conflicts;
        self.skipped += skipped;
        self.references += references;
        self.missing += missing;
        self.groups += groups;
        self.groups_changed += groups_changed;
        self.memberships_added += memberships_added;
        self.memberships_lost += memberships_lost;
        self.roles_added += roles_added;
        self.roles_lost += roles_lost;
    }
}
