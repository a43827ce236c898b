//! What a few searches say of a spec: whether the bases are there, whether entries have what the mapping needs, and what the test
//! user is.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use kube::ResourceExt;
use parking_lot::Mutex;
use sha2::{Digest, Sha256};

use crate::{
    api::{
        Reason,
        v1alpha1::{LdapDirectory, ldap_directory::TestStatus},
    },
    backends::{
        Fault,
        directory::{Connection, Directory, GroupSearch, Search, UserSearch},
    },
    domain::sync::{
        filter::Filter,
        mapping::{Mapped, MemberValue},
        record::UserRecord,
    },
    resolving::ldap_directory::ResolvedDirectory,
};

/// Entries that the mapping is tried on.
const SAMPLE: usize = 20;

/// Groups that are shown of the test user.
const MOST_GROUPS: usize = 20;

/// What a few searches have found.
#[derive(Clone, Debug)]
pub(super) struct Examination {
    /// Whether the search bases are there.
    pub(super) bases: Result<(), Fault>,
    /// Whether entries have what the mapping needs; `Unknown` where there are no entries to tell it by.
    pub(super) mapping: Result<bool, Fault>,
    /// What the test user is; none where the spec names none.
    pub(super) test: Option<Result<TestStatus, Fault>>,
}

/// What was found of each object, for as long as the interval of its probes.
#[derive(Default)]
pub(super) struct Examinations(Mutex<HashMap<String, Known>>);

struct Known {
    key: [u8; 32],
    at: Instant,
    found: Arc<Examination>,
}

