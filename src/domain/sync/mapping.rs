//! From entries to records: which attribute means what, for each make of directory, and what cannot be used.

use std::collections::BTreeMap;

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    account, dn,
    entry::{Attribute, Entry},
    ids::{self, IdSyntax},
    key::Key,
    linking::LinkPolicy,
    preset::Preset,
    record::{GroupRecord, Rejected, Unusable, UserRecord},
};

/// Bounds of what is kept of one entry, in bytes and in values of one attribute.
const LARGEST_RECORD: usize = 64 * 1024;
const LARGEST_NAME: usize = 255;
const MOST_VALUES: usize = 1000;

/// What the attributes of users mean.
#[derive(Clone, Debug, PartialEq)]
pub struct UserMapping {
    /// The make of directory.
    pub preset: Preset,
    /// The attribute that holds what never changes.
    pub id: String,
    /// The attribute of the user name.
    pub username: String,
    /// The attribute of the mail address.
    pub email: Option<String>,
    /// The attribute of the name that people read.
    pub name: Option<String>,
    /// What else is kept: the name under which it is, and its attribute.
    pub extra: BTreeMap<String, String>,
    /// Whether the directory vouches for the mail addresses: not where users may change their own.
    pub trust_email: bool,
    /// When a user is taken for one of another source.
    pub link: LinkPolicy,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq)]
pub enum Mapped {
    /// A user.
    User(Box<UserRecord>),
    /// An account of the system.
    NoPerson,
}

/// How groups name their members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum MemberValue {
    /// By the name of the entry (`member`, `uniqueMember`).
    #[default]
    Dn,
    /// By the user name (`memberUid`).
    Username,
}

/// What the attributes of groups mean.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupMapping {
    /// The make of directory.
    pub preset: Preset,
    /// The attribute that holds what never changes.
    pub id: String,
    /// The attribute of the group's name.
    pub name: String,
    /// The attribute of the members.
    pub members: String,
    /// What it holds.
    pub member_value: MemberValue,
}

impl UserMapping {
    /// What the preset says.
    #[must_use]
    pub fn new(preset: Preset) -> Self {
        let defaults = preset.defaults();
        Self {
            preset,
            id: defaults.id.to_owned(),
            username: defaults.username.to_owned(),
            email: Some(defaults.email.to_owned()),
            name: Some(defaults.name.to_owned()),
            extra: BTreeMap::new(),
            trust_email: false,
            link: LinkPolicy::Never,
        }
    }

    /// The attributes to ask for.
    #[must_use]
    pub fn attributes(&self) -> Vec<String> {
        let mut names: Vec<&str> = vec![&self.id, &self.username];
        names.extend(self.email.iter().chain(&self.name).chain(self.extra.values()).map(String::as_str));
        names.extend(self.preset.flags());
        if self.preset == Preset::ActiveDirectory {
            names.extend(["sAMAccountName", "objectSid", "primaryGroupID"]);
        }
        unique(&names)
    }

    /// What an entry means. Its id is taken from `id` where the server has told it apart from the attributes.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn user(&self, entry: &Entry, id: Option<String>, now: Timestamp) -> Result<Mapped, Rejected> {
        let external_id = read_id(entry, &self.id, id);
        let dn = entry.dn().unwrap_or_default().to_owned();
        let rejected = |reason| Rejected { external_id: external_id.clone(), dn: dn.clone(), reason };
        if self.preset == Preset::ActiveDirectory && account::is_no_person(entry) {
            return Ok(Mapped::NoPerson);
        }
        let Some(external_id) = external_id.clone() else { return Err(rejected(Unusable::NoId)) };
        if entry.dn().is_none() {
            return Err(rejected(Unusable::NotText));
        }
        let usernames = names(entry.values(&self.username)).map_err(&rejected)?;
        if usernames.is_empty() {
            return Err(rejected(Unusable::NoUsername));
        }
        let email = |name: &String| texts(entry.values(name)).filter(|text| is_address(text));
        let emails = sorted(self.email.iter().flat_map(email));
        let names = sorted(self.name.iter().flat_map(|name| texts(entry.values(name))));
        let mut attributes = BTreeMap::new();
        for (key, name) in &self.extra {
            let values = entry.values(name);
            if values.len() > MOST_VALUES {
                return Err(rejected(Unusable::TooLarge));
            }
            let values = sorted(texts(values));
            if !values.is_empty() {
                attributes.insert(key.clone(), values);
            }
        }
        let mut record = UserRecord {
            external_id,
            dn: dn.clone(),
            usernames,
            email_verified: self.trust_email && !emails.is_empty(),
            emails,
            names,
            enabled: account::enabled(self.preset, entry, now),
            primary_group: entry.text("primaryGroupID").map(str::to_owned),
            attributes,
            link_key: None,
        };
        if size(&record) > LARGEST_RECORD {
            return Err(rejected(Unusable::TooLarge));
        }
        record.link_key = self.link.key(&record);
        Ok(Mapped::User(Box::new(record)))
    }

    /// Whether something is asked for that changes without any trace on the entry itself.
    #[must_use]
    pub fn is_computed(&self) -> bool {
        let mut names =
            self.extra.values().chain([&self.id, &self.username]).chain(&self.email).chain(&self.name);
        names.any(|name| COMPUTED.iter().any(|computed| computed.eq_ignore_ascii_case(name)))
    }
}

