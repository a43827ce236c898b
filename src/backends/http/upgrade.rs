//! Requests that turn their connection into something else, such as a WebSocket (RFC 9110, section 7.8).

use hyper::{Request, Response, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::time::{Instant, timeout_at};

use super::{AnswerBody, Body, Client, Failure, Fault, Stage, failed, in_http1};
use crate::api::Reason;

impl Client {
    /// Sends a request with the header `Upgrade` over a new connection of HTTP/1.1. With status 101 the connection is had by
    /// [`hyper::upgrade::on`] the response; any other response is one of the usual kind.
    ///
    /// # Errors
    /// Why there is no response.
    pub async fn upgrade(
        &self,
        request: Request<Body>,
        deadline: Instant,
    ) -> Result<Response<AnswerBody>, Failure> {
        let left = deadline.saturating_duration_since(Instant::now());
        let stream = self.connector.http1_only().connect(left).await;
        let stream = stream.map_err(|fault| Failure { stage: Stage::Connect, fault })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|error| failed(&error))?;
        tokio::spawn(connection.with_upgrades());
        let response = timeout_at(deadline, sender.send_request(in_http1(request))).await.map_err(|_| {
            let fault = Fault::new(Reason::Timeout, "waiting for the response timed out");
            Failure { stage: Stage::Exchange, fault }
        })?;
        let response = response.map_err(|error| failed(&error))?;
        Ok(response.map(|body| AnswerBody::new(body, None, None, deadline)))
    }
}
