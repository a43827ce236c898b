//! Runs that read only what has changed.

use std::collections::BTreeMap;

use authlink::{
    backends::directory::{Layout, UserSearch},
    domain::sync::filter::Template,
    sync::Outcome,
};
use rand::{Rng, SeedableRng, rngs::StdRng, seq::IteratorRandom};

use super::harness::{GROUPS, Ldap, PEOPLE, SUFFIX, Syncing, groups, people};
use crate::store::Place;

async fn active(syncing: &Syncing) -> usize {
    syncing.count("authlink_users where state = 'active'").await
}

fn delete(users: std::ops::Range<u32>) -> String {
    users.fold(String::new(), |ldif, user| {
        format!("{ldif}dn: uid=user{user:06},{PEOPLE}\nchangetype: delete\n\n")
    })
}

#[tokio::test]
async fn a_change_is_found_without_reading_everything() {
    for place in Place::each().await {
        let ldap = Ldap::start(200);
        let syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), Some(groups())));
        let first = syncing.run().await;
        assert_eq!((first.full, first.method.0), (true, "Syncrepl"), "{first:?}");
        let idle = syncing.run().await;
        assert_eq!((idle.full, idle.counts.seen, idle.outcome), (false, 0, Outcome::Succeeded), "{idle:?}");
        ldap.modify(&format!(
            "dn: uid=user000001,{PEOPLE}\nchangetype: modify\nreplace: mail\nmail: new@example.org\n"
        ));
        let changed = syncing.run().await;
        assert_eq!((changed.full, changed.counts.updated), (false, 1), "{changed:?}");
        assert_eq!(syncing.count("authlink_users where email = 'new@example.org'").await, 1);
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_deletion_is_told_once_confirmed_by_a_read_and_then_believed() {
    for place in Place::each().await {
        let ldap = Ldap::start(200);
        let syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), None));
        syncing.run().await;
        ldap.modify(&delete(0..1));
        let mut disabled = Vec::new();
        for _ in 0..3 {
            let report = syncing.run().await;
            assert!(!report.full, "{report:?}");
            disabled.push(report.counts.disabled);
        }
        assert_eq!((disabled.iter().sum::<u64>(), active(&syncing).await), (1, 199), "{disabled:?}");
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn what_the_guard_holds_outlives_runs_in_which_nothing_happens() {
    for place in Place::each().await {
        let ldap = Ldap::start(200);
        let syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), None));
        syncing.run().await;
        ldap.modify(&delete(0..80));
        let mut hashes = Vec::new();
        for _ in 0..4 {
            let report = syncing.run().await;
            assert_eq!(report.outcome, Outcome::Held, "{report:?}");
            hashes.push(report.held.expect("held").plan.hash);
        }
        hashes.dedup();
        assert_eq!((hashes.len(), active(&syncing).await), (1, 200));
    }
}

#[tokio::test]
async fn a_filter_with_a_computed_attribute_has_everything_read() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(200);
    let filter = format!("(&(objectClass=inetOrgPerson)(memberOf=cn=group00000,{GROUPS}))");
    let users = UserSearch { filter: Template::parse(&filter).unwrap().fill(b""), ..people() };
    let syncing = Syncing::of(file, ldap.directory(), Layout::new(users, None));
    let first = syncing.run().await;
    assert_eq!((first.counts.created, first.method.0), (100, "Full"), "{first:?}");
    assert!(!first.method.1.is_empty(), "the status says why");
    ldap.modify(&format!(
        "dn: cn=group00000,{GROUPS}\nchangetype: modify\ndelete: member\nmember: uid=user000001,{PEOPLE}\n"
    ));
    let disabled = syncing.run().await.counts.disabled + syncing.run().await.counts.disabled;
    assert_eq!((disabled, active(&syncing).await), (1, 99));
}

/// Random histories, and then the store has what the directory has.
#[tokio::test]
async fn after_any_history_the_store_equals_the_directory() {
    let seed = std::env::var("AUTHLINK_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(rand::random::<u64>);
    eprintln!("AUTHLINK_SEED={seed}");
    let mut random = StdRng::seed_from_u64(seed);
    for place in Place::each().await {
        let ldap = Ldap::start(100);
        ldap.modify(&format!(
            "dn: ou=moved,{PEOPLE}\nchangetype: add\nobjectClass: organizationalUnit\nou: moved\n"
        ));
        let mut syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), None));
        // The guard has tests of its own.
        syncing.settings.limits.min_count = 10_000;
        syncing.settings.limits.absolute = 10_000;
        syncing.run().await;
        let mut added = 0;
        for _ in 0..6 {
            for _ in 0..random.random_range(0..12) {
                let all = ldap.values(PEOPLE, "(objectClass=inetOrgPerson)", "uid");
                let dn = all.keys().choose(&mut random).expect("somebody").clone();
                let number = random.random_range(0..1_000_000);
                let ldif = match random.random_range(0..5) {
                    0 => {
                        added += 1;
                        format!(
                            "dn: uid=new{added},{PEOPLE}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: new{added}\n\
                             cn: New\nsn: New\nmail: new{added}@example.org\n"
                        )
                    }
                    1 => {
                        format!("dn: {dn}\nchangetype: modify\nreplace: mail\nmail: m{number}@example.org\n")
                    }
                    2 => format!("dn: {dn}\nchangetype: modrdn\nnewrdn: uid=r{number}\ndeleteoldrdn: 1\n"),
                    3 => {
                        let rdn = dn.split(',').next().expect("a name");
                        let above = if dn.contains("ou=moved") {
                            PEOPLE.to_owned()
                        } else {
                            format!("ou=moved,{PEOPLE}")
                        };
                        format!(
                            "dn: {dn}\nchangetype: modrdn\nnewrdn: {rdn}\ndeleteoldrdn: 0\nnewsuperior: {above}\n"
                        )
                    }
                    _ => format!("dn: {dn}\nchangetype: delete\n"),
                };
                ldap.modify(&ldif);
            }
            let report = syncing.run().await;
            assert!(matches!(report.outcome, Outcome::Succeeded), "seed {seed}: {report:?}");
        }
        // Who went is looked for once more.
        for _ in 0..2 {
            syncing.run().await;
        }
        let column = |values: BTreeMap<String, Vec<String>>| -> BTreeMap<String, String> {
            values
                .into_iter()
                .map(|(dn, values)| (dn, values.into_iter().next().unwrap_or_default()))
                .collect()
        };
        let filter = "(objectClass=inetOrgPerson)";
        let (ids, mails) =
            (column(ldap.values(PEOPLE, filter, "entryUUID")), column(ldap.values(PEOPLE, filter, "mail")));
        let mut wanted: Vec<_> =
            ids.iter().map(|(dn, id)| vec![id.clone(), dn.clone(), mails[dn].clone()]).collect();
        wanted.sort();
        let query = "select i.external_id, i.dn, u.email from authlink_identities i join authlink_users u on u.id = i.user_id \
                     where i.state = 'active' and u.state = 'active' order by i.external_id";
        assert_eq!(syncing.place.texts(query).await, wanted, "seed {seed}, below {SUFFIX}");
        syncing.assert_told().await;
    }
}
