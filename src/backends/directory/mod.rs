//! Directories: LDAP servers that hold the same entries, the first of which answers.

mod ber;
mod changes;
mod connection;
mod controls;
mod fault;
mod layout;
mod message;
mod registry;
mod root;
mod search;
pub mod settings;

use std::time::{Duration, Instant};

use futures::{FutureExt, future::BoxFuture};
use jiff::Timestamp;
use parking_lot::Mutex;
use secrecy::SecretString;

use super::{Fault, http::Egress, transport::Tls};
use crate::{api::Reason, domain::sync::login::BindBudget};

pub use changes::{Changes, Refresh, Refreshed, Touched};
pub use connection::{Bound, Connection};
pub use layout::{GroupSearch, Layout, UserSearch};
pub use message::{Outcome, Scope, Search};
pub use registry::DirectoryRegistry;
pub use root::RootDse;
pub use search::{Found, Page, Pages};
pub use settings::{DirectorySettings, Login, Protection, ServerUrl};

/// A server that did not answer is asked again only after so long, while another one answers.
const DOWN: Duration = Duration::from_secs(30);

/// Connections that are logged in and wait for work: so many, for so long.
const MOST_IDLE: usize = 8;
const LONGEST_IDLE: Duration = Duration::from_mins(1);

/// A directory: its servers with one login.
///
/// All that log in with it share one budget of refusals, over all servers: whoever tries a wrong password again and again locks the
/// account, for us and for everybody else.
pub struct Directory {
    settings: DirectorySettings,
    tls: Option<Tls>,
    egress: Egress,
    started: Instant,
    budget: Mutex<BindBudget>,
    /// Held by the one who tries a login that has not been proven yet.
    trial: tokio::sync::Mutex<()>,
    /// When each server last failed to answer.
    down: Mutex<Vec<Option<Instant>>>,
    idle: Mutex<Vec<(Connection, Instant)>>,
}

/// What a probe of one server has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// What the server says of itself.
    pub root: RootDse,
    /// When its certificate ends.
    pub not_after: Option<Timestamp>,
}

impl Directory {
    /// Prepares everything, and connects when it is needed.
    ///
    /// # Errors
    /// A setting that cannot be used.
    pub fn new(settings: DirectorySettings, egress: Egress) -> Result<Self, Fault> {
        let tls = match settings.protection {
            Protection::None => None,
            Protection::StartTls | Protection::Ldaps => Some(Tls::new(&settings.tls, &[])?),
        };
        if settings.servers.is_empty() {
            return Err(Fault::new(Reason::InvalidSpec, "the directory has no server"));
        }
        let down = Mutex::new(vec![None; settings.servers.len()]);
        Ok(Self {
            settings,
            tls,
            egress,
            started: Instant::now(),
            budget: Mutex::default(),
            trial: tokio::sync::Mutex::default(),
            down,
            idle: Mutex::default(),
        })
    }

    /// Its settings.
    #[must_use]
    pub fn settings(&self) -> &DirectorySettings {
        &self.settings
    }

    /// Connects to one server, logs in, and reads what it says of itself.
    ///
    /// # Errors
    /// What keeps it from being used.
    pub async fn probe(&self, server: usize) -> Result<Probe, Fault> {
        let probe = async {
            let mut connection = self.open(server).await?;
            self.log_in(&mut connection).await?;
            let root = RootDse::read(&mut connection).await?;
            let probe = Probe { root, not_after: connection.not_after() };
            connection.close().await;
            Ok(probe)
        };
        let probed = probe.await.map_err(|fault| self.settings.redact(fault));
        if let Some(down) = self.down.lock().get_mut(server) {
            *down = probed.is_err().then(Instant::now);
        }
        probed
    }

    /// A connection of its own to the first server that answers, logged in.
    ///
    /// # Errors
    /// What the last server said. A refused login is the verdict of all of them.
    pub async fn connect(&self) -> Result<Connection, Fault> {
        self.first(|server| {
            let connect = async move {
                let mut connection = self.open(server).await?;
                self.log_in(&mut connection).await?;
                Ok(connection)
            };
            connect.boxed()
        })
        .await
    }

