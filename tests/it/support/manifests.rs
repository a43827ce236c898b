//! Manifests, short enough to be read in a test.

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use super::environment::tls_file;

/// A `spec` of a Database.
#[derive(Clone, Debug)]
pub(crate) struct Spec(Value);

impl From<Value> for Spec {
    /// Probes that neither fail for a busy machine nor keep a test waiting; the first failure is the verdict.
    fn from(spec: Value) -> Self {
        let patient =
            json!({ "healthCheck": { "interval": "10s", "timeout": "9s", "unhealthyThreshold": 1 } });
        Self(patient).with(&spec)
    }
}

impl Spec {
    /// With these fields instead, as a JSON merge patch (RFC 7396): null removes.
    pub(crate) fn with(mut self, patch: &Value) -> Self {
        merge(&mut self.0, patch);
        self
    }

    /// Probed each second.
    pub(crate) fn probed_often(self) -> Self {
        self.with(&json!({ "healthCheck": {
            "interval": "1s", "timeout": "900ms", "unhealthyThreshold": 2, "healthyThreshold": 2, "jitterPercent": 0,
        } }))
    }

    /// Probed often enough for a test that counts probes, with a timeout that a busy machine does not reach.
    pub(crate) fn probed_patiently(self) -> Self {
        let patient = json!({ "interval": "3s", "timeout": "2900ms" });
        self.probed_often().with(&json!({ "healthCheck": patient }))
    }

    /// The object.
    pub(crate) fn named(&self, name: &str) -> Value {
        json!({
            "apiVersion": "authlink.dev/v1alpha1", "kind": "Database",
            "metadata": { "name": name }, "spec": self.0,
        })
    }
}

fn merge(target: &mut Value, patch: &Value) {
    let Value::Object(patch) = patch else {
        target.clone_from(patch);
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    for (key, value) in patch {
        match value {
            Value::Null => drop(target.as_object_mut().and_then(|target| target.remove(key))),
            value => merge(&mut target[key], value),
        }
    }
}

/// A Secret of this type.
pub(crate) fn secret(name: &str, type_: &str, data: &[(&str, &str)]) -> Value {
    let data: Map<_, _> = data
        .iter()
        .map(|(key, value)| ((*key).to_owned(), json!(ByteString(value.as_bytes().to_vec()))))
        .collect();
    json!({ "apiVersion": "v1", "kind": "Secret", "type": type_, "metadata": { "name": name }, "data": data })
}

/// A Secret with a user name and a password.
pub(crate) fn password_secret(name: &str, username: &str, password: &str) -> Value {
    secret(name, "kubernetes.io/basic-auth", &[("username", username), ("password", password)])
}

/// A Secret with the certificate and the key of these files of `e2e/systems/certificates`.
pub(crate) fn certificate_secret(name: &str, file: &str) -> Value {
    let (certificate, key) = (tls_file(&format!("{file}.pem")), tls_file(&format!("{file}.key")));
    secret(name, "kubernetes.io/tls", &[("tls.crt", &certificate), ("tls.key", &key)])
}
