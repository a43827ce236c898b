//! Users come, change, go and come back.

use authlink::{domain::sync::counts::Counts, sync::Outcome};

use super::harness::{Ldap, PEOPLE, Syncing};
use crate::store::Place;

#[tokio::test]
async fn everybody_is_there_after_the_first_run_and_nothing_is_written_by_the_second() {
    let ldap = Ldap::start(1000);
    for place in Place::each().await {
        let syncing = Syncing::full(place, ldap.directory());
        let first = syncing.run().await;
        assert_eq!(first.outcome, Outcome::Succeeded, "{first:?}");
        assert_eq!(first.counts, Counts { seen: 1000, created: 1000, ..Counts::default() });
        assert_eq!(syncing.events().await, [("user.created".to_owned(), 1000)].into());
        let query = "select i.external_id, i.username, u.email, i.name, i.attributes from authlink_identities i \
                     join authlink_users u on u.id = i.user_id where i.username = 'user000003'";
        let ids = ldap.values(PEOPLE, "(uid=user000003)", "entryUUID");
        let id = &ids["uid=user000003,ou=people,dc=example,dc=org"][0];
        let attributes = r#"{"department":"3","title":"Ingénieur"}"#;
        let expected = [id.as_str(), "user000003", "user000003@example.org", "User 000003", attributes];
        assert_eq!(syncing.place.texts(query).await, [expected]);

        let second = syncing.run().await;
        assert_eq!(second.counts, Counts { seen: 1000, unchanged: 1000, ..Counts::default() });
        assert_eq!(syncing.events().await.values().sum::<usize>(), 1000);
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_user_stays_the_same_one_through_every_change_but_that_of_the_id() {
    for place in Place::each().await {
        let ldap = Ldap::start(20);
        ldap.modify(&format!(
            "dn: ou=moved,{PEOPLE}\nchangetype: add\nobjectClass: organizationalUnit\nou: moved\n"
        ));
        let syncing = Syncing::full(place, ldap.directory());
        syncing.run().await;
        let before = syncing.users().await;
        let mail = |user: u32, mail: &str| {
            format!("dn: uid=user{user:06},{PEOPLE}\nchangetype: modify\nreplace: mail\nmail: {mail}\n\n")
        };
        // Moved, renamed, renamed in case only, two who swap their addresses, two who swap their names.
        ldap.modify(&[
            format!("dn: uid=user000001,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=user000001\ndeleteoldrdn: 0\nnewsuperior: ou=moved,{PEOPLE}\n\n"),
            format!("dn: uid=user000002,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=renamed\ndeleteoldrdn: 1\n\n"),
            format!("dn: uid=user000003,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=User000003\ndeleteoldrdn: 1\n\n"),
            mail(4, "user000005@example.org"),
            mail(5, "user000004@example.org"),
            format!("dn: uid=user000006,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=aside\ndeleteoldrdn: 1\n\n"),
            format!("dn: uid=user000007,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=user000006\ndeleteoldrdn: 1\n\n"),
            format!("dn: uid=aside,{PEOPLE}\nchangetype: modrdn\nnewrdn: uid=user000007\ndeleteoldrdn: 1\n\n"),
        ].concat());
        let report = syncing.run().await;
        assert_eq!(
            (report.outcome, report.counts.updated, report.counts.created),
            (Outcome::Succeeded, 7, 0)
        );
        let after = syncing.users().await;
        let told_twice = |name: &str, was: &str| {
            assert_eq!(after[name], (before[was].0.clone(), "active".to_owned(), "2".to_owned()), "{name}");
        };
        told_twice("user000001", "user000001");
        told_twice("renamed", "user000002");
        told_twice("User000003", "user000003");
        told_twice("user000004", "user000004");
        told_twice("user000005", "user000005");
        told_twice("user000006", "user000007");
        told_twice("user000007", "user000006");
        assert_eq!(
            syncing.events().await,
            [("user.created".to_owned(), 20), ("user.updated".to_owned(), 7)].into()
        );
        syncing.assert_told().await;
    }
}

#[tokio::test]
async fn a_user_who_is_gone_twice_is_disabled_and_who_comes_back_is_the_same() {
    for place in Place::each().await {
        let ldap = Ldap::start(20);
        let syncing = Syncing::full(place, ldap.directory());
        syncing.run().await;
        let before = syncing.users().await;
        let dn = format!("uid=user000009,{PEOPLE}");
        let id = ldap.values(PEOPLE, "(uid=user000009)", "entryUUID")[&dn][0].clone();
        ldap.modify(&format!("dn: {dn}\nchangetype: delete\n"));

        let once = syncing.run().await;
        assert_eq!((once.outcome, once.counts.missing, once.counts.disabled), (Outcome::Succeeded, 1, 0));
        assert_eq!(syncing.users().await["user000009"].1, "active");
        let twice = syncing.run().await;
        assert_eq!((twice.outcome, twice.counts.disabled), (Outcome::Succeeded, 1));
        assert_eq!(syncing.users().await["user000009"].1, "disabled");
        let again = syncing.run().await;
        assert_eq!((again.counts.disabled, again.counts.updated), (0, 0));

        let restored = format!(
            "dn: {dn}\nchangetype: add\nobjectClass: inetOrgPerson\nuid: user000009\ncn: User 000009\nsn: Sur9\n\
             mail: user000009@example.org\nentryUUID: {id}\n"
        );
        super::harness::modify(ldap.port(), &restored, &["-e", "relax"]);
        let back = syncing.run().await;
        assert_eq!((back.counts.reactivated, back.counts.created), (1, 0), "{back:?}");
        let (user, state, version) = syncing.users().await["user000009"].clone();
        assert_eq!(
            (user.as_str(), state.as_str(), version.as_str()),
            (before["user000009"].0.as_str(), "active", "3")
        );
        syncing.assert_told().await;
    }
}
