//! A connection to a directory server: one request at a time, and no more of its answer in memory than was asked for.
//!
//! The protocol is our own: the client library there is reads what a server sends by recursion, so that a few kilobytes end the
//! process, and keeps what nobody has read yet in a channel without bounds.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures::future::BoxFuture;
use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};

use super::{
    ber,
    controls::{self, Control, ResponseControl},
    fault,
    message::{self, Answer, Bind, Message, Outcome, Search},
    settings::{DirectorySettings, Login, Protection, ServerUrl},
};
use crate::{
    api::Reason,
    backends::{
        Fault,
        http::Egress,
        transport::{self, Tls},
    },
    domain::sync::account::Refusal,
};

/// The largest message that is taken: an entry of some hundred thousand members.
const LARGEST_MESSAGE: usize = 16 << 20;

/// How much is read at once.
const CHUNK: usize = 64 << 10;

const START_TLS: &str = "1.3.6.1.4.1.1466.20037";

trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection.
pub struct Connection {
    stream: Box<dyn Duplex>,
    buffer: BytesMut,
    last_id: i32,
    encrypted: bool,
    insecure: bool,
    answer_timeout: Duration,
    not_after: Option<Timestamp>,
    server: usize,
}

/// How a bind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bound {
    /// What the server said.
    pub outcome: Outcome,
    /// What its password policy said besides.
    pub refusal: Option<Refusal>,
}

impl Bound {
    /// What is wrong, where nobody is logged in.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        fault::of_login(&self.outcome)
    }
}

/// What comes back from a search.
pub(super) struct Item {
    pub(super) answer: Answer,
    pub(super) controls: Vec<ResponseControl>,
}

impl Connection {
    /// Connects, and encrypts as the settings say. Nobody is logged in yet.
    pub(super) async fn open(
        server: &ServerUrl,
        settings: &DirectorySettings,
        tls: Option<&Tls>,
        egress: &Egress,
    ) -> Result<Self, Fault> {
        let time = settings.connect_timeout;
        let deadline = Instant::now() + time;
        // Sooner than whoever waits for the connection gives up: so it is told that it was the name.
        let egress = egress.clone().with_lookup_timeout(time * 9 / 10);
        let addresses = egress.addresses(&server.host, server.port).await?;
        let stream =
            timeout_at(deadline, transport::dial(&addresses)).await.map_err(|_| late("connecting"))??;
        let name = settings.server_name.as_deref().unwrap_or(&server.host);
        match (settings.protection, tls) {
            (Protection::None, _) | (_, None) => Ok(Self::new(Box::new(stream), None, settings)),
            (Protection::Ldaps, Some(tls)) => {
                timeout_at(deadline, Self::encrypt(stream, name, tls, settings))
                    .await
                    .map_err(|_| late("the TLS handshake"))?
            }
            (Protection::StartTls, Some(tls)) => {
                let start = async {
                    let stream = Self::start_tls(stream, settings).await?;
                    Self::encrypt(stream, name, tls, settings).await
                };
                timeout_at(deadline, start).await.map_err(|_| late("StartTLS"))?
            }
        }
    }

    #[expect(clippy::option_option, reason = "encrypted or not, and if so with an expiry or without")]
    fn new(
        stream: Box<dyn Duplex>,
        encrypted: Option<Option<Timestamp>>,
        settings: &DirectorySettings,
    ) -> Self {
        Self {
            stream,
            buffer: BytesMut::new(),
            last_id: 0,
            encrypted: encrypted.is_some(),
            insecure: settings.insecure,
            answer_timeout: settings.answer_timeout,
            not_after: encrypted.flatten(),
            server: 0,
        }
    }

    pub(super) fn of_server(self, server: usize) -> Self {
        Self { server, ..self }
    }

    /// Which of the directory's servers it leads to.
    #[must_use]
    pub fn server(&self) -> usize {
        self.server
    }

