//! Who names what: found without looking at each object.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
};

use kube::Resource;
/// How an index names an object.
pub use kube::runtime::reflector::ObjectRef;

use crate::api::shared::Reference;

/// The objects of a kind that name something, by the namespace and what they name.
pub struct ReferenceIndex<K: Resource<DynamicType = ()>> {
    referrers: HashMap<(String, Reference), HashSet<ObjectRef<K>>>,
    references: HashMap<ObjectRef<K>, Vec<Reference>>,
}

impl<K: Resource<DynamicType = ()>> Default for ReferenceIndex<K> {
    fn default() -> Self {
        Self { referrers: HashMap::new(), references: HashMap::new() }
    }
}

impl<K: Resource<DynamicType = ()>> ReferenceIndex<K>
where
    ObjectRef<K>: Clone + Eq + Hash,
{
    /// Everything that the object names now.
    pub fn set(&mut self, object: &ObjectRef<K>, references: Vec<Reference>) {
        if self.references.get(object) == Some(&references) {
            return;
        }
        self.remove(object);
        let namespace = object.namespace.clone().unwrap_or_default();
        for reference in &references {
            let entry = self.referrers.entry((namespace.clone(), reference.clone())).or_default();
            entry.insert(object.clone());
        }
        self.references.insert(object.clone(), references);
    }

    /// The object is gone.
    pub fn remove(&mut self, object: &ObjectRef<K>) {
        let namespace = object.namespace.clone().unwrap_or_default();
        for reference in self.references.remove(object).unwrap_or_default() {
            let key = (namespace.clone(), reference);
            if let Some(referrers) = self.referrers.get_mut(&key) {
                referrers.remove(object);
                if referrers.is_empty() {
                    self.referrers.remove(&key);
                }
            }
        }
    }

    /// The objects of the namespace that name this; always in the same order until they change.
    pub fn referrers(&self, namespace: &str, reference: &Reference) -> impl Iterator<Item = &ObjectRef<K>> {
        let key = (namespace.to_owned(), reference.clone());
        self.referrers.get(&key).into_iter().flatten()
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;

    use super::*;

    #[test]
    fn referrers_are_found_by_namespace_until_they_name_something_else_or_are_gone() {
        let mut index = ReferenceIndex::<Pod>::default();
        let object = |name: &str, namespace: &str| ObjectRef::new(name).within(namespace);
        let [one, other, elsewhere] = [object("one", "a"), object("other", "a"), object("one", "b")];
        let secret = |name: &str| Reference::Secret(name.to_owned());
        for object in [&one, &other, &elsewhere] {
            index.set(object, vec![secret("login"), secret("ca")]);
        }
        let count =
            |index: &ReferenceIndex<Pod>, namespace, name| index.referrers(namespace, &secret(name)).count();
        assert_eq!(
            [count(&index, "a", "login"), count(&index, "b", "login"), count(&index, "c", "login")],
            [2, 1, 0]
        );
        index.set(&one, vec![secret("ca")]);
        assert_eq!(index.referrers("a", &secret("login")).collect::<Vec<_>>(), [&other]);
        index.remove(&other);
        assert_eq!([count(&index, "a", "login"), count(&index, "a", "ca")], [0, 1]);
    }
}
