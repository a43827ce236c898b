//! Each reason why a server cannot be used, as the real servers give it.

use k8s_openapi::api::core::v1::Secret;
use serde_json::json;
use sqlx::{
    ConnectOptions,
    mysql::{MySqlConnectOptions, MySqlSslMode},
};

use crate::support::{
    Namespace, Operator, SOON, Server, Spec, System, condition, free_port, hostile, password_secret,
    postgresql,
};

/// Every one of `specs` must end in this reason, and say what to do in a message that has `words`.
pub(super) async fn all_fail(namespace: &Namespace, specs: &[(&str, Spec)], reason: &str, words: &str) {
    let _operator = Operator::start(namespace, &[]).await;
    for (name, spec) in specs {
        namespace.database(name, spec).await;
    }
    for (name, _) in specs {
        let wanted =
            [("Ready", "False", reason), ("Connected", "False", reason), ("Healthy", "False", "ProbeFailed")];
        let database = namespace.expect(name, &wanted).await;
        let message = &condition(&database, "Ready").expect("Ready").message;
        assert!(message.contains(words), "{name}: {message}");
        assert!(condition(&database, "Stalled").is_none(), "{name}: it will be tried again");
        let status = database.status.expect("a status");
        assert_eq!(status.common.last_error.map(|last| last.reason).as_deref(), Some(reason), "{name}");
        assert!(!status.common.endpoints[0].ready && status.common.endpoints[0].reason == reason, "{name}");
    }
}

fn each(change: impl Fn(System, Spec) -> Spec) -> Vec<(&'static str, Spec)> {
    System::ALL.iter().map(|system| (system.engine(), change(*system, system.spec()))).collect()
}

#[tokio::test]
async fn a_name_without_an_address_is_dns_failed() {
    let namespace = Namespace::create().await;
    let specs = each(|_, spec| spec.with(&json!({ "host": "nothing.invalid" })));
    all_fail(&namespace, &specs, "DnsFailed", "the host name nothing.invalid has no address").await;
}

#[tokio::test]
async fn a_port_where_nothing_listens_is_connection_refused() {
    let namespace = Namespace::create().await;
    let port = free_port();
    let specs = each(|_, spec| spec.with(&json!({ "port": port })));
    all_fail(&namespace, &specs, "ConnectionRefused", "check that the server is running").await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_timeout() {
    let namespace = Namespace::create().await;
    let port = hostile::silent_server();
    let impatient = json!({ "port": port, "healthCheck": { "timeout": "500ms" } });
    let specs = each(|_, spec| spec.with(&impatient));
    all_fail(&namespace, &specs, "Timeout", "healthCheck.timeout").await;
}

#[tokio::test]
async fn a_wrong_password_is_authentication_failed() {
    let namespace = Namespace::create().await;
    namespace.apply::<Secret>(password_secret("wrong", "app", "not-the-password")).await;
    let specs = each(|_, spec| spec.with(&json!({ "credentialsRef": { "name": "wrong" } })));
    all_fail(&namespace, &specs, "AuthenticationFailed", "check the user name and password").await;
}

#[tokio::test]
async fn an_unknown_user_is_authentication_failed() {
    let namespace = Namespace::create().await;
    namespace.apply::<Secret>(password_secret("unknown", "nobody", "app-secret")).await;
    let specs = each(|_, spec| spec.with(&json!({ "credentialsRef": { "name": "unknown" } })));
    all_fail(&namespace, &specs, "AuthenticationFailed", "check the user name and password").await;
}

#[tokio::test]
async fn an_account_without_the_right_to_connect_is_permission_denied() {
    let namespace = Namespace::create().await;
    namespace.apply::<Secret>(password_secret("limited", "limited", "limited-secret")).await;
    let limited = json!({ "credentialsRef": { "name": "limited" } });
    let specs = [
        ("postgresql", System::Postgresql.spec().with(&limited)),
        ("redis", System::Redis.spec().with(&limited)),
        // The user app has rights on the database app only.
        ("mysql", System::Mariadb.spec().with(&json!({ "database": "mysql" }))),
    ];
    all_fail(&namespace, &specs, "PermissionDenied", "grant the account").await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_database_missing() {
    let namespace = Namespace::create().await;
    // MariaDB tells only its administrator which databases do not exist.
    namespace.apply::<Secret>(password_secret("root", "root", "admin-secret")).await;
    let root = json!({ "database": "nothing", "credentialsRef": { "name": "root" } });
    let specs = [
        ("postgresql", System::Postgresql.spec().with(&json!({ "database": "nothing" }))),
        ("mysql", System::Mariadb.spec().with(&root)),
        ("redis", System::Redis.spec().with(&json!({ "database": "99" }))),
    ];
    all_fail(&namespace, &specs, "DatabaseMissing", "create the database").await;
}

#[tokio::test]
async fn a_server_without_a_free_connection_is_too_many_connections() {
    let namespace = Namespace::create().await;
    let server = Server::start_with(System::Postgresql, &[("MAX_CONNECTIONS", "5")]);
    let mut taken = Vec::new();
    while let Ok(connection) = postgresql::login(server.port, "app", "app-secret").await {
        taken.push(connection);
    }
    all_fail(&namespace, &[("db", server.spec())], "TooManyConnections", "connection limit").await;
    for connection in taken {
        postgresql::close(connection).await;
    }
}

#[tokio::test]
async fn a_mariadb_without_a_free_connection_is_too_many_connections() {
    let namespace = Namespace::create().await;
    let server = Server::start_with(System::Mariadb, &[("MAX_CONNECTIONS", "10")]);
    let options = MySqlConnectOptions::new()
        .host("127.0.0.1")
        .port(server.port)
        .username("app")
        .password("app-secret")
        .ssl_mode(MySqlSslMode::Disabled);
    let mut taken = Vec::new();
    while let Ok(connection) = options.connect().await {
        taken.push(connection);
    }
    assert!(taken.len() >= 10, "{}", taken.len());
    all_fail(&namespace, &[("db", server.spec())], "TooManyConnections", "connection limit").await;
}

#[tokio::test]
async fn a_redis_without_a_free_connection_is_not_taken_for_a_wrong_password() {
    let namespace = Namespace::create().await;
    let redis = Server::start(System::Redis);
    redis.redis(&["config", "set", "maxclients", "1"]);
    let _holds_the_one = std::net::TcpStream::connect(("127.0.0.1", redis.port)).expect("a connection");
    let _operator = Operator::start(&namespace, &[]).await;
    let plain = json!({ "port": redis.port, "tls": { "mode": "None", "caRef": null } });
    namespace.database("db", &redis.spec().with(&plain)).await;
    let database = namespace
        .until("db", SOON, "a verdict", |database| {
            condition(database, "Healthy").is_some_and(|healthy| healthy.reason == "ProbeFailed")
        })
        .await;
    // It says why and hangs up; whether the words arrive before that is a matter of luck.
    let reason = &condition(&database, "Ready").expect("Ready").reason;
    assert!(["TooManyConnections", "Unavailable"].contains(&reason.as_str()), "{reason}");
}

#[tokio::test]
async fn a_server_that_hangs_up_is_never_available() {
    let namespace = Namespace::create().await;
    let port = hostile::closing_server();
    let hangs_up = json!({
        "port": port, "tls": { "mode": "None", "caRef": null }, "healthCheck": { "timeout": "2s" },
    });
    let specs = each(|_, spec| spec.with(&hangs_up));
    all_fail(&namespace, &specs, "Unavailable", "the server closed the connection").await;
}
