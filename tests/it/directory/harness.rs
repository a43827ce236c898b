//! A directory of one's own, a store, and what syncs the one into the other.

use std::{
    collections::BTreeMap,
    io::Write as _,
    process::{Command, Stdio},
    sync::Arc,
    time::Duration,
};

use authlink::{
    backends::{
        directory::{
            Directory, DirectorySettings, GroupSearch, Layout, Login, Protection, Scope, ServerUrl,
            UserSearch, settings,
        },
        http::Egress,
        transport::TlsSettings,
    },
    domain::sync::{
        filter::Template,
        guard::Limits,
        mapping::{GroupMapping, UserMapping},
        preset::Preset,
        strikes::Patience,
    },
    store::{Store, users::SourceRecord},
    sync::{Control, Mode, Report, SyncError, SyncSettings, ldap::LdapSource, source::Source},
};

use crate::{
    store::Place,
    support::{Server, System, tls_file},
};

pub(crate) const SUFFIX: &str = "dc=example,dc=org";
pub(crate) const PEOPLE: &str = "ou=people,dc=example,dc=org";
pub(crate) const GROUPS: &str = "ou=groups,dc=example,dc=org";
const ADMIN: &str = "cn=admin,dc=example,dc=org";
const APP: &str = "uid=app,ou=svc,dc=example,dc=org";

/// An OpenLDAP of one's own.
pub(crate) struct Ldap(pub(crate) Server);

impl Ldap {
    /// With so many users, `user000000` and so on, in groups of a hundred.
    pub(crate) fn start(users: u32) -> Self {
        Self::start_with(users, &[])
    }

    pub(crate) fn start_with(users: u32, settings: &[(&'static str, &str)]) -> Self {
        let users = users.to_string();
        let mut all = vec![("USERS", users.as_str())];
        all.extend(settings);
        Self(Server::start_with(System::Slapd, &all))
    }

    pub(crate) fn port(&self) -> u16 {
        self.0.port
    }

    /// Changes entries, as the administrator.
    pub(crate) fn modify(&self, ldif: &str) {
        modify(self.port(), ldif, &[]);
    }

    /// The values of an attribute of every entry that a filter finds, by the entry's name, as `ldapsearch` tells them.
    pub(crate) fn values(&self, base: &str, filter: &str, attribute: &str) -> BTreeMap<String, Vec<String>> {
        values(self.port(), base, filter, attribute)
    }

    pub(crate) fn directory(&self) -> Arc<Directory> {
        directory(plain(self.port()))
    }
}

/// Changes entries of a server, as its administrator, with further options of `ldapmodify`.
pub(crate) fn modify(port: u16, ldif: &str, options: &[&str]) {
    let mut command = Command::new("ldapmodify");
    command
        .args(["-x", "-H", &format!("ldap://127.0.0.1:{port}"), "-D", ADMIN, "-w", "admin-secret"])
        .args(options);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("ldapmodify");
    child.stdin.take().expect("stdin").write_all(ldif.as_bytes()).expect("it reads");
    let output = child.wait_with_output().expect("it ends");
    assert!(output.status.success(), "{}\n{ldif}", String::from_utf8_lossy(&output.stderr));
}

fn values(port: u16, base: &str, filter: &str, attribute: &str) -> BTreeMap<String, Vec<String>> {
    let mut command = Command::new("ldapsearch");
    command.args(["-x", "-LLL", "-o", "ldif-wrap=no", "-H", &format!("ldap://127.0.0.1:{port}")]);
    command.args([
        "-D",
        ADMIN,
        "-w",
        "admin-secret",
        "-b",
        base,
        "-E",
        "pr=1000/noprompt",
        filter,
        attribute,
    ]);
    let output = command.output().expect("ldapsearch");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (mut found, mut dn): (BTreeMap<String, Vec<String>>, _) = (BTreeMap::new(), String::new());
    for line in String::from_utf8(output.stdout).expect("LDIF").lines() {
        let Some((name, value)) = line.split_once(": ") else { continue };
        if name == "dn" {
            value.clone_into(&mut dn);
            found.entry(dn.clone()).or_default();
        } else if name.eq_ignore_ascii_case(attribute) {
            found.entry(dn.clone()).or_default().push(value.to_owned());
        }
    }
    found
}

/// The user `app` on a server without TLS.
pub(crate) fn plain(port: u16) -> DirectorySettings {
    settings(&[&format!("ldap://127.0.0.1:{port}")], Protection::None)
}

/// The user `app` on these servers.
pub(crate) fn settings(urls: &[&str], protection: Protection) -> DirectorySettings {
    DirectorySettings {
        servers: urls.iter().map(|url| url.parse::<ServerUrl>().expect("a URL")).collect(),
        protection,
        tls: TlsSettings { ca: Some(tls_file("ca.pem")), ..TlsSettings::default() },
        server_name: None,
        insecure: true,
        login: app("app-secret"),
        connect_timeout: Duration::from_secs(5),
        answer_timeout: Duration::from_secs(10),
    }
}

pub(crate) fn app(password: &str) -> Login {
    settings::Login::Simple { name: APP.to_owned(), password: password.into() }
}

pub(crate) fn directory(settings: DirectorySettings) -> Arc<Directory> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Arc::new(Directory::new(settings, Egress::unrestricted()).expect("settings"))
}

pub(crate) fn people() -> UserSearch {
    let filter = Template::parse("(&(objectClass=inetOrgPerson)(uid={}))").expect("a filter");
    let extra =
        [("department".to_owned(), "departmentNumber".to_owned()), ("title".to_owned(), "title".to_owned())];
    UserSearch {
        base: PEOPLE.to_owned(),
        scope: Scope::Sub,
        filter: filter.listing().expect("a listing"),
        mapping: UserMapping { extra: extra.into(), ..UserMapping::new(Preset::OpenLdap) },
    }
}

pub(crate) fn groups() -> GroupSearch {
    GroupSearch {
        base: GROUPS.to_owned(),
        scope: Scope::Sub,
        filter: Template::parse("(objectClass=groupOfNames)").expect("a filter").fill(b""),
        mapping: GroupMapping::new(Preset::OpenLdap),
    }
}

/// A store, and a directory that is synced into it.
pub(crate) struct Syncing<S = LdapSource> {
    pub(crate) place: Place,
    pub(crate) store: Arc<Store>,
    pub(crate) source: Arc<S>,
    pub(crate) settings: SyncSettings,
    pub(crate) control: Control,
}

/// As a rule, with nobody waited for: two looks are enough.
pub(crate) fn sync_settings(config: String) -> SyncSettings {
    SyncSettings {
        source: SourceRecord { uid: "test".to_owned(), config, ..SourceRecord::default() },
        mode: Mode::Apply,
        limits: Limits::default(),
        patience: Patience { grace: Duration::ZERO, ..Patience::default() },
        full_every: Duration::from_hours(24),
        force_full: false,
        roles: Vec::new(),
        approval: None,
        deadline: Duration::from_mins(5),
    }
}

impl Syncing {
    /// Users alone, and each time everything.
    pub(crate) fn full(place: Place, directory: Arc<Directory>) -> Self {
        let mut syncing = Self::of(place, directory, Layout::new(people(), None));
        syncing.settings.force_full = true;
        syncing
    }

