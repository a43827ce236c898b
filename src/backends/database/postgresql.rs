//! PostgreSQL, by its frontend/backend protocol 3.0.
//!
//! By `tokio-postgres`, since it sends requests without waiting for the answers of those before: a query in a transaction of
//! its own takes one round trip.

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

use futures::{StreamExt, stream};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
};
use tokio_postgres::{Client, Config, NoTls, SimpleQueryMessage, SimpleQueryRow, Statement, config::SslMode};
use tokio_rustls::client::TlsStream;

use self::{
    driver::Carrier,
    error::{closed, fault, not_postgresql},
    plan::{Plan, Plans},
};
use super::{
    Role, Server, ServerSettings,
    pool::Wire,
    query::{Done, GRACE, QueryFault, Rows, Run, Stop},
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{
        Fault,
        http::Egress,
        transport::{self, TlsSettings},
    },
};

/// One round trip. The simple protocol is used for it, so that it passes through poolers that lend by transaction.
const IDENTIFY: &str = "select current_setting('server_version'), pg_is_in_recovery()::text, \
    (select system_identifier::text from pg_control_system())";

/// Asks for TLS before anything else (protocol documentation, section "SSL Session Encryption").
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

pub(super) struct Postgresql {
    host: String,
    port: u16,
    egress: Egress,
    tls: TlsSettings,
    config: Config,
    plans: Plans,
}

/// A connection, and what carries its bytes.
pub(super) struct Connection {
    session: Session,
    carrier: Carrier,
}

/// What is known of a connection's session.
struct Session {
    client: Client,
    /// No pooler lends the server's session to somebody else between two transactions.
    direct: bool,
    /// Each transaction of the session only reads, unless it says otherwise.
    reads: Arc<AtomicBool>,
    /// The time-out that the session has, in milliseconds, if a query has set one.
    timeout: Option<i32>,
    /// What the session has prepared, if it is its own.
    statements: Vec<(Arc<Plan>, Statement)>,
}

impl Postgresql {
    pub(super) fn new(settings: &ServerSettings, egress: Egress) -> Self {
        let credential = &settings.credential;
        let mut config = Config::new();
        config
            .user(credential.username.as_deref().unwrap_or("postgres"))
            // An empty one where there is none: then it is the server that refuses, in words that are known.
            .password(credential.password.as_ref().map_or("", ExposeSecret::expose_secret))
            .dbname(settings.database.as_deref().unwrap_or("postgres"))
            .application_name("authlink")
            // It gets a stream that is encrypted already.
            .ssl_mode(SslMode::Disable);
        Self {
            host: settings.host.clone(),
            port: settings.port,
            egress,
            tls: settings.tls.clone(),
            config,
            plans: Plans::default(),
        }
    }

    async fn login<S>(&self, stream: S) -> Result<Connection, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let connected = self.config.connect_raw(stream, NoTls).await;
        let (client, mut connection) = connected.map_err(|error| fault(&error))?;
        let reads = Arc::<AtomicBool>::default();
        let told = Arc::clone(&reads);
        let messages = stream::poll_fn(move |cx| {
            let message = connection.poll_message(cx);
            // A statement may well take it back for those after it. Since version 14 the server tells, before it is ready
            // for the next one (protocol documentation, section "Asynchronous Operations").
            told.store(connection.parameter("default_transaction_read_only") == Some("on"), Relaxed);
            message
        });
        let mut carrier = Carrier::new(messages.boxed());
        let mut session = Session { client, direct: false, reads, timeout: None, statements: Vec::new() };
        carrier.with(session.settle()).await?;
        Ok(Connection { session, carrier })
    }

    /// Asks for TLS as the protocol wants it, and completes the handshake.
    async fn encrypt(&self, mut stream: TcpStream) -> Result<TlsStream<TcpStream>, Fault> {
        let asked = async {
            stream.write_all(&SSL_REQUEST).await?;
            stream.read_u8().await
        };
        match asked.await.map_err(|error| Fault::from_io(&error))? {
            b'S' => transport::handshake(stream, &self.host, &self.tls).await,
            b'N' => Err(Fault::new(Reason::TlsFailed, "the server does not offer TLS")),
            b'E' => Err(Fault::new(Reason::Unavailable, "the server has no process left for a connection")),
            _ => Err(not_postgresql()),
        }
    }
}

