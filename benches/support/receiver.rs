//! A receiver of webhooks as a process of its own, so that its memory and its CPU time are not those of the sender: the binary of the
//! benchmark, started again. It responds 200 to everything, to `/slow` after 15 s.

use std::{
    convert::Infallible,
    process::{Child, Command, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};

use super::Outcome;

/// The port of the receiver that this process is to be.
const PORT: &str = "AUTHLINK_BENCH_RECEIVER";

/// The response time of `/slow`.
pub(crate) const SLOW: Duration = Duration::from_secs(15);

/// The name of the field of an event's data that has the time at which it was handed in, in microseconds after 1970.
const SENT: &[u8] = b"\"sent\":";

/// What was received since the last reset, without requests to `/slow`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Received {
    pub(crate) requests: usize,
    /// The time from an event being handed in until the head of its request was read, in milliseconds, for events that have a time.
    pub(crate) took: Vec<f64>,
}

/// A receiver, which ends with this value.
pub(crate) struct Receiver {
    child: Child,
    pub(crate) port: u16,
    control: hyper::client::conn::http1::SendRequest<Full<Bytes>>,
}

impl Receiver {
    pub(crate) async fn start() -> Outcome<Self> {
        let port = std::net::TcpListener::bind(("127.0.0.1", 0))?.local_addr()?.port();
        let mut command = Command::new(std::env::current_exe()?);
        let child = command.env(PORT, port.to_string()).stdin(Stdio::null()).spawn()?;
        let end = tokio::time::Instant::now() + Duration::from_secs(10);
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port)).await {
                Ok(stream) => break stream,
                Err(error) if tokio::time::Instant::now() > end => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let (control, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        Ok(Self { child, port, control })
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.port)
    }

    /// What was received since the last call of [`Self::reset`].
    pub(crate) async fn received(&mut self) -> Outcome<Received> {
        self.control("/received").await
    }

    pub(crate) async fn requests(&mut self) -> Outcome<usize> {
        self.control("/requests").await
    }

    pub(crate) async fn reset(&mut self) -> Outcome<Received> {
        self.control("/reset").await
    }

    /// Waits until so many requests were received.
    pub(crate) async fn until(&mut self, requests: usize, most: Duration) -> Outcome<()> {
        let end = tokio::time::Instant::now() + most;
        loop {
            let received = self.requests().await?;
            if received >= requests {
                return Ok(());
            }
            if tokio::time::Instant::now() > end {
                return Err(format!("only {received} of {requests} requests were received").into());
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn control<T: for<'de> Deserialize<'de>>(&mut self, path: &str) -> Outcome<T> {
        self.control.ready().await?;
        let request = Request::get(path).header("host", "receiver").body(Full::default())?;
        let body = self.control.send_request(request).await?.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice(&body)?)
    }
}

impl Drop for Receiver {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The present time, as in the data of events.
pub(crate) fn sent() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()
}

/// Runs the receiver if this process was started as one; then it does not return.
pub(crate) fn run_if_asked() -> Outcome<()> {
    let Ok(port) = std::env::var(PORT) else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(port.parse()?))
}

async fn serve(port: u16) -> Outcome<()> {
    let received: &'static Mutex<Received> = Box::leak(Box::default());
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.set_reuseaddr(true)?;
    socket.bind(([0, 0, 0, 0], port).into())?;
    // Thousands connect at once when there are as many endpoints.
    let listener: TcpListener = socket.listen(16_384)?;
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let serve = service_fn(move |request| respond(request, received));
        tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), serve));
    }
}

async fn respond(
    request: Request<Incoming>,
    received: &'static Mutex<Received>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let now = sent();
    let control = match request.uri().path() {
        "/received" => serde_json::to_vec(&*received.lock()),
        "/requests" => serde_json::to_vec(&received.lock().requests),
        "/reset" => serde_json::to_vec(&std::mem::take(&mut *received.lock())),
        "/slow" => {
            tokio::time::sleep(SLOW).await;
            return Ok(Response::new(Full::default()));
        }
        _ => {
            let Ok(body) = request.into_body().collect().await else { return Ok(Response::default()) };
            let took = took(&body.to_bytes(), now);
            let mut received = received.lock();
            received.requests += 1;
            received.took.extend(took);
            return Ok(Response::default());
        }
    };
    Ok(Response::new(control.unwrap_or_default().into()))
}

/// The time since the event was handed in, in milliseconds.
#[allow(clippy::cast_precision_loss, reason = "microseconds of a few minutes")]
fn took(body: &[u8], now: u128) -> Option<f64> {
    let start = body.windows(SENT.len()).position(|window| window == SENT)? + SENT.len();
    let digits = body[start..].split(|byte| !byte.is_ascii_digit()).next()?;
    let sent: u128 = std::str::from_utf8(digits).ok()?.parse().ok()?;
    Some(now.saturating_sub(sent) as f64 / 1000.0)
}