    pub(crate) fn of(place: Place, directory: Arc<Directory>, settings: Layout) -> Self {
        let source = LdapSource::new(directory, settings);
        let settings = sync_settings(source.config());
        Self::with(place, source, settings)
    }

    /// The same store, with the directory read like this.
    pub(crate) fn read_like(&mut self, directory: Arc<Directory>, settings: Layout) {
        self.source = Arc::new(LdapSource::new(directory, settings));
        self.settings.source.config = self.source.config();
    }
}

impl<S: Source> Syncing<S> {
    pub(crate) fn with(place: Place, source: S, settings: SyncSettings) -> Self {
        let store = Arc::new(place.open());
        Self { place, store, source: Arc::new(source), settings, control: Control::default() }
    }

    /// A run, in a task of its own, as it is done in the field.
    pub(crate) async fn try_run(&self) -> Result<Report, SyncError> {
        let (store, source) = (Arc::clone(&self.store), Arc::clone(&self.source));
        let (settings, control) = (self.settings.clone(), self.control.clone());
        let run = async move { Box::pin(authlink::sync::run(&store, &source, &settings, &control)).await };
        tokio::spawn(run).await.expect("no panic")
    }

    pub(crate) async fn run(&self) -> Report {
        self.try_run().await.expect("a report")
    }

    /// Users by name: their id, their state and how often they were told of.
    pub(crate) async fn users(&self) -> BTreeMap<String, (String, String, String)> {
        let query = "select i.external_id, u.id, u.state, cast(u.version as text), u.username from authlink_users u \
                     join authlink_identities i on i.user_id = u.id";
        let rows = self.place.texts(query).await;
        let user = |row: Vec<String>| {
            let [_, id, state, version, name]: [String; 5] = row.try_into().expect("five columns");
            (name, (id, state, version))
        };
        rows.into_iter().map(user).collect()
    }

    /// How many rows a query finds.
    pub(crate) async fn count(&self, from: &str) -> usize {
        let rows = self.place.texts(&format!("select cast(count(*) as text) from {from}")).await;
        rows[0][0].parse().expect("a number")
    }

    /// Events of each kind.
    pub(crate) async fn events(&self) -> BTreeMap<String, usize> {
        let query = "select kind, cast(count(*) as text) from authlink_outbox group by kind";
        let rows = self.place.texts(query).await;
        rows.into_iter().map(|row| (row[0].clone(), row[1].parse().expect("a number"))).collect()
    }

    /// That each change of a row was told of once, and nothing else.
    pub(crate) async fn assert_told(&self) {
        for (kind, table) in [("user", "authlink_users"), ("group", "authlink_groups")] {
            let query = format!("select cast(coalesce(sum(version), 0) as text) from {table}");
            let changes: usize = self.place.texts(&query).await[0][0].parse().expect("a number");
            let told = self
                .count(&format!("authlink_outbox where kind like '{kind}.%' and kind <> 'group.deleted'"))
                .await;
            if kind == "user" || self.count("authlink_outbox where kind = 'group.deleted'").await == 0 {
                assert_eq!(changes, told, "changes of {table}");
            }
        }
    }
}
