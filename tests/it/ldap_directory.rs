//! `LdapDirectory` end to end: an operator with a gateway, a real API server, and an OpenLDAP of the test's own.

mod admission;
mod check;
mod crash;
mod login;
mod status;
mod syncing;

use authlink::api::v1alpha1::{LdapDirectory, ldap_directory::LdapDirectoryStatus};
use serde_json::{Value, json};

use crate::{
    directory::harness::{GROUPS, Ldap, PEOPLE},
    support::{Namespace, SOON, eventually, password_secret},
};

/// The spec of a directory on this port, with probes that are quick and a sync every so often.
fn spec(port: u16, interval: &str) -> Value {
    json!({
        "urls": [format!("ldap://127.0.0.1:{port}")],
        "bind": { "secretRef": { "name": "reader" } },
        "tls": { "caRef": { "name": "ca" } },
        "userSearch": { "base": PEOPLE, "filter": "(&(objectClass=inetOrgPerson)(uid={}))" },
        "groupSearch": { "base": GROUPS, "filter": "(member={})" },
        "sync": { "interval": interval, "deletionGuard": { "graceMinutes": 0 } },
        "healthCheck": { "interval": "1s", "timeout": "900ms", "unhealthyThreshold": 1, "healthyThreshold": 1 },
    })
}

/// The object of this name with this spec, and the Secret of its bind account.
async fn apply(namespace: &Namespace, name: &str, spec: &Value) {
    let secret = password_secret("reader", "uid=app,ou=svc,dc=example,dc=org", "app-secret");
    namespace.apply::<k8s_openapi::api::core::v1::Secret>(secret).await;
    namespace.apply::<LdapDirectory>(object(name, spec)).await;
}

fn object(name: &str, spec: &Value) -> Value {
    json!({
        "apiVersion": "authlink.dev/v1alpha1", "kind": "LdapDirectory",
        "metadata": { "name": name }, "spec": spec,
    })
}

/// The status once it is as wanted; what is wanted is told by `wanted`.
async fn status(
    namespace: &Namespace,
    name: &str,
    what: &str,
    wanted: impl Fn(&LdapDirectoryStatus) -> bool,
) -> LdapDirectoryStatus {
    eventually(SOON, what, async || {
        let status = namespace.api::<LdapDirectory>().get(name).await.expect("the object").status;
        let status = status.ok_or_else(|| "no status".to_owned())?;
        if wanted(&status) { Ok(status) } else { Err(serde_json::to_string_pretty(&status).unwrap()) }
    })
    .await
}

/// Status and reason of a condition.
fn is(status: &LdapDirectoryStatus, kind: &str) -> (String, String) {
    let found = status.common.conditions.iter().find(|condition| condition.type_ == kind);
    found.map(|found| (found.status.clone(), found.reason.clone())).unwrap_or_default()
}

fn pair(status: &str, reason: &str) -> (String, String) {
    (status.to_owned(), reason.to_owned())
}

/// How the last sync ended.
fn outcome(status: &LdapDirectoryStatus) -> &str {
    status.sync.as_ref().and_then(|sync| sync.last_run.as_ref()).map_or("", |last| &last.outcome)
}
