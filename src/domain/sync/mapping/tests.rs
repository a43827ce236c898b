use super::*;
use crate::domain::sync::entry::tests::entry;

const ID: &str = "6ba7b810-9dad-11d1-80b4-00c04fd430c8";

fn mapped(mapping: &UserMapping, entry: &Entry) -> Result<UserRecord, Unusable> {
    match mapping.user(entry, None, Timestamp::UNIX_EPOCH) {
        Ok(Mapped::User(user)) => Ok(*user),
        Ok(Mapped::NoPerson) => panic!("no person"),
        Err(rejected) => Err(rejected.reason),
    }
}

fn binary(entry: &mut Entry, name: &'static str, values: &[&[u8]]) {
    let values = values.iter().map(|value| Bytes::copy_from_slice(value)).collect();
    entry.attributes.push(Attribute { name: Bytes::from_static(name.as_bytes()), values });
}

#[test]
fn an_entry_of_openldap_is_read_whatever_the_case_of_its_names() {
    let entry = entry(
        "uid=anna,dc=x",
        &[
            ("ENTRYUUID", &[ID]),
            ("UID", &["anna"]),
            ("Mail", &["z@x.org", "a@x.org"]),
            ("cn", &["Anna A."]),
            ("sn", &["A."]),
        ],
    );
    let mapping = UserMapping {
        extra: [("surname".to_owned(), "sn".to_owned())].into(),
        ..UserMapping::new(Preset::OpenLdap)
    };
    let user = mapped(&mapping, &entry).unwrap();
    assert_eq!(user.external_id, ID);
    assert_eq!(user.emails, ["a@x.org", "z@x.org"]);
    assert_eq!((user.usernames, user.names), (vec!["anna".to_owned()], vec!["Anna A.".to_owned()]));
    assert_eq!(user.attributes["surname"], ["A."]);
    assert_eq!((user.enabled, user.email_verified), (Some(true), false));
}

#[test]
fn an_entry_of_active_directory_has_a_binary_id_and_its_flags() {
    let mut entry = entry(
        "CN=Anna,DC=x",
        &[("sAMAccountName", &["anna"]), ("userAccountControl", &["514"]), ("primaryGroupID", &["513"])],
    );
    binary(&mut entry, "objectGUID", &[&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]]);
    let user = mapped(&UserMapping::new(Preset::ActiveDirectory), &entry).unwrap();
    assert_eq!(user.external_id, "04030201-0605-0807-090a-0b0c0d0e0f10");
    assert_eq!((user.enabled, user.primary_group.as_deref()), (Some(false), Some("513")));
}

#[test]
fn a_computer_is_no_person() {
    let entry = entry("CN=PC1,DC=x", &[("sAMAccountName", &["PC1$"])]);
    let mapping = UserMapping::new(Preset::ActiveDirectory);
    assert_eq!(mapping.user(&entry, None, Timestamp::UNIX_EPOCH), Ok(Mapped::NoPerson));
}

#[expect(clippy::type_complexity, reason = "the columns of a table")]
#[test]
fn what_cannot_be_used_says_why() {
    let mapping = UserMapping {
        extra: [("photo".to_owned(), "jpegPhoto".to_owned()), ("tag".to_owned(), "tag".to_owned())].into(),
        ..UserMapping::new(Preset::OpenLdap)
    };
    let many: Vec<String> = (0..10_000).map(|number| number.to_string()).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let large = "x".repeat(70_000);
    let long = "x".repeat(300);
    let rows: [(&[(&str, &[&str])], Unusable); 9] = [
        (&[("uid", &["a"])], Unusable::NoId),
        (&[("entryUUID", &[""]), ("uid", &["a"])], Unusable::NoId),
        (&[("entryUUID", &[ID, ID]), ("uid", &["a"])], Unusable::NoId),
        (&[("entryUUID", &[ID])], Unusable::NoUsername),
        (&[("entryUUID", &[ID]), ("uid", &[" "])], Unusable::NoUsername),
        (&[("entryUUID", &[ID]), ("uid", &["a\0b"])], Unusable::NotText),
        (&[("entryUUID", &[ID]), ("uid", &[&long])], Unusable::TooLarge),
        (&[("entryUUID", &[ID]), ("uid", &["a"]), ("tag", &many)], Unusable::TooLarge),
        (&[("entryUUID", &[ID]), ("uid", &["a"]), ("tag", &[&large])], Unusable::TooLarge),
    ];
    for (attributes, reason) in rows {
        let rejected = mapping.user(&entry("cn=a", attributes), None, Timestamp::UNIX_EPOCH).unwrap_err();
        assert_eq!(rejected.reason, reason);
        assert_eq!(rejected.external_id.is_none(), reason == Unusable::NoId, "{reason:?}");
    }
    let mut entry = entry("cn=a", &[("entryUUID", &[ID]), ("uid", &["a"])]);
    entry.dn = Bytes::from_static(b"cn=\xff");
    assert_eq!(mapped(&mapping, &entry), Err(Unusable::NotText));
}

