//! PostgreSQL, frontend/backend protocol 3.0, by `tokio-postgres`: it pipelines requests, so that a query in a transaction of its own
//! takes one round trip.

mod driver;
mod error;
mod plan;
mod row;
mod run;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use futures::{StreamExt, future::join, stream};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::{
    Client, Config, Error, NoTls, SimpleQueryMessage, SimpleQueryRow, Statement, config::SslMode,
};
use tokio_rustls::client::TlsStream;

use self::{
    driver::ConnectionDriver,
    error::{closed, fault, is_unavailable_to_account, not_postgresql},
    plan::{Plan, Plans},
};
use super::{
    Role, Server, ServerSettings,
    deadline::{Deadline, Stage},
    pool::{CANCEL_TIMEOUT, Protocol},
    query::{BoundQuery, Completion, QueryFault, RowSink, RunError, SERVER_TIMEOUT_GRACE},
    tls::ServerTls,
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{Fault, http::Egress},
};

/// By the simple protocol, which works through poolers in transaction mode. The server's own default for transactions is not what this
/// session has set.
const IDENTIFY: &str = "select current_setting('server_version'), pg_is_in_recovery()::text, \
    (select reset_val from pg_settings where name = 'default_transaction_read_only')";

/// Not every account may call it, and not every server that speaks the protocol has it.
const IDENTITY: &str = "select system_identifier::text from pg_control_system()";

/// Requests TLS before anything else (protocol documentation, section "SSL Session Encryption").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub(super) struct Postgresql {
    host: String,
    port: u16,
    egress: Egress,
    tls: ServerTls,
    config: Config,
    plans: Plans,
    /// The server's transactions are read-only by default.
    read_only: Arc<AtomicBool>,
    /// The account cannot read the server's identity.
    anonymous: AtomicBool,
}

/// A connection, and the driver of its IO.
pub(super) struct Connection {
    session: Session,
    driver: ConnectionDriver,
}

/// What is known of a connection's session.
struct Session {
    client: Client,
    /// There is no pooler that may give the session to other clients between transactions.
    direct: bool,
    /// `default_transaction_read_only` is on.
    default_read_only: Arc<AtomicBool>,
    /// The same is the server's own default.
    server_read_only: Arc<AtomicBool>,
    /// The session's `statement_timeout` in milliseconds, if a query has set one.
    statement_timeout: Option<i32>,
    /// The prepared statements of a direct session.
    statements: Vec<(Arc<Plan>, Statement)>,
}

impl Postgresql {
    pub(super) fn new(settings: &ServerSettings, egress: Egress) -> Self {
        let credential = &settings.credential;
        let mut config = Config::new();
        config
            .user(credential.username.as_deref().unwrap_or("postgres"))
            // Empty if there is none: then the server refuses the login with a known SQLSTATE.
            .password(credential.password.as_ref().map_or("", ExposeSecret::expose_secret))
            .dbname(settings.database.as_deref().unwrap_or("postgres"))
            .application_name("authlink")
            // The stream is encrypted already.
            .ssl_mode(SslMode::Disable);
        if let Some(options) = settings.option("options") {
            config.options(options);
        }
        Self {
            host: settings.host.clone(),
            port: settings.port,
            egress,
            tls: ServerTls::new(settings),
            config,
            plans: Plans::default(),
            read_only: Arc::default(),
            anonymous: AtomicBool::default(),
        }
    }

    async fn login<S>(&self, stream: S) -> Result<Connection, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connected = self.config.connect_raw(stream, NoTls).await;
        let (client, mut connection) = connected.map_err(|error| fault(&error))?;
        let default_read_only = Arc::<AtomicBool>::default();
        let reported = Arc::clone(&default_read_only);
        let messages = stream::poll_fn(move |cx| {
            let message = connection.poll_message(cx);
            // A statement may change it. Since version 14 the server reports changes before it is ready for the next query
            // (protocol documentation, section "Asynchronous Operations").
            reported.store(connection.parameter("default_transaction_read_only") == Some("on"), Relaxed);
            message
        });
        let mut driver = ConnectionDriver::new(messages.boxed());
        let mut session = Session {
            client,
            direct: false,
            default_read_only,
            server_read_only: Arc::clone(&self.read_only),
            statement_timeout: None,
            statements: Vec::new(),
        };
        driver.drive(session.initialise()).await?;
        Ok(Connection { session, driver })
    }

    /// Requests TLS and completes the handshake.
    async fn encrypt(
        &self,
        mut stream: TcpStream,
        deadline: Deadline,
    ) -> Result<TlsStream<TcpStream>, Fault> {
        let response = async {
            let sent = stream.write_all(&SSL_REQUEST).await;
            let response = match sent {
                Ok(()) => stream.read_u8().await,
                Err(error) => Err(error),
            };
            response.map_err(|error| Fault::from_io(&error))
        };
        match deadline.wait(Stage::Tls, response).await? {
            b'S' => self.tls.handshake(stream, deadline).await,
            b'N' => Err(Fault::no_tls()),
            b'E' => Err(Fault::new(
                Reason::Unavailable,
                "the server could not start a process for the connection",
            )),
            _ => Err(not_postgresql()),
        }
    }
}

