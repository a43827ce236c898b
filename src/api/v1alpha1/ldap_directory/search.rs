//! Where the users and groups of an `LdapDirectory` are, and what their attributes mean.

use std::collections::BTreeMap;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Defaults for filters and attributes, and the meaning of account flags.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Preset {
    /// OpenLDAP with inetOrgPerson entries (RFC 2798) and the ppolicy overlay.
    #[default]
    OpenLdap,
    /// Active Directory, also as Samba.
    ActiveDirectory,
    /// FreeIPA.
    FreeIpa,
    /// 389 Directory Server.
    Ds389,
}

/// How deep a search goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Scope {
    /// The base entry alone.
    Base,
    /// The entries directly below the base.
    One,
    /// The base and all entries below it.
    #[default]
    Sub,
}

/// What references to other servers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Referrals {
    /// They are counted, and the listing is complete without them.
    Ignore,
    /// The listing is not complete: nobody is disabled.
    Incomplete,
}

/// Where users are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserSearch {
    /// DN of the entry below which users are, such as `ou=people,dc=example,dc=org`.
    #[schemars(length(min = 1, max = 1024))]
    pub base: String,
    /// Filter (RFC 4515) that finds a user by the name that was typed, which replaces every `{}`, such as `(|(uid={})(mail={}))`; the
    /// preset has a default. Line breaks between its parts are allowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 2048))]
    pub filter: Option<String>,
    /// Filter that finds all users; defaults to `filter` with `*` in every place. Without an effect on logins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 2048))]
    #[x_kube(validation = Rule::new("!self.contains('{}')").message("listFilter finds all users: it must not contain {}"))]
    pub list_filter: Option<String>,
    /// How deep the search goes.
    #[serde(default)]
    pub scope: Scope,
    /// The attributes of a user.
    #[serde(default)]
    pub attributes: UserAttributes,
    /// The mail addresses are verified by the directory. Do not set it if users can change their own address: others could be linked to
    /// their account.
    #[serde(default)]
    pub trust_email: bool,
}

/// The attributes of a user; each defaults to that of the preset.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct UserAttributes {
    /// The ID, which never changes and is never used again: entryUUID, objectGUID, ipaUniqueID or nsUniqueId. Users are known by it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub uid: Option<String>,
    /// The user name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub username: Option<String>,
    /// The mail address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub email: Option<String>,
    /// The display name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub name: Option<String>,
    /// Other attributes to store: the key is the name in the store, the value is the attribute. Attributes that hold passwords are
    /// refused.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32))]
    pub extra: BTreeMap<String, String>,
}

/// Where groups are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupSearch {
    /// DN of the entry below which groups are.
    #[schemars(length(min = 1, max = 1024))]
    pub base: String,
    /// Filter (RFC 4515) that finds groups. It may contain `{}` in the place of a member, as in `(member={})`: all groups with a member
    /// are read then, and the attribute in front of `{}` is the default of `attributes.members`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 3, max = 2048))]
    pub filter: Option<String>,
    /// How deep the search goes.
    #[serde(default)]
    pub scope: Scope,
    /// The attribute of the name of a group; defaults to that of the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub name_attribute: Option<String>,
    /// The other attributes of a group.
    #[serde(default)]
    pub attributes: GroupAttributes,
}

/// The attributes of a group besides its name.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupAttributes {
    /// The ID, which never changes and is never used again; defaults to that of the preset.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub uid: Option<String>,
    /// The members, such as `member`, `uniqueMember` or `memberUid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128), regex(pattern = "^[A-Za-z0-9][A-Za-z0-9.;-]*$"))]
    pub members: Option<String>,
    /// What a value of `members` is; defaults to Username for `memberUid` (posixGroup), and to Dn otherwise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub member_value: Option<MemberValue>,
}

/// What a value of a group's member attribute is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum MemberValue {
    /// The DN of the member.
    Dn,
    /// The user name of the member; upper and lower case are the same.
    Username,
}
