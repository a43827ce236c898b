//! Users of several sources: when two are the same person, and whose values are shown.
//!
//! Never by the user name, and by a mail address only where both sources vouch for it: whoever can choose the value of what is linked
//! on can become somebody else.

use std::collections::BTreeMap;

use super::record::UserRecord;

/// When a user of a source is taken for one of another source.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum LinkPolicy {
    /// Never.
    #[default]
    Never,
    /// When both sources vouch for the same mail address and are the authority for its domain.
    VerifiedEmail {
        /// The domains that this source is the authority for, in small letters.
        domains: Vec<String>,
    },
    /// When both have the same value under this name among what is kept ([`super::mapping::UserMapping::extra`]).
    Attribute(String),
    /// By a list: ids of this source, and the name of the person.
    Explicit(BTreeMap<String, String>),
}

impl LinkPolicy {
    /// What two users who are one person have in common; nothing for who is linked with nobody.
    #[must_use]
    pub fn key(&self, record: &UserRecord) -> Option<String> {
        match self {
            Self::Never => None,
            Self::VerifiedEmail { domains } => {
                let vouched = |email: &&String| {
                    let domain = email.rsplit_once('@').map(|(_, domain)| domain.to_lowercase());
                    domain.is_some_and(|domain| domains.contains(&domain))
                };
                let mut found = record.emails.iter().filter(vouched);
                let email = found.next().filter(|_| record.email_verified)?;
                // Of several none is the one.
                found.next().is_none().then(|| format!("email:{}", email.to_lowercase()))
            }
            Self::Attribute(name) => match record.attributes.get(name).map(Vec::as_slice) {
                Some([value]) => Some(format!("{name}:{value}")),
                _ => None,
            },
            Self::Explicit(people) => {
                people.get(&record.external_id).map(|person| format!("person:{person}"))
            }
        }
    }
}

/// A user who has an identity with the same link key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Match {
    /// The user.
    pub user: String,
    /// Whether it is an identity of the same source, or the user has one of it besides.
    pub same_source: bool,
}

/// Which user an identity belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Link {
    /// One of its own.
    Own,
    /// This one.
    To(String),
    /// It cannot be told: one of its own, and it is shown as a conflict.
    Conflict,
}

/// Decides for a new identity whose link key these have as well.
#[must_use]
pub fn link(matches: &[Match]) -> Link {
    match matches {
        [] => Link::Own,
        [only] if !only.same_source => Link::To(only.user.clone()),
        _ => Link::Conflict,
    }
}

/// What one source says of a user.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facet {
    /// The source.
    pub source: i64,
    /// Of the source: the lowest comes first.
    pub priority: i64,
    /// Whether the source decides who may log in at all.
    pub authority: bool,
    /// Whether its account is switched on.
    pub active: bool,
    /// The user name.
    pub username: Option<String>,
    /// The mail address.
    pub email: Option<String>,
    /// The name that people read.
    pub name: Option<String>,
}

/// A user, put together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// Whether the user may log in.
    pub active: bool,
    /// The user name.
    pub username: Option<String>,
    /// The mail address, and the source that it comes from.
    pub email: Option<(String, i64)>,
    /// The name that people read.
    pub name: Option<String>,
}