    async fn encrypt(
        stream: TcpStream,
        name: &str,
        tls: &Tls,
        settings: &DirectorySettings,
    ) -> Result<Self, Fault> {
        let stream = tls.handshake(stream, name).await.map_err(|fault| match fault.reason {
            Reason::Unavailable => Fault::new(
                Reason::TlsFailed,
                "the server closed the connection in the TLS handshake: the port may speak plain LDAP",
            ),
            _ => fault,
        })?;
        let not_after = transport::not_after(&stream);
        Ok(Self::new(Box::new(stream), Some(not_after), settings))
    }

    /// Asks for TLS over a connection that carries nothing else before.
    async fn start_tls(stream: TcpStream, settings: &DirectorySettings) -> Result<TcpStream, Fault> {
        let mut plain = StartTls { stream, buffer: BytesMut::new() };
        let request = message::extended(1, START_TLS);
        let closed = |fault: Fault| match fault.reason {
            Reason::Unavailable => Fault::new(
                Reason::TlsFailed,
                "the server closed the connection at StartTLS: the port may speak TLS",
            ),
            _ => fault,
        };
        plain.stream.write_all(&request).await.map_err(|error| closed(Fault::from_io(&error)))?;
        let content =
            receive(&mut plain.stream, &mut plain.buffer, settings.connect_timeout, "StartTLS").await;
        let message = Message::read(content.map_err(closed)?, &[])?;
        match message.answer {
            Answer::Extended(Outcome { code: 0, .. }) if message.id == 1 => {}
            Answer::Extended(outcome) => {
                let detail = format!("the server refused StartTLS: {}", fault::says(&outcome));
                return Err(Fault::new(Reason::TlsFailed, detail));
            }
            _ => return Err(ber::Malformed.into()),
        }
        // What was sent before TLS was nobody's who is protected by it.
        if !plain.buffer.is_empty() {
            return Err(Fault::new(Reason::TlsFailed, "the server sent more than its answer before TLS"));
        }
        Ok(plain.stream)
    }

    /// When the server's certificate ends, if it has shown one.
    #[must_use]
    pub fn not_after(&self) -> Option<Timestamp> {
        self.not_after
    }

    /// Logs in with a name and a password: never without one, which would be no login (RFC 4513, section 5.1.2), and over a connection
    /// that is not encrypted only if the settings say so.
    ///
    /// # Errors
    /// What kept the server from answering; its refusal is an answer.
    pub async fn bind(&mut self, name: &str, password: &SecretString) -> Result<Bound, Fault> {
        let password = password.expose_secret();
        if password.is_empty() || name.is_empty() {
            return Err(Fault::new(Reason::AuthenticationFailed, "the user name or the password is empty"));
        }
        if !self.encrypted && !self.insecure {
            let detail = "a password is not sent over a connection without TLS: set spec.tls.mode";
            return Err(Fault::new(Reason::TlsFailed, detail));
        }
        self.send_bind(Bind::Simple(name, password)).await
    }

    /// Logs in as the settings say, if they say so.
    pub(super) async fn log_in(&mut self, login: &Login) -> Result<(), Fault> {
        let bound = match login {
            Login::Anonymous => return Ok(()),
            Login::Simple { name, password } => self.bind(name, password).await?,
            Login::External => self.send_bind(Bind::External).await?,
        };
        match (fault::of_login(&bound.outcome), bound.refusal) {
            (Some(fault), _) => Err(fault),
            // The password is right, and good for nothing but to be changed.
            (None, Some(Refusal::PasswordMustChange)) => Err(Fault::new(
                Reason::AuthenticationFailed,
                "the account's password must be changed before it can be used",
            )),
            (None, _) => Ok(()),
        }
    }

    async fn send_bind(&mut self, bind: Bind<'_>) -> Result<Bound, Fault> {
        let id = self.next_id();
        self.send(&message::bind(id, bind, &[Control::password_policy()]), "the login").await?;
        match self.receive(id, &[], "the login").await? {
            Item { answer: Answer::Bound(outcome), controls } => {
                Ok(Bound { outcome, refusal: controls::password_policy(&controls)? })
            }
            _ => Err(ber::Malformed.into()),
        }
    }

