//! APIs and authorization servers as they are in the world: tables of specs, each with what `authlink check` and the operator find.

mod hosts;
mod token_endpoints;

use authlink::controllers::Object;
use k8s_openapi::{NamespaceResourceScope, api::core::v1::Secret};
use kube::Resource;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::{
    commands::authlink,
    support::{Namespace, Operator, condition, tls_file},
};

/// The address of the tests' network, and the flags that let the operator call it and the loopback.
const ADDRESS: &str = "10.99.0.1";
const ALLOWED: [&str; 2] = ["--egress-allow-cidrs", "10.99.0.0/24,127.0.0.0/8"];

/// One set-up, and what is to be found: `Ready` with this status and reason, and a part of its message.
struct Row {
    name: &'static str,
    spec: Value,
    ready: (&'static str, &'static str, &'static str),
}

impl Row {
    /// One that works.
    fn works(name: &'static str, spec: Value) -> Self {
        Self { name, spec, ready: ("True", "Available", "") }
    }

    /// One that is not ready for this reason.
    fn fails(name: &'static str, spec: Value, reason: &'static str, message: &'static str) -> Self {
        Self { name, spec, ready: ("False", reason, message) }
    }

    fn manifest(&self, kind: &str) -> Value {
        let mut manifest = json!({
            "apiVersion": "authlink.dev/v1alpha1", "kind": kind, "metadata": { "name": self.name }, "spec": self.spec,
        });
        let check = manifest["spec"]["healthCheck"].as_object_mut();
        let schedule =
            json!({ "interval": "10s", "timeout": "9s", "unhealthyThreshold": 1, "healthyThreshold": 1 });
        match check {
            Some(check) => check.extend(schedule.as_object().expect("fields").clone()),
            None => manifest["spec"]["healthCheck"] = schedule,
        }
        manifest
    }
}

/// Has `authlink check` and the operator look at each row, which must find the same.
async fn verify<K>(rows: &[Row], secrets: &[Value])
where
    K: Object + Resource<Scope = NamespaceResourceScope, DynamicType = ()> + DeserializeOwned,
{
    let kind = K::kind(&()).into_owned();
    verify_by_check(&kind, rows, secrets);
    let namespace = Namespace::create().await;
    for secret in secrets {
        namespace.apply::<Secret>(secret.clone()).await;
    }
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    for row in rows {
        namespace.apply::<K>(row.manifest(&kind)).await;
    }
    for row in rows {
        let (status, reason, message) = row.ready;
        let object = namespace.expect_of::<K>(row.name, &[("Ready", status, reason)]).await;
        let found = &condition(&object, "Ready").expect("Ready").message;
        assert!(found.contains(message), "{}: {found}", row.name);
    }
}

fn verify_by_check(kind: &str, rows: &[Row], secrets: &[Value]) {
    let ca = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "ca" }, "data": { "ca.crt": tls_file("ca.pem") },
    });
    let manifests = rows.iter().map(|row| row.manifest(kind)).chain(secrets.iter().cloned()).chain([ca]);
    let manifests: Vec<_> = manifests.map(|manifest| manifest.to_string()).collect();
    let said = authlink(&["check", "-o", "json", "-f", "-"], &manifests.join("\n---\n"));
    let found: Vec<Value> =
        serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"));
    for row in rows {
        let found = found.iter().find(|found| found["name"] == row.name).expect("it is checked");
        let (status, reason, message) = row.ready;
        assert_eq!(
            (&found["ready"], &found["reason"]),
            (&json!(status), &json!(reason)),
            "{}: {found}",
            row.name
        );
        assert!(found["message"].as_str().expect("a text").contains(message), "{}: {found}", row.name);
    }
}
