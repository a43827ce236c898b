//! PostgreSQL as its administrator sees it.

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, PgConnection, Row, SqlSafeStr, postgres::PgConnectOptions,
};

use super::System;

/// A connection of the administrator to the shared server.
pub(crate) async fn admin() -> PgConnection {
    admin_on(System::Postgresql.port()).await
}

/// The same to the server on this port.
pub(crate) async fn admin_on(port: u16) -> PgConnection {
    login(port, "postgres", "admin-secret").await.expect("the administrator logs in")
}

/// A connection of this user to the database app.
pub(crate) async fn login(port: u16, username: &str, password: &str) -> sqlx::Result<PgConnection> {
    PgConnectOptions::new_without_pgpass()
        .host("127.0.0.1")
        .port(port)
        .username(username)
        .password(password)
        .database("app")
        // Which a pooler does not know.
        .extra_float_digits(None)
        .disable_statement_logging()
        .connect()
        .await
}

/// A user of one's own that owns nothing and may connect to the database app; gives its name.
pub(crate) async fn new_role(admin: &mut PgConnection, password: &str) -> String {
    let name = format!("role_{:012x}", rand::random::<u64>() >> 16);
    let quoted = password.replace('\'', "''");
    run(
        admin,
        &format!("create role {name} login password '{quoted}'; grant connect on database app to {name}"),
    )
    .await;
    name
}

/// Runs statements.
pub(crate) async fn run(admin: &mut PgConnection, statements: &str) {
    let statements = sqlx::raw_sql(AssertSqlSafe(statements.to_owned()).into_sql_str());
    statements.execute(admin).await.expect("the statements are accepted");
}

/// A setting, asked for by the simple protocol.
pub(crate) async fn show(connection: &mut PgConnection, setting: &str) -> String {
    let statement = sqlx::raw_sql(AssertSqlSafe(format!("show {setting}")).into_sql_str());
    statement.fetch_one(connection).await.expect("a setting").get(0)
}

/// How many connections the operator has as this user.
pub(crate) async fn connections(admin: &mut PgConnection, username: &str) -> i64 {
    let count = "select count(*) from pg_stat_activity where application_name = 'authlink' and usename = $1";
    sqlx::query(count).bind(username).fetch_one(admin).await.expect("a count").get(0)
}

/// The server's processes for them.
pub(crate) async fn processes(admin: &mut PgConnection, username: &str) -> Vec<i32> {
    let pids = "select pid from pg_stat_activity where application_name = 'authlink' and usename = $1";
    sqlx::query_scalar(pids).bind(username).fetch_all(admin).await.expect("processes")
}

/// How many connections run a statement with this text in it.
pub(crate) async fn running(admin: &mut PgConnection, statement: &str) -> i64 {
    let count = "select count(*) from pg_stat_activity where state = 'active' and position($1 in query) > 0";
    sqlx::query(count).bind(statement).fetch_one(admin).await.expect("a count").get(0)
}

/// Says goodbye.
pub(crate) async fn close(connection: PgConnection) {
    let _ = connection.close().await;
}

/// A database of one's own on the shared server, owned by `app`.
pub(crate) struct NewDatabase {
    /// As the user `app`.
    pub(crate) url: String,
}

/// Makes one.
pub(crate) async fn new_database() -> NewDatabase {
    let name = format!("store_{:012x}", rand::random::<u64>() >> 16);
    run(&mut admin().await, &format!("create database {name} owner app")).await;
    let url = format!("postgres://app:app-secret@127.0.0.1:{}/{name}", System::Postgresql.port());
    NewDatabase { url }
}