    /// Sends a search: its answers are received one by one, and all of them before the next request.
    pub(super) async fn search(&mut self, search: &Search, controls: &[Control]) -> Result<i32, Fault> {
        let id = self.next_id();
        self.send(&message::search(id, search, controls), "the search").await?;
        Ok(id)
    }

    /// The next answer to a search.
    pub(super) async fn next(&mut self, id: i32, search: &Search) -> Result<Item, Fault> {
        self.receive(id, &search.attributes, "the search").await
    }

    /// Says goodbye, without waiting for long.
    pub async fn close(mut self) {
        let id = self.next_id();
        let _ = timeout(Duration::from_secs(1), async {
            self.stream.write_all(&message::unbind(id)).await?;
            self.stream.shutdown().await
        })
        .await;
    }

    fn next_id(&mut self) -> i32 {
        self.last_id = self.last_id.checked_add(1).unwrap_or(1);
        self.last_id
    }

    async fn send(&mut self, request: &[u8], stage: &'static str) -> Result<(), Fault> {
        let sent = async {
            self.stream.write_all(request).await?;
            self.stream.flush().await
        };
        timeout(self.answer_timeout, sent)
            .await
            .map_err(|_| late(stage))?
            .map_err(|error| Fault::from_io(&error))
    }

    async fn receive(&mut self, id: i32, attributes: &[String], stage: &'static str) -> Result<Item, Fault> {
        let content = receive(&mut self.stream, &mut self.buffer, self.answer_timeout, stage).await?;
        let message = Message::read(content, attributes)?;
        if message.id == i64::from(id) {
            return Ok(Item { answer: message.answer, controls: message.controls });
        }
        Err(match message.answer {
            // A notice of disconnection (RFC 4511, section 4.4.1).
            Answer::Extended(outcome) if message.id == 0 => Fault::new(
                Reason::Unavailable,
                format!("the server ends the connection: {}", fault::says(&outcome)),
            ),
            _ => Fault::new(Reason::ProtocolError, "the server answers what it was not asked"),
        })
    }
}

struct StartTls {
    stream: TcpStream,
    buffer: BytesMut,
}

/// Reads until a message is whole, and gives its content. The memory grows with what has come, not with what is announced.
fn receive<'a>(
    stream: &'a mut (dyn Duplex + 'a),
    buffer: &'a mut BytesMut,
    patience: Duration,
    stage: &'static str,
) -> BoxFuture<'a, Result<Bytes, Fault>> {
    Box::pin(async move {
        loop {
            match ber::header(buffer) {
                Ok(Some((ber::SEQUENCE, start, length))) if start + length <= LARGEST_MESSAGE => {
                    if buffer.len() >= start + length {
                        return Ok(buffer.split_to(start + length).freeze().slice(start..));
                    }
                }
                Ok(Some((ber::SEQUENCE, ..))) => {
                    let detail = format!("the server's answer is larger than {} MiB", LARGEST_MESSAGE >> 20);
                    return Err(Fault::new(Reason::ProtocolError, detail));
                }
                Ok(None) => {}
                Ok(Some(_)) | Err(_) => return Err(not_ldap(buffer)),
            }
            buffer.reserve(CHUNK);
            let read = timeout(patience, stream.read_buf(buffer)).await.map_err(|_| late(stage))?;
            if read.map_err(|error| Fault::from_io(&error))? == 0 {
                return Err(Fault::new(Reason::Unavailable, "the server closed the connection"));
            }
        }
    })
}

fn not_ldap(bytes: &[u8]) -> Fault {
    // The records of TLS with which a handshake or its refusal begins (RFC 8446, section 5.1).
    match bytes.first() {
        Some(0x15 | 0x16) => Fault::new(
            Reason::TlsFailed,
            "the port speaks TLS: set spec.tls.mode to Ldaps, or use the plain port",
        ),
        _ => ber::Malformed.into(),
    }
}

fn late(stage: &'static str) -> Fault {
    Fault::new(Reason::Timeout, format!("{stage} took too long"))
}
