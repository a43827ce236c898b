//! MySQL and MariaDB, by the client/server protocol.

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqlSafeStr,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlDatabaseError, MySqlSslMode},
};

use super::{Role, Server, Settings, pool::Wire, sql};
use crate::{
    api::{
        Reason,
        v1alpha1::database::{Query, TlsMode},
    },
    backends::{Fault, transport},
};

/// MariaDB has `server_uid` for `server_uuid`; asking by `show`, what a server does not have is no error.
const IDENTIFY: &str = "select version(), cast(@@global.read_only as char)";
const IDENTITY: &str = "show global variables where variable_name in ('server_uuid', 'server_uid')";

pub(super) struct Mysql {
    host: String,
    port: u16,
    options: MySqlConnectOptions,
}

impl Mysql {
    pub(super) fn new(settings: &Settings) -> Self {
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
            options: options.disable_statement_logging(),
        }
    }
}

impl Wire for Mysql {
    type Connection = MySqlConnection;

    async fn open(&self) -> Result<MySqlConnection, Fault> {
        // The driver resolves the name again; only here a failure is told apart from other IO errors.
        transport::resolve(&self.host, self.port).await?;
        self.options.connect().await.map_err(|error| fault(&error))
    }

    async fn identify(&self, connection: &mut MySqlConnection) -> Result<Server, Fault> {
        let row = connection.fetch_one(sqlx::raw_sql(IDENTIFY)).await.map_err(|error| fault(&error))?;
        let text = |column| row.try_get::<String, _>(column).map_err(|error| fault(&error));
        let (version, read_only) = (text(0)?, text(1)?);
        let identity =
            connection.fetch_optional(sqlx::raw_sql(IDENTITY)).await.map_err(|error| fault(&error))?;
        Ok(Server {
            // "10.11.14-MariaDB-0+deb12u2" and "8.4.0": the number, and who made it where that differs.
            version: version.split("-0").next().unwrap_or_default().to_owned(),
            // MySQL says 0, MariaDB OFF; what else MariaDB 12 says is a kind of yes.
            role: if ["0", "OFF"].contains(&read_only.as_str()) { Role::Primary } else { Role::Replica },
            identity: identity.and_then(|row| row.try_get(1).ok()),
        })
    }

    async fn check(&self, connection: &mut MySqlConnection, query: &Query) -> Result<(), Fault> {
        let statement = AssertSqlSafe(query.statement.clone()).into_sql_str();
        connection.prepare(statement).await.map(drop).map_err(|error| fault(&error))
    }

    async fn shut(connection: MySqlConnection) {
        let _ = connection.close().await;
    }
}

/// By error number (MySQL server error message reference).
fn fault(error: &sqlx::Error) -> Fault {
    sql::fault(error, |error| {
        let error = error.try_downcast_ref::<MySqlDatabaseError>()?;
        let reason = match error.number() {
            1045 | 1698 | 1862 => Reason::AuthenticationFailed,
            1044 | 1142 | 1143 | 1227 => Reason::PermissionDenied,
            1049 => Reason::DatabaseMissing,
            1040 | 1203 | 1226 => Reason::TooManyConnections,
            1064 | 1054 | 1146 => Reason::QueryInvalid,
            _ => Reason::Unavailable,
        };
        Some(Fault::new(reason, error.message()))
    })
}
