//! `ServiceRegistration`: instances outside of the cluster, probed and found through the one Service that they share.

mod drain;
mod duplicates;
mod fleet;
mod instance;
mod load;
mod probes;
mod restart;
mod sharing;

use authlink::api::v1alpha1::ServiceRegistration;
use kube::{ResourceExt, api::ListParams};
use serde_json::{Value, json};

use crate::{
    discovery::{ADDRESS, Endpoint, until_endpoints},
    support::{Namespace, SOON, eventually, the_second_after},
};

/// A spec of a ServiceRegistration, short enough to be read in a test.
#[derive(Clone)]
struct Spec(Value);

impl Spec {
    /// An instance of `billing` on this port, probed each second by a connection.
    fn new(id: &str, port: u16) -> Self {
        Self(json!({
            "serviceName": "billing", "instanceId": id, "addresses": [ADDRESS],
            "ports": [{ "name": "http", "port": port, "appProtocol": "http" }], "drainSeconds": 2,
            "healthCheck": {
                "interval": "1s", "timeout": "900ms", "unhealthyThreshold": 2, "healthyThreshold": 2, "jitterPercent": 0,
            },
        }))
    }

    /// One at this address that is not probed.
    fn unprobed(id: &str, address: &str) -> Self {
        Self::new(id, 8080).with("addresses", json!([address])).with("healthCheck", json!({ "type": "None" }))
    }

    /// With another value of a field.
    fn with(mut self, field: &str, value: Value) -> Self {
        self.0[field] = value;
        self
    }

    /// Probed by requests for `/healthz`.
    fn asked_by_http(mut self) -> Self {
        self.0["healthCheck"]["type"] = "Http".into();
        self.0["healthCheck"]["http"] = json!({ "path": "/healthz" });
        self
    }

    fn named(&self, name: &str) -> Value {
        json!({
            "apiVersion": "authlink.dev/v1alpha1", "kind": "ServiceRegistration", "metadata": { "name": name },
            "spec": self.0,
        })
    }
}

async fn register(namespace: &Namespace, name: &str, spec: &Spec) -> ServiceRegistration {
    namespace.apply(spec.named(name)).await
}

/// The same, younger than the objects that are there: the API server keeps whole seconds.
async fn register_later(namespace: &Namespace, name: &str, spec: &Spec) -> ServiceRegistration {
    let all =
        namespace.api::<ServiceRegistration>().list(&ListParams::default()).await.expect("a list").items;
    let newest = all.iter().filter_map(|object| object.creation_timestamp().map(|time| time.0)).max();
    if let Some(newest) = newest {
        the_second_after(newest).await;
    }
    register(namespace, name, spec).await
}

async fn ready(namespace: &Namespace, name: &str) -> ServiceRegistration {
    expect(namespace, name, &[("Ready", "True", "Available"), ("Registered", "True", "Registered")]).await
}

async fn expect(namespace: &Namespace, name: &str, wanted: &[(&str, &str, &str)]) -> ServiceRegistration {
    namespace.expect_of(name, wanted).await
}

/// Waits until the object is gone.
async fn until_deleted(namespace: &Namespace, name: &str) {
    eventually(SOON, &format!("{name} is gone"), async || {
        match namespace.api::<ServiceRegistration>().get_opt(name).await {
            Ok(None) => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await;
}

fn serving(address: &str, port: u16) -> Endpoint {
    (address.to_owned(), port.into(), true, true, false)
}

fn down(address: &str, port: u16) -> Endpoint {
    (address.to_owned(), port.into(), false, false, false)
}

fn draining(address: &str, port: u16) -> Endpoint {
    (address.to_owned(), port.into(), false, true, true)
}

async fn until(namespace: &Namespace, endpoints: &[Endpoint]) {
    let mut wanted = endpoints.to_vec();
    wanted.sort();
    until_endpoints(namespace, "billing", &wanted).await;
}

/// How often an operator wrote the Service or its slices.
fn discovery_writes(namespace: &Namespace) -> usize {
    let of_discovery = |write: &str| write.contains(" services/") || write.contains(" endpointslices/");
    namespace.writes().iter().filter(|(write, _)| of_discovery(write)).map(|(_, count)| count).sum()
}
