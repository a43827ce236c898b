//! The body of an API's response on its way to the caller.

use std::{
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::{task::AbortHandle, time::sleep_until};

use super::in_flight::InFlightGuard;
use crate::{
    api::Reason,
    backends::{Fault, http::AnswerBody},
};

/// The body itself notices that the API is late; so much later it can only be the caller that does not read.
const GRACE: Duration = Duration::from_millis(250);

/// The body of a response, and the call that is in flight until the body was read to the end, the caller went away, or the
/// deadline is over. A caller that does not read never polls the body, so that it takes a task to notice the deadline.
pub(in crate::gateway) struct ResponseBody(State);

enum State {
    /// Most responses end with the first frame.
    First(Call),
    /// After the first frame.
    Watched(WatchedCall),
    /// The server has all of it: whether the caller takes it is not the API's affair.
    Ended,
}

struct Call {
    body: AnswerBody,
    in_flight: InFlightGuard,
}

/// A call that a task drops at the deadline.
struct WatchedCall {
    call: Arc<Mutex<Option<Call>>>,
    task: AbortHandle,
}

impl ResponseBody {
    pub(super) fn new(body: AnswerBody, in_flight: InFlightGuard) -> Self {
        Self(State::First(Call { body, in_flight }))
    }

    fn body<T>(&self, ask: impl FnOnce(&AnswerBody) -> T) -> Option<T> {
        match &self.0 {
            State::First(call) => Some(ask(&call.body)),
            State::Watched(watched) => watched.call().as_ref().map(|call| ask(&call.body)),
            State::Ended => None,
        }
    }

    /// After a frame, whether more follow or not.
    fn advance(&mut self, more: bool) {
        self.0 = match mem::replace(&mut self.0, State::Ended) {
            State::First(call) if more => State::Watched(WatchedCall::start(call)),
            watched if more => watched,
            _ => State::Ended,
        };
    }
}

impl Call {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = Pin::new(&mut self.body).poll_frame(cx);
        if matches!(polled, Poll::Ready(Some(Err(_)))) {
            self.in_flight.body_failed();
        }
        polled
    }
}

impl WatchedCall {
    fn start(call: Call) -> Self {
        let late = call.body.deadline() + GRACE;
        let call = Arc::new(Mutex::new(Some(call)));
        let watched = Arc::downgrade(&call);
        let task = tokio::spawn(async move {
            sleep_until(late).await;
            if let Some(call) = watched.upgrade() {
                call.lock().take();
            }
        });
        Self { call, task: task.abort_handle() }
    }

    fn call(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock()
    }
}

impl Drop for WatchedCall {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl HttpBody for ResponseBody {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = match &mut self.0 {
            State::First(call) => call.poll_frame(cx),
            State::Watched(watched) => {
                let late = || Fault::new(Reason::Timeout, "the caller did not read the response in time");
                let mut call = watched.call();
                call.as_mut().map_or_else(|| Poll::Ready(Some(Err(late()))), |call| call.poll_frame(cx))
            }
            State::Ended => return Poll::Ready(None),
        };
        if let Poll::Ready(frame) = &polled {
            let more = matches!(frame, Some(Ok(_))) && !self.is_end_stream();
            self.advance(more);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match &self.0 {
            State::Ended => true,
            // One that was dropped at the deadline has not: it ends with a fault.
            _ => self.body(HttpBody::is_end_stream).unwrap_or_default(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body(HttpBody::size_hint).unwrap_or_default()
    }
}
