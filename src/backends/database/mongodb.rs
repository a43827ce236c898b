//! MongoDB, by the driver's own pool: each server of a replica set is connected to directly, so that each has its own health.

mod hello;
mod permits;
mod run;
mod template;
mod value;

use std::{str::FromStr, sync::Arc, time::Duration};

use bson::{Document, doc};
use futures::{FutureExt, future::BoxFuture};
use mongodb::{
    Client,
    error::{Error, ErrorKind},
    event::EventHandler,
    options::{AuthMechanism, ClientOptions, Credential, ServerAddress, Tls},
};
use secrecy::ExposeSecret;
use tokio::task::AbortHandle;

use self::{hello::hello, permits::Permits};
use super::{
    Database, PoolView, Role, Server, ServerSettings,
    deadline::{Deadline, Stage},
    query::{BoundQuery, QueryFault, RowStream},
    relay::{Io, Socket, Sockets, forward},
    tls::ServerTls,
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{Fault, find_cause, http::Egress},
    telemetry::metrics::Observed,
};

/// The pause after a failure to accept a connection, such as by too many open files.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

pub(super) struct Mongodb {
    client: Client,
    /// For a connection outside of the pool.
    options: ClientOptions,
    settings: ServerSettings,
    route: Arc<Route>,
    permits: Arc<Permits>,
    relay: AbortHandle,
    _sockets: Sockets,
}

/// How to connect to the server.
struct Route {
    host: String,
    port: u16,
    egress: Egress,
    tls: ServerTls,
    timeout: Duration,
}

impl Route {
    /// Connects, and completes the TLS handshake.
    async fn connect(&self, egress: &Egress, deadline: Deadline) -> Result<Box<dyn Io>, Fault> {
        let stream = deadline.wait(Stage::Connect, egress.connect(&self.host, self.port)).await?;
        if !self.tls.enabled() {
            return Ok(Box::new(stream));
        }
        let plaintext = || self.speaks_plaintext().map(|said| said.is_ok()).boxed();
        Ok(Box::new(self.tls.implicit_handshake(stream, deadline, plaintext).await?))
    }

    async fn speaks_plaintext(&self) -> Result<(), Fault> {
        hello(&mut self.egress.connect(&self.host, self.port).await?).await
    }

    /// Connects, and waits for a first response.
    async fn check_connect(&self, egress: &Egress, deadline: Deadline) -> Result<(), Fault> {
        let mut stream = self.connect(egress, deadline).await?;
        deadline.wait(Stage::Login, hello(&mut stream)).await
    }

    /// Relays each connection of the driver. One that cannot be is closed; a probe tells why.
    async fn relay(self: Arc<Self>, socket: Socket) {
        loop {
            let Ok(driver) = socket.accept().await else {
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            };
            let route = Arc::clone(&self);
            tokio::spawn(async move {
                if let Ok(server) = route.connect(&route.egress, Deadline::within(route.timeout)).await {
                    forward(driver, server).await;
                }
            });
        }
    }
}

impl Mongodb {
    pub(super) fn new(settings: ServerSettings, egress: Egress) -> Result<Self, Fault> {
        let permits = Arc::new(Permits::new(&settings.pool));
        let (sockets, route) = (
            Sockets::new()?,
            Arc::new(Route {
                host: settings.host.clone(),
                port: settings.port,
                egress,
                tls: ServerTls::new(&settings),
                timeout: settings.timeout,
            }),
        );
        let socket = sockets.listen()?;
        let path = socket.path().to_owned();
        let relay = tokio::spawn(Arc::clone(&route).relay(socket)).abort_handle();
        let pool = &settings.pool;
        let handler = Arc::clone(&permits);
        let mut options = ClientOptions::builder()
            .hosts(vec![ServerAddress::Unix { path }])
            .app_name("authlink".to_owned())
            .direct_connection(true)
            .connect_timeout(settings.timeout)
            // Half of the probe's timeout, which leaves the other half for the diagnosis.
            .server_selection_timeout(settings.timeout / 2)
            .max_pool_size(pool.max)
            .min_pool_size(pool.min)
            .max_idle_time(pool.idle_timeout)
            .cmap_event_handler(EventHandler::callback(move |event| handler.handle(&event)))
            .build();
        options.credential = credential(&settings)?;
        // The relay encrypts the connection.
        options.tls = Some(Tls::Disabled);
        let connect = Client::with_options(options.clone());
        let client = connect.map_err(|error| settings.redact(fault(&error)))?;
        Ok(Self { client, options, settings, route, permits, relay, _sockets: sockets })
    }

    fn database(&self) -> mongodb::Database {
        self.database_of(&self.client)
    }

    fn database_of(&self, client: &Client) -> mongodb::Database {
        client.database(self.settings.database.as_deref().unwrap_or("admin"))
    }

    async fn identify(&self, client: &Client) -> Result<Server, Error> {
        let database = self.database_of(client);
        let hello = database.run_command(doc! { "hello": 1 }).await?;
        let build = database.run_command(doc! { "buildInfo": 1 }).await?;
        let primary = hello.get_bool("isWritablePrimary").unwrap_or(true);
        Ok(Server {
            version: build.get_str("version").unwrap_or_default().to_owned(),
            role: if primary { Role::Primary } else { Role::Replica },
            identity: identity(&hello),
            not_after: self.route.tls.not_after(),
            ..Server::default()
        })
    }

