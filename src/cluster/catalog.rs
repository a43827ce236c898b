//! The objects of a kind, as last read.

use std::sync::Arc;

use kube::{
    Resource, ResourceExt,
    core::{DeserializeGuard, NamespaceResourceScope},
    runtime::reflector::{ObjectRef, Store},
};

/// What one watch has brought.
pub type Objects<K> = Store<DeserializeGuard<K>>;

/// The objects of a kind, of every scope that is watched; those that this version cannot read are left out.
#[derive(Clone)]
pub struct Catalog<K: Resource<DynamicType = ()> + Clone + 'static>(Vec<Objects<K>>);

impl<K> Catalog<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + 'static,
{
    /// Over what the watches bring.
    #[must_use]
    pub fn new(stores: Vec<Objects<K>>) -> Self {
        Self(stores)
    }

    /// The object of this name.
    #[must_use]
    pub fn get(&self, namespace: &str, name: &str) -> Option<Arc<DeserializeGuard<K>>> {
        let key = ObjectRef::new(name).within(namespace);
        self.0.iter().find_map(|store| store.get(&key)).filter(|object| object.0.is_ok())
    }

    /// All of a namespace.
    #[must_use]
    pub fn all_in(&self, namespace: &str) -> Vec<Arc<DeserializeGuard<K>>> {
        let mut all: Vec<_> = self.0.iter().flat_map(Store::state).collect();
        all.retain(|object| object.0.is_ok() && object.namespace().as_deref() == Some(namespace));
        all
    }
}
