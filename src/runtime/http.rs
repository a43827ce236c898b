//! `/livez`, `/readyz` and `/metrics`.

use std::{net::SocketAddr, sync::Arc};

use axum::{
    Router,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use kube::{ResourceExt, core::object::HasStatus};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{MetricType, gauge::ConstGauge},
    registry::Registry,
};
use tokio::net::TcpListener;

use super::RunError;
use crate::{
    api::status::Status,
    cluster::watches::Readiness,
    controllers::{Reconciler, engine::Engine},
};

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

/// The conditions of every object, read from the cache at each scrape: no series outlives its object.
pub(super) struct Conditions<R: Reconciler>(Arc<Engine<R>>);

impl<R: Reconciler> Conditions<R> {
    pub(super) fn new(engine: Arc<Engine<R>>) -> Self {
        Self(engine)
    }
}

impl<R: Reconciler> std::fmt::Debug for Conditions<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Conditions").field(&R::NAME).finish()
    }
}

impl<R: Reconciler> Collector for Conditions<R> {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "integration_condition",
            "1 for the status that each condition has",
            None,
            MetricType::Gauge,
        )?;
        for guard in self.0.objects() {
            let Ok(object) = &guard.0 else { continue };
            let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
            for condition in object.status().into_iter().flat_map(|status| &status.common().conditions) {
                let labels = [
                    ("kind", R::NAME),
                    ("namespace", &namespace),
                    ("name", &name),
                    ("type", &condition.type_),
                    ("status", &condition.status),
                ];
                ConstGauge::new(1).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}
