//! What deliveries are compared to: a client that does nothing but send, and the disk.

use std::{
    fs::File,
    io::Write,
    path::Path,
    time::{Duration, Instant},
};

use aws_lc_rs::hmac;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use tokio::task::JoinSet;

use super::{
    Outcome,
    engine::{KEY, data},
};

/// Requests at the same time: as many as the endpoints of the benchmark have.
pub(crate) const CONNECTIONS: usize = 64;

/// Requests per second of a common HTTP client that signs the same bodies and sends them to the same receiver.
pub(crate) async fn bare_rate(port: u16, period: Duration) -> Outcome<f64> {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let key = hmac::Key::new(hmac::HMAC_SHA256, KEY.as_bytes());
    let (began, mut tasks) = (Instant::now(), JoinSet::new());
    for number in 0..CONNECTIONS {
        let (client, key) = (client.clone(), key.clone());
        tasks.spawn(async move {
            let mut count = 0_usize;
            while began.elapsed() < period {
                let now = jiff::Timestamp::now();
                let (time, id) = (now.as_second().to_string(), format!("msg_{number}_{count}"));
                let body = format!(r#"{{"type":"a","timestamp":"{now}","data":{}}}"#, data());
                let signature = STANDARD.encode(hmac::sign(&key, format!("{id}.{time}.{body}").as_bytes()));
                let request = Request::builder()
                    .method(Method::POST)
                    .uri(format!("http://127.0.0.1:{port}/bare"))
                    .header("content-type", "application/json")
                    .header("webhook-id", id)
                    .header("webhook-timestamp", time)
                    .header("webhook-signature", format!("v1,{signature}"));
                let response = client.request(request.body(Full::from(body))?).await?;
                if response.status() != 200 {
                    return Err(format!("the receiver responded {}", response.status()).into());
                }
                response.into_body().collect().await?;
                count += 1;
            }
            Outcome::Ok(count)
        });
    }
    let mut all = 0;
    while let Some(done) = tasks.join_next().await {
        all += done??;
    }
    Ok(per_second(all, began.elapsed()))
}

/// How many times a second something that was appended to a file can be synced, one after the other.
pub(crate) fn syncs(path: &Path) -> Outcome<f64> {
    const COUNT: usize = 200;
    let (mut file, began) = (File::create(path)?, Instant::now());
    for _ in 0..COUNT {
        file.write_all(&[0; 8192])?;
        file.sync_data()?;
    }
    Ok(per_second(COUNT, began.elapsed()))
}

#[allow(clippy::cast_precision_loss, reason = "a few million at the most")]
pub(crate) fn per_second(count: usize, time: Duration) -> f64 {
    count as f64 / time.as_secs_f64()
}
