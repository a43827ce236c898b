//! MySQL and MariaDB, client/server protocol, by `sqlx`.

mod error;
mod login;
mod row;
mod run;

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use futures::{FutureExt, future::try_join};
use secrecy::{ExposeSecret, SecretString};
use sqlx::{
    AssertSqlSafe, ConnectOptions, Connection as _, Executor, Row, SqlSafeStr,
    mysql::{MySqlConnectOptions, MySqlConnection, MySqlRow, MySqlSslMode},
};

use self::error::fault;
use super::{
    Role, Server, ServerSettings,
    deadline::{Deadline, Stage},
    pool::{CANCEL_TIMEOUT, Protocol},
    query::{BoundQuery, Completion, QueryFault, RowSink, RunError},
    relay::{Sockets, forward},
    sql,
    tls::ServerTls,
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{Fault, http::Egress},
};

/// By `show`, which does not fail for a variable that a server lacks: MariaDB calls `server_uuid` `server_uid`, and only newer versions call
/// `tx_read_only` `transaction_read_only`.
const IDENTIFY: &str = "show global variables where variable_name in ('version', 'read_only', 'innodb_read_only', \
    'tx_read_only', 'transaction_read_only', 'server_uuid', 'server_uid')";

/// The same for the session, as the account may have its own defaults.
const SESSION: &str =
    "show session variables where variable_name in ('tx_read_only', 'transaction_read_only')";

/// Cast, since its integer width differs between MySQL and MariaDB.
const CONNECTION: &str = "select cast(connection_id() as char)";

pub(super) struct Mysql {
    host: String,
    port: u16,
    egress: Egress,
    tls: ServerTls,
    sockets: Sockets,
    options: MySqlConnectOptions,
    password: SecretString,
    /// The server's transactions are read-only by default.
    read_only: AtomicBool,
}

impl Mysql {
    pub(super) fn new(settings: &ServerSettings, egress: Egress) -> Result<Self, Fault> {
        let (username, password) = sql::login(&settings.credential);
        let mut options = MySqlConnectOptions::new()
            .username(username.unwrap_or("root"))
            // Statements mean the same as to the server's other clients.
            .pipes_as_concat(false)
            .no_engine_substitution(false)
            // The relay encrypts the connection.
            .ssl_mode(MySqlSslMode::Disabled);
        if let Some(password) = password {
            options = options.password(password);
        }
        if let Some(database) = &settings.database {
            options = options.database(database);
        }
        Ok(Self {
            host: settings.host.clone(),
            port: settings.port,
            egress,
            tls: ServerTls::new(settings),
            sockets: Sockets::new()?,
            options: options.disable_statement_logging(),
            password: password.unwrap_or_default().into(),
            read_only: AtomicBool::default(),
        })
    }
}

/// A connection with its id on the server.
pub(super) struct Connection {
    inner: MySqlConnection,
    id: String,
    session: Session,
}

/// The session state that the last query has left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Session {
    Unknown,
    /// Transactions are read-only, with this `sql_select_limit`.
    ReadOnly {
        limit: Option<u64>,
    },
    ReadWrite,
}

impl Mysql {
    /// Connects, and relays the driver's login.
    async fn connect(&self, deadline: Deadline) -> Result<MySqlConnection, Fault> {
        let server = deadline.wait(Stage::Connect, self.egress.connect(&self.host, self.port)).await?;
        let socket = self.sockets.listen()?;
        let relayed = async {
            let mut driver = socket.accept().await.map_err(|error| Fault::from_io(&error))?;
            let password = self.password.expose_secret();
            let server = login::log_in(&mut driver, server, &self.tls, password, deadline).await?;
            // The driver sends its first statements before it hands the connection over.
            tokio::spawn(forward(driver, server));
            Ok(())
        };
        let connected = async {
            let options = self.options.clone().socket(socket.path());
            options.connect().await.map_err(|error| fault(&error))
        };
        // What goes wrong on the way to the server is told first: it says more than what the driver sees of it.
        let both = try_join(relayed.boxed(), connected.boxed());
        let both = deadline.wait(Stage::Login, both).await.map(|((), connection)| connection);
        both.map_err(|fault| match fault.reason {
            Reason::AuthenticationFailed if fault.remedy.is_none() && !self.tls.enabled() => fault
                .with_remedy("check the user name and password; if the account needs TLS, set spec.tls.mode"),
            _ => fault,
        })
    }
}

/// MySQL says 0, MariaDB OFF; the other values of MariaDB 12 are kinds of yes.
fn is_on(rows: &[MySqlRow], names: &[&str]) -> bool {
    variable(rows, names).is_some_and(|value| !["0", "OFF"].contains(&value.as_str()))
}

/// The value of a variable.
fn variable(rows: &[MySqlRow], names: &[&str]) -> Option<String> {
    let is = |row: &&MySqlRow| row.try_get::<&str, _>(0).is_ok_and(|name| names.contains(&name));
    rows.iter().find(is)?.try_get(1).ok()
}

impl Protocol for Mysql {
    type Connection = Connection;

    async fn open(&self, deadline: Deadline) -> Result<Connection, Fault> {
        let mut inner = self.connect(deadline).await?;
        let row = inner.fetch_one(sqlx::raw_sql(CONNECTION)).await.map_err(|error| fault(&error))?;
        let id = row.try_get(0).map_err(|error| fault(&error))?;
        let session = inner.fetch_all(sqlx::raw_sql(SESSION)).await.map_err(|error| fault(&error))?;
        self.read_only.store(is_on(&session, &["tx_read_only", "transaction_read_only"]), Relaxed);
        Ok(Connection { inner, id, session: Session::Unknown })
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        let variables =
            connection.inner.fetch_all(sqlx::raw_sql(IDENTIFY)).await.map_err(|error| fault(&error))?;
        let read_only = is_on(&variables, &["tx_read_only", "transaction_read_only"]);
        self.read_only.store(read_only, Relaxed);
        let replica =
            read_only || is_on(&variables, &["read_only"]) || is_on(&variables, &["innodb_read_only"]);
        let version = variable(&variables, &["version"]).unwrap_or_default();
        Ok(Server {
            // "10.11.14-MariaDB-0+deb12u2" and "8.4.0": the number and the product, without the package's version.
            version: version.split("-0").next().unwrap_or_default().to_owned(),
            role: if replica { Role::Replica } else { Role::Primary },
            identity: variable(&variables, &["server_uuid", "server_uid"]),
            not_after: self.tls.not_after(),
            ..Server::default()
        })
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        run::check(&mut connection.inner, query).await.map_err(QueryFault::into_check_fault)
    }

    async fn run(
        &self,
        connection: &mut Connection,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        run::run(connection, query, rows, self.read_only.load(Relaxed)).await
    }

    async fn cancel(&self, connection: &mut Connection) {
        // The server does not notice a client that is gone, and its own timeouts cover some statements only. An account may always kill
        // its own connections.
        let Ok(mut other) = self.connect(Deadline::within(CANCEL_TIMEOUT)).await else { return };
        let kill = AssertSqlSafe(format!("kill {}", connection.id)).into_sql_str();
        let _ = other.execute(sqlx::raw_sql(kill)).await;
        let _ = other.close().await;
    }

    async fn close(connection: Connection) {
        let _ = connection.inner.close().await;
    }
}
