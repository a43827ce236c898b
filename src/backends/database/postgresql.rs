//! PostgreSQL, by its frontend/backend protocol 3.0.

use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection, Executor, Row, SqlSafeStr,
    postgres::{PgConnectOptions, PgConnection, PgDatabaseError, PgSslMode, PgTypeInfo},
};

use super::{Role, Server, Settings, pool::Wire, sql};
use crate::{
    api::{
        Reason,
        v1alpha1::database::{ParamType, Query, TlsMode},
    },
    backends::{Fault, transport},
};

/// One round trip. The simple protocol is used for it, so that it passes through poolers that lend by transaction.
const IDENTIFY: &str = "select current_setting('server_version'), pg_is_in_recovery()::text, \
    (select system_identifier::text from pg_control_system())";

pub(super) struct Postgresql {
    host: String,
    port: u16,
    options: PgConnectOptions,
}

impl Postgresql {
    pub(super) fn new(settings: &Settings) -> Self {
        let mode = match settings.tls.mode {
            TlsMode::None => PgSslMode::Disable,
            TlsMode::Require => PgSslMode::Require,
            TlsMode::VerifyCa => PgSslMode::VerifyCa,
            TlsMode::VerifyFull => PgSslMode::VerifyFull,
        };
        let mut options = PgConnectOptions::new_without_pgpass()
            .host(&settings.host)
            .port(settings.port)
            .database(settings.database.as_deref().unwrap_or("postgres"))
            .application_name("authlink")
            .statement_cache_capacity(64)
            .ssl_mode(mode);
        let (username, password) = sql::login(&settings.credential);
        options = options.username(username.unwrap_or("postgres"));
        if let Some(password) = password {
            options = options.password(password);
        }
        if let Some(ca) = &settings.tls.ca {
            options = options.ssl_root_cert_from_pem(ca.clone().into_bytes());
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

impl Wire for Postgresql {
    type Connection = PgConnection;

    async fn open(&self) -> Result<PgConnection, Fault> {
        // The driver resolves the name again; only here a failure is told apart from other IO errors.
        transport::resolve(&self.host, self.port).await?;
        self.options.connect().await.map_err(|error| fault(&error))
    }

    async fn identify(&self, connection: &mut PgConnection) -> Result<Server, Fault> {
        let row = connection.fetch_one(sqlx::raw_sql(IDENTIFY)).await.map_err(|error| fault(&error))?;
        let text = |column| row.try_get::<Option<String>, _>(column).map_err(|error| fault(&error));
        let version = text(0)?.unwrap_or_default();
        Ok(Server {
            version: version.split_whitespace().next().unwrap_or_default().to_owned(),
            role: if text(1)?.as_deref() == Some("true") { Role::Replica } else { Role::Primary },
            identity: text(2)?,
        })
    }

    async fn check(&self, connection: &mut PgConnection, query: &Query) -> Result<(), Fault> {
        let types: Vec<_> = query.params.iter().copied().map(type_of).collect();
        let statement = AssertSqlSafe(query.statement.clone()).into_sql_str();
        connection.prepare_with(statement, &types).await.map(drop).map_err(|error| fault(&error))
    }

    async fn shut(connection: PgConnection) {
        let _ = connection.close().await;
    }
}

fn type_of(parameter: ParamType) -> PgTypeInfo {
    PgTypeInfo::with_name(match parameter {
        ParamType::Text => "text",
        ParamType::Integer => "int8",
        ParamType::Number => "numeric",
        ParamType::Boolean => "bool",
        ParamType::Timestamp => "timestamptz",
        ParamType::Uuid => "uuid",
        ParamType::Json => "jsonb",
        ParamType::Bytes => "bytea",
    })
}

/// By SQLSTATE (PostgreSQL documentation, appendix A).
fn fault(error: &sqlx::Error) -> Fault {
    sql::fault(error, |error| {
        let error = error.try_downcast_ref::<PgDatabaseError>()?;
        let reason = match error.code() {
            "28000" | "28P01" => Reason::AuthenticationFailed,
            "3D000" => Reason::DatabaseMissing,
            "42501" => Reason::PermissionDenied,
            "53300" => Reason::TooManyConnections,
            // Statements are only ever prepared for a check: syntax and what it names.
            code if code.starts_with("42") => Reason::QueryInvalid,
            _ => Reason::Unavailable,
        };
        Some(Fault::new(reason, error.message()))
    })
}
