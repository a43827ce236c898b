//! Connections of HTTP/2, each of which serves several calls at once.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    task::Poll,
    time::Duration,
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http2},
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout};

use super::{Body, connect::Stream, is_young};

/// Streams at most on one connection, if the server allows so many.
const MAX_STREAMS: usize = 64;

/// The unread bytes of one response, and of all on a connection (RFC 9113, section 5.2): callers that do not read never use up
/// what the others need.
const STREAM_WINDOW: u32 = 256 * 1024;
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// The limit of streams until the server's first SETTINGS frame arrives. No server sends this very number.
const UNKNOWN_LIMIT: usize = u32::MAX as usize - 1;

/// How long that frame is awaited, and how often it is looked for: `hyper` has no notification for it.
const SETTINGS_TIMEOUT: Duration = Duration::from_secs(1);
const SETTINGS_INTERVAL: Duration = Duration::from_millis(2);

type Driver = http2::Connection<TokioIo<Stream>, Body, TokioExecutor>;

/// A connection, shared by all calls that have a stream on it.
pub(super) struct Http2Connection {
    sender: http2::SendRequest<Body>,
    /// None once the connection has ended: what it had queued must go with it, or its calls would wait for ever.
    driver: Arc<Mutex<Option<Driver>>>,
    streams: Arc<AtomicUsize>,
    created: Instant,
    used: Instant,
}

/// One call's stream on a connection.
pub(super) struct Http2Stream {
    sender: http2::SendRequest<Body>,
    slot: StreamSlot,
}

/// Counts a stream until it is dropped.
pub(super) struct StreamSlot(Arc<AtomicUsize>);

impl Http2Connection {
    /// Over a stream on which nothing was sent yet.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) async fn over(stream: Stream) -> hyper::Result<Self> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.initial_stream_window_size(STREAM_WINDOW).initial_connection_window_size(CONNECTION_WINDOW);
        builder.initial_max_send_streams(UNKNOWN_LIMIT);
        // Shared by many calls, which wait while it is dead: pings find that out.
        builder.timer(TokioTimer::new()).keep_alive_interval(Duration::from_secs(10));
        builder.keep_alive_timeout(Duration::from_secs(5));
        let (sender, driver) = builder.handshake(TokioIo::new(stream)).await?;
        let driver = Arc::new(Mutex::new(Some(driver)));
        tokio::spawn(drive(Arc::clone(&driver)));
        let now = Instant::now();
        Ok(Self { sender, driver, streams: Arc::default(), created: now, used: now })
    }

    /// Waits until the server has told how many streams it allows, which is the first that it sends (RFC 9113, section 3.4).
    pub(super) async fn settings_received(&self) {
        let received = async {
            while self.max_streams() == UNKNOWN_LIMIT && !self.sender.is_closed() {
                sleep(SETTINGS_INTERVAL).await;
            }
        };
        let _ = timeout(SETTINGS_TIMEOUT, received).await;
    }

    /// A stream, whether the server allows it or not: it waits for its turn then.
    pub(super) fn open(&mut self) -> Http2Stream {
        self.used = Instant::now();
        self.streams.fetch_add(1, Relaxed);
        Http2Stream { sender: self.sender.clone(), slot: StreamSlot(Arc::clone(&self.streams)) }
    }

    /// A stream, if the server allows another one now.
    pub(super) fn try_open(&mut self) -> Option<Http2Stream> {
        let limit = self.max_streams().min(MAX_STREAMS);
        (self.streams.load(Relaxed) < limit && self.is_reusable()).then(|| self.open())
    }

    fn max_streams(&self) -> usize {
        self.driver.lock().as_ref().map_or(0, Driver::current_max_send_streams)
    }

    /// Whether it takes more requests.
    pub(super) fn is_reusable(&self) -> bool {
        is_young(self.created, self.used) && !self.sender.is_closed()
    }
}

/// Runs a connection until it ends.
async fn drive(driver: Arc<Mutex<Option<Driver>>>) {
    std::future::poll_fn(move |cx| {
        let mut driver = driver.lock();
        let Some(running) = driver.as_mut() else { return Poll::Ready(()) };
        let ended = Pin::new(running).poll(cx).map(drop);
        if ended.is_ready() {
            *driver = None;
        }
        ended
    })
    .await;
}

impl Http2Stream {
    /// Sends a request with an absolute URI, and returns the response once its head has arrived.
    ///
    /// # Errors
    /// The request failed; the error contains it if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        self.sender.try_send_request(request).await
    }

    /// What is left of it while the body of the response arrives.
    pub(super) fn into_slot(self) -> StreamSlot {
        self.slot
    }
}

impl Drop for StreamSlot {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}
