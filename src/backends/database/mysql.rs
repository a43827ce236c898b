//! MySQL and MariaDB, by the client/server protocol.

mod error;
mod row;
mod run;

use std::time::Duration;

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row, SqlSafeStr,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlSslMode},
};

use self::error::fault;
use super::{
    Role, Server, ServerSettings,
    pool::Wire,
    query::{Done, QueryFault, Rows, Run, Stop},
    sql,
};
use crate::{
    api::v1alpha1::database::{Query, TlsMode},
    backends::{Fault, http::Egress},
};

/// MariaDB has `server_uid` for `server_uuid`; asking by `show`, what a server does not have is no error.
const IDENTIFY: &str = "select version(), cast(@@global.read_only as char)";
const IDENTITY: &str = "show global variables where variable_name in ('server_uuid', 'server_uid')";

/// Cast, since the product that it is tells the width of it.
const CONNECTION: &str = "select cast(connection_id() as char)";

pub(super) struct Mysql {
    host: String,
    port: u16,
    egress: Egress,
    options: MySqlConnectOptions,
}

impl Mysql {
    pub(super) fn new(settings: &ServerSettings, egress: Egress) -> Self {
        let mode = match settings.tls.mode {
            TlsMode::None => MySqlSslMode::Disabled,
            TlsMode::Require => MySqlSslMode::Required,
            TlsMode::VerifyCa => MySqlSslMode::VerifyCa,
            TlsMode::VerifyFull => MySqlSslMode::VerifyIdentity,
        };
        let (username, password) = sql::login(&settings.credential);
        let mut options = MySqlConnectOptions::new()
            .host(&settings.host)
            .port(settings.port)
            .username(username.unwrap_or("root"))
            // A statement means here what it means to the server's other clients.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            .ssl_mode(mode);
        if let Some(password) = password {
            options = options.password(password);
        }
        if let Some(database) = &settings.database {
            options = options.database(database);
        }
        if let Some(ca) = &settings.tls.ca {
            options = options.ssl_ca_from_pem(ca.clone().into_bytes());
        }
        if let Some((certificate, key)) = sql::client_certificate(&settings.tls) {
            options = options.ssl_client_cert_from_pem(certificate).ssl_client_key_from_pem(key);
        }
        Self {
            host: settings.host.clone(),
            port: settings.port,
            egress,
            options: options.disable_statement_logging(),
        }
    }
}

/// A connection, and what the server calls it.
pub(super) struct Connection {
    link: MySqlConnection,
    id: String,
    session: Session,
}

/// What the last query has made of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Unknown,
    /// It only reads, and a select without a limit has this one.
    Reads {
        limit: u64,
    },
    Writes,
}

impl Mysql {
    async fn connect(&self) -> Result<MySqlConnection, Fault> {
        // The driver resolves the name again; only here a failure is told apart from other IO errors.
        self.egress.addresses(&self.host, self.port).await?;
        self.options.connect().await.map_err(|error| fault(&error))
    }
}

impl Wire for Mysql {
    type Connection = Connection;

    // Its driver lets nobody at the socket.
    const REST: Duration = Duration::from_mins(3);

    async fn open(&self) -> Result<Connection, Fault> {
        let mut link = self.connect().await?;
        let row = link.fetch_one(sqlx::raw_sql(CONNECTION)).await.map_err(|error| fault(&error))?;
        let id = row.try_get(0).map_err(|error| fault(&error))?;
        Ok(Connection { link, id, session: Session::Unknown })
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        let link = &mut connection.link;
        let row = link.fetch_one(sqlx::raw_sql(IDENTIFY)).await.map_err(|error| fault(&error))?;
        let text = |column| row.try_get::<String, _>(column).map_err(|error| fault(&error));
        let (version, read_only) = (text(0)?, text(1)?);
        let identity = link.fetch_optional(sqlx::raw_sql(IDENTITY)).await.map_err(|error| fault(&error))?;
        Ok(Server {
            // "10.11.14-MariaDB-0+deb12u2" and "8.4.0": the number, and who made it where that differs.
            version: version.split("-0").next().unwrap_or_default().to_owned(),
            // MySQL says 0, MariaDB OFF; what else MariaDB 12 says is a kind of yes.
            role: if ["0", "OFF"].contains(&read_only.as_str()) { Role::Primary } else { Role::Replica },
            identity: identity.and_then(|row| row.try_get(1).ok()),
        })
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        run::check(&mut connection.link, query).await.map_err(QueryFault::of_check)
    }

    async fn run(&self, connection: &mut Connection, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        run::run(connection, run, rows).await
    }

    async fn abort(&self, connection: &mut Connection) {
        // The server does not look after who waits for an answer, and its own time-outs are for some statements only. An
        // account may always end its own connections.
        let Ok(mut other) = self.connect().await else { return };
        let kill = AssertSqlSafe(format!("kill {}", connection.id)).into_sql_str();
        let _ = other.execute(sqlx::raw_sql(kill)).await;
        let _ = other.close().await;
    }

    async fn shut(connection: Connection) {
        let _ = connection.link.close().await;
    }
}
