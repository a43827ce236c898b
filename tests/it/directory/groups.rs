//! Groups and the roles that they give.

use authlink::{
    backends::directory::{GroupSearch, Layout},
    domain::sync::{
        filter::Template,
        mapping::{GroupMapping, MemberValue},
        preset::Preset,
        roles::{GroupMatch, RoleMapping},
    },
    sync::Outcome,
};

use super::harness::{GROUPS, Ldap, PEOPLE, Syncing, groups, people};
use crate::store::Place;

fn role(group: &str, role: &str) -> RoleMapping {
    RoleMapping { group: GroupMatch::Name(group.to_owned()), role: role.to_owned(), nested: true }
}

async fn holders(syncing: &Syncing, role: &str) -> Vec<String> {
    let query = format!(
        "select u.username from authlink_roles r join authlink_users u on u.id = r.user_id where r.role = '{role}' \
         order by u.username"
    );
    syncing.place.texts(&query).await.into_iter().map(|row| row[0].clone()).collect()
}

#[tokio::test]
async fn members_of_a_group_have_its_role_and_lose_it_with_the_membership_in_the_next_run() {
    for place in Place::each().await {
        let ldap = Ldap::start(200);
        let mut syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), Some(groups())));
        syncing.settings.roles = vec![role("group00001", "editor")];
        syncing.run().await;
        assert_eq!(holders(&syncing, "editor").await.len(), 100);
        // The user's own entry does not change.
        ldap.modify(&format!(
            "dn: cn=group00001,{GROUPS}\nchangetype: modify\ndelete: member\nmember: uid=user000123,{PEOPLE}\n"
        ));
        let report = syncing.run().await;
        assert_eq!((report.full, report.counts.roles_lost), (false, 1), "{report:?}");
        assert!(!holders(&syncing, "editor").await.contains(&"user000123".to_owned()));
    }
}

#[tokio::test]
async fn memberships_that_may_not_be_read_any_more_take_no_role() {
    for place in Place::each().await {
        let mut ldap = Ldap::start(600);
        let mut syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), Some(groups())));
        syncing.settings.force_full = true;
        syncing.settings.roles = vec![role("group00001", "editor")];
        syncing.run().await;
        ldap.0.restart_with("DATABASE", "access to attrs=member,memberOf by * none");
        for _ in 0..3 {
            let report = syncing.run().await;
            assert_eq!(report.outcome, Outcome::Held, "{report:?}");
            let classes: Vec<_> =
                report.held.expect("held").stops.into_iter().map(|(class, _)| class).collect();
            assert!(classes.contains(&"memberships".to_owned()), "{classes:?}");
            assert_eq!(holders(&syncing, "editor").await.len(), 100);
        }
        ldap.0.restart_with("DATABASE", "");
        assert_eq!(syncing.run().await.outcome, Outcome::Succeeded);
        assert_eq!(holders(&syncing, "editor").await.len(), 100);
    }
}

#[tokio::test]
async fn groups_in_groups_give_their_roles_and_a_cycle_is_no_harm() {
    for place in Place::each().await {
        let ldap = Ldap::start(100);
        let group = |name: &str, member: &str| {
            format!(
                "dn: cn={name},{GROUPS}\nchangetype: add\nobjectClass: groupOfNames\ncn: {name}\nmember: {member}\n\n"
            )
        };
        let user = format!("uid=user000007,{PEOPLE}");
        let mut ldif = group("level0", &user);
        for level in 1..5 {
            ldif += &group(&format!("level{level}"), &format!("cn=level{},{GROUPS}", level - 1));
        }
        // a in b, b in a; and one that is nowhere.
        ldif += &group("a", &format!("cn=b,{GROUPS}"));
        ldif += &group("b", &format!("cn=a,{GROUPS}"));
        let change = format!(
            "dn: cn=a,{GROUPS}\nchangetype: modify\nadd: member\nmember: uid=user000008,{PEOPLE}\nmember: uid=gone,{PEOPLE}\n\n"
        );
        ldif += &change;
        ldap.modify(&ldif);
        let mut syncing = Syncing::of(place, ldap.directory(), Layout::new(people(), Some(groups())));
        let flat = RoleMapping { nested: false, ..role("level4", "flat") };
        syncing.settings.roles = vec![role("level4", "nested"), role("b", "cyclic"), flat];
        let report = syncing.run().await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
        assert_eq!(report.unresolved, Some(1), "uid=gone");
        assert!(report.role_groups.cycles > 0, "{report:?}");
        assert_eq!(holders(&syncing, "nested").await, ["user000007"]);
        assert_eq!(holders(&syncing, "cyclic").await, ["user000008"]);
        assert_eq!(holders(&syncing, "flat").await, Vec::<String>::new());
    }
}

#[tokio::test]
async fn posix_groups_name_their_members_by_user_name_whatever_its_case() {
    let [file, _] = Place::each().await;
    let ldap = Ldap::start(10);
    ldap.modify(&format!(
        "dn: cn=ops,{GROUPS}\nchangetype: add\nobjectClass: posixGroup\ncn: ops\ngidNumber: 500\nmemberUid: user000001\n\
         memberUid: USER000002\nmemberUid: gone\n"
    ));
    let search = GroupSearch {
        filter: Template::parse("(objectClass=posixGroup)").unwrap().fill(b""),
        mapping: GroupMapping {
            members: "memberUid".to_owned(),
            member_value: MemberValue::Username,
            ..GroupMapping::new(Preset::OpenLdap)
        },
        ..groups()
    };
    let mut syncing = Syncing::of(file, ldap.directory(), Layout::new(people(), Some(search)));
    syncing.settings.roles = vec![role("ops", "operator")];
    let report = syncing.run().await;
    assert_eq!(report.unresolved, Some(1), "{report:?}");
    assert_eq!(holders(&syncing, "operator").await, ["user000001", "user000002"]);
}

#[tokio::test]
async fn two_objects_of_the_same_directory_are_two_sources_and_delete_nobody_of_each_other() {
    for place in Place::each().await {
        let ldap = Ldap::start(50);
        let mut syncing = Syncing::full(place, ldap.directory());
        syncing.run().await;
        syncing.settings.source.uid = "other".to_owned();
        let other = syncing.run().await;
        assert_eq!((other.counts.created, other.outcome), (50, Outcome::Succeeded));
        assert_eq!(syncing.count("authlink_users where state = 'active'").await, 100);
        syncing.settings.source.uid = "test".to_owned();
        assert_eq!(syncing.run().await.counts.unchanged, 50);
        syncing.assert_told().await;
    }
}
