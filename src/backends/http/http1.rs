//! A connection of HTTP/1.1, which serves one request after the other. It is driven by whoever awaits the response, and then
//! the response's body: a task of its own would have to be woken at each step.

use std::{
    pin::Pin,
    task::{Context, Waker},
};

use hyper::{
    Request, Response,
    body::Incoming,
    client::conn::{TrySendError, http1},
};
use hyper_util::rt::TokioIo;
use tokio::time::Instant;

use super::{Body, connect::Stream};

type Connection = http1::Connection<TokioIo<Stream>, Body>;

pub(super) struct Http1Connection {
    sender: http1::SendRequest<Body>,
    /// None once the connection is closed.
    connection: Option<Box<Connection>>,
    /// When it was established.
    pub(super) created: Instant,
    /// When it was last returned to the pool.
    pub(super) idle_since: Instant,
}

impl Http1Connection {
    /// Over a stream on which nothing was sent yet.
    ///
    /// # Errors
    /// None in practice: nothing is exchanged yet.
    pub(super) async fn over(stream: Stream) -> hyper::Result<Self> {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let now = Instant::now();
        Ok(Self { sender, connection: Some(Box::new(connection)), created: now, idle_since: now })
    }

    /// Sends a request, and returns the response once its head has arrived.
    ///
    /// # Errors
    /// The request failed; the error contains it if nothing of it was sent.
    pub(super) async fn send(
        &mut self,
        request: Request<Body>,
    ) -> Result<Response<Incoming>, TrySendError<Request<Body>>> {
        let mut response = std::pin::pin!(self.sender.try_send_request(request));
        let connection = &mut self.connection;
        std::future::poll_fn(|cx| {
            drive(connection, cx);
            response.as_mut().poll(cx)
        })
        .await
    }

    /// Reads and writes as far as possible without blocking.
    pub(super) fn drive(&mut self, cx: &mut Context<'_>) {
        drive(&mut self.connection, cx);
    }

    /// Whether it can take a request, as far as the server has told.
    pub(super) fn is_ready(&mut self) -> bool {
        self.drive(&mut Context::from_waker(Waker::noop()));
        self.connection.is_some() && self.sender.is_ready()
    }
}

fn drive(connection: &mut Option<Box<Connection>>, cx: &mut Context<'_>) {
    let Some(driven) = connection else { return };
    // Its error reaches whoever awaits the response.
    if Pin::new(driven.as_mut()).poll(cx).is_ready() {
        *connection = None;
    }
}
