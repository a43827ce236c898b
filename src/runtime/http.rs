//! `/livez`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use prometheus_client::{encoding::text, registry::Registry};
use tokio::net::TcpListener;

use super::RunError;
use crate::cluster::watches::Readiness;

/// Serves in the background until the process ends.
pub(super) async fn serve(
    address: SocketAddr,
    registry: Registry,
    readiness: Readiness,
) -> Result<(), RunError> {
    let listener = TcpListener::bind(address).await.map_err(|error| RunError::Listen { address, error })?;
    let registry = Arc::new(registry);
    let routes = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(move || std::future::ready(ready(&readiness))))
        .route("/metrics", get(move || std::future::ready(metrics(&registry))));
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(())
}

/// A standby is ready: it could take over at once.
fn ready(readiness: &Readiness) -> (StatusCode, String) {
    let pending = readiness.pending();
    if pending.is_empty() {
        return (StatusCode::OK, "ok\n".to_owned());
    }
    (StatusCode::SERVICE_UNAVAILABLE, format!("waiting for\n{}\n", pending.join("\n")))
}

fn metrics(registry: &Registry) -> impl IntoResponse + use<> {
    let mut page = String::new();
    match text::encode(&mut page, registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], page).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
