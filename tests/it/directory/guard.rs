//! The guard: nobody is taken away by an accident.

use std::time::Duration;

use authlink::{
    backends::directory::{Layout, UserSearch},
    domain::sync::{filter::Template, mapping::UserMapping, plan::Op, preset::Preset},
    sync::{Mode, Outcome, Report},
};

use super::harness::{Ldap, PEOPLE, SUFFIX, Syncing, people};
use crate::store::Place;

/// Why the guard holds, and how much.
fn held(report: &Report) -> (Outcome, Vec<(String, String)>, u64) {
    let held = report.held.as_ref();
    let plan = held.map_or(0, |held| held.plan.summary.values().sum());
    (report.outcome, held.map(|held| held.stops.clone()).unwrap_or_default(), plan)
}

fn stops(class: &str, why: &str) -> Vec<(String, String)> {
    vec![(class.to_owned(), why.to_owned())]
}

fn delete(ldap: &Ldap, users: std::ops::Range<u32>) {
    let delete = |user| format!("dn: uid=user{user:06},{PEOPLE}\nchangetype: delete\n\n");
    ldap.modify(&users.map(delete).collect::<String>());
}

async fn active<S: authlink::sync::source::Source>(syncing: &Syncing<S>) -> usize {
    syncing.count("authlink_users where state = 'active'").await
}

