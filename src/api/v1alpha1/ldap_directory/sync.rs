//! The user sync of an `LdapDirectory`.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::api::shared::BoundedDuration;

const SECOND: u64 = 1000;
const HOUR: u64 = 3600 * SECOND;

/// The user sync. Users are known by the ID that the directory gives them, and are disabled when the directory does not have them any
/// more.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!(has(self.interval) && has(self.schedule))")
    .message("at most one of sync.interval and sync.schedule can be set"))]
pub struct Sync {
    /// What a sync does.
    #[serde(default)]
    pub mode: SyncMode,
    /// Time between the end of a sync and the start of the next one; at least 1s, at most 168h. Defaults to 1h without `schedule`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<BoundedDuration<SECOND, { 168 * HOUR }>>,
    /// When syncs start, as a cron expression in UTC with five fields (minute, hour, day of the month, month, day of the week), such as
    /// `30 2 * * *`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 9, max = 128))]
    pub schedule: Option<String>,
    /// How often everything is read. Syncs in between read only changes, if the server offers a way to find them; at least 1m, at most
    /// 720h.
    #[serde(default = "default_full_interval")]
    pub full_interval: BoundedDuration<{ 60 * SECOND }, { 720 * HOUR }>,
    /// How long a sync may take; at least 10s, at most 24h.
    #[serde(default = "default_timeout")]
    pub timeout: BoundedDuration<{ 10 * SECOND }, { 24 * HOUR }>,
    /// When missing users are not disabled, since more of them are missing than is plausible.
    #[serde(default)]
    pub deletion_guard: DeletionGuard,
    /// Time after which a disabled user who is still missing is deleted, with all attributes: from 1s to 8760h, or `Never`.
    #[serde(default)]
    pub purge_after: PurgeAfter,
    /// When a user is linked to one of another directory as the same person.
    #[serde(default)]
    pub link_policy: LinkPolicy,
    /// Of a user with identities in several directories, the values of the one with the lowest number are used.
    #[serde(default)]
    #[schemars(range(min = 0, max = 1000))]
    pub priority: u32,
    /// A user with identities in several directories is active only while a directory with this setting says so.
    #[serde(default)]
    pub lifecycle_authority: bool,
    /// Which groups give which roles.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub role_mappings: Vec<RoleMapping>,
}

fn default_full_interval() -> BoundedDuration<{ 60 * SECOND }, { 720 * HOUR }> {
    BoundedDuration::from_secs(24 * 3600)
}
fn default_timeout() -> BoundedDuration<{ 10 * SECOND }, { 24 * HOUR }> {
    BoundedDuration::from_secs(3600)
}

/// What a sync does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SyncMode {
    /// Writes changes to the store.
    #[default]
    Apply,
    /// Shows in `status.plan` what would change. The annotation authlink.dev/approve-deletions with the hash of the plan applies it.
    Plan,
    /// There are no syncs.
    Off,
}

/// When missing users are not disabled. A user is missing when a complete listing does not have it, or the server reports that it is gone.
/// The limits also apply to memberships of groups, to roles, and to users whose account was disabled in the directory. They count what was
/// lost in the last 24 hours. More than half of the users, or all, are never disabled without an approval.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DeletionGuard {
    /// So many may always be lost. After a change of the spec that affects the search, no more than so many.
    #[serde(default = "default_min_count")]
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_count: u32,
    /// So many percent of the active users may be lost.
    #[serde(default = "default_percent")]
    #[schemars(range(min = 0, max = 100))]
    pub percent: u32,
    /// No more than so many may be lost.
    #[serde(default = "default_absolute")]
    #[schemars(range(min = 0, max = 10_000_000))]
    pub absolute: u32,
    /// A user is disabled when missing for so many minutes, in at least two syncs.
    #[serde(default = "default_grace")]
    #[schemars(range(min = 0, max = 43200))]
    pub grace_minutes: u32,
}

const fn default_min_count() -> u32 {
    10
}
const fn default_percent() -> u32 {
    10
}
const fn default_absolute() -> u32 {
    500
}
const fn default_grace() -> u32 {
    60
}

impl Default for DeletionGuard {
    fn default() -> Self {
        Self {
            min_count: default_min_count(),
            percent: default_percent(),
            absolute: default_absolute(),
            grace_minutes: default_grace(),
        }
    }
}

/// A time, or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum PurgeAfter {
    /// Never.
    Never(Never),
    /// After this time.
    After(BoundedDuration<SECOND, { 8760 * HOUR }>),
}

/// The word `Never`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Never {
    /// The word.
    Never,
}

impl Default for PurgeAfter {
    fn default() -> Self {
        Self::After(BoundedDuration::from_secs(720 * 3600))
    }
}

impl JsonSchema for PurgeAfter {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "PurgeAfter".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        type Time = BoundedDuration<SECOND, { 8760 * HOUR }>;
        json_schema!({
            "type": "string", "minLength": 2, "maxLength": 16,
            "x-kubernetes-validations": [{
                "rule": format!("self == 'Never' || ({})", Time::rule()),
                "message": format!("{}, or Never", Time::message()),
            }],
        })
    }
}

/// When a user is linked to one of another directory as the same person: never by the user name, which anybody may have elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("(self.mode == 'VerifiedEmail') == (size(self.domains) > 0)")
    .message("linkPolicy.domains must be set for linkPolicy.mode VerifiedEmail, and only for it"))]
#[x_kube(validation = Rule::new("(self.mode == 'Attribute') == has(self.attribute)")
    .message("linkPolicy.attribute must be set for linkPolicy.mode Attribute, and only for it"))]
#[x_kube(validation = Rule::new("(self.mode == 'Explicit') == has(self.configMapRef)")
    .message("linkPolicy.configMapRef must be set for linkPolicy.mode Explicit, and only for it"))]
pub struct LinkPolicy {
    /// What two users have in common.
    #[serde(default)]
    pub mode: LinkMode,
    /// The mail domains for which this directory is authoritative, such as `example.org`.
    #[serde(default)]
    #[schemars(length(max = 64), inner(length(min = 1, max = 253)))]
    pub domains: Vec<String>,
    /// A key of `userSearch.attributes.extra`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub attribute: Option<String>,
    /// A ConfigMap: each key is the ID of a user in this directory, each value the same text for the same person in all directories.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map_ref: Option<ConfigMapRef>,
}

/// A ConfigMap in the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ConfigMapRef {
    /// Name of the ConfigMap.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
}

/// What two users have in common who are linked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LinkMode {
    /// Users are not linked.
    #[default]
    Never,
    /// The mail address, verified by both directories (`userSearch.trustEmail`), in a domain for which both are authoritative.
    VerifiedEmail,
    /// The value of an attribute, such as the employee number.
    Attribute,
    /// They are listed in a ConfigMap.
    Explicit,
}

/// The members of a group have a role.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RoleMapping {
    /// The group, or groups.
    pub group: GroupMatch,
    /// The role.
    #[schemars(length(min = 1, max = 128))]
    pub role: String,
    /// Members of groups in the group have the role too, to a depth of 10.
    #[serde(default = "yes")]
    pub nested: bool,
}

const fn yes() -> bool {
    true
}

/// The group, or groups.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.dn), has(self.name), has(self.regex)].filter(x, x).size() == 1")
    .message("set exactly one of group.dn, group.name and group.regex"))]
pub struct GroupMatch {
    /// The DN of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub dn: Option<String>,
    /// The name of the group; upper and lower case are the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub name: Option<String>,
    /// A regular expression that matches the whole name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub regex: Option<String>,
}
