//! A receiver that writes down what it gets before it answers, and answers as it is told. It checks signatures with a library of others.

use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use standardwebhooks::Webhook;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::AbortHandle,
};

/// The key of all deliveries: 24 bytes.
pub(crate) const KEY: &str = "whsec_YXV0aGxpbmstdGVzdC1rZXktMDAwMDAx";

/// A request.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) at: Instant,
    pub(crate) target: String,
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: Vec<u8>,
    /// How many came before.
    pub(crate) number: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    pub(crate) fn id(&self) -> &str {
        self.header("webhook-id")
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// What the library for receivers says of the signature.
    pub(crate) fn verify(&self, key: &str) -> Result<(), String> {
        let mut headers = hyper::HeaderMap::new();
        for name in ["webhook-id", "webhook-timestamp", "webhook-signature"] {
            headers.insert(name, self.header(name).parse().map_err(|_| format!("{name} is no header"))?);
        }
        let webhook = Webhook::new(key).map_err(|error| error.to_string())?;
        webhook.verify(&self.body, &headers).map_err(|error| error.to_string())
    }
}

/// What it does with a request.
#[derive(Clone, Debug)]
pub(crate) enum Reply {
    /// Answers.
    Status(u16),
    /// Answers with lines of its head and a body.
    With(u16, String, Vec<u8>),
    /// Sends these bytes, and closes.
    Raw(Vec<u8>),
    /// Sends these bytes, and nothing more for so long.
    Hang(Vec<u8>, Duration),
    /// Breaks the connection off.
    Reset,
    /// Does the other thing after a while.
    After(Duration, Box<Self>),
}

impl Reply {
    pub(crate) fn retry_after(status: u16, seconds: &str) -> Self {
        Self::With(status, format!("Retry-After: {seconds}\r\n"), Vec::new())
    }

    pub(crate) fn after(time: Duration, status: u16) -> Self {
        Self::After(time, Box::new(Self::Status(status)))
    }
}

type Script = dyn Fn(&Seen) -> Reply + Send + Sync;

/// It is gone with the value.
pub(crate) struct Receiver {
    pub(crate) port: u16,
    inner: Arc<Inner>,
    task: AbortHandle,
}

struct Inner {
    seen: Mutex<Vec<Seen>>,
    script: Box<Script>,
    log: Option<Mutex<File>>,
}

impl Receiver {
    /// One that answers 200.
    pub(crate) async fn start() -> Self {
        Self::that(|_| Reply::Status(200)).await
    }

    /// One that answers these statuses, the last one for ever.
    pub(crate) async fn answering(statuses: &'static [u16]) -> Self {
        Self::that(|seen| Reply::Status(statuses[seen.number.min(statuses.len() - 1)])).await
    }

    pub(crate) async fn that(script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(None, script).await
    }

    /// One that has each request on the disk before it answers.
    pub(crate) async fn logging(log: File, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        Self::with(Some(log), script).await
    }

    async fn with(log: Option<File>, script: impl Fn(&Seen) -> Reply + Send + Sync + 'static) -> Self {
        let inner =
            Arc::new(Inner { seen: Mutex::default(), script: Box::new(script), log: log.map(Mutex::new) });
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let serving = Arc::clone(&inner);
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                // A connection that ends is no news.
                tokio::spawn(Arc::clone(&serving).serve(stream));
            }
        });
        Self { port, inner, task: task.abort_handle() }
    }

    pub(crate) fn url(&self) -> String {
        format!("http://127.0.0.1:{}/h", self.port)
    }

    pub(crate) fn seen(&self) -> Vec<Seen> {
        self.inner.seen.lock().clone()
    }

    pub(crate) fn count(&self) -> usize {
        self.inner.seen.lock().len()
    }

    /// Waits until it has got so many requests.
    pub(crate) async fn until(&self, count: usize) -> Vec<Seen> {
        crate::support::eventually(crate::support::SOON, "requests", async || {
            let seen = self.seen();
            if seen.len() >= count { Ok(seen) } else { Err(format!("{} of {count}", seen.len())) }
        })
        .await
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Inner {
    async fn serve(self: Arc<Self>, mut stream: TcpStream) -> Option<()> {
        stream.set_nodelay(true).ok()?;
        let mut buffer = Vec::new();
        loop {
            let (target, headers, body) = request(&mut stream, &mut buffer).await?;
            let seen = {
                let mut all = self.seen.lock();
                let seen = Seen { at: Instant::now(), target, headers, body, number: all.len() };
                all.push(seen.clone());
                seen
            };
            if let Some(log) = &self.log {
                let mut log = log.lock();
                writeln!(log, "{} {}", seen.id(), seen.text()).expect("a log");
                log.sync_data().expect("a disk");
            }
            let mut reply = (self.script)(&seen);
            while let Reply::After(time, next) = reply {
                tokio::time::sleep(time).await;
                reply = *next;
            }
            match reply {
                Reply::Status(status) => {
                    let head = format!("HTTP/1.1 {status} X\r\nContent-Length: 0\r\n\r\n");
                    stream.write_all(head.as_bytes()).await.ok()?;
                }
                Reply::With(status, lines, body) => {
                    let head =
                        format!("HTTP/1.1 {status} X\r\n{lines}Content-Length: {}\r\n\r\n", body.len());
                    stream.write_all(&[head.as_bytes(), &body].concat()).await.ok()?;
                }
                Reply::Raw(bytes) => {
                    stream.write_all(&bytes).await.ok()?;
                    return None;
                }
                Reply::Hang(bytes, time) => {
                    stream.write_all(&bytes).await.ok()?;
                    tokio::time::sleep(time).await;
                    return None;
                }
                Reply::Reset => {
                    socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO)).ok()?;
                    return None;
                }
                Reply::After(..) => unreachable!("it was waited for"),
            }
        }
    }
}

/// The next request of a connection: its target, its headers in lower case, and its body.
async fn request(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> Option<(String, BTreeMap<String, String>, Vec<u8>)> {
    let end = loop {
        if let Some(end) = buffer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            break end;
        }
        more(stream, buffer).await?;
    };
    let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
    buffer.drain(..end + 4);
    let mut lines = head.split("\r\n");
    let target = lines.next()?.split(' ').nth(1)?.to_owned();
    let headers: BTreeMap<_, _> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.get("content-length").and_then(|length| length.parse().ok()).unwrap_or(0);
    while buffer.len() < length {
        more(stream, buffer).await?;
    }
    Some((target, headers, buffer.drain(..length).collect()))
}

async fn more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> Option<()> {
    let read = stream.read_buf(buffer).await.ok()?;
    (read > 0).then_some(())
}