#[tokio::test]
async fn a_tenth_may_go_and_one_more_may_not() {
    for place in Place::each().await {
        let ldap = Ldap::start(200);
        let syncing = Syncing::full(place, ldap.directory());
        syncing.run().await;
        delete(&ldap, 0..20);
        assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
        let second = syncing.run().await;
        assert_eq!((second.outcome, second.counts.disabled), (Outcome::Succeeded, 20));
        // What went within a day counts: one more is one too many.
        delete(&ldap, 20..21);
        let third = syncing.run().await;
        assert_eq!(held(&third), (Outcome::Held, stops("users", "AboveLimit"), 1));
        assert_eq!(syncing.run().await.counts.disabled, 0);
        assert_eq!(active(&syncing).await, 180);
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn accidents_take_nobody_away_however_often_they_are_seen() {
    let ldap = Ldap::start(200);
    let [file, _] = Place::each().await;
    let mut syncing = Syncing::full(file, ldap.directory());
    syncing.run().await;
    let typo = |filter: &str| UserSearch { filter: Template::parse(filter).unwrap().fill(b""), ..people() };
    // A filter that finds nobody, and one that finds fewer; a part of the tree that was moved away.
    for (users, why, many) in [
        (typo("(objectClass=inetOrgPersn)"), "NobodySeen", 200),
        (typo("(&(objectClass=inetOrgPerson)(!(uid=user0000*)))"), "ConfigChanged", 100),
    ] {
        syncing.read_like(ldap.directory(), Layout::new(users, None));
        for _ in 0..3 {
            let report = syncing.run().await;
            assert_eq!(held(&report), (Outcome::Held, stops("users", why), many));
        }
        assert_eq!(active(&syncing).await, 200);
    }
    syncing.read_like(ldap.directory(), Layout::new(people(), None));
    assert_eq!(syncing.run().await.held, None, "everybody is there again");
    ldap.modify(&format!(
        "dn: ou=attic,{SUFFIX}\nchangetype: add\nobjectClass: organizationalUnit\nou: attic\n"
    ));
    ldap.modify(&format!("dn: {PEOPLE}\nchangetype: modrdn\nnewrdn: ou=people\ndeleteoldrdn: 0\nnewsuperior: ou=attic,{SUFFIX}\n"));
    let report = syncing.run().await;
    assert_eq!(report.outcome, Outcome::Incomplete, "the search base is gone: {report:?}");
    assert_eq!(active(&syncing).await, 200);
}

#[tokio::test]
async fn an_approval_serves_for_its_plan_once() {
    for place in Place::each().await {
        let ldap = Ldap::start(200);
        let mut syncing = Syncing::full(place, ldap.directory());
        syncing.run().await;
        delete(&ldap, 0..50);
        let hash = |report: &Report| report.held.as_ref().expect("held").plan.hash.clone();
        let first = syncing.run().await;
        let plan = hash(&first);
        assert_eq!(first.held.as_ref().unwrap().plan.samples.len(), 20);
        assert_eq!(hash(&syncing.run().await), plan, "the same plan as long as nothing changes");
        // One more goes: what was approved is another plan.
        delete(&ldap, 50..51);
        syncing.settings.approval = Some(plan);
        let stale = syncing.run().await;
        assert_eq!((stale.outcome, active(&syncing).await), (Outcome::Held, 200));
        syncing.settings.approval = Some(hash(&stale));
        let done = syncing.run().await;
        assert_eq!((done.outcome, done.counts.disabled, done.held), (Outcome::Succeeded, 51, None));
        assert_eq!(active(&syncing).await, 149);
        assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_small_team_may_lose_one_and_never_the_half() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(12);
    let syncing = Syncing::full(file, ldap.directory());
    syncing.run().await;
    delete(&ldap, 0..1);
    syncing.run().await;
    assert_eq!(syncing.run().await.counts.disabled, 1);
    delete(&ldap, 1..11);
    for _ in 0..3 {
        assert_eq!(held(&syncing.run().await), (Outcome::Held, stops("users", "MoreThanHalf"), 10));
    }
    assert_eq!(active(&syncing).await, 11);
}

#[tokio::test]
async fn a_leak_that_is_slow_is_stopped_within_a_day() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(200);
    let mut syncing = Syncing::full(file, ldap.directory());
    syncing.settings.patience.grace = Duration::ZERO;
    syncing.run().await;
    let mut left = 200_u32;
    for _ in 0..6 {
        let more = left * 9 / 100;
        delete(&ldap, 200 - left..200 - left + more);
        left -= more;
        syncing.run().await;
        syncing.run().await;
    }
    assert!(left < 130, "a third is gone: {left} are left");
    assert!(active(&syncing).await >= 180, "and no more than a tenth was taken away");
}

#[tokio::test]
async fn known_people_under_new_ids_stop_the_run_before_the_first_row() {
    for place in Place::each().await {
        let ldap = Ldap::start(120);
        let mut syncing = Syncing::full(place, ldap.directory());
        syncing.run().await;
        let before = syncing.users().await;
        // The number of the employee is taken for the id.
        let mapping = UserMapping { id: "employeeNumber".to_owned(), ..people().mapping };
        syncing.read_like(ldap.directory(), Layout::new(UserSearch { mapping, ..people() }, None));
        for _ in 0..2 {
            let report = syncing.run().await;
            assert_eq!(held(&report), (Outcome::Held, stops("identifiers", "IdentifiersChanged"), 120));
            assert_eq!(report.held.unwrap().plan.summary, [(Op::Rekey, 120)].into());
            assert_eq!(syncing.count("authlink_identities").await, 120);
            assert_eq!(syncing.events().await, [("user.created".to_owned(), 120)].into());
        }
        syncing.settings.approval = syncing.run().await.held.map(|held| held.plan.hash);
        let done = syncing.run().await;
        assert_eq!(
            (done.outcome, done.counts.rekeyed, done.counts.created),
            (Outcome::Succeeded, 120, 0),
            "{done:?}"
        );
        let after = syncing.users().await;
        assert!(after.iter().all(|(name, (user, state, _))| *user == before[name].0 && state == "active"));
        assert_eq!(syncing.count("authlink_identities").await, 120);
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn an_account_that_is_switched_off_counts_and_one_that_is_switched_on_does_not() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(40);
    let syncing = Syncing::full(file, ldap.directory());
    syncing.run().await;
    let lock = |users: std::ops::Range<u32>, how: &str| {
        let one = |user| format!("dn: uid=user{user:06},{PEOPLE}\nchangetype: modify\n{how}\n\n");
        super::harness::modify(ldap.port(), &users.map(one).collect::<String>(), &["-e", "relax"]);
    };
    let off = "replace: pwdAccountLockedTime\npwdAccountLockedTime: 000001010000Z";
    lock(0..1, off);
    let report = syncing.run().await;
    assert_eq!((report.counts.disabled, report.counts.updated), (1, 0), "at once: the directory says so");
    lock(1..21, off);
    let report = syncing.run().await;
    assert_eq!(held(&report), (Outcome::Held, stops("users", "MoreThanHalf"), 20));
    assert_eq!(active(&syncing).await, 39);
    lock(0..21, "delete: pwdAccountLockedTime");
    let report = syncing.run().await;
    assert_eq!((report.outcome, report.counts.reactivated), (Outcome::Succeeded, 1));
    assert_eq!(active(&syncing).await, 40);
    syncing.assert_told().await;
}

#[tokio::test]
async fn a_plan_says_what_is_done_when_it_is_approved() {
    for place in Place::each().await {
        let ldap = Ldap::start(50);
        let mut syncing = Syncing::full(place, ldap.directory());
        syncing.settings.mode = Mode::Plan;
        let cold = syncing.run().await;
        assert_eq!((cold.outcome, cold.counts.created), (Outcome::Planned, 50));
        assert_eq!(syncing.count("authlink_users").await, 0);
        syncing.settings.approval = cold.plan.map(|plan| plan.hash);
        let done = syncing.run().await;
        assert_eq!((done.outcome, done.counts), (Outcome::Succeeded, cold.counts));
        delete(&ldap, 0..3);
        ldap.modify(&format!(
            "dn: uid=user000009,{PEOPLE}\nchangetype: modify\nreplace: mail\nmail: new@example.org\n"
        ));
        let plan = syncing.run().await;
        let summary = &plan.plan.as_ref().expect("a plan").summary;
        assert_eq!(
            *summary,
            [(Op::Update, 1), (Op::Disable, 3)].into(),
            "and no approval of another plan serves"
        );
        assert_eq!(active(&syncing).await, 50);
        syncing.settings.approval = plan.plan.map(|plan| plan.hash);
        let done = syncing.run().await;
        let numbers =
            |report: &Report| (report.counts.updated, report.counts.disabled, report.counts.unchanged);
        assert_eq!(numbers(&done), (1, 3, 46));
        assert_eq!((plan.counts.updated, plan.counts.disabled, plan.counts.unchanged), (1, 3, 46));
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_directory_without_anybody_is_no_success() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(0);
    let syncing = Syncing::full(file, ldap.directory());
    assert_eq!(syncing.run().await.outcome, Outcome::NobodyFound);
    // A flag of another make of directory, that nobody has.
    let ldap = Ldap::start(5);
    let mapping = UserMapping {
        id: "entryUUID".into(),
        username: "uid".into(),
        ..UserMapping::new(Preset::ActiveDirectory)
    };
    let [file, _] = Place::each().await;
    let syncing = Syncing::of(file, ldap.directory(), Layout::new(UserSearch { mapping, ..people() }, None));
    let report = syncing.run().await;
    assert!(report.flags_missing);
    assert_eq!(active(&syncing).await, 0, "who is switched off cannot be told");
}
