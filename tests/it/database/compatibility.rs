//! What users bring: URIs, Secrets, poolers, servers and certificates as they are in the world. Most rows come from bug reports of other
//! tools. A row is one call of [`check`], and whoever meets another set-up adds another row.

mod bindings;
mod certificates;
mod credentials;
mod poolers;
mod timeouts;
mod uri;
mod verdicts;

use serde_json::{Value, json};

use crate::{
    commands::authlink,
    support::{Spec, System, password_secret, secret, tls_file},
};

/// What `authlink check` finds of one Database. The operator resolves and probes by the same code.
#[derive(Debug)]
struct Found {
    /// All that was printed.
    said: String,
    reason: String,
    message: String,
    status: Value,
}

impl Found {
    /// It is ready.
    #[track_caller]
    fn ready(self) -> Self {
        assert_eq!(self.reason, "Available", "{}", self.message);
        self
    }

    /// It is not ready for this reason, in a message that has all these words.
    #[track_caller]
    fn fails(self, reason: &str, words: &[&str]) -> Self {
        assert_eq!(self.reason, reason, "{}", self.message);
        for word in words {
            assert!(self.message.contains(word), "no {word} in: {}", self.message);
        }
        self
    }

    /// The message of this condition.
    #[track_caller]
    fn condition(&self, kind: &str) -> &str {
        let mut all = self.status["conditions"].as_array().expect("conditions").iter();
        let found =
            all.find(|condition| condition["type"] == kind).unwrap_or_else(|| panic!("{kind}: {self:?}"));
        found["message"].as_str().expect("a message")
    }
}

/// Checks a Database; the Secret `login` and the ConfigMap `ca` are there where the others do not replace them.
#[track_caller]
fn check(spec: &Spec, others: &[Value]) -> Found {
    let mut manifests = vec![spec.named("db")];
    manifests.extend_from_slice(others);
    for default in [password_secret("login", "app", "app-secret"), authorities("ca", "ca.pem")] {
        if !others.iter().any(|other| other["metadata"]["name"] == default["metadata"]["name"]) {
            manifests.push(default);
        }
    }
    let manifests: Vec<_> = manifests.iter().map(Value::to_string).collect();
    let said = authlink(&["check", "-f", "-", "--output", "json"], &manifests.join("\n---\n"));
    let text = format!("{}{}", said.out, said.err);
    let found: Value = serde_json::from_str(&said.out).unwrap_or_else(|_| panic!("{text}"));
    let field = |name: &str| found[0][name].as_str().expect("a text").to_owned();
    Found {
        said: text,
        reason: field("reason"),
        message: field("message"),
        status: found[0]["status"].clone(),
    }
}

/// A ConfigMap with the certificates of this file of `e2e/systems/certificates`.
fn authorities(name: &str, file: &str) -> Value {
    let data = json!({ "ca.crt": tls_file(file) });
    json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": name }, "data": data })
}

/// A Database with a URI for everything but the authorities, and the URI's Secret.
fn by_uri(system: System, uri: &str) -> (Spec, Value) {
    let spec = Spec::from(json!({
        "type": system.engine(), "uriSecretRef": { "name": "uri" }, "tls": { "caRef": { "name": "ca" } },
    }));
    (spec, secret("uri", "Opaque", &[("uri", uri)]))
}
