//! Bodies: of a request as it is sent, and of a response as it arrives.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{BodySource, Fault, fault, pool::ConnectionPool};
use crate::api::Reason;

/// The body of a request; requests with any kind of body share one connection pool.
pub enum Body {
    /// All of it is in memory.
    Whole(Full<Bytes>),
    /// It arrives frame by frame.
    Streamed(UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>),
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// A body that is in memory.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// A body that arrives frame by frame.
    #[must_use]
    pub fn streamed<B>(body: B) -> Self
    where
        B: HttpBody<Data = Bytes, Error = Box<dyn Error + Send + Sync>> + Send + 'static,
    {
        Self::Streamed(body.boxed_unsync())
    }
}

impl HttpBody for Body {
    type Data = Bytes;
    type Error = Box<dyn Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        match self.get_mut() {
            Self::Whole(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|never| match never {}))),
            Self::Streamed(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Whole(body) => body.is_end_stream(),
            Self::Streamed(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(body) => body.size_hint(),
            Self::Streamed(body) => body.size_hint(),
        }
    }
}

/// The body of a response, as it arrives. It fails with `Timeout` when it has not ended by the deadline, or with an idle timeout
/// when nothing arrives for so long.
pub struct AnswerBody {
    incoming: Incoming,
    /// What it arrives on; returned to the pool when the body has ended.
    source: Option<BodySource>,
    pool: Option<Arc<ConnectionPool>>,
    limit: Limit,
    /// Created at the first wait, which a short response does not have.
    timer: Option<Pin<Box<Sleep>>>,
    /// Whether the timer runs for the present wait.
    waiting: bool,
    timed_out: bool,
}

/// How long a body may take.
#[derive(Clone, Copy)]
enum Limit {
    Deadline(Instant),
    Idle(Duration),
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.incoming.fmt(f)
    }
}

impl AnswerBody {
    pub(super) fn new(
        incoming: Incoming,
        source: Option<BodySource>,
        pool: Option<Arc<ConnectionPool>>,
        deadline: Instant,
    ) -> Self {
        let limit = Limit::Deadline(deadline);
        Self { incoming, source, pool, limit, timer: None, waiting: false, timed_out: false }
    }

    /// Sets an idle timeout in place of the deadline.
    pub fn set_idle_timeout(&mut self, timeout: Duration) {
        self.limit = Limit::Idle(timeout);
    }

    /// Whether it has failed by its own deadline or idle timeout, and not by the server.
    #[must_use]
    pub fn timed_out(&self) -> bool {
        self.timed_out
    }

    /// The first `most` bytes of it.
    ///
    /// # Errors
    /// What kept them from arriving.
    pub async fn first(mut self, most: usize) -> Result<Vec<u8>, Fault> {
        let mut read = Vec::new();
        while read.len() < most {
            let Some(frame) = self.frame().await else { break };
            if let Ok(data) = frame?.into_data() {
                let room = data.len().min(most - read.len());
                read.extend_from_slice(&data[..room]);
            }
        }
        Ok(read)
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.incoming).poll_frame(cx) {
            return ready;
        }
        let Some(BodySource::Http1(connection)) = &mut self.source else { return Poll::Pending };
        connection.drive(cx);
        Pin::new(&mut self.incoming).poll_frame(cx)
    }
}

impl HttpBody for AnswerBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Poll::Ready(frame) = self.poll_incoming(cx) {
            self.waiting = false;
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| fault::of(&error))));
        }
        let this = &mut *self;
        let timer = this.timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now())));
        if !this.waiting {
            this.waiting = true;
            timer.as_mut().reset(match this.limit {
                Limit::Deadline(deadline) => deadline,
                Limit::Idle(timeout) => Instant::now() + timeout,
            });
        }
        ready!(timer.as_mut().poll(cx));
        this.timed_out = true;
        Poll::Ready(Some(Err(Fault::new(Reason::Timeout, "reading the response body timed out"))))
    }

    fn is_end_stream(&self) -> bool {
        self.incoming.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.incoming.size_hint()
    }
}

impl Drop for AnswerBody {
    fn drop(&mut self) {
        // One in the middle of a response cannot be reused: `ConnectionPool` drops it.
        if let (Some(BodySource::Http1(connection)), Some(pool)) = (self.source.take(), &self.pool) {
            pool.put_idle(connection);
        }
    }
}
