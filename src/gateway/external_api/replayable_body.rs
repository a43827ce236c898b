//! The body of a request on its way to the API.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, Incoming, SizeHint};
use parking_lot::{Mutex, MutexGuard};

use crate::{
    api::Reason,
    backends::{
        Fault,
        http::{self as client, Failure},
    },
};

/// The body of a request: streamed, and replayable as long as no attempt has begun to read it.
pub(super) struct ReplayableBody(Option<Arc<Upload>>);

struct Upload {
    body: Mutex<Option<Incoming>>,
    /// What the caller was doing when the body was last polled: one of the constants below.
    caller: AtomicU8,
}

const SENDING: u8 = 0;
const SLOW: u8 = 1;
const BROKEN: u8 = 2;

impl Upload {
    fn body(&self) -> MutexGuard<'_, Option<Incoming>> {
        self.body.lock()
    }
}

impl ReplayableBody {
    pub(super) fn new(body: Incoming) -> Self {
        Self(
            (!body.is_end_stream())
                .then(|| Arc::new(Upload { body: Mutex::new(Some(body)), caller: AtomicU8::new(SENDING) })),
        )
    }

    pub(super) fn share(&self) -> client::Body {
        match &self.0 {
            None => client::Body::empty(),
            Some(upload) => client::Body::streamed(Shared { upload: Arc::clone(upload), taken: None }),
        }
    }

    pub(super) fn is_whole(&self) -> bool {
        self.0.as_ref().is_none_or(|upload| upload.body().is_some())
    }

    /// Says so where the caller has caused the failure by what it sent, or did not send: over HTTP/2 the client only tells that
    /// the exchange ended. It is not the API's fault.
    pub(super) fn blame(&self, failure: Failure) -> Failure {
        let caller = self.0.as_ref().map_or(SENDING, |upload| upload.caller.load(Relaxed));
        let detail = match caller {
            BROKEN => "the caller aborted the request",
            SLOW if failure.fault.reason == Reason::Timeout => {
                "the caller did not send the request body in time"
            }
            _ => return failure,
        };
        Failure { fault: Fault::new(Reason::CallerAborted, detail), ..failure }
    }
}

/// The body as one attempt sees it: the first that reads it takes it.
struct Shared {
    upload: Arc<Upload>,
    taken: Option<Incoming>,
}

impl HttpBody for Shared {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.taken.is_none() {
            let taken = self.upload.body().take();
            self.taken = taken;
        }
        let Some(body) = &mut self.taken else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(cx);
        let caller = match &polled {
            Poll::Pending => SLOW,
            Poll::Ready(Some(Err(_))) => BROKEN,
            Poll::Ready(_) => SENDING,
        };
        self.upload.caller.store(caller, Relaxed);
        polled.map_err(Into::into)
    }

    fn size_hint(&self) -> SizeHint {
        if let Some(body) = &self.taken {
            return body.size_hint();
        }
        self.upload.body().as_ref().map(HttpBody::size_hint).unwrap_or_default()
    }
}