/// Attributes that servers work out, so that nothing tells when they change.
pub const COMPUTED: &[&str] = &["memberOf", "isMemberOf", "nsRole", "tokenGroups"];

impl GroupMapping {
    /// What the preset says.
    #[must_use]
    pub fn new(preset: Preset) -> Self {
        let defaults = preset.defaults();
        Self {
            preset,
            id: defaults.id.to_owned(),
            name: defaults.group_name.to_owned(),
            members: defaults.members.to_owned(),
            member_value: MemberValue::Dn,
        }
    }

    /// The attributes to ask for.
    #[must_use]
    pub fn attributes(&self) -> Vec<String> {
        let mut names: Vec<&str> = vec![&self.id, &self.name, &self.members];
        if self.preset == Preset::ActiveDirectory {
            names.push("objectSid");
        }
        unique(&names)
    }

    /// What an entry means; `complete` says whether it has all of its members.
    ///
    /// # Errors
    /// Why it cannot be used.
    pub fn group(&self, entry: &Entry, id: Option<String>, complete: bool) -> Result<GroupRecord, Rejected> {
        let external_id = read_id(entry, &self.id, id);
        let dn = entry.dn().unwrap_or_default().to_owned();
        let rejected = |reason| Rejected { external_id: external_id.clone(), dn: dn.clone(), reason };
        let Some(external_id) = external_id.clone() else { return Err(rejected(Unusable::NoId)) };
        if entry.dn().is_none() {
            return Err(rejected(Unusable::NotText));
        }
        let name = names(entry.values(&self.name)).map_err(&rejected)?.into_iter().next();
        let name = name.ok_or_else(|| rejected(Unusable::NoName))?;
        let sid = entry.values("objectSid").first();
        let relative_id = sid.and_then(|sid| ids::relative_id(sid)).map(|id| id.to_string());
        Ok(GroupRecord {
            external_id,
            dn: dn.clone(),
            name,
            relative_id,
            members: self.members(entry),
            complete,
        })
    }

    fn members(&self, entry: &Entry) -> Vec<Key> {
        let of = |attribute: &&Attribute| attribute.base().eq_ignore_ascii_case(self.members.as_bytes());
        let values = entry.attributes.iter().filter(of).flat_map(|attribute| &attribute.values);
        let mut keys: Vec<_> = values.filter_map(|value| self.member(value)).collect();
        keys.sort_unstable();
        keys.dedup();
        keys
    }

    fn member(&self, value: &Bytes) -> Option<Key> {
        let text = std::str::from_utf8(value).ok()?;
        Some(match self.member_value {
            MemberValue::Username => Key::username(text),
            // A `uniqueMember` may have a bit string behind its name (RFC 4517, section 3.3.21).
            MemberValue::Dn => {
                dn::key(text.rsplit_once('#').filter(|(_, bits)| is_bits(bits)).map_or(text, |(dn, _)| dn))
            }
        })
    }
}

fn is_bits(text: &str) -> bool {
    text.strip_prefix('\'')
        .and_then(|text| text.strip_suffix("'B"))
        .is_some_and(|bits| bits.bytes().all(|bit| matches!(bit, b'0' | b'1')))
}

fn read_id(entry: &Entry, attribute: &str, told: Option<String>) -> Option<String> {
    told.or_else(|| match entry.values(attribute) {
        [value] => IdSyntax::of(attribute).read(value).ok(),
        _ => None,
    })
}

/// Names that everybody is known by: each must be usable.
fn names(values: &[Bytes]) -> Result<Vec<String>, Unusable> {
    let mut found = Vec::with_capacity(values.len());
    for value in values {
        let text = std::str::from_utf8(value).map_err(|_| Unusable::NotText)?.trim();
        if text.contains('\0') {
            return Err(Unusable::NotText);
        }
        if text.len() > LARGEST_NAME || values.len() > MOST_VALUES {
            return Err(Unusable::TooLarge);
        }
        if !text.is_empty() {
            found.push(text.to_owned());
        }
    }
    Ok(sorted(found.into_iter()))
}

/// The values that are text; no store keeps a zero byte in one.
fn texts(values: &[Bytes]) -> impl Iterator<Item = String> {
    let text = |value: &Bytes| std::str::from_utf8(value).ok().map(str::trim).map(str::to_owned);
    values.iter().filter_map(text).filter(|text| !text.is_empty() && !text.contains('\0'))
}

fn sorted(values: impl Iterator<Item = String>) -> Vec<String> {
    let mut values: Vec<_> = values.collect();
    values.sort_unstable();
    values.dedup();
    values
}

fn is_address(text: &str) -> bool {
    let parts = text.rsplit_once('@');
    text.len() <= 320
        && !text.contains(char::is_whitespace)
        && parts.is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty())
}

fn size(record: &UserRecord) -> usize {
    let lists = [&record.usernames, &record.emails, &record.names];
    let lists = lists.into_iter().chain(record.attributes.values()).flatten();
    lists.map(String::len).sum::<usize>() + record.dn.len()
}

fn unique(names: &[&str]) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for name in names {
        if !found.iter().any(|known| known.eq_ignore_ascii_case(name)) {
            found.push((*name).to_owned());
        }
    }
    found
}

#[cfg(test)]
mod tests;
