//! Active Directory, as Samba is one.

use std::{process::Command, sync::Arc};

use authlink::{
    api::Reason,
    backends::{
        directory::{
            Directory, DirectorySettings, GroupSearch, Layout, Login, Protection, Scope, UserSearch,
        },
        transport::TlsSettings,
    },
    domain::sync::{
        account::Refusal,
        filter::Template,
        mapping::{GroupMapping, UserMapping},
        preset::Preset,
        roles::{GroupMatch, RoleMapping},
    },
    store::users::SourceName,
    sync::{
        Outcome,
        login::{Denial, LoginError, LoginMode, LoginSettings, Logins},
    },
};

use super::harness::{Syncing, directory, settings};
use crate::{
    store::Place,
    support::{Server, System},
};

const ROOT: &str = "dc=ad,dc=example,dc=org";

/// A domain controller of one's own.
struct Domain(Server);

impl Domain {
    fn start() -> Self {
        Self(Server::start(System::Samba))
    }

    /// As its own administrator does it.
    fn tool(&self, args: &[&str]) {
        let config = self.0.folder().join("data/etc/smb.conf");
        let output =
            Command::new("samba-tool").args(args).arg("-s").arg(config).output().expect("samba-tool");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    }

    fn settings(&self) -> DirectorySettings {
        let url = format!("ldap://127.77.{}.{}", self.0.port / 256, self.0.port % 256);
        let login =
            Login::Simple { name: "administrator@ad.example.org".to_owned(), password: "Passw0rd!x".into() };
        DirectorySettings {
            login,
            server_name: Some("localhost".to_owned()),
            insecure: false,
            ..settings(&[&url], Protection::StartTls)
        }
    }

    fn directory(&self) -> Arc<Directory> {
        directory(self.settings())
    }
}

fn template() -> Template {
    Template::parse(Preset::ActiveDirectory.defaults().user_filter).expect("a filter")
}

fn people() -> UserSearch {
    UserSearch {
        base: ROOT.to_owned(),
        scope: Scope::Sub,
        filter: template().listing().expect("a listing"),
        mapping: UserMapping::new(Preset::ActiveDirectory),
    }
}

fn layout() -> Layout {
    let groups = GroupSearch {
        base: ROOT.to_owned(),
        scope: Scope::Sub,
        filter: Template::parse("(objectClass=group)").expect("a filter").fill(b""),
        mapping: GroupMapping::new(Preset::ActiveDirectory),
    };
    Layout::new(people(), Some(groups))
}

async fn names(syncing: &Syncing, state: &str) -> Vec<String> {
    let query = format!("select username from authlink_users where state = '{state}' order by username");
    let ours = ["anna", "bernd", "jose", "pc1$", "krbtgt", "Guest", "DC1$"];
    let all = syncing.place.texts(&query).await.into_iter().map(|row| row[0].clone());
    all.filter(|name| ours.contains(&name.as_str())).collect()
}

async fn holders(syncing: &Syncing) -> Vec<String> {
    let query = "select u.username from authlink_roles r join authlink_users u on u.id = r.user_id order by u.username";
    syncing.place.texts(query).await.into_iter().map(|row| row[0].clone()).collect()
}