impl Session {
    /// Finds out whether the session is the server's own. If so, it speaks of times in UTC, and only reads unless it is told
    /// otherwise.
    async fn settle(&mut self) -> Result<(), Fault> {
        let Some(process) = self.process().await else { return Ok(()) };
        let settle = format!(
            "select case when pg_backend_pid() = {process} then set_config('TimeZone', 'UTC', false) \
             || set_config('default_transaction_read_only', 'on', false) end"
        );
        let row = row(&self.client, &settle).await?;
        self.direct = row.get(0).is_some();
        Ok(())
    }

    /// The process that the login was told of. A pooler tells a number of its own. The driver keeps it for requests to
    /// cancel alone (protocol documentation, message "CancelRequest").
    async fn process(&self) -> Option<i32> {
        let (near, mut far) = tokio::io::duplex(64);
        self.client.cancel_token().cancel_query_raw(near, NoTls).await.ok()?;
        let mut request = [0; 16];
        far.read_exact(&mut request).await.ok()?;
        request[8..12].try_into().ok().map(i32::from_be_bytes)
    }
}

/// The only row of a statement that has one.
async fn row(client: &Client, statement: &str) -> Result<SimpleQueryRow, Fault> {
    let answer = client.simple_query(statement).await.map_err(|error| fault(&error))?;
    let mut rows = answer.into_iter().filter_map(|message| match message {
        SimpleQueryMessage::Row(row) => Some(row),
        _ => None,
    });
    rows.next().ok_or_else(not_postgresql)
}

impl Wire for Postgresql {
    type Connection = Connection;

    const PATIENCE: Duration = GRACE;

    async fn open(&self) -> Result<Connection, Fault> {
        // Our own stream, since only so each fault keeps its type.
        let stream = self.egress.connect(&self.host, self.port).await?;
        if self.tls.enabled() {
            self.login(self.encrypt(stream).await?).await
        } else {
            self.login(stream).await
        }
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        let Connection { session, carrier } = connection;
        let row = carrier.with(async {
            session.unlimited().await?;
            row(&session.client, IDENTIFY).await
        });
        let row = row.await?;
        let text = |column| row.get(column).unwrap_or_default();
        Ok(Server {
            version: text(0).split_whitespace().next().unwrap_or_default().to_owned(),
            role: if text(1) == "true" { Role::Replica } else { Role::Primary },
            identity: row.get(2).map(str::to_owned),
        })
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        let Connection { session, carrier } = connection;
        let checked = carrier.with(async {
            session.unlimited().await?;
            plan::check(&session.client, session.direct, query).await.map_err(QueryFault::of_check)
        });
        checked.await
    }

    async fn run(&self, connection: &mut Connection, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        let Connection { session, carrier } = connection;
        if !carrier.is_open() {
            return Err(Stop::Unsent(closed()));
        }
        carrier.with(session.run(&self.plans, run, rows)).await
    }

    async fn abort(&self, connection: &mut Connection) {
        let token = connection.session.client.cancel_token();
        let Ok(stream) = self.egress.connect(&self.host, self.port).await else { return };
        let _ = if self.tls.enabled() {
            let Ok(stream) = self.encrypt(stream).await else { return };
            token.cancel_query_raw(stream, NoTls).await
        } else {
            token.cancel_query_raw(stream, NoTls).await
        };
    }

    async fn shut(connection: Connection) {
        // Without a client the carrier says goodbye.
        drop(connection.session);
        connection.carrier.finish().await;
    }
}
