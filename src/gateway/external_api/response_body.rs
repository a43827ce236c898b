//! The body of an API's response on its way to the caller.

use std::{
    mem,
    pin::Pin,
    sync::{Arc, Weak},
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Bytes, HttpBody};
use hyper::body::{Frame, SizeHint};
use parking_lot::{Mutex, MutexGuard};
use tokio::{
    task::AbortHandle,
    time::{Instant, sleep_until},
};

use super::in_flight::InFlightGuard;
use crate::{
    api::Reason,
    backends::{Fault, http::AnswerBody},
};

/// The body itself notices that the API sends nothing; so much later it can only be the caller that does not read.
const GRACE: Duration = Duration::from_millis(250);

/// The body of a response, and the call that is in flight until the body was read to the end, the caller went away, or nothing
/// was transferred for the idle timeout. A caller that does not read never polls the body, so that it takes a task to notice.
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

/// A call whose response goes on.
struct Watched {
    call: Call,
    polled: Instant,
}

/// A call that a task drops when the caller does not read.
struct WatchedCall {
    call: Arc<Mutex<Option<Watched>>>,
    task: AbortHandle,
}

impl ResponseBody {
    pub(super) fn new(mut body: AnswerBody, in_flight: InFlightGuard) -> Self {
        body.set_idle_timeout(in_flight.idle_timeout());
        Self(State::First(Call { body, in_flight }))
    }

    /// No body.
    pub(super) fn empty() -> Self {
        Self(State::Ended)
    }

    fn body<T>(&self, ask: impl FnOnce(&AnswerBody) -> T) -> Option<T> {
        match &self.0 {
            State::First(call) => Some(ask(&call.body)),
            State::Watched(watched) => watched.call().as_ref().map(|watched| ask(&watched.call.body)),
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
        // That the gateway ends it for its idle timeout says nothing about the API.
        if matches!(polled, Poll::Ready(Some(Err(_)))) && !self.body.timed_out() {
            self.in_flight.body_failed();
        }
        polled
    }
}

impl WatchedCall {
    fn start(call: Call) -> Self {
        let call = Arc::new(Mutex::new(Some(Watched { call, polled: Instant::now() })));
        let task = tokio::spawn(watch(Arc::downgrade(&call)));
        Self { call, task: task.abort_handle() }
    }

    fn call(&self) -> MutexGuard<'_, Option<Watched>> {
        self.call.lock()
    }
}

/// Drops the call when nobody has polled its body for the idle timeout.
async fn watch(call: Weak<Mutex<Option<Watched>>>) {
    loop {
        let next = {
            let Some(call) = call.upgrade() else { return };
            let mut call = call.lock();
            let Some(Watched { call: Call { in_flight, .. }, polled }) = &mut *call else { return };
            let (now, deadline) = (Instant::now(), in_flight.deadline());
            let unread = *polled + in_flight.idle_timeout() + GRACE;
            if now >= unread {
                *call = None;
                return;
            }
            if now < deadline {
                unread.min(deadline)
            } else {
                // It is a stream, for whose end no circuit waits.
                in_flight.settle();
                unread
            }
        };
        sleep_until(next).await;
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
                match &mut *watched.call() {
                    None => Poll::Ready(Some(Err(late()))),
                    Some(watched) => {
                        watched.polled = Instant::now();
                        watched.call.poll_frame(cx)
                    }
                }
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
            // One that was dropped has not: it ends with a fault.
            _ => self.body(HttpBody::is_end_stream).unwrap_or_default(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body(HttpBody::size_hint).unwrap_or_default()
    }
}