    /// Identifies the server over a connection outside of the pool: an exhausted pool must not look like a dead server.
    async fn identify_unpooled(&self) -> Result<Server, Error> {
        let mut options = self.options.clone();
        (options.min_pool_size, options.max_pool_size, options.cmap_event_handler) = (None, Some(1), None);
        let client = Client::with_options(options)?;
        let server = self.identify(&client).await;
        client.shutdown().await;
        if server.is_ok() {
            self.permits.last_login.record();
        }
        server
    }

    /// The driver reports an unreachable server as text only: connects once more to classify the fault.
    async fn diagnose(&self, error: &Error, deadline: Deadline) -> Fault {
        if !matches!(*error.kind, ErrorKind::ServerSelection { .. } | ErrorKind::ConnectionPoolCleared { .. })
        {
            return self.with_auth_source(fault(error));
        }
        // Within what the driver has left of the probe's timeout, so that a DNS failure is reported as such.
        let egress = self.route.egress.clone().with_lookup_timeout(self.settings.timeout * 2 / 5);
        match self.route.check_connect(&egress, deadline).await {
            Err(fault) => fault,
            Ok(()) => Fault::new(Reason::Unavailable, "the server responds, but not in time to the driver"),
        }
    }

    /// Users of the same name may be defined in several databases.
    fn with_auth_source(&self, mut fault: Fault) -> Fault {
        if fault.reason == Reason::AuthenticationFailed
            && let Some(source) = self.settings.effective_auth_source()
        {
            fault.detail = format!("{} (the user was looked up in the database {source})", fault.detail);
            fault = fault.with_remedy(
                "check the user name and password, or set authSource to the database in which the user is defined",
            );
        }
        fault
    }
}

impl Drop for Mongodb {
    fn drop(&mut self) {
        self.relay.abort();
    }
}

fn credential(settings: &ServerSettings) -> Result<Option<Credential>, Fault> {
    const X509: &str = "MONGODB-X509";
    let mechanism = settings.option("authMechanism");
    if settings.credential.username.is_none() && mechanism != Some(X509) {
        return Ok(None);
    }
    let source = if mechanism == Some(X509) { Some("$external") } else { settings.effective_auth_source() };
    let password = settings.credential.password.as_ref().map(|password| password.expose_secret().to_owned());
    let mut credential = Credential::builder()
        .username(settings.credential.username.clone())
        .password(password.filter(|_| mechanism != Some(X509)))
        .source(source.map(str::to_owned))
        .build();
    credential.mechanism =
        mechanism.map(AuthMechanism::from_str).transpose().map_err(|error| fault(&error))?;
    Ok(Some(credential))
}

impl Database for Mongodb {
    fn probe(&self) -> BoxFuture<'_, Result<Server, Fault>> {
        async {
            let deadline = Deadline::within(self.settings.timeout);
            // Without an open connection, the driver would retry any fault until its timeout.
            if self.permits.is_disconnected() {
                self.route.check_connect(&self.route.egress, deadline).await?;
            }
            let permit = self.permits.try_acquire().filter(|_| !self.permits.last_login.is_due());
            let identified = async {
                Ok(match permit {
                    Some(_) => self.identify(&self.client).await,
                    None => self.identify_unpooled().await,
                })
            };
            match deadline.wait(Stage::Query, identified).await? {
                Ok(server) => Ok(server),
                Err(error) => Err(self.settings.redact(self.diagnose(&error, deadline).await)),
            }
        }
        .boxed()
    }

    fn check<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<(), Fault>> {
        // A command cannot be prepared on the server.
        std::future::ready(run::prepare(query).map(drop).map_err(QueryFault::into_check_fault)).boxed()
    }

    fn run(self: Arc<Self>, query: BoundQuery, observed: Observed) -> RowStream {
        RowStream::of(query.max_rows, observed, |sink| self.serve(query, sink))
    }

    fn maintain(&self) -> BoxFuture<'_, ()> {
        // The driver maintains its pool; it has no maximum lifetime.
        std::future::ready(()).boxed()
    }

    fn pool(&self) -> PoolView {
        self.permits.view()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.client.clone().shutdown().into_future().boxed()
    }
}

/// The replica set's name survives elections and restarts; a standalone server has no identity.
fn identity(hello: &Document) -> Option<String> {
    hello.get_str("setName").ok().map(str::to_owned)
}

/// By error code (MongoDB's `error_codes.yml`).
fn fault(error: &Error) -> Fault {
    match &*error.kind {
        ErrorKind::Authentication { message, .. } => Fault::new(Reason::AuthenticationFailed, message),
        ErrorKind::Command(command) => {
            let reason = match command.code {
                18 => Reason::AuthenticationFailed,
                13 => Reason::PermissionDenied,
                26 => Reason::DatabaseMissing,
                _ => Reason::Unavailable,
            };
            Fault::new(reason, &command.message)
        }
        ErrorKind::DnsResolve { message, .. } => Fault::new(Reason::DnsFailed, message),
        ErrorKind::Io(cause) => Fault::from_io(cause),
        ErrorKind::InvalidResponse { message, .. } => Fault::new(Reason::ProtocolError, message),
        ErrorKind::InvalidArgument { message, .. } => Fault::new(Reason::InvalidSpec, message),
        _ => find_cause(error).unwrap_or_else(|| Fault::new(Reason::Unavailable, error.kind.to_string())),
    }
}
