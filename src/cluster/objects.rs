//! Our own objects: what is written to their status and finalizers, and what a write may come to.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta};
use kube::{
    Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, Request},
    core::NamespaceResourceScope,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::api::FIELD_MANAGER;

/// Why the API server refuses a request for good: for a right that the operator lacks, a policy, a webhook, or something that
/// cannot be. None for what may go well the next time: 401, 404, 408, 409, 425, 429, and every failure of its own.
#[must_use]
pub fn refusal(error: &kube::Error) -> Option<&str> {
    match error {
        kube::Error::Api(status) if (400..500).contains(&status.code) => {
            (!matches!(status.code, 401 | 404 | 408 | 409 | 425 | 429)).then_some(&status.message)
        }
        _ => None,
    }
}

/// Whether the stored object has everything that the patch sets, and nothing of what it removes; what the API server has
/// added by itself does not count.
pub(super) fn covers<K: Serialize>(stored: &K, patch: &Value) -> bool {
    serde_json::to_value(stored).is_ok_and(|stored| has(&stored, patch))
}

fn has(stored: &Value, patch: &Value) -> bool {
    match (stored, patch) {
        (Value::Object(_) | Value::Null, Value::Object(patch)) => {
            patch.iter().all(|(key, patch)| has(stored.get(key).unwrap_or(&Value::Null), patch))
        }
        (Value::Array(stored), Value::Array(patch)) => {
            stored.len() == patch.len() && stored.iter().zip(patch).all(|(stored, patch)| has(stored, patch))
        }
        (stored, patch) => stored == patch,
    }
}

/// What is read of the API server's answer to a write: not the whole object, which the watch brings anyway.
#[derive(Deserialize)]
struct Written {
    metadata: ObjectMeta,
}

/// Applies the status (server-side apply, one field manager), and tells the resource version that this made.
///
/// # Errors
/// What the API server says; a conflict when the object of this name is another one by now.
pub async fn apply_status<K>(client: &Client, object: &K, status: &impl Serialize) -> kube::Result<String>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let body = json!({
        "apiVersion": K::api_version(&()),
        "kind": K::kind(&()),
        "metadata": { "name": object.name_any(), "uid": object.uid() },
        "status": status,
    });
    let request = Request::new(K::url_path(&(), object.namespace().as_deref()));
    let params = PatchParams::apply(FIELD_MANAGER).force();
    let request = request
        .patch_subresource("status", &object.name_any(), &params, &Patch::Apply(&body))
        .map_err(kube::Error::BuildRequest)?;
    let written = client.request::<Written>(request).await?;
    Ok(written.metadata.resource_version.unwrap_or_default())
}

/// The conditions of an object whose other parts cannot be read; none where they cannot be either.
///
/// # Errors
/// What the API server says.
pub async fn conditions<K>(client: &Client, object: &K) -> kube::Result<Vec<Condition>>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    // A list, since that is what an operator has the right to.
    let named = ListParams::default().fields(&format!("metadata.name={}", object.name_any()));
    let request = Request::new(K::url_path(&(), object.namespace().as_deref()));
    let request = request.list(&named).map_err(kube::Error::BuildRequest)?;
    let mut found = client.request::<Value>(request).await?;
    let conditions = found.pointer_mut("/items/0/status/conditions").map(Value::take);
    Ok(conditions.and_then(|conditions| serde_json::from_value(conditions).ok()).unwrap_or_default())
}

/// Replaces the finalizers of exactly this version of the object.
///
/// # Errors
/// What the API server says; a conflict when the object has changed since.
pub async fn set_finalizers<K>(client: &Client, object: &K, finalizers: &[String]) -> kube::Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    let body = json!({ "metadata": {
        "finalizers": finalizers, "uid": object.uid(), "resourceVersion": object.resource_version(),
    }});
    let request = Request::new(K::url_path(&(), object.namespace().as_deref()));
    let request = request
        .patch(&object.name_any(), &PatchParams::default(), &Patch::Merge(&body))
        .map_err(kube::Error::BuildRequest)?;
    client.request::<Written>(request).await.map(drop)
}

#[cfg(test)]
mod tests {
    use kube::core::Status;

    use super::refusal;

    #[test]
    fn a_refusal_is_what_no_retry_changes() {
        let refused = |code: &u16| {
            let status = Status::failure("no", "").with_code(*code).boxed();
            refusal(&kube::Error::Api(status)) == Some("no")
        };
        let codes = [400, 401, 403, 404, 405, 408, 409, 413, 422, 425, 429, 500, 503, 504];
        let told: Vec<_> = codes.into_iter().filter(refused).collect();
        assert_eq!(told, [400, 403, 405, 413, 422]);
    }
}
