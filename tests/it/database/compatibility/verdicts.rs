//! Servers that are not as a fresh installation, and what is said of them.

use std::{fs, process::Command};

use serde_json::{Value, json};

use super::check;
use crate::{
    commands::run,
    support::{SOON, Server, System, eventually, password_secret, postgresql},
};

fn mariadb(server: &Server, statements: &str) {
    let mut client = Command::new("mariadb");
    client.args(["--no-defaults", "--protocol=tcp", "-h", "127.0.0.1", "-P", &server.port.to_string()]);
    client.args(["-u", "root", "-padmin-secret", "-e", statements]);
    run(&mut client, "").well();
}

#[test]
fn a_postgresql_without_a_line_for_the_client_says_what_to_add() {
    let mut server = Server::start(System::Postgresql);
    let lines = "host all postgres all scram-sha-256\nhostnossl app app all scram-sha-256\n";
    fs::write(server.folder().join("data/pg_hba.conf"), lines).expect("a file");
    server.restart_with("OPTIONS", "");
    check(&server.spec(), &[])
        .fails("PermissionDenied", &["no pg_hba.conf entry", "add a line for this client"]);
    let plain = json!({ "tls": { "mode": "None", "caRef": null } });
    check(&server.spec().with(&plain), &[]).ready();
}

#[tokio::test]
async fn a_postgresql_that_keeps_its_identity_to_itself_is_ready() {
    let server = Server::start(System::Postgresql);
    let mut admin = postgresql::admin_on(server.port).await;
    postgresql::run(&mut admin, "revoke execute on function pg_control_system() from public").await;
    let found = check(&server.spec(), &[]).ready();
    assert_eq!(
        (found.status["server"].get("identity"), &found.status["server"]["role"]),
        (None, &json!("Primary"))
    );
    postgresql::close(admin).await;
}

#[test]
fn a_server_that_is_read_only_by_its_settings_is_no_primary() {
    for (system, options) in [
        (System::Postgresql, "-c default_transaction_read_only=on"),
        (System::Mariadb, "--innodb-read-only"),
        (System::Mariadb, "--read-only"),
        (System::Mariadb, "--transaction-read-only"),
    ] {
        let mut server = Server::start(system);
        assert_eq!(check(&server.spec(), &[]).ready().status["server"]["role"], "Primary");
        server.restart_with("OPTIONS", options);
        assert_eq!(check(&server.spec(), &[]).ready().status["server"]["role"], "Replica", "{options}");
    }
}

#[test]
fn a_mariadb_that_asks_for_tls_is_ready_with_it_and_the_remedy_names_it() {
    let mut server = Server::start(System::Mariadb);
    server.restart_with("OPTIONS", "--require-secure-transport=ON");
    check(&server.spec(), &[]).ready();
    let plain = json!({ "tls": { "mode": "None", "caRef": null } });
    // MySQL has an error of its own for it, and MariaDB says the same as of a wrong password.
    check(&server.spec().with(&plain), &[]).fails("AuthenticationFailed", &["set spec.tls.mode"]);
}

#[test]
fn accounts_of_a_mariadb_that_cannot_log_in_are_told_apart() {
    let server = Server::start(System::Mariadb);
    mariadb(
        &server,
        "install soname 'auth_ed25519'; create user ed@'%' identified via ed25519 using password('pw')",
    );
    check(&server.spec(), &[password_secret("login", "ed", "pw")])
        .fails("AuthenticationFailed", &["plugin client_ed25519", "give the account mysql_native_password"]);
    mariadb(&server, "alter user app@'%' account lock");
    check(&server.spec(), &[]).fails("AuthenticationFailed", &["locked", "ACCOUNT UNLOCK"]);
    mariadb(
        &server,
        "rename user app@'%' to app@'192.0.2.1', ed@'%' to ed@'192.0.2.1', root@'%' to root@'192.0.2.1'; flush privileges",
    );
    check(&server.spec(), &[]).fails("PermissionDenied", &["not allowed to connect", "CREATE USER"]);
}

#[test]
fn a_sentinel_is_not_taken_for_a_redis() {
    let server = Server::start_with(System::Redis, &[("MODE", "sentinel")]);
    let anonymous = json!({ "credentialsRef": null });
    let words = ["Redis Sentinel", "that the Sentinel monitors"];
    check(&server.spec(), &[]).fails("ProtocolError", &words);
    check(&server.spec().with(&anonymous), &[]).fails("ProtocolError", &words);
}

#[tokio::test]
async fn a_node_of_a_redis_cluster_is_ready_once_the_cluster_is() {
    let server = Server::start_with(System::Redis, &[("MODE", "cluster")]);
    check(&server.spec(), &[]).fails("Unavailable", &["CLUSTERDOWN", "assign all hash slots"]);
    server.redis(&["cluster", "addslotsrange", "0", "16383"]);
    let status: Value = eventually(SOON, "a healthy cluster", async || {
        let found = check(&server.spec(), &[]);
        if found.reason == "Available" { Ok(found.status) } else { Err(found.message) }
    })
    .await;
    assert_eq!(
        (&status["server"]["mode"], &status["server"]["role"]),
        (&json!("Cluster"), &json!("Primary"))
    );
}
