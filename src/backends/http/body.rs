//! Bodies: of a request as it is sent, and of an answer as it arrives.

use std::{
    error::Error,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use http_body_util::{BodyExt, Full, combinators::UnsyncBoxBody};
use hyper::body::{Body as HttpBody, Bytes, Frame, Incoming, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{Fault, fault, http1::Http1Connection, pool::ConnectionPool};
use crate::api::Reason;

/// What is sent: requests with all sorts of bodies share one pool of connections.
pub enum Body {
    /// It is there as a whole.
    Whole(Full<Bytes>),
    /// It comes bit by bit.
    Streamed(UnsyncBoxBody<Bytes, Box<dyn Error + Send + Sync>>),
}

impl Body {
    /// No body.
    #[must_use]
    pub fn empty() -> Self {
        Self::whole(Bytes::new())
    }

    /// A body that is there as a whole.
    #[must_use]
    pub fn whole(bytes: impl Into<Bytes>) -> Self {
        Self::Whole(Full::new(bytes.into()))
    }

    /// A body that comes bit by bit.
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

/// The body of an answer, as it arrives. It fails with `Timeout` when it is waited for beyond the deadline.
pub struct AnswerBody {
    incoming: Incoming,
    /// What it comes by, if that is for it alone; it is kept when the body has ended.
    link: Option<Http1Connection>,
    kept: Option<Arc<ConnectionPool>>,
    deadline: Instant,
    /// Made when there is something to wait for, which a short answer has not.
    timer: Option<Pin<Box<Sleep>>>,
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.incoming.fmt(f)
    }
}

impl AnswerBody {
    pub(super) fn new(
        incoming: Incoming,
        link: Option<Http1Connection>,
        kept: Option<Arc<ConnectionPool>>,
        deadline: Instant,
    ) -> Self {
        Self { incoming, link, kept, deadline, timer: None }
    }

    /// When it must be over.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// Gives it another deadline, that of a call of which this is only one attempt.
    pub fn until(&mut self, deadline: Instant) {
        self.deadline = deadline;
    }

    fn poll_incoming(&mut self, cx: &mut Context<'_>) -> Poll<Option<hyper::Result<Frame<Bytes>>>> {
        if let ready @ Poll::Ready(_) = Pin::new(&mut self.incoming).poll_frame(cx) {
            return ready;
        }
        let Some(link) = &mut self.link else { return Poll::Pending };
        link.carry(cx);
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
            return Poll::Ready(frame.map(|frame| frame.map_err(|error| fault::of(&error))));
        }
        let deadline = self.deadline;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep_until(deadline)));
        let late = |()| Some(Err(Fault::new(Reason::Timeout, "the answer did not end in time")));
        timer.as_mut().poll(cx).map(late)
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
        // A connection in the middle of an answer serves nobody else: `ConnectionPool` sees to that.
        if let (Some(link), Some(kept)) = (self.link.take(), &self.kept) {
            kept.keep(link);
        }
    }
}