impl Examinations {
    pub(super) async fn examine(
        &self,
        object: &LdapDirectory,
        resolved: &ResolvedDirectory,
        directory: &Directory,
    ) -> Arc<Examination> {
        let uid = object.uid().unwrap_or_default();
        let spec = &object.spec;
        let mut hash = Sha256::new();
        hash.update(resolved.servers.key());
        hash.update(format!("{:?} {:?} {:?}", resolved.layout, resolved.login_filter, spec.test));
        let key: [u8; 32] = hash.finalize().into();
        let interval = spec.health_check.interval.get();
        let known = self
            .0
            .lock()
            .get(&uid)
            .filter(|it| it.key == key && it.at.elapsed() < interval)
            .map(|it| Arc::clone(&it.found));
        if let Some(found) = known {
            return found;
        }
        let test = spec.test.as_ref().map(|test| test.username.as_str());
        let time = spec.health_check.timeout.get();
        let found = Arc::new(look(resolved, directory, test, time).await);
        self.0.lock().insert(uid, Known { key, at: Instant::now(), found: Arc::clone(&found) });
        found
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

async fn look(
    resolved: &ResolvedDirectory,
    directory: &Directory,
    test: Option<&str>,
    time: Duration,
) -> Examination {
    let failed = |fault: Fault| Examination {
        test: test.map(|_| Err(fault.clone())),
        mapping: Err(fault.clone()),
        bases: Err(fault),
    };
    let looking = async {
        let mut connection = directory.connect().await?;
        let found = examine(resolved, &mut connection, test).await;
        connection.close().await;
        Ok(found)
    };
    match tokio::time::timeout(time, looking).await {
        Ok(found) => found.unwrap_or_else(failed),
        Err(_) => failed(Fault::new(Reason::Timeout, "the test searches timed out (healthCheck.timeout)")),
    }
}

async fn examine(
    resolved: &ResolvedDirectory,
    connection: &mut Connection,
    test: Option<&str>,
) -> Examination {
    let (users, groups) = (&resolved.layout.users, resolved.layout.groups.as_ref());
    let sample = connection.find(&search(users, users.filter.clone()), SAMPLE).await;
    let mut bases =
        base(connection, &users.base, "userSearch", sample.as_ref().is_ok_and(|it| !it.entries.is_empty()))
            .await;
    if let (Ok(()), Some(groups)) = (&bases, groups) {
        bases = base(connection, &groups.base, "groupSearch", false).await;
    }
    let mapping = match sample {
        Ok(found) => mapping(users, &found.entries),
        Err(fault) => Err(fault),
    };
    let test = match test {
        Some(name) => Some(test_user(resolved, connection, name).await),
        None => None,
    };
    Examination { bases, mapping, test }
}

fn search(users: &UserSearch, filter: Filter) -> Search {
    Search {
        base: users.base.clone(),
        scope: users.scope,
        filter,
        attributes: users.mapping.attributes(),
        size_limit: u32::try_from(SAMPLE).unwrap_or_default(),
    }
}

/// A base that may not be read itself is there if entries below it are.
async fn base(connection: &mut Connection, dn: &str, field: &str, has_entries: bool) -> Result<(), Fault> {
    if has_entries {
        return Ok(());
    }
    let missing = || {
        Fault::new(Reason::SearchBaseMissing, format!("spec.{field}.base does not exist, or cannot be read"))
    };
    match connection.read(dn, &["1.1"]).await {
        Ok(Some(_)) => Ok(()),
        Ok(None) => Err(missing()),
        Err(fault) if matches!(fault.reason, Reason::SearchBaseMissing | Reason::PermissionDenied) => {
            Err(missing())
        }
        Err(fault) => Err(fault),
    }
}

/// Whether some of the entries can be used, and have the flag that the preset needs; false where there are no entries.
fn mapping(users: &UserSearch, entries: &[crate::domain::sync::entry::Entry]) -> Result<bool, Fault> {
    let invalid = |detail: String| Err(Fault::new(Reason::MappingInvalid, detail));
    if entries.is_empty() {
        return Ok(false);
    }
    if let Some(flag) = users.mapping.preset.required_flag()
        && entries.iter().all(|entry| entry.values(flag).is_empty())
    {
        return invalid(format!("no entry has the attribute {flag}, which spec.preset needs"));
    }
    let mapped: Vec<_> = entries.iter().map(|it| users.mapping.user(it, None, Timestamp::now())).collect();
    if mapped.iter().any(Result::is_ok) {
        return Ok(true);
    }
    let reason =
        mapped.iter().find_map(|it| it.as_ref().err()).map_or("", |rejected| rejected.reason.as_str());
    invalid(format!(
        "no entry can be used ({reason}); the attributes are {} for the ID and {} for the user name",
        users.mapping.id, users.mapping.username
    ))
}

async fn test_user(
    resolved: &ResolvedDirectory,
    connection: &mut Connection,
    name: &str,
) -> Result<TestStatus, Fault> {
    let users = &resolved.layout.users;
    let mut wanted = resolved.login_filter.fill(name.as_bytes());
    if !resolved.login_filter.has_place() {
        wanted = wanted.and(Filter::equal(users.mapping.username.clone(), name));
    }
    let search = Search { size_limit: 2, ..search(users, wanted) };
    let found = connection.find(&search, 2).await?;
    let matched = u32::try_from(found.entries.len()).unwrap_or(2);
    let [entry] = found.entries.as_slice() else {
        return Ok(TestStatus { matched, ..TestStatus::default() });
    };
    match users.mapping.user(entry, None, Timestamp::now()) {
        Ok(Mapped::User(record)) => {
            let groups = match &resolved.layout.groups {
                Some(groups) => groups_of(groups, connection, &record).await?,
                None => Vec::new(),
            };
            Ok(TestStatus {
                matched,
                sample: sample(&record),
                groups,
                enabled: record.enabled != Some(false),
            })
        }
        Ok(Mapped::NoPerson) => {
            Err(Fault::new(Reason::TestUserNotFound, "the test user is no person's account"))
        }
        Err(rejected) => {
            let detail = format!("the entry of the test user cannot be used ({})", rejected.reason.as_str());
            Err(Fault::new(Reason::MappingInvalid, detail))
        }
    }
}

async fn groups_of(
    groups: &GroupSearch,
    connection: &mut Connection,
    record: &UserRecord,
) -> Result<Vec<String>, Fault> {
    let members = groups.mapping.members.clone();
    let member = match groups.mapping.member_value {
        MemberValue::Dn => Filter::equal(members, record.dn.as_str()),
        MemberValue::Username => Filter::equal(members, record.username(None).unwrap_or_default()),
    };
    let search = Search {
        base: groups.base.clone(),
        scope: groups.scope,
        filter: groups.filter.clone().and(member),
        attributes: vec![groups.mapping.name.clone()],
        size_limit: u32::try_from(MOST_GROUPS).unwrap_or_default(),
    };
    let found = connection.find(&search, MOST_GROUPS).await?;
    let name =
        |entry: &crate::domain::sync::entry::Entry| entry.text(&groups.mapping.name).map(str::to_owned);
    let mut names: Vec<_> = found.entries.iter().filter_map(name).take(MOST_GROUPS).collect();
    names.sort_unstable();
    Ok(names)
}

/// What the entry maps to, each value with no more than its first letters.
fn sample(record: &UserRecord) -> BTreeMap<String, String> {
    let mut sample = BTreeMap::from([("uid".to_owned(), redacted(&record.external_id))]);
    let values =
        [("username", record.username(None)), ("email", record.email(None)), ("name", record.name(None))];
    sample.extend(values.into_iter().filter_map(|(key, value)| Some((key.to_owned(), redacted(value?)))));
    let extra = record.attributes.iter();
    sample.extend(extra.filter_map(|(key, values)| Some((key.clone(), redacted(values.first()?)))));
    sample
}

fn redacted(value: &str) -> String {
    let first: String = value.chars().take(2).collect();
    format!("{first}... ({})", value.chars().count())
}

#[cfg(test)]
mod tests {
    #[test]
    fn of_a_value_the_first_letters_are_shown() {
        assert_eq!(super::redacted("üser@example.org"), "üs... (16)");
        assert_eq!(super::redacted("a"), "a... (1)");
    }
}
