//! Callers: so many at once, or so many calls a second.

use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};

use http_body_util::{BodyExt, Full};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{net::TcpStream, task::JoinSet};

use super::{Outcome, run, run_folder};

/// Where calls go, and with what.
#[derive(Clone)]
pub(crate) struct Call {
    pub(crate) address: SocketAddr,
    pub(crate) path: String,
    pub(crate) token: Option<String>,
    /// Sent by POST; without one it is a GET.
    pub(crate) body: Option<String>,
}

/// A connection that is kept.
pub(crate) struct Caller {
    sender: http1::SendRequest<Full<Bytes>>,
    authorization: Option<String>,
    host: String,
}

impl Caller {
    /// Connects to where the call goes.
    pub(crate) async fn connect(call: &Call) -> Outcome<Self> {
        let stream = TcpStream::connect(call.address).await?;
        stream.set_nodelay(true)?;
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        tokio::spawn(connection);
        let authorization = call.token.as_ref().map(|token| format!("Bearer {token}"));
        Ok(Self { sender, authorization, host: call.address.to_string() })
    }

    /// Calls `path`, and reads the answer to its end; any status but 200 ends the bench.
    pub(crate) async fn call(&mut self, path: &str, body: Option<&str>) -> Outcome<()> {
        let mut request = Request::builder().uri(path).header("host", &self.host);
        if let Some(authorization) = &self.authorization {
            request = request.header("authorization", authorization);
        }
        if body.is_some() {
            request = request.method("POST").header("content-type", "application/json");
        }
        let body = Full::from(body.unwrap_or_default().to_owned());
        self.sender.ready().await?;
        let answer = self.sender.send_request(request.body(body)?).await?;
        let status = answer.status();
        let body = answer.into_body().collect().await?.to_bytes();
        if status != 200 {
            return Err(format!("{path}: {status} {}", String::from_utf8_lossy(&body)).into());
        }
        Ok(())
    }
}

/// So many calls a second for so long, to `paths` in turn, by ten callers; gives how long each took, in milliseconds.
pub(crate) async fn paced(call: &Call, paths: &[String], rate: u32, period: Duration) -> Outcome<Vec<f64>> {
    const CALLERS: u32 = 10;
    let mut tasks = JoinSet::new();
    for number in 0..CALLERS {
        let (call, paths) = (call.clone(), paths.to_vec());
        tasks.spawn(async move {
            let mut caller = Caller::connect(&call).await?;
            let gap = Duration::from_secs(1) * CALLERS / rate;
            let first = tokio::time::Instant::now() + gap * number / CALLERS;
            let mut due = tokio::time::interval_at(first, gap);
            let mut took = Vec::new();
            let end = Instant::now() + period;
            let own = paths.iter().skip(number as usize).step_by(CALLERS as usize);
            for path in own.cycle() {
                due.tick().await;
                let began = Instant::now();
                if began >= end {
                    break;
                }
                caller.call(path, call.body.as_deref()).await?;
                took.push(began.elapsed().as_secs_f64() * 1000.0);
            }
            Outcome::Ok(took)
        });
    }
    let mut took = Vec::new();
    while let Some(done) = tasks.join_next().await {
        took.extend(done??);
    }
    Ok(took)
}

/// Requests a second that wrk gets through, with so many connections, on these cores.
pub(crate) async fn wrk(cores: &str, call: &Call, connections: usize, period: Duration) -> Outcome<f64> {
    let (connections, period) = (format!("-c{connections}"), format!("-d{}s", period.as_secs()));
    let url = format!("http://{}{}", call.address, call.path);
    let authorization = format!("Authorization: Bearer {}", call.token.as_deref().unwrap_or("none"));
    let script = run_folder()?.join("wrk.lua");
    std::fs::write(&script, call.body.as_deref().map_or_else(String::new, posts))?;
    let script = script.display().to_string();
    let mut args = vec!["-c", cores, "wrk", "-t1", &connections, &period];
    args.extend(["-s", &script, "-H", &authorization, &url]);
    let said = run("taskset", &args, "").await?;
    if said.contains("Non-2xx") || said.contains("Socket errors") {
        return Err(format!("wrk: {said}").into());
    }
    let rate = said.lines().find_map(|line| line.strip_prefix("Requests/sec:"));
    Ok(rate.ok_or_else(|| format!("wrk: {said}"))?.trim().parse()?)
}

/// What wrk is told once, before it begins.
fn posts(body: &str) -> String {
    format!("wrk.method = 'POST' wrk.headers['Content-Type'] = 'application/json' wrk.body = [[{body}]]")
}