impl Session {
    /// Finds out whether the session is direct. If so, sets its time zone to UTC and makes transactions read-only by default.
    async fn initialise(&mut self) -> Result<(), Fault> {
        let Some(pid) = self.backend_pid().await else { return Ok(()) };
        let statement = format!(
            "select current_setting('default_transaction_read_only'), case when pg_backend_pid() = {pid} then set_config('TimeZone', 'UTC', false) \
             || set_config('default_transaction_read_only', 'on', false) end"
        );
        let Some(row) = optional(row(&self.client, &statement).await)? else { return Ok(()) };
        self.server_read_only.store(row.get(0) == Some("on"), Relaxed);
        self.direct = row.get(1).is_some();
        Ok(())
    }

    /// The backend PID from the login; a pooler invents one. The driver exposes it only in cancel requests (protocol documentation,
    /// message "CancelRequest").
    async fn backend_pid(&self) -> Option<i32> {
        let (near, mut far) = tokio::io::duplex(64);
        self.client.cancel_token().cancel_query_raw(near, NoTls).await.ok()?;
        let mut request = [0; 16];
        far.read_exact(&mut request).await.ok()?;
        request[8..12].try_into().ok().map(i32::from_be_bytes)
    }
}

/// The row of a statement that returns exactly one.
async fn row(client: &Client, statement: &str) -> Result<Option<SimpleQueryRow>, Error> {
    let mut rows = client.simple_query(statement).await?.into_iter();
    Ok(rows.find_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    }))
}

/// None if the server lacks what the statement names, or the account may not use it.
fn optional(row: Result<Option<SimpleQueryRow>, Error>) -> Result<Option<SimpleQueryRow>, Fault> {
    match row {
        Err(error) if is_unavailable_to_account(&error) => Ok(None),
        row => row.map_err(|error| fault(&error)),
    }
}

impl Protocol for Postgresql {
    type Connection = Connection;

    const TIMEOUT_GRACE: Duration = SERVER_TIMEOUT_GRACE;

    async fn open(&self, deadline: Deadline) -> Result<Connection, Fault> {
        // Our own stream, since otherwise faults would lose their type.
        let stream = deadline.wait(Stage::Connect, self.egress.connect(&self.host, self.port)).await?;
        if self.tls.enabled() {
            let stream = self.encrypt(stream, deadline).await?;
            deadline.wait(Stage::Login, self.login(stream)).await
        } else {
            deadline.wait(Stage::Login, self.login(stream)).await
        }
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        let Connection { session, driver } = connection;
        let anonymous = self.anonymous.load(Relaxed);
        let rows = driver.drive(async {
            session.reset_statement_timeout().await?;
            let identity = async { if anonymous { Ok(None) } else { row(&session.client, IDENTITY).await } };
            let (server, identity) = join(row(&session.client, IDENTIFY), identity).await;
            let server = server.map_err(|error| fault(&error))?.ok_or_else(not_postgresql)?;
            Ok::<_, Fault>((server, optional(identity)?))
        });
        let (row, identity) = rows.await?;
        // Asked once: the server logs each refusal.
        self.anonymous.store(identity.is_none(), Relaxed);
        let text = |column| row.get(column).unwrap_or_default();
        let read_only = text(2) == "on";
        self.read_only.store(read_only, Relaxed);
        Ok(Server {
            version: text(0).split_whitespace().next().unwrap_or_default().to_owned(),
            role: if read_only || text(1) == "true" { Role::Replica } else { Role::Primary },
            identity: identity.and_then(|row| row.get(0).map(str::to_owned)),
            not_after: self.tls.not_after(),
            ..Server::default()
        })
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        let Connection { session, driver } = connection;
        let checked = driver.drive(async {
            session.reset_statement_timeout().await?;
            plan::check(&session.client, session.direct, query).await.map_err(QueryFault::into_check_fault)
        });
        checked.await
    }

    async fn run(
        &self,
        connection: &mut Connection,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        let Connection { session, driver } = connection;
        if !driver.is_open() {
            return Err(RunError::NotSent(closed()));
        }
        driver.drive(session.run(&self.plans, query, rows)).await
    }

    async fn cancel(&self, connection: &mut Connection) {
        let token = connection.session.client.cancel_token();
        let Ok(stream) = self.egress.connect(&self.host, self.port).await else { return };
        let _ = if self.tls.enabled() {
            let deadline = Deadline::within(CANCEL_TIMEOUT);
            let Ok(stream) = self.encrypt(stream, deadline).await else { return };
            token.cancel_query_raw(stream, NoTls).await
        } else {
            token.cancel_query_raw(stream, NoTls).await
        };
    }

    async fn close(connection: Connection) {
        // Without a client, the driver sends Terminate.
        drop(connection.session);
        connection.driver.finish().await;
    }
}
