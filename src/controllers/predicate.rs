//! The predicate: which changes of an object requeue it.

use std::{
    collections::HashMap,
    hash::{DefaultHasher, Hash, Hasher},
};

use kube::ResourceExt;

use super::triggers::Key;
use crate::{
    api::{ANNOTATION_PREFIX, Managed},
    cluster::object_cache::Change,
};

/// Lets changes through that a reconcile depends on: our own status writes are none.
pub(super) struct ChangePredicate<K: super::Object>(HashMap<Key<K>, u64>);

impl<K: super::Object> Default for ChangePredicate<K> {
    fn default() -> Self {
        Self(HashMap::new())
    }
}

impl<K: super::Object> ChangePredicate<K> {
    /// Whether the change requeues the object.
    pub(super) fn passes(&mut self, change: &Change<K>) -> bool {
        let Some(object) = &change.object else {
            self.0.remove(&change.key);
            return false;
        };
        let hash = semantic_hash(&**object);
        self.0.insert(change.key.clone(), hash) != Some(hash)
    }
}

/// A hash of everything that a reconcile depends on: neither the status nor other people's annotations.
fn semantic_hash<K: ResourceExt>(object: &K) -> u64 {
    let mut hash = DefaultHasher::new();
    let meta = object.meta();
    meta.uid.hash(&mut hash);
    meta.generation.hash(&mut hash);
    meta.deletion_timestamp.is_some().hash(&mut hash);
    meta.finalizers.hash(&mut hash);
    let annotations = meta.annotations.iter().flatten();
    annotations.filter(|(name, _)| name.starts_with(ANNOTATION_PREFIX)).for_each(|pair| pair.hash(&mut hash));
    hash.finish()
}

/// Everything that the object names, as far as this version can read it.
pub(super) fn references<K: super::Object>(change: &Change<K>) -> Vec<crate::api::shared::Reference> {
    let object = change.object.as_ref().and_then(|object| object.0.as_ref().ok());
    object.map(Managed::references).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use kube::{core::DeserializeGuard, runtime::reflector::ObjectRef};
    use serde_json::json;

    use super::*;
    use crate::api::v1alpha1::ServiceRegistration;

    fn change(metadata: &serde_json::Value, status: &str) -> Change<ServiceRegistration> {
        let mut object = json!({
            "metadata": { "name": "one", "namespace": "default", "uid": "1", "generation": 1 },
            "spec": { "serviceName": "billing", "instanceId": "1", "addresses": ["192.0.2.1"],
                      "ports": [{ "name": "http", "port": 80 }] },
            "status": { "load": status },
        });
        for (name, value) in metadata.as_object().expect("fields") {
            object["metadata"][name] = value.clone();
        }
        let object: DeserializeGuard<ServiceRegistration> =
            serde_json::from_value(object).expect("a registration");
        Change { key: ObjectRef::from_obj(&object), object: Some(Arc::new(object)), gone: None }
    }

    #[test]
    fn a_change_of_spec_deletion_finalizers_or_our_annotations_passes_and_a_status_write_does_not() {
        let mut predicate = ChangePredicate::default();
        assert!(predicate.passes(&change(&json!({}), "0.5")), "it is new");
        assert!(!predicate.passes(&change(&json!({}), "0.7")), "a status write");
        assert!(!predicate.passes(&change(&json!({ "annotations": { "example.org/note": "1" } }), "0.7")));
        let ours = json!({ "annotations": { "authlink.dev/reconcile": "1" } });
        assert!(predicate.passes(&change(&ours, "0.7")));
        assert!(!predicate.passes(&change(&ours, "0.7")));
        assert!(predicate.passes(&change(&json!({ "generation": 2 }), "0.7")));
        assert!(predicate.passes(&change(&json!({ "generation": 2, "finalizers": ["a/b"] }), "0.7")));
        let deleted =
            json!({ "generation": 2, "finalizers": ["a/b"], "deletionTimestamp": "2026-01-01T00:00:00Z" });
        assert!(predicate.passes(&change(&deleted, "0.7")));
        assert!(predicate.passes(&change(&json!({ "uid": "2" }), "0.7")), "another object of the same name");
        let gone = Change { object: None, gone: Some("2".to_owned()), ..change(&json!({}), "") };
        assert!(!predicate.passes(&gone));
        assert!(predicate.passes(&change(&json!({ "uid": "2" }), "0.7")), "it came back");
    }
}
