//! Redis and Valkey, protocol RESP2.

mod answer;
mod error;
mod run;
mod template;

use std::{collections::HashMap, sync::Arc};

use futures::FutureExt;
use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    task::JoinHandle,
};

use self::{error::fault, run::Prepared};
use super::{
    Credential, Role, Server, ServerSettings,
    deadline::{Deadline, Stage},
    pool::Protocol,
    query::{BoundQuery, Completion, QueryFault, RowSink, RunError},
    tls::ServerTls,
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{Fault, http::Egress},
};

pub(super) struct Redis {
    host: String,
    port: u16,
    egress: Egress,
    tls: ServerTls,
    number: u32,
    credential: Credential,
    /// The declared commands that were checked, by their text.
    prepared: Mutex<HashMap<String, Arc<Prepared>>>,
}

impl Redis {
    pub(super) fn new(settings: &ServerSettings, egress: Egress) -> Self {
        let number = settings.database.as_deref().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            host: settings.host.clone(),
            port: settings.port,
            egress,
            tls: ServerTls::new(settings),
            number,
            credential: settings.credential.clone(),
            prepared: Mutex::default(),
        }
    }

    /// Whether it answers a command without TLS.
    async fn speaks_plaintext(&self) -> Result<bool, Fault> {
        let mut stream = self.egress.connect(&self.host, self.port).await?;
        let response = async {
            stream.write_all(b"PING\r\n").await?;
            stream.read_u8().await
        };
        let first = response.await.map_err(|error| Fault::from_io(&error))?;
        Ok(matches!(first, b'+' | b'-'))
    }

    async fn login<S>(&self, stream: S) -> Result<Connection, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        // Callers have their own timeouts; the driver's default is half a second.
        let config = AsyncConnectionConfig::default().set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (commands, driver) = connected.map_err(|error| fault(&error))?;
        let mut connection = Connection { commands, driver: tokio::spawn(driver) };
        // Not by the driver, which reports every error here as a wrong password.
        if let Some(password) = &self.credential.password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(self.credential.username.as_deref()).arg(password.expose_secret());
            if let Err(fault) = connection.run(&auth).await {
                // A Sentinel seldom has a password, and then it answers without.
                return Err(match connection.info().await {
                    Ok(info) if field(&info, "redis_mode") == Some("sentinel") => sentinel(),
                    _ => fault,
                });
            }
        }
        if self.number != 0 {
            connection.run(redis::cmd("SELECT").arg(self.number)).await?;
        }
        Ok(connection)
    }
}

/// A connection, and the task that drives its IO.
pub(super) struct Connection {
    commands: MultiplexedConnection,
    driver: JoinHandle<()>,
}

impl Connection {
    /// Not `req_packed_command`, which returns an error response as a value.
    async fn run(&mut self, command: &redis::Cmd) -> Result<(), Fault> {
        let response: Result<redis::Value, _> = command.query_async(&mut self.commands).await;
        response.map(drop).map_err(|error| fault(&error))
    }

    async fn info(&mut self) -> Result<String, Fault> {
        let info: Result<String, _> = redis::cmd("INFO").query_async(&mut self.commands).await;
        info.map_err(|error| fault(&error))
    }

    /// None if the account may not ask, or it is no node of a cluster.
    async fn cluster_info(&mut self) -> Result<Option<String>, Fault> {
        let info: Result<String, _> = redis::cmd("CLUSTER").arg("INFO").query_async(&mut self.commands).await;
        match info.map_err(|error| fault(&error)) {
            Err(fault) if fault.reason == Reason::PermissionDenied => Ok(None),
            info => info.map(Some),
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Protocol for Redis {
    type Connection = Connection;

    async fn open(&self, deadline: Deadline) -> Result<Connection, Fault> {
        // Our own stream, so that TLS faults keep their type and VerifyCa is possible.
        let stream = deadline.wait(Stage::Connect, self.egress.connect(&self.host, self.port)).await?;
        if self.tls.enabled() {
            let plaintext = || self.speaks_plaintext().map(|said| said.unwrap_or(false)).boxed();
            let stream = self.tls.implicit_handshake(stream, deadline, plaintext).await?;
            deadline.wait(Stage::Login, self.login(stream)).await
        } else {
            deadline.wait(Stage::Login, self.login(stream)).await
        }
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        connection.run(&redis::cmd("PING")).await?;
        let not_after = self.tls.not_after();
        let info = match connection.info().await {
            // An account need not have the permission for INFO.
            Err(fault) if fault.reason == Reason::PermissionDenied => {
                return Ok(Server { not_after, ..Server::default() });
            }
            info => info?,
        };
        let clustered = match field(&info, "redis_mode") {
            Some("sentinel") => return Err(sentinel()),
            Some("cluster") => true,
            _ => false,
        };
        if clustered && let Some(cluster) = connection.cluster_info().await? {
            let state = field(&cluster, "cluster_state").unwrap_or_default();
            if state != "ok" {
                let detail = format!("CLUSTERDOWN: the node says cluster_state:{state}");
                let remedy = "assign all hash slots to nodes that run (redis-cli --cluster fix)";
                return Err(Fault::new(Reason::Unavailable, detail).with_remedy(remedy));
            }
        }
        Ok(Server { clustered, not_after, ..read_info(&info) })
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        self.prepare(connection, query).await.map(drop).map_err(QueryFault::into_check_fault)
    }

    async fn run(
        &self,
        connection: &mut Connection,
        query: &BoundQuery,
        rows: &mut RowSink,
    ) -> Result<Completion, RunError> {
        self.execute(connection, query, rows).await
    }

    async fn cancel(&self, _: &mut Connection) {
        // Closing the connection unblocks a command that waits for a key; a script continues, as Redis cannot cancel it.
    }

    async fn close(connection: Connection) {
        drop(connection);
    }
}

fn sentinel() -> Fault {
    let remedy = "set host and port to those of the Redis server that the Sentinel monitors";
    Fault::new(Reason::ProtocolError, "this is a Redis Sentinel, which holds no data").with_remedy(remedy)
}

/// A field of what `INFO` and `CLUSTER INFO` respond.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = info.lines().filter_map(|line| line.split_once(':'));
    lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim())
}

fn read_info(info: &str) -> Server {
    let text = |name| field(info, name).map(str::to_owned);
    Server {
        // Valkey reports redis_version 7.2.4 for old clients.
        version: text("valkey_version").or_else(|| text("redis_version")).unwrap_or_default(),
        role: if field(info, "role") == Some("slave") { Role::Replica } else { Role::Primary },
        identity: text("run_id"),
        ..Server::default()
    }
}
