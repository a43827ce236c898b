//! Each binding logs in by a client that is not ours, with nothing but the Secret.

use std::{collections::BTreeMap, fs, path::PathBuf, process::Command};

use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use crate::{
    commands::{run, scratch, variable},
    database::binding::texts,
    support::{
        Namespace, Operator, SOON, Spec, System, certificate_secret, eventually, password_secret, secret,
    },
};

/// The Secret as an application has it: each key a file.
struct Mounted {
    values: BTreeMap<String, String>,
    folder: PathBuf,
}

impl Mounted {
    fn value(&self, key: &str) -> &str {
        self.values.get(key).unwrap_or_else(|| panic!("no {key} in {:?}", self.values.keys()))
    }

    fn path(&self, key: &str) -> String {
        self.value(key);
        self.folder.join(key).to_string_lossy().into_owned()
    }
}

/// The binding of a Database with this spec.
async fn bound(spec: &Spec, others: &[Value]) -> Mounted {
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &[]).await;
    for other in others {
        namespace.apply::<Secret>(other.clone()).await;
    }
    namespace.database("db", &spec.clone().with(&json!({ "binding": { "enabled": true } }))).await;
    let secret = eventually(SOON, "the binding", async || {
        namespace.api::<Secret>().get_opt("db-binding").await.expect("an answer").ok_or("no Secret")
    })
    .await;
    let (values, folder) = (texts(&secret), scratch("binding"));
    for (key, value) in &values {
        fs::write(folder.join(key), value).expect("a file");
        // psql insists on it for a key.
        run(Command::new("chmod").arg("600").arg(folder.join(key)), "").well();
    }
    Mounted { values, folder }
}

#[tokio::test]
async fn psql_logs_in_by_the_uri_and_the_ca() {
    let port = System::Postgresql.port();
    let uri =
        format!("postgres://app:app-secret@localhost:{port}/app?options=-c%20work_mem%3D7MB&pgbouncer=true");
    let (spec, secret) = super::by_uri(System::Postgresql, &uri);
    let mounted = bound(&spec, &[secret]).await;
    let mut psql = Command::new("psql");
    psql.args([
        mounted.value("uri"),
        "-X",
        "-A",
        "-t",
        "-c",
        "select current_user || current_setting('work_mem')",
    ]);
    let said = run(psql.env("PGSSLROOTCERT", mounted.path("ca.crt")), "").well();
    assert_eq!(said.trim(), "app7MB");
}

#[tokio::test]
async fn psql_logs_in_by_the_client_certificate() {
    let spec = System::Postgresql.spec().with(&json!({
        "credentialsRef": { "name": "who" }, "tls": { "clientCertRef": { "name": "pair" } },
    }));
    let who = secret("who", "Opaque", &[("username", "certuser"), ("password", "")]);
    let mounted = bound(&spec, &[who, certificate_secret("pair", "client")]).await;
    let mut psql = Command::new("psql");
    psql.args([mounted.value("uri"), "-X", "-A", "-t", "-c", "select current_user"]);
    psql.env("PGSSLROOTCERT", mounted.path("ca.crt")).env("PGSSLCERT", mounted.path("certificates"));
    let said = run(psql.env("PGSSLKEY", mounted.path("private-key")), "").well();
    assert_eq!(said.trim(), "certuser");
}

#[tokio::test]
async fn the_client_of_mariadb_logs_in() {
    let mounted = bound(&System::Mariadb.spec(), &[]).await;
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--protocol=tcp", "--ssl-verify-server-cert", "--skip-column-names"]);
    for (option, key) in [("host", "host"), ("port", "port"), ("user", "username"), ("password", "password")]
    {
        client.arg(format!("--{option}={}", mounted.value(key)));
    }
    client.arg(format!("--ssl-ca={}", mounted.path("ca.crt")));
    client.args([mounted.value("database"), "-e", "select current_user()"]);
    assert_eq!(run(&mut client, "").well().trim(), "app@%");
}

#[tokio::test]
async fn redis_cli_logs_in_by_the_uri_with_and_without_a_user() {
    let nameless = secret("nameless", "Opaque", &[("username", ""), ("password", "admin-secret")]);
    let app = password_secret("app", "app", "app-secret");
    for (name, login, who) in [("app", app, "app"), ("nameless", nameless, "default")] {
        let spec = System::Redis.spec().with(&json!({ "credentialsRef": { "name": name } }));
        let mounted = bound(&spec, &[login]).await;
        let mut client = Command::new("redis-cli");
        client.args(["-u", mounted.value("uri"), "--cacert", &mounted.path("ca.crt"), "--no-auth-warning"]);
        assert_eq!(run(client.args(["acl", "whoami"]), "").well().trim(), who);
    }
}

#[tokio::test]
async fn pymongo_logs_in_by_the_uri_though_the_user_is_defined_elsewhere() {
    let admin = secret("admin", "Opaque", &[("username", "admin"), ("password", "admin-secret")]);
    let by_fields = System::Ferretdb
        .spec()
        .with(&json!({ "authSource": "admin", "credentialsRef": { "name": "admin" } }));
    let port = System::Ferretdb.tls_port(System::Ferretdb.port());
    let uri = format!(
        "mongodb://admin:admin-secret@localhost:{port}/app?tls=true&AuthSource=admin&retryWrites=false\
         &authMechanism=SCRAM-SHA-256&directConnection=true"
    );
    let (by_uri, whole) = super::by_uri(System::Ferretdb, &uri);
    for (spec, secret, retries) in [(by_fields, admin, "True"), (by_uri, whole, "False")] {
        let mounted = bound(&spec, &[secret]).await;
        let script = "import sys, pymongo\n\
            client = pymongo.MongoClient(sys.argv[1], tlsCAFile=sys.argv[2], serverSelectionTimeoutMS=10000)\n\
            print(client.get_default_database().command('ping')['ok'], client.options.retry_writes)";
        let tool = run(Command::new(format!("{}/tool", variable("AUTHLINK_E2E"))).arg("pymongo"), "").well();
        let mut python = Command::new(tool.trim());
        python.args(["-c", script, mounted.value("uri"), &mounted.path("ca.crt")]);
        assert_eq!(run(&mut python, "").well().trim(), format!("1.0 {retries}"));
    }
}
