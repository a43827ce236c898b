//! Records: what a source says of a user or a group, in one form whatever the source.

use std::collections::BTreeMap;

use sha2::{Digest, Sha256};

use super::key::Key;

/// Changes of what is hashed change this, so that everything is written anew.
const VERSION: u8 = 1;

/// A user, as a source has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserRecord {
    /// What never changes and tells the user from all others of the source.
    pub external_id: String,
    /// The name of the entry; empty for sources that have none.
    pub dn: String,
    /// In order, at least one.
    pub usernames: Vec<String>,
    /// In order.
    pub emails: Vec<String>,
    /// Whether the source vouches for the addresses.
    pub email_verified: bool,
    /// The names that people read, in order.
    pub names: Vec<String>,
    /// Whether the account is switched on, as far as that may be read.
    pub enabled: Option<bool>,
    /// The group that holds the user without saying so: the relative id of Active Directory's `primaryGroupID`.
    pub primary_group: Option<String>,
    /// What else is kept, the values of each in order.
    pub attributes: BTreeMap<String, Vec<String>>,
    /// On what the user may be taken for one of another source; see [`super::linking`].
    pub link_key: Option<String>,
}

/// A group, as a source has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GroupRecord {
    /// What never changes and tells the group from all others of the source.
    pub external_id: String,
    /// The name of the entry.
    pub dn: String,
    /// Its name.
    pub name: String,
    /// Its relative id, to which a user's `primary_group` leads.
    pub relative_id: Option<String>,
    /// The keys of its members ([`Key::username`] or [`super::dn::key`]), in order and each once.
    pub members: Vec<Key>,
    /// Whether these are all of them: nobody is taken out of a group that was not read to its end.
    pub complete: bool,
}

/// Why an entry cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unusable {
    /// It has no id that can be read, or several.
    NoId,
    /// It has no user name.
    NoUsername,
    /// A user name or the entry's own name is not text.
    NotText,
    /// It is larger than anything that is kept.
    TooLarge,
    /// A group without a name.
    NoName,
    /// Another entry of the same listing has its id.
    DuplicateId,
    /// The store refuses it.
    Refused,
}

impl Unusable {
    /// The reason, in one word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoId => "NoId",
            Self::NoUsername => "NoUsername",
            Self::NotText => "NotText",
            Self::TooLarge => "TooLarge",
            Self::NoName => "NoName",
            Self::DuplicateId => "DuplicateId",
            Self::Refused => "Refused",
        }
    }
}

/// An entry that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    /// Its id, if that can be read: who is known by it is not gone.
    pub external_id: Option<String>,
    /// Its name, by which it may be known.
    pub dn: String,
    /// Why.
    pub reason: Unusable,
}

impl UserRecord {
    /// The user name to show: the one that is shown already if it is still there, else the first. So it stands still while the
    /// values of an attribute change their order.
    #[must_use]
    pub fn username(&self, kept: Option<&str>) -> Option<&str> {
        choose(&self.usernames, kept)
    }

    /// The mail address to show, likewise.
    #[must_use]
    pub fn email(&self, kept: Option<&str>) -> Option<&str> {
        choose(&self.emails, kept)
    }

    /// The name to show, likewise.
    #[must_use]
    pub fn name(&self, kept: Option<&str>) -> Option<&str> {
        choose(&self.names, kept)
    }

    /// A digest of all of it but whether the account is switched on, which is looked at by itself.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Hasher::new();
        hash.part(&self.dn);
        hash.list(&self.usernames);
        hash.list(&self.emails);
        hash.list(&self.names);
        hash.0.update([u8::from(self.email_verified)]);
        for optional in [&self.primary_group, &self.link_key] {
            hash.list(optional.as_slice());
        }
        for (name, values) in &self.attributes {
            hash.part(name);
            hash.list(values);
        }
        hash.0.finalize().into()
    }
}

impl GroupRecord {
    /// A digest of all of it but its members, which are compared one by one.
    #[must_use]
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Hasher::new();
        hash.part(&self.dn);
        hash.part(&self.name);
        hash.list(self.relative_id.as_slice());
        hash.0.finalize().into()
    }

    /// A digest of its members.
    #[must_use]
    pub fn members_hash(&self) -> [u8; 32] {
        let mut hash = Hasher::new();
        self.members.iter().for_each(|member| hash.0.update(member.as_bytes()));
        hash.0.finalize().into()
    }
}

fn choose<'a>(values: &'a [String], kept: Option<&str>) -> Option<&'a str> {
    let kept = values.iter().find(|value| Some(value.as_str()) == kept);
    kept.or(values.first()).map(String::as_str)
}

/// Parts with their lengths, so that no two records hash alike.
struct Hasher(Sha256);

impl Hasher {
    fn new() -> Self {
        let mut hash = Sha256::new();
        hash.update([VERSION]);
        Self(hash)
    }

    fn part(&mut self, text: &str) {
        self.0.update(text.len().to_le_bytes());
        self.0.update(text);
    }

    fn list(&mut self, texts: &[String]) {
        self.0.update(texts.len().to_le_bytes());
        for text in texts {
            self.part(text);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> UserRecord {
        UserRecord {
            external_id: "1".to_owned(),
            usernames: vec!["a".to_owned(), "b".to_owned()],
            emails: vec!["a@x".to_owned()],
            ..UserRecord::default()
        }
    }

    #[test]
    fn what_is_shown_stays_while_it_is_there() {
        assert_eq!(record().username(None), Some("a"));
        assert_eq!(record().username(Some("b")), Some("b"));
        assert_eq!(record().username(Some("c")), Some("a"));
        assert_eq!(record().name(Some("c")), None);
    }

    #[test]
    fn a_hash_tells_every_change_but_the_switch() {
        let before = record();
        assert_eq!(before.hash(), UserRecord { enabled: Some(false), ..before.clone() }.hash());
        let changes = [
            UserRecord { dn: "cn=a".to_owned(), ..record() },
            UserRecord { usernames: vec!["ab".to_owned()], ..record() },
            UserRecord { emails: vec![], names: vec!["a@x".to_owned()], ..record() },
            UserRecord { email_verified: true, ..record() },
            UserRecord { link_key: Some("513".to_owned()), ..record() },
            UserRecord { primary_group: Some("513".to_owned()), ..record() },
            UserRecord { attributes: [("sn".to_owned(), vec!["x".to_owned()])].into(), ..record() },
        ];
        let mut hashes: Vec<_> = changes.iter().map(UserRecord::hash).chain([before.hash()]).collect();
        hashes.sort_unstable();
        hashes.dedup();
        assert_eq!(hashes.len(), changes.len() + 1);
    }
}
