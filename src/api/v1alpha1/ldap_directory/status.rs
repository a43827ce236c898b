//! The status of an `LdapDirectory`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::status::{CommonStatus, Status};

/// The observed state of an LdapDirectory. It has no DNs and no names of users but the result of the test search.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LdapDirectoryStatus {
    /// Fields that every kind has.
    #[serde(flatten)]
    pub common: CommonStatus,
    /// When certificates expire; only with TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<TlsStatus>,
    /// What the server says of itself, such as `389 Project`; unset if it says nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vendor: Option<String>,
    /// The result of the search for `test.username`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub test: Option<TestStatus>,
    /// The user sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sync: Option<SyncStatus>,
    /// What waits for an approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plan: Option<PlanStatus>,
}

/// When certificates expire.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TlsStatus {
    /// When the server certificate expires; with several servers, the earliest time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub not_after: Option<Time>,
    /// When the client certificate of `tls.clientCertRef` expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_not_after: Option<Time>,
}

/// The result of the search for `test.username`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct TestStatus {
    /// Number of entries found: 0, 1, or 2 for several.
    pub matched: u32,
    /// What the entry maps to: of each value the first letters and the length, such as `us... (10)`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sample: BTreeMap<String, String>,
    /// Names of the groups that have the user as a direct member, at most 20.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// Whether the account may log in.
    #[serde(default)]
    pub enabled: bool,
}

/// The user sync.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncStatus {
    /// How changes are found: Syncrepl, DirSync, `USNChanged`, `ModifyTimestamp` or Full.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method: String,
    /// Why changes are not found in a better way.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub method_reason: String,
    /// Users in the store.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub known: Option<UserCounts>,
    /// The sync in progress. Updated at most every 15 s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub running: Option<RunningSync>,
    /// The last sync that ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<LastRun>,
    /// Start of the last complete sync that read everything.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_full_sync_time: Option<Time>,
    /// When the next sync starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_run: Option<Time>,
    /// Entries that cannot be used, at most 10.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<SyncFailure>,
    /// The annotation authlink.dev/sync-now that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_sync_now: Option<String>,
    /// The annotation authlink.dev/approve-deletions that was handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handled_approval: Option<String>,
}

/// Users of a directory in the store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserCounts {
    /// Those who can log in.
    pub active: u64,
    /// Those who cannot.
    pub disabled: u64,
    /// Those of the active ones who are missing in the directory, and may be disabled by the next syncs.
    pub missing: u64,
    /// Groups.
    pub groups: u64,
}

/// A sync in progress.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RunningSync {
    /// When it started.
    pub started: Time,
    /// `Reading`, or `Settling` when missing users are looked at.
    pub phase: String,
    /// Entries that were read.
    pub seen: u64,
}

/// A sync that ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct LastRun {
    /// ID of the sync in the store.
    #[serde(default)]
    pub id: String,
    /// When it started.
    pub started: Time,
    /// When it ended.
    pub ended: Time,
    /// Duration in milliseconds.
    pub duration_ms: u64,
    /// `Full` or `Incremental`.
    pub mode: String,
    /// `Succeeded`, `PartialFailure`, `NobodyFound`, `Incomplete`, `Held`, `Planned` or `Failed`.
    pub outcome: String,
    /// Entries that were read.
    pub seen: u64,
    /// Users that were created.
    pub created: u64,
    /// Users that were changed.
    pub updated: u64,
    /// Entries without a change.
    pub unchanged: u64,
    /// Users that were disabled.
    pub disabled: u64,
    /// Users that were enabled again.
    pub reactivated: u64,
    /// Entries that cannot be used.
    pub failed: u64,
    /// Users whose link to another directory is ambiguous.
    pub conflicts: u64,
    /// Computers and other accounts that are not persons.
    pub skipped: u64,
    /// Groups that were read.
    pub groups: u64,
    /// References to other servers, which were not followed.
    #[serde(default)]
    pub references: u64,
    /// Members of groups that are no known user.
    #[serde(default)]
    pub unresolved_members: u64,
    /// Why it is not complete or failed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SyncFailure {
    /// ID of the entry, or a hash of its DN if it has none.
    pub subject: String,
    /// Why it cannot be used.
    pub reason: String,
}

/// A plan.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStatus {
    /// Hash of all steps of the plan. As the value of the annotation authlink.dev/approve-deletions it approves this plan, once.
    pub hash: String,
    /// Number of steps by kind: create, update, disable, reactivate, rekey, createGroup, updateGroup, deleteGroup, loseMembership,
    /// loseRole.
    pub summary: BTreeMap<String, u64>,
    /// At most 10 steps.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub samples: Vec<PlanStep>,
    /// What exceeds the limits of the deletion guard; empty for the plan of `sync.mode` Plan.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held: Vec<HeldLosses>,
    /// Since when it is held.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Time>,
}

/// A step of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PlanStep {
    /// What is done.
    pub op: String,
    /// ID of the user or group in the directory.
    pub subject: String,
}

/// Losses that exceed a limit of the deletion guard.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct HeldLosses {
    /// `users`, `memberships`, `roles` or `identifiers`.
    pub class: String,
    /// `NobodySeen`, `MoreThanHalf`, `AboveLimit`, `ConfigChanged` or `IdentifiersChanged`.
    pub reason: String,
}

impl Status for LdapDirectoryStatus {
    fn common(&self) -> &CommonStatus {
        &self.common
    }

    fn common_mut(&mut self) -> &mut CommonStatus {
        &mut self.common
    }

    /// What is known of syncs stays: it was read from the store, and a directory that is away changes nothing of it.
    fn forget_observations(&mut self) {
        self.common.forget_observations();
        self.tls = None;
        self.vendor = None;
        self.test = None;
    }

    fn forget_numbers(&mut self) {
        self.common.forget_numbers();
    }
}