#[tokio::test]
async fn a_domain_is_synced_from_its_root_and_changes_and_deletions_are_found() {
    let domain = Domain::start();
    for name in ["anna", "bernd", "jose"] {
        domain.tool(&["user", "create", name, "Passw0rd!y", &format!("--mail-address={name}@example.org")]);
    }
    domain.tool(&["user", "disable", "bernd"]);
    domain.tool(&["computer", "create", "pc1"]);
    domain.tool(&["group", "add", "staff"]);
    domain.tool(&["group", "add", "everybody"]);
    domain.tool(&["group", "addmembers", "staff", "anna,jose"]);
    domain.tool(&["group", "addmembers", "everybody", "staff"]);
    let [file, _] = Place::each().await;
    let mut syncing = Syncing::of(file, domain.directory(), layout());
    let role = |nested| RoleMapping {
        group: GroupMatch::Name("everybody".to_owned()),
        role: "member".to_owned(),
        nested,
    };
    syncing.settings.roles = vec![role(true)];
    let first = syncing.run().await;
    assert_eq!(first.outcome, Outcome::Succeeded, "{first:?}");
    assert!(first.counts.references > 0, "the root refers to the other naming contexts: {first:?}");
    assert!(["DirSync", "UsnChanged"].contains(&first.method.0), "{first:?}");
    assert_eq!(names(&syncing, "active").await, ["anna", "jose"]);
    assert_eq!(names(&syncing, "disabled").await, ["bernd"]);
    assert_eq!(holders(&syncing).await, ["anna", "jose"]);
    let before = syncing.users().await;

    // Changes of four kinds, all found without reading everything.
    domain.tool(&["ou", "create", &format!("OU=moved,{ROOT}")]);
    domain.tool(&["user", "move", "anna", &format!("OU=moved,{ROOT}")]);
    domain.tool(&["user", "enable", "bernd"]);
    domain.tool(&["group", "removemembers", "staff", "jose"]);
    let second = syncing.run().await;
    assert_eq!((second.full, second.outcome), (false, Outcome::Succeeded), "{second:?}");
    assert_eq!(second.counts.reactivated, 1, "{second:?}");
    assert_eq!(names(&syncing, "active").await, ["anna", "bernd", "jose"]);
    assert_eq!(holders(&syncing).await, ["anna"], "{second:?}");
    let after = syncing.users().await;
    assert_eq!(after["anna"].0, before["anna"].0, "the same user in another place");

    // A new account of the same name is another user, and the tombstone takes nothing from it.
    domain.tool(&["user", "delete", "jose"]);
    domain.tool(&["user", "create", "jose", "Passw0rd!y", "--mail-address=jose@example.org"]);
    let mut disabled = 0;
    for _ in 0..3 {
        let report = syncing.run().await;
        assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
        disabled += report.counts.disabled;
    }
    assert_eq!(disabled, 1);
    assert_eq!(names(&syncing, "active").await, ["anna", "bernd", "jose"]);
    assert_eq!(names(&syncing, "disabled").await, ["jose"]);
    syncing.settings.force_full = true;
    let whole = syncing.run().await;
    assert_eq!(
        (whole.counts.updated, whole.counts.created),
        (0, 0),
        "a full run finds nothing else: {whole:?}"
    );
}

#[tokio::test]
async fn a_login_at_a_domain_is_by_its_names_and_its_refusals_are_told_apart() {
    let domain = Domain::start();
    domain.tool(&["user", "create", "anna", "Passw0rd!y"]);
    domain.tool(&["user", "create", "bernd", "Passw0rd!y"]);
    domain.tool(&["user", "disable", "bernd"]);
    let [file, _] = Place::each().await;
    let store = file.open();
    let logins = |mode| {
        let source = SourceName { uid: "test".to_owned(), ..SourceName::default() };
        let settings = LoginSettings { source, users: people(), filter: template(), mode };
        Logins::new(domain.directory(), settings)
    };
    let search = logins(LoginMode::SearchThenBind);
    let person = search.authenticate(&store, "portal", "ANNA", &"Passw0rd!y".into()).await.expect("a login");
    assert_eq!(person.username.as_deref(), Some("anna"));
    let upn = logins(LoginMode::Template("{}@ad.example.org".to_owned()));
    let same = upn.authenticate(&store, "portal", "anna", &"Passw0rd!y".into()).await.expect("a login");
    assert_eq!(same.user, person.user);
    for (name, password, denial) in [
        ("anna", "wrong", Denial::WrongPassword),
        ("nobody", "wrong", Denial::NoSuchUser),
        ("bernd", "Passw0rd!y", Denial::Account(Refusal::Disabled)),
        ("krbtgt", "wrong", Denial::NoSuchUser),
    ] {
        match search.authenticate(&store, "portal", name, &password.into()).await {
            Err(LoginError::Refused(found)) => assert_eq!(found, denial, "{name}"),
            other => panic!("{name}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_domain_takes_no_password_without_tls_which_is_no_wrong_password() {
    let domain = Domain::start();
    let plain = DirectorySettings {
        protection: Protection::None,
        insecure: true,
        tls: TlsSettings::default(),
        ..domain.settings()
    };
    for password in ["Passw0rd!x", "wrong"] {
        let login =
            Login::Simple { name: "administrator@ad.example.org".to_owned(), password: password.into() };
        let fault =
            directory(DirectorySettings { login, ..plain.clone() }).probe(0).await.expect_err("refused");
        assert_eq!(fault.reason, Reason::TlsFailed, "{fault}");
    }
}
