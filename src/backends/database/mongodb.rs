//! MongoDB, by the driver's own pool: each server of a replica set is reached directly, so that each has its own health.

mod permits;
mod run;
mod template;
mod value;

use std::{io::Write, sync::Arc};

use bson::{Document, doc};
use futures::{FutureExt, future::BoxFuture};
use mongodb::{
    Client,
    error::{Error, ErrorKind},
    event::EventHandler,
    options::{ClientOptions, Credential, ServerAddress, Tls, TlsOptions},
};
use secrecy::ExposeSecret;
use tempfile::NamedTempFile;

use self::permits::Places;
use super::{
    Database, PoolView, Role, Server, ServerSettings,
    query::{Answer, QueryFault, Run},
};
use crate::{
    api::{
        Reason,
        v1alpha1::database::{Query, TlsMode},
    },
    backends::{
        Fault, find_cause,
        http::Egress,
        transport::{self, TlsSettings},
    },
    telemetry::metrics::Observed,
};

pub(super) struct Mongodb {
    client: Client,
    /// To reach the server once more beside the pool.
    options: ClientOptions,
    settings: ServerSettings,
    egress: Egress,
    places: Arc<Places>,
    /// The driver reads certificates from files only; these go with the pool.
    _files: Vec<NamedTempFile>,
}

impl Mongodb {
    pub(super) fn new(settings: ServerSettings, egress: Egress) -> Result<Self, Fault> {
        let places = Arc::new(Places::new(&settings.pool));
        let (tls, files) = tls_options(&settings.tls)?;
        let credential = settings.credential.username.as_ref().map(|username| {
            Credential::builder()
                .username(username.clone())
                .password(
                    settings.credential.password.as_ref().map(|password| password.expose_secret().to_owned()),
                )
                .source(settings.knows_user().map(str::to_owned))
                .build()
        });
        let pool = &settings.pool;
        let handler = Arc::clone(&places);
        let mut options = ClientOptions::builder()
            .hosts(vec![ServerAddress::Tcp { host: settings.host.clone(), port: Some(settings.port) }])
            .app_name("authlink".to_owned())
            .direct_connection(true)
            .connect_timeout(settings.timeout)
            // Half of a probe's time, so that the other half is there to tell why.
            .server_selection_timeout(settings.timeout / 2)
            .max_pool_size(pool.max)
            .min_pool_size(pool.min)
            .max_idle_time(pool.idle_timeout)
            .cmap_event_handler(EventHandler::callback(move |event| handler.count(&event)))
            .build();
        options.credential = credential;
        options.tls = tls;
        let connect = Client::with_options(options.clone());
        let client = connect.map_err(|error| settings.redact(fault(&error)))?;
        Ok(Self { client, options, settings, egress, places, _files: files })
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
        })
    }

    /// Asks over a connection of its own: that callers use all of the pool must not look like a dead server.
    async fn identify_beside(&self) -> Result<Server, Error> {
        let mut options = self.options.clone();
        (options.min_pool_size, options.max_pool_size, options.cmap_event_handler) = (None, Some(1), None);
        let client = Client::with_options(options)?;
        let answer = self.identify(&client).await;
        client.shutdown().await;
        if answer.is_ok() {
            self.places.logins.succeeded();
        }
        answer
    }

    /// The driver reports a server that it cannot reach as text only: look again by ourselves to tell why.
    async fn explain(&self, error: &Error) -> Fault {
        if !matches!(*error.kind, ErrorKind::ServerSelection { .. } | ErrorKind::ConnectionPoolCleared { .. })
        {
            return fault(error);
        }
        // Of what the driver has left of a probe's time, so that it is told when it is the name that takes it.
        let egress = self.egress.clone().with_lookup_timeout(self.settings.timeout * 2 / 5);
        match self.reach(&egress).await {
            Err(fault) => fault,
            Ok(()) => Fault::new(Reason::ProtocolError, "the server does not answer as a MongoDB does"),
        }
    }

    /// Network and TLS alone.
    async fn reach(&self, egress: &Egress) -> Result<(), Fault> {
        let ServerSettings { host, port, tls, .. } = &self.settings;
        let stream = egress.connect(host, *port).await?;
        if tls.enabled() {
            transport::handshake(stream, host, tls).await?;
        }
        Ok(())
    }
}

fn tls_options(settings: &TlsSettings) -> Result<(Option<Tls>, Vec<NamedTempFile>), Fault> {
    if !settings.enabled() {
        return Ok((Some(Tls::Disabled), Vec::new()));
    }
    let mut files = Vec::new();
    let mut file = |text: &str| -> Result<_, Fault> {
        let written =
            NamedTempFile::new().and_then(|mut file| file.write_all(text.as_bytes()).map(|()| file));
        let file = written.map_err(|error| {
            Fault::new(Reason::Unavailable, format!("the TLS files cannot be written ({})", error.kind()))
        })?;
        let path = file.path().to_owned();
        files.push(file);
        Ok(path)
    };
    let mut options = TlsOptions::default();
    options.allow_invalid_certificates = Some(settings.mode == TlsMode::Require);
    if let Some(ca) = &settings.ca {
        options.ca_file_path = Some(file(ca)?);
    }
    if let Some((certificate, key)) = &settings.client {
        options.cert_key_file_path = Some(file(&format!("{certificate}\n{}", key.expose_secret()))?);
    }
    Ok((Some(Tls::Enabled(options)), files))
}

impl Database for Mongodb {
    fn probe(&self) -> BoxFuture<'_, Result<Server, Fault>> {
        async {
            // Without a connection the driver would wait for its whole time for the server to come, whatever the fault.
            if self.places.is_empty() {
                self.reach(&self.egress).await?;
            }
            let place = self.places.place_now().filter(|_| !self.places.logins.is_due());
            let answer = match place {
                Some(_) => self.identify(&self.client).await,
                None => self.identify_beside().await,
            };
            match answer {
                Ok(server) => Ok(server),
                Err(error) => Err(self.settings.redact(self.explain(&error).await)),
            }
        }
        .boxed()
    }

    fn check<'a>(&'a self, query: &'a Query) -> BoxFuture<'a, Result<(), Fault>> {
        // A command cannot be prepared: what can be told is whether it is one.
        std::future::ready(run::prepare(query).map(drop).map_err(QueryFault::of_check)).boxed()
    }

    fn run(self: Arc<Self>, run: Run, observed: Observed) -> Answer {
        Answer::of(run.max_rows, observed, |asked| self.serve(run, asked))
    }

    fn tend(&self) -> BoxFuture<'_, ()> {
        // The driver keeps the bounds by itself; it has no maximal lifetime.
        std::future::ready(()).boxed()
    }

    fn pool(&self) -> PoolView {
        self.places.view()
    }

    fn close(&self) -> BoxFuture<'_, ()> {
        self.client.clone().shutdown().into_future().boxed()
    }
}

/// A replica set's id stays the same over elections and restarts; a server on its own has nothing of the kind.
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
        ErrorKind::InvalidTlsConfig { message, .. } => Fault::new(Reason::TlsFailed, message),
        ErrorKind::InvalidArgument { message, .. } => Fault::new(Reason::InvalidSpec, message),
        _ => find_cause(error).unwrap_or_else(|| Fault::new(Reason::Unavailable, error.kind.to_string())),
    }
}
