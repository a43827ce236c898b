//! Poolers in front of a PostgreSQL, which have one SQLSTATE for everything.

use serde_json::json;

use super::check;
use crate::support::{SOON, Server, Spec, System, eventually, password_secret, postgresql};

fn pooler(target: u16, clients: &str) -> (Server, Spec) {
    let settings = [("TARGET", &*target.to_string()), ("MAX_CLIENTS", clients)];
    let server = Server::start_with(System::Pgbouncer, &settings);
    let spec = server.spec();
    (server, spec)
}

#[test]
fn a_pgbouncer_is_ready_and_its_login_and_database_are_told_apart() {
    let (_server, spec) = pooler(System::Postgresql.port(), "100");
    check(&spec, &[]).ready();
    let wrong = password_secret("login", "app", "not-the-password");
    check(&spec, &[wrong]).fails("AuthenticationFailed", &["check the user name and password"]);
    let unknown = password_secret("login", "nobody", "app-secret");
    check(&spec, &[unknown]).fails("AuthenticationFailed", &["check the user name and password"]);
    check(&spec.clone().with(&json!({ "database": "nothing" })), &[])
        .fails("DatabaseMissing", &["no such database", "create the database"]);
}

#[tokio::test]
async fn a_pgbouncer_without_a_free_connection_is_too_many_connections() {
    let (server, spec) = pooler(System::Postgresql.port(), "2");
    let mut taken = Vec::new();
    while let Ok(connection) = postgresql::login(server.port, "app", "app-secret").await {
        taken.push(connection);
    }
    assert_eq!(taken.len(), 2);
    check(&spec, &[]).fails("TooManyConnections", &["max_client_conn"]);
    for connection in taken {
        postgresql::close(connection).await;
    }
}

#[tokio::test]
async fn a_pgbouncer_whose_postgresql_is_down_is_unavailable() {
    let postgresql = Server::start(System::Postgresql);
    let (_server, spec) = pooler(postgresql.port, "100");
    check(&spec, &[]).ready();
    postgresql.kill();
    // At first it waits for the PostgreSQL to come back.
    let impatient = spec.with(&json!({ "healthCheck": { "timeout": "2s" } }));
    eventually(SOON, "it has given up", async || match check(&impatient, &[]) {
        found if found.reason == "Unavailable" => {
            Ok(found.fails("Unavailable", &["server login has been failing"]))
        }
        found => Err(found.message),
    })
    .await;
}

#[test]
fn an_option_that_a_pgbouncer_does_not_pass_on_is_named() {
    let (server, _) = pooler(System::Postgresql.port(), "100");
    let uri = format!("postgres://app:app-secret@localhost:{}/app?options=-csearch_path%3Dapp", server.port);
    let (spec, secret) = super::by_uri(System::Postgresql, &uri);
    check(&spec, &[secret]).fails("ProtocolError", &["options", "ignore_startup_parameters"]);
}