#[test]
fn what_is_optional_and_unusable_is_left_out() {
    let mapping = UserMapping {
        extra: [("photo".to_owned(), "jpegPhoto".to_owned())].into(),
        ..UserMapping::new(Preset::OpenLdap)
    };
    let mut entry = entry("cn=a", &[("entryUUID", &[ID]), ("uid", &["a"]), ("cn", &["A\0"])]);
    binary(&mut entry, "mail", &[b"\xff\xd8", b" ", b"[]", b"user000001", b"a b@x", b"@x", b"a@"]);
    let photo = vec![0xff; 70_000];
    binary(&mut entry, "jpegPhoto", &[&photo]);
    let user = mapped(&mapping, &entry).unwrap();
    assert_eq!((user.emails.len(), user.names.len(), user.attributes.len()), (0, 0, 0));
}

#[test]
fn what_was_not_mapped_is_not_kept() {
    let entry = entry("cn=a", &[("entryUUID", &[ID]), ("uid", &["a"]), ("userPassword", &["{PBKDF2}x"])]);
    let user = mapped(&UserMapping::new(Preset::OpenLdap), &entry).unwrap();
    assert!(!format!("{user:?}").contains("PBKDF2"));
}

#[test]
fn the_order_of_values_changes_nothing() {
    let record = |mails: &[&str]| {
        let entry = entry("cn=a", &[("entryUUID", &[ID]), ("uid", &["b", "a"]), ("mail", mails)]);
        mapped(&UserMapping::new(Preset::OpenLdap), &entry).unwrap()
    };
    assert_eq!(record(&["a@x", "b@x", "c@x"]).hash(), record(&["c@x", "a@x", "b@x"]).hash());
}

#[test]
fn each_attribute_is_asked_for_once() {
    let mut mapping = UserMapping::new(Preset::ActiveDirectory);
    mapping.extra.insert("login".to_owned(), "SAMACCOUNTNAME".to_owned());
    let names = mapping.attributes();
    assert_eq!(names.iter().filter(|name| name.eq_ignore_ascii_case("sAMAccountName")).count(), 1);
    assert!(names.iter().any(|name| name == "userAccountControl"));
    assert!(!mapping.is_computed());
    mapping.extra.insert("groups".to_owned(), "memberof".to_owned());
    assert!(mapping.is_computed());
}

#[test]
fn members_are_taken_by_name_whatever_way_it_is_written() {
    let mapping = GroupMapping { members: "uniqueMember".to_owned(), ..GroupMapping::new(Preset::OpenLdap) };
    let members = ["uid=a,dc=x", "UID=A, dc=x", "uid=b,dc=x#'0101'B", "uid=c#d,dc=x"];
    let entry = entry("cn=g,dc=x", &[("entryUUID", &[ID]), ("cn", &["g"]), ("UNIQUEMEMBER", &members)]);
    let group = mapping.group(&entry, None, true).unwrap();
    let mut keys = ["uid=a,dc=x", "uid=b,dc=x", "uid=c#d,dc=x"].map(dn::key);
    keys.sort_unstable();
    assert_eq!(group.members, keys);
    assert_eq!(group.name, "g");
}

#[test]
fn members_by_user_name_are_compared_without_case() {
    let mapping = GroupMapping {
        members: "memberUid".to_owned(),
        member_value: MemberValue::Username,
        ..GroupMapping::new(Preset::OpenLdap)
    };
    let entry =
        entry("cn=g", &[("entryUUID", &[ID]), ("cn", &["g"]), ("memberUid", &["USER2", "user1", "user2"])]);
    let mut keys = ["user1", "user2"].map(Key::username);
    keys.sort_unstable();
    assert_eq!(mapping.group(&entry, None, true).unwrap().members, keys);
}

#[test]
fn members_in_ranges_are_put_together() {
    let mapping = GroupMapping::new(Preset::ActiveDirectory);
    let mut entry = entry(
        "CN=g",
        &[
            ("sAMAccountName", &["g"]),
            ("member", &[]),
            ("member;range=0-0", &["cn=a"]),
            ("member;range=1-*", &["cn=b"]),
        ],
    );
    binary(&mut entry, "objectGUID", &[&[7; 16]]);
    binary(&mut entry, "objectSid", &[&[1, 2, 0, 0, 0, 0, 0, 5, 21, 0, 0, 0, 1, 2, 0, 0]]);
    let group = mapping.group(&entry, None, true).unwrap();
    assert_eq!((group.members.len(), group.relative_id.as_deref()), (2, Some("513")));
}
