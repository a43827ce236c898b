//! Drives a connection's IO in the task that waits for the response: a task of its own would have to be woken for each request and
//! each response.

use std::{
    future::poll_fn,
    pin::pin,
    task::{Context, Poll, Waker},
};

use futures::{StreamExt, stream::BoxStream};
use tokio_postgres::{AsyncMessage, Error};

/// The IO of a connection, driven while [`Self::drive`] is polled; none once the connection has ended.
pub(super) struct ConnectionDriver(Option<BoxStream<'static, Result<AsyncMessage, Error>>>);

impl ConnectionDriver {
    /// Of the connection with these asynchronous messages.
    pub(super) fn new(messages: BoxStream<'static, Result<AsyncMessage, Error>>) -> Self {
        Self(Some(messages))
    }

    /// Drives the connection until `work` completes.
    pub(super) async fn drive<T>(&mut self, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        poll_fn(|cx| {
            // The work queues a request, the connection sends it, and the response may have arrived already.
            if let done @ Poll::Ready(_) = work.as_mut().poll(cx) {
                return done;
            }
            self.poll_messages(cx);
            work.as_mut().poll(cx)
        })
        .await
    }

    /// Whether the connection is open, as far as the server has said.
    pub(super) fn is_open(&mut self) -> bool {
        self.poll_messages(&mut Context::from_waker(Waker::noop()));
        self.0.is_some()
    }

    /// Drives what is left, until the connection has ended.
    pub(super) async fn finish(mut self) {
        poll_fn(|cx| {
            self.poll_messages(cx);
            if self.0.is_none() { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    fn poll_messages(&mut self, cx: &mut Context<'_>) {
        while let Some(messages) = &mut self.0 {
            match messages.poll_next_unpin(cx) {
                // Notices are ignored: they may repeat values.
                Poll::Ready(Some(Ok(_))) => {}
                // Pending requests fail by this.
                Poll::Ready(_) => self.0 = None,
                Poll::Pending => return,
            }
        }
    }
}
