//! What keeps the API server from taking a write: policies and webhooks of the cluster's administrators.

use serde_json::{Value, json};

use super::{Namespace, SOON, eventually};
use crate::commands::kubectl;

/// Stands in the way of every write of some resources in a namespace; gone with the value.
pub(crate) struct Admission {
    kinds: &'static str,
    name: String,
}

impl Admission {
    /// A policy, whose reason decides on the answer's HTTP status: `RequestEntityTooLarge` is 413.
    pub(crate) async fn policy(namespace: &Namespace, resources: &[&str], reason: &str) -> Self {
        let admission =
            Self::named("validatingadmissionpolicybinding,validatingadmissionpolicy", namespace, "policy");
        let name = &admission.name;
        let policy = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
            "metadata": { "name": name },
            "spec": {
                "matchConstraints": {
                    "namespaceSelector": of(namespace), "resourceRules": [writes_of(resources)],
                },
                "validations": [{ "expression": "false", "reason": reason }],
            },
        });
        let binding = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
            "metadata": { "name": name },
            "spec": { "policyName": name, "validationActions": ["Deny"] },
        });
        admission.holds(namespace, &[policy, binding]).await
    }

    /// A webhook that cannot be reached: the API server answers with 500.
    pub(crate) async fn unreachable(namespace: &Namespace, resources: &[&str]) -> Self {
        let admission = Self::named("validatingwebhookconfiguration", namespace, "webhook");
        let webhook = json!({
            "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingWebhookConfiguration",
            "metadata": { "name": admission.name },
            "webhooks": [{
                "name": "unreachable.authlink.test", "sideEffects": "None", "failurePolicy": "Fail",
                "admissionReviewVersions": ["v1"], "clientConfig": { "url": "https://localhost:1/" },
                "namespaceSelector": of(namespace), "rules": [writes_of(resources)],
            }],
        });
        admission.holds(namespace, &[webhook]).await
    }

    fn named(kinds: &'static str, namespace: &Namespace, what: &str) -> Self {
        Self { kinds, name: format!("{what}-{}-{:x}", namespace.name, rand::random::<u16>()) }
    }

    async fn holds(self, namespace: &Namespace, manifests: &[Value]) -> Self {
        for manifest in manifests {
            kubectl(&["apply", "-f", "-"], &manifest.to_string()).well();
        }
        eventually(SOON, "writes are refused", async || {
            let metadata = json!({ "name": "probe", "namespace": namespace.name });
            let probe = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata });
            let said = kubectl(&["create", "--dry-run=server", "-f", "-"], &probe.to_string());
            if said.code == Some(0) { Err("not yet") } else { Ok(()) }
        })
        .await;
        self
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let _ = kubectl(&["delete", self.kinds, &self.name], "");
    }
}

fn of(namespace: &Namespace) -> Value {
    json!({ "matchLabels": { "kubernetes.io/metadata.name": namespace.name } })
}

/// Those of a ConfigMap as well, which shows that it holds.
fn writes_of(resources: &[&str]) -> Value {
    let resources = [resources, &["configmaps"]].concat();
    json!({
        "apiGroups": ["*"], "apiVersions": ["*"], "resources": resources, "operations": ["CREATE", "UPDATE"],
    })
}