/// Puts a user together: each value from the first source that has one; active while a source with authority says so, or any source
/// where none has it.
#[must_use]
pub fn merge(mut facets: Vec<Facet>) -> Merged {
    facets.sort_by_key(|facet| (facet.priority, facet.source));
    let authority = facets.iter().any(|facet| facet.authority);
    let first = |of: fn(&Facet) -> Option<&String>| facets.iter().find_map(of).cloned();
    Merged {
        active: facets.iter().any(|facet| facet.active && (facet.authority || !authority)),
        username: first(|facet| facet.username.as_ref()),
        email: facets.iter().find_map(|facet| facet.email.clone().map(|email| (email, facet.source))),
        name: first(|facet| facet.name.as_ref()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(emails: &[&str], verified: bool) -> UserRecord {
        let emails = emails.iter().map(|email| (*email).to_owned()).collect();
        UserRecord { external_id: "1".to_owned(), emails, email_verified: verified, ..UserRecord::default() }
    }

    #[test]
    fn an_address_links_only_where_the_source_vouches_for_it() {
        let policy = LinkPolicy::VerifiedEmail { domains: vec!["x.org".to_owned()] };
        let rows: [(&[&str], bool, Option<&str>); 7] = [
            (&["A@X.org"], true, Some("email:a@x.org")),
            (&["a@x.org"], false, None),
            (&["a@y.org"], true, None),
            (&["a@y.org", "b@x.org"], true, Some("email:b@x.org")),
            (&["a@x.org", "b@x.org"], true, None),
            (&["a@evil.org@x.org.evil.org"], true, None),
            (&[], true, None),
        ];
        for (emails, verified, key) in rows {
            assert_eq!(policy.key(&record(emails, verified)).as_deref(), key, "{emails:?} {verified}");
        }
        assert_eq!(LinkPolicy::Never.key(&record(&["a@x.org"], true)), None);
    }

    #[test]
    fn an_attribute_links_by_its_only_value() {
        let policy = LinkPolicy::Attribute("number".to_owned());
        let with = |values: &[&str]| UserRecord {
            attributes: [("number".to_owned(), values.iter().map(|value| (*value).to_owned()).collect())]
                .into(),
            ..record(&[], false)
        };
        assert_eq!(policy.key(&with(&["7"])).as_deref(), Some("number:7"));
        assert_eq!(policy.key(&with(&["7", "8"])), None);
        assert_eq!(policy.key(&record(&[], false)), None);
    }

    #[test]
    fn a_list_links_by_the_id() {
        let policy = LinkPolicy::Explicit([("1".to_owned(), "anna".to_owned())].into());
        assert_eq!(policy.key(&record(&[], false)).as_deref(), Some("person:anna"));
        let other = UserRecord { external_id: "2".to_owned(), ..UserRecord::default() };
        assert_eq!(policy.key(&other), None);
    }

    #[test]
    fn only_one_match_of_another_source_links() {
        let other = |user: &str| Match { user: user.to_owned(), same_source: false };
        let same = Match { user: "a".to_owned(), same_source: true };
        assert_eq!(link(&[]), Link::Own);
        assert_eq!(link(&[other("a")]), Link::To("a".to_owned()));
        assert_eq!(link(&[other("a"), other("b")]), Link::Conflict);
        assert_eq!(link(std::slice::from_ref(&same)), Link::Conflict);
        assert_eq!(link(&[other("a"), same]), Link::Conflict);
    }

    #[test]
    fn each_value_comes_from_the_first_source_that_has_it() {
        let facet = |source, priority, email: Option<&str>, name: Option<&str>| Facet {
            source,
            priority,
            email: email.map(str::to_owned),
            name: name.map(str::to_owned),
            ..Facet::default()
        };
        let merged = merge(vec![facet(1, 5, Some("a@x"), Some("A")), facet(2, 1, None, Some("B"))]);
        assert_eq!(merged.email, Some(("a@x".to_owned(), 1)));
        assert_eq!(merged.name.as_deref(), Some("B"));
        let equal = merge(vec![facet(2, 1, Some("b@x"), None), facet(1, 1, Some("a@x"), None)]);
        assert_eq!(equal.email, Some(("a@x".to_owned(), 1)));
    }

    #[test]
    fn who_has_authority_decides_whether_the_user_is_active() {
        let facet = |authority, active| Facet { authority, active, ..Facet::default() };
        let rows: [(&[(bool, bool)], bool); 6] = [
            (&[(false, true)], true),
            (&[(false, false), (false, true)], true),
            (&[(true, false), (false, true)], false),
            (&[(true, true), (false, false)], true),
            (&[(true, false), (true, true)], true),
            (&[], false),
        ];
        for (facets, active) in rows {
            let facets = facets.iter().map(|(authority, active)| facet(*authority, *active)).collect();
            assert_eq!(merge(facets).active, active);
        }
    }
}
