//! What becomes of a record, given what is known of it.

use super::{dn, key::Key, record::UserRecord, strikes::Strike};

/// What an identity is to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Usable.
    Active,
    /// Missing for long enough, or switched off.
    Disabled,
    /// What is left of one that was gone for long: its id, and whose it was.
    Purged,
}

impl State {
    /// As the store keeps it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Disabled => "disabled",
            Self::Purged => "purged",
        }
    }

    /// From what the store keeps.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::Active, Self::Disabled, Self::Purged].into_iter().find(|state| state.as_str() == text)
    }
}

/// What the store knows of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Known {
    /// Whose it is.
    pub user: String,
    /// See [`UserRecord::hash`].
    pub hash: Vec<u8>,
    /// Whether the source last said that the account is switched on.
    pub enabled: bool,
    /// What it is to us.
    pub state: State,
    /// That it was missing.
    pub missing: Option<Strike>,
    /// The key of the entry's name.
    pub dn: Key,
    /// The user name that is shown.
    pub username: Option<String>,
    /// The mail address that is shown.
    pub email: Option<String>,
    /// The name that is shown.
    pub name: Option<String>,
}

/// What becomes of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// A new identity.
    Create {
        /// Whether the account is switched on. Where that may not be read it is not taken to be.
        active: bool,
    },
    /// Nothing is written.
    Unchanged,
    /// The identity is written.
    Update(Update),
    /// Another entry of this listing has the same id.
    Duplicate,
}

/// What is new.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "facts of their own")]
pub struct Update {
    /// A value.
    pub changed: bool,
    /// It was disabled, and is usable again.
    pub reactivated: bool,
    /// It was missing, and is there.
    pub found: bool,
    /// Whether the source says that the account is switched on. One that was switched off stays usable until the guard has seen
    /// how many were.
    pub enabled: bool,
}

impl Update {
    /// Whether whoever listens to changes of users is told.
    #[must_use]
    pub const fn is_told(&self) -> bool {
        self.changed || self.reactivated
    }
}

/// Decides on a record with this digest. `again` says that its id was seen in this run before.
#[must_use]
pub fn decide(record: &UserRecord, hash: &[u8; 32], known: Option<&Known>, again: bool) -> Verdict {
    let known = match known {
        Some(known) if known.state != State::Purged => known,
        _ => return Verdict::Create { active: record.enabled.unwrap_or(false) },
    };
    if again && known.dn != dn::key(&record.dn) {
        return Verdict::Duplicate;
    }
    // A flag that may not be read any more says nothing new.
    let enabled = record.enabled.unwrap_or(known.enabled);
    let update = Update {
        changed: known.hash != hash,
        reactivated: known.state == State::Disabled && enabled,
        found: known.missing.is_some(),
        enabled,
    };
    if update.changed || update.reactivated || update.found || enabled != known.enabled {
        Verdict::Update(update)
    } else {
        Verdict::Unchanged
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decide(record: &UserRecord, known: Option<&Known>, again: bool) -> Verdict {
        super::decide(record, &record.hash(), known, again)
    }

    fn record(enabled: Option<bool>) -> UserRecord {
        UserRecord { external_id: "1".to_owned(), dn: "cn=a".to_owned(), enabled, ..UserRecord::default() }
    }

    fn known(state: State, enabled: bool) -> Known {
        Known {
            user: "u".to_owned(),
            hash: record(None).hash().to_vec(),
            enabled,
            state,
            missing: None,
            dn: dn::key("CN=A"),
            username: None,
            email: None,
            name: None,
        }
    }

    #[expect(clippy::fn_params_excessive_bools, reason = "the fields, in their order")]
    fn update(changed: bool, reactivated: bool, found: bool, enabled: bool) -> Verdict {
        Verdict::Update(Update { changed, reactivated, found, enabled })
    }

    #[test]
    fn who_is_not_known_is_new_and_usable_only_if_the_source_says_so() {
        assert_eq!(decide(&record(Some(true)), None, false), Verdict::Create { active: true });
        assert_eq!(decide(&record(Some(false)), None, false), Verdict::Create { active: false });
        assert_eq!(decide(&record(None), None, false), Verdict::Create { active: false });
        let purged = known(State::Purged, true);
        assert_eq!(decide(&record(Some(true)), Some(&purged), false), Verdict::Create { active: true });
    }

    #[test]
    fn what_did_not_change_is_not_written() {
        for enabled in [Some(true), None] {
            assert_eq!(
                decide(&record(enabled), Some(&known(State::Active, true)), false),
                Verdict::Unchanged
            );
        }
        assert_eq!(
            decide(&record(Some(false)), Some(&known(State::Disabled, false)), false),
            Verdict::Unchanged
        );
        assert_eq!(decide(&record(None), Some(&known(State::Disabled, false)), false), Verdict::Unchanged);
    }

    #[test]
    fn who_was_switched_off_waits_for_the_guard_and_who_was_switched_on_does_not() {
        let active = known(State::Active, true);
        assert_eq!(decide(&record(Some(false)), Some(&active), false), update(false, false, false, false));
        let off = known(State::Disabled, false);
        assert_eq!(decide(&record(Some(true)), Some(&off), false), update(false, true, false, true));
        let held = known(State::Active, false);
        assert_eq!(decide(&record(Some(true)), Some(&held), false), update(false, false, false, true));
    }

    #[test]
    fn who_was_missing_is_found_and_usable_again() {
        let strike = Some(Strike { since: 0, runs: 1 });
        let once = Known { missing: strike, ..known(State::Active, true) };
        assert_eq!(decide(&record(Some(true)), Some(&once), false), update(false, false, true, true));
        let gone = Known { missing: strike, ..known(State::Disabled, true) };
        assert_eq!(decide(&record(Some(true)), Some(&gone), false), update(false, true, true, true));
        assert_eq!(decide(&record(None), Some(&gone), false), update(false, true, true, true));
        let off = Known { missing: strike, ..known(State::Disabled, false) };
        assert_eq!(decide(&record(Some(false)), Some(&off), false), update(false, false, true, false));
    }

    #[test]
    fn an_id_that_two_entries_have_is_the_firsts() {
        let moved = UserRecord { dn: "cn=b".to_owned(), ..record(Some(true)) };
        assert_eq!(
            decide(&moved, Some(&known(State::Active, true)), false),
            update(true, false, false, true)
        );
        assert_eq!(decide(&moved, Some(&known(State::Active, true)), true), Verdict::Duplicate);
        assert_eq!(decide(&record(Some(true)), Some(&known(State::Active, true)), true), Verdict::Unchanged);
    }
}
