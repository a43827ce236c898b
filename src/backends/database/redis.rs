//! Redis and Valkey, by RESP2.

mod answer;
mod error;
mod run;
mod template;

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;
use redis::{AsyncConnectionConfig, RedisConnectionInfo, aio::MultiplexedConnection};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use self::{error::fault, run::Prepared};
use super::{
    Credential, Role, Server, ServerSettings,
    pool::Wire,
    query::{Done, QueryFault, Rows, Run, Stop},
};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{
        Fault,
        http::Egress,
        transport::{self, TlsSettings},
    },
};

pub(super) struct Redis {
    host: String,
    port: u16,
    egress: Egress,
    tls: TlsSettings,
    number: u32,
    credential: Credential,
    /// The declared commands that were looked at, by their text.
    prepared: Mutex<HashMap<String, Arc<Prepared>>>,
}

impl Redis {
    pub(super) fn new(settings: &ServerSettings, egress: Egress) -> Self {
        let number = settings.database.as_deref().and_then(|number| number.parse().ok()).unwrap_or(0);
        Self {
            host: settings.host.clone(),
            port: settings.port,
            egress,
            tls: settings.tls.clone(),
            number,
            credential: settings.credential.clone(),
            prepared: Mutex::default(),
        }
    }

    async fn login<S>(&self, stream: S) -> Result<Connection, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let info = RedisConnectionInfo::default().set_skip_set_lib_name();
        // Whoever asks has a time-out of his own; the driver's would be half a second.
        let config = AsyncConnectionConfig::default().set_response_timeout(None);
        let connected = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (commands, carrier) = connected.map_err(|error| fault(&error))?;
        let mut connection = Connection { commands, carrier: tokio::spawn(carrier) };
        // By ourselves, since the driver calls everything that goes wrong here a wrong password.
        if let Some(password) = &self.credential.password {
            let mut auth = redis::cmd("AUTH");
            auth.arg(self.credential.username.as_deref()).arg(password.expose_secret());
            connection.run(&auth).await?;
        }
        if self.number != 0 {
            connection.run(redis::cmd("SELECT").arg(self.number)).await?;
        }
        Ok(connection)
    }
}

/// A connection, and the task that carries its bytes.
pub(super) struct Connection {
    commands: MultiplexedConnection,
    carrier: JoinHandle<()>,
}

impl Connection {
    /// Not `req_packed_command`, which hands a refusal over as if it were an answer.
    async fn run(&mut self, command: &redis::Cmd) -> Result<(), Fault> {
        let answer: Result<redis::Value, _> = command.query_async(&mut self.commands).await;
        answer.map(drop).map_err(|error| fault(&error))
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.carrier.abort();
    }
}

impl Wire for Redis {
    type Connection = Connection;

    async fn open(&self) -> Result<Connection, Fault> {
        // Our own stream, since only so a failed handshake keeps its type, and VerifyCa is possible.
        let stream = self.egress.connect(&self.host, self.port).await?;
        if self.tls.enabled() {
            self.login(transport::handshake(stream, &self.host, &self.tls).await?).await
        } else {
            self.login(stream).await
        }
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        connection.run(&redis::cmd("PING")).await?;
        let info: Result<String, _> = redis::cmd("INFO").query_async(&mut connection.commands).await;
        match info {
            Ok(info) => Ok(read_info(&info)),
            // An account that may use the server and not look into it is no fault.
            Err(error) if fault(&error).reason == Reason::PermissionDenied => Ok(Server::default()),
            Err(error) => Err(fault(&error)),
        }
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        self.prepare(connection, query).await.map(drop).map_err(QueryFault::of_check)
    }

    async fn run(&self, connection: &mut Connection, run: &Run, rows: &mut Rows) -> Result<Done, Stop> {
        self.execute(connection, run, rows).await
    }

    async fn abort(&self, _: &mut Connection) {
        // Closing the connection is all there is: a client that waits for a key is forgotten, a script runs on.
    }

    async fn shut(connection: Connection) {
        drop(connection);
    }
}

fn read_info(info: &str) -> Server {
    let field = |name: &str| {
        let mut lines = info.lines().filter_map(|line| line.split_once(':'));
        lines.find(|(key, _)| *key == name).map(|(_, value)| value.trim().to_owned())
    };
    Server {
        // Valkey says 7.2.4 as redis_version, for old clients.
        version: field("valkey_version").or_else(|| field("redis_version")).unwrap_or_default(),
        role: if field("role").as_deref() == Some("slave") { Role::Replica } else { Role::Primary },
        identity: field("run_id"),
    }
}
