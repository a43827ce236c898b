//! WebSockets (RFC 6455) through the gateway: the handshake is a call, and what follows is passed on in both directions.

use std::{io, sync::Arc, time::Duration};

use axum::http::{HeaderValue, Method, Request, Response, StatusCode, Version, header, uri::PathAndQuery};
use hyper::{
    body::Incoming,
    upgrade::{OnUpgrade, Upgraded},
};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, split},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{attempts, client::ApiClient, headers, in_flight::InFlightGuard, response_body::ResponseBody};
use crate::{
    backends::http::Body,
    gateway::{call_guard::CallGuard, problem::Problem},
};

/// What is read at once, in bytes.
const BUFFER: usize = 16 * 1024;

/// Whether the request asks for a WebSocket (RFC 6455, section 4.1). Other upgrades are ignored, as RFC 9110, section 7.8, allows.
pub(super) fn is_wanted<B>(request: &Request<B>) -> bool {
    let has = |name, wanted: &str| {
        let values = request.headers().get_all(name).iter().filter_map(|value| value.to_str().ok());
        values.flat_map(|value| value.split(',')).any(|value| value.trim().eq_ignore_ascii_case(wanted))
    };
    request.version() == Version::HTTP_11
        && request.method() == Method::GET
        && has(header::CONNECTION, "upgrade")
        && has(header::UPGRADE, "websocket")
}

/// Opens a WebSocket to one of the endpoints. It lives until one side closes it, nothing is sent for the idle timeout, or the
/// process is told to stop.
pub(super) async fn open(
    api: &Arc<ApiClient>,
    mut request: Request<Incoming>,
    target: PathAndQuery,
    own_path: &str,
    guard: &mut CallGuard,
    stopping: &CancellationToken,
) -> Result<Response<ResponseBody>, Problem> {
    let mut in_flight = api.choose(&[])?;
    let endpoint = &api.endpoints[in_flight.index()];
    guard.attempt(&endpoint.name, 1);
    let mut outgoing = Request::new(Body::empty());
    *outgoing.uri_mut() = target.into();
    *outgoing.headers_mut() = headers::outbound(request.headers());
    outgoing.headers_mut().extend(upgrade_headers());
    let deadline = Instant::now() + api.timeout;
    let answer = endpoint.service.upgrade(outgoing, deadline).await;
    in_flight.judge(&answer);
    let mut answer = answer.map_err(|failure| attempts::problem(&endpoint.name, &failure))?;
    if answer.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(attempts::deliver(answer, in_flight, own_path));
    }
    let sides = [hyper::upgrade::on(&mut request), hyper::upgrade::on(&mut answer)];
    in_flight.settle();
    tokio::spawn(tunnel(sides, in_flight, stopping.clone()));
    headers::inbound(answer.headers_mut(), endpoint.service.base(), own_path);
    answer.headers_mut().extend(upgrade_headers());
    Ok(answer.map(|_| ResponseBody::empty()))
}

fn upgrade_headers() -> [(header::HeaderName, HeaderValue); 2] {
    [
        (header::CONNECTION, HeaderValue::from_static("upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
    ]
}

/// Passes on what both sides send; the call is in flight meanwhile.
async fn tunnel([caller, api]: [OnUpgrade; 2], in_flight: InFlightGuard, stopping: CancellationToken) {
    let timeout = in_flight.idle_timeout();
    let relayed = async {
        let (caller, api) = tokio::try_join!(caller, api).map_err(io::Error::other)?;
        relay(caller, api, timeout).await
    };
    let ended = stopping.run_until_cancelled(relayed).await;
    if let Some(Err(error)) = ended {
        tracing::debug!(%error, "a WebSocket ended");
    }
}

async fn relay(caller: Upgraded, api: Upgraded, timeout: Duration) -> io::Result<()> {
    let (mut from_caller, mut to_caller) = split(TokioIo::new(caller));
    let (mut from_api, mut to_api) = split(TokioIo::new(api));
    let last = Mutex::new(Instant::now());
    let both = async {
        tokio::try_join!(
            copy(&mut from_caller, &mut to_api, &last),
            copy(&mut from_api, &mut to_caller, &last)
        )
    };
    tokio::select! {
        copied = both => copied.map(drop),
        () = idle(&last, timeout) => Ok(()),
    }
}

async fn copy(
    from: &mut (impl AsyncRead + Unpin),
    to: &mut (impl AsyncWrite + Unpin),
    last: &Mutex<Instant>,
) -> io::Result<()> {
    let mut buffer = vec![0; BUFFER];
    loop {
        let length = from.read(&mut buffer).await?;
        if length == 0 {
            return to.shutdown().await;
        }
        *last.lock() = Instant::now();
        to.write_all(&buffer[..length]).await?;
        to.flush().await?;
    }
}

/// Until nothing was read for so long.
async fn idle(last: &Mutex<Instant>, timeout: Duration) {
    loop {
        let due = *last.lock() + timeout;
        if Instant::now() >= due {
            return;
        }
        sleep_until(due).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_websocket_is_recognized_by_its_headers() {
        let wanted = |connection: &str, upgrade: &str| {
            let request = Request::get("/").header("connection", connection).header("upgrade", upgrade);
            is_wanted(&request.body(()).unwrap())
        };
        assert!(wanted("Upgrade", "websocket") && wanted("keep-alive, upgrade", "h2c, WebSocket"));
        assert!(!wanted("keep-alive", "websocket") && !wanted("upgrade", "h2c"));
        let post = Request::post("/").header("connection", "upgrade").header("upgrade", "websocket");
        assert!(!is_wanted(&post.body(()).unwrap()));
    }
}
