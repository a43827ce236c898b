//! Redis and Valkey, by RESP2.

use redis::{
    AsyncConnectionConfig, ErrorKind, RedisConnectionInfo, RedisError, ServerErrorKind,
    aio::MultiplexedConnection,
};
use secrecy::ExposeSecret;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    task::JoinHandle,
};

use super::{Role, Server, Settings, pool::Wire};
use crate::{
    api::{Reason, v1alpha1::database::Query},
    backends::{
        Fault, find_cause,
        transport::{self, TlsSettings},
    },
};

pub(super) struct Redis {
    host: String,
    port: u16,
    tls: TlsSettings,
    login: RedisConnectionInfo,
}

impl Redis {
    pub(super) fn new(settings: &Settings) -> Self {
        let number = settings.database.as_deref().and_then(|number| number.parse().ok()).unwrap_or(0);
        let mut login = RedisConnectionInfo::default().set_db(number).set_skip_set_lib_name();
        if let Some(username) = &settings.credential.username {
            login = login.set_username(username);
        }
        if let Some(password) = &settings.credential.password {
            login = login.set_password(password.expose_secret());
        }
        Self { host: settings.host.clone(), port: settings.port, tls: settings.tls.clone(), login }
    }
}

impl Redis {
    async fn login<S>(&self, stream: S) -> Result<Connection, Fault>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let config = AsyncConnectionConfig::default();
        let connected = MultiplexedConnection::new_with_config(&self.login, stream, config).await;
        let (commands, carrier) = connected.map_err(|error| fault(&error))?;
        Ok(Connection { commands, carrier: tokio::spawn(carrier) })
    }
}

/// A connection, and the task that carries its bytes.
pub(super) struct Connection {
    commands: MultiplexedConnection,
    carrier: JoinHandle<()>,
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
        let stream = transport::connect(&self.host, self.port).await?;
        if self.tls.enabled() {
            self.login(transport::handshake(stream, &self.host, &self.tls).await?).await
        } else {
            self.login(stream).await
        }
    }

    async fn identify(&self, connection: &mut Connection) -> Result<Server, Fault> {
        // Not `req_packed_command`, which hands a refusal over as if it were an answer.
        let pong: Result<redis::Value, _> = redis::cmd("PING").query_async(&mut connection.commands).await;
        pong.map_err(|error| fault(&error))?;
        let info: Result<String, _> = redis::cmd("INFO").query_async(&mut connection.commands).await;
        match info {
            Ok(info) => Ok(read_info(&info)),
            // An account that may use the server and not look into it is no fault.
            Err(error) if fault(&error).reason == Reason::PermissionDenied => Ok(Server::default()),
            Err(error) => Err(fault(&error)),
        }
    }

    async fn check(&self, connection: &mut Connection, query: &Query) -> Result<(), Fault> {
        let name = query.statement.split_whitespace().next().unwrap_or_default().to_owned();
        let known: Vec<redis::Value> = redis::cmd("COMMAND")
            .arg("INFO")
            .arg(&name)
            .query_async(&mut connection.commands)
            .await
            .map_err(|error| fault(&error))?;
        if known.iter().any(|entry| matches!(entry, redis::Value::Nil)) {
            return Err(Fault::new(Reason::QueryInvalid, format!("the server has no command {name}")));
        }
        Ok(())
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

fn fault(error: &RedisError) -> Fault {
    // Redis has no codes: the first word of an error is its code, and the driver keeps the ones it knows as types.
    let detail = error.detail().unwrap_or_default();
    let reason = match error.kind() {
        ErrorKind::AuthenticationFailed => Reason::AuthenticationFailed,
        ErrorKind::Server(ServerErrorKind::NoPerm) => Reason::PermissionDenied,
        ErrorKind::Io => {
            return find_cause(error)
                .unwrap_or_else(|| Fault::new(Reason::Unavailable, "the server closed the connection"));
        }
        ErrorKind::Parse | ErrorKind::UnexpectedReturnType => Reason::ProtocolError,
        ErrorKind::Server(_) | ErrorKind::Extension => match error.code() {
            Some("WRONGPASS" | "NOAUTH") => Reason::AuthenticationFailed,
            _ if detail.contains("max number of clients") => Reason::TooManyConnections,
            _ if detail.contains("DB index") => Reason::DatabaseMissing,
            _ => Reason::Unavailable,
        },
        _ => Reason::Unavailable,
    };
    let text = match error.code() {
        Some(code) => format!("{code} {detail}"),
        None => error.to_string(),
    };
    Fault::new(reason, text.trim())
}