    /// The same without a login, for that of somebody else.
    ///
    /// # Errors
    /// What the last server said.
    pub async fn fresh(&self) -> Result<Connection, Fault> {
        self.first(|server| self.open(server).boxed()).await
    }

    /// What the first server that answers gives.
    async fn first<'a, T>(
        &'a self,
        attempt: impl Fn(usize) -> BoxFuture<'a, Result<T, Fault>> + Send,
    ) -> Result<T, Fault> {
        let mut last = Fault::new(Reason::InvalidSpec, "the directory has no server");
        for server in self.order() {
            match attempt(server).await {
                Ok(done) => return Ok(done),
                Err(fault) => {
                    let refused = fault.reason == Reason::AuthenticationFailed;
                    last = self.settings.redact(fault);
                    if refused {
                        break;
                    }
                    self.is_down(server);
                }
            }
        }
        Err(last)
    }

    /// Asks another server first for a while.
    pub fn is_down(&self, server: usize) {
        if let Some(down) = self.down.lock().get_mut(server) {
            *down = Some(Instant::now());
        }
    }

    /// A connection that is logged in, for a short while: one that waits for work, or a new one. It is given back by
    /// [`Self::give_back`] when all of the last answer was read; else it is dropped.
    ///
    /// # Errors
    /// What the last server said.
    pub async fn lend(&self) -> Result<Lent, Fault> {
        let idle = {
            let mut idle = self.idle.lock();
            idle.retain(|(_, since)| since.elapsed() < LONGEST_IDLE);
            idle.pop()
        };
        match idle {
            Some((connection, _)) => Ok(Lent { connection, used: true }),
            None => Ok(Lent { connection: self.connect().await?, used: false }),
        }
    }

    /// Takes a lent connection back.
    pub fn give_back(&self, lent: Lent) {
        let mut idle = self.idle.lock();
        if idle.len() < MOST_IDLE {
            idle.push((lent.connection, Instant::now()));
        }
    }

    /// Asks whether this is somebody's password, over a connection of its own, which is somebody's then if it is.
    ///
    /// # Errors
    /// What kept the servers from answering.
    pub async fn bind(&self, name: &str, password: &SecretString) -> Result<(Bound, Connection), Fault> {
        let mut connection = self.fresh().await?;
        let server = connection.server();
        match connection.bind(name, password).await {
            Ok(bound) => Ok((bound, connection)),
            Err(fault) => {
                self.is_down(server);
                Err(self.settings.redact(fault))
            }
        }
    }

    /// The servers, those that answered last before those that did not.
    fn order(&self) -> Vec<usize> {
        let down = self.down.lock();
        let failed = |server: &usize| down[*server].is_some_and(|since| since.elapsed() < DOWN);
        let (failed, mut order): (Vec<_>, Vec<_>) = (0..down.len()).partition(failed);
        order.extend(failed);
        order
    }

    async fn open(&self, server: usize) -> Result<Connection, Fault> {
        let Some(url) = self.settings.servers.get(server) else {
            return Err(Fault::new(Reason::InvalidSpec, "the directory has no such server"));
        };
        let connection = Connection::open(url, &self.settings, self.tls.as_ref(), &self.egress).await?;
        Ok(connection.of_server(server))
    }

    async fn log_in(&self, connection: &mut Connection) -> Result<(), Fault> {
        let _trial = if self.budget.lock().is_proven() { None } else { Some(self.trial.lock().await) };
        if !self.budget.lock().allows(self.started.elapsed()) {
            let detail =
                "the login was refused before, and is not tried again, so that the account is not locked";
            return Err(Fault::new(Reason::AuthenticationFailed, detail));
        }
        let logged_in = connection.log_in(&self.settings.login).await;
        match &logged_in {
            Ok(()) => self.budget.lock().accept(),
            Err(fault) if fault.reason == Reason::AuthenticationFailed => {
                self.budget.lock().refuse(self.started.elapsed());
            }
            Err(_) => {}
        }
        logged_in
    }
}

/// A connection on loan.
pub struct Lent {
    /// It is logged in.
    pub connection: Connection,
    /// Whether it has waited for work before: one that fails then may simply have been closed by the server.
    pub used: bool,
}
