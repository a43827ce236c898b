//! Finds what specs name: Secrets, ConfigMaps and other objects.

use std::sync::Arc;

use secrecy::{ExposeSecret, SecretString};

use super::{Unresolved, text};
use crate::{
    api::{
        HasKind, Kind,
        shared::{CaKind, CaRef, Reference, SecretRef},
        v1alpha1::database::TlsMode,
    },
    backends::transport::{self, TlsSettings},
    cluster::references::{References, SecretContent},
    domain::references,
};

/// Looks up what the specs of one namespace name.
#[derive(Clone, Copy)]
pub struct Lookup<'a> {
    /// Where to look.
    pub references: &'a dyn References,
    /// The namespace of the object.
    pub namespace: &'a str,
}

impl Lookup<'_> {
    /// The Secret of this name.
    ///
    /// # Errors
    /// `SecretNotFound`, or what the API server says.
    pub async fn secret(&self, name: &str) -> Result<Arc<SecretContent>, Unresolved> {
        let secret = self.references.secret(self.namespace, name).await?;
        secret.ok_or_else(|| Unresolved::SecretNotFound { name: name.to_owned() })
    }

    /// Another object of ours, which the spec of `referrer` names in `field`.
    ///
    /// # Errors
    /// `RefNotFound`, `RefNotReady`, and `Invalid` where the references form a cycle.
    pub fn resource<K: HasKind + Send + Sync + 'static>(
        &self,
        referrer: (Kind, &str),
        field: &str,
        name: &str,
    ) -> Result<Arc<K>, Unresolved> {
        let node = |(kind, name): (Kind, &str)| (kind, name.to_owned());
        let found = self.references.resource(K::KIND, self.namespace, name)?;
        let what = format!("the {} {name}", K::KIND);
        let (found, object) = found
            .and_then(|found| found.get::<K>().map(|object| (found, object)))
            .ok_or_else(|| Unresolved::RefNotFound { what: what.clone() })?;
        let start = node(referrer);
        let edges = |of: &(Kind, String)| {
            // The referrer's own reference may be newer than what the cache has of it.
            if *of == start {
                return vec![(K::KIND, name.to_owned())];
            }
            let named = self.references.resource(of.0, self.namespace, &of.1).ok().flatten();
            let references = named.map(|named| named.references).unwrap_or_default().into_iter();
            let resource = |reference| match reference {
                Reference::Resource(kind, name) => Some((kind, name)),
                Reference::Secret(_) | Reference::ConfigMap(_) | Reference::Service(_) => None,
            };
            references.filter_map(resource).collect()
        };
        if let Some(cycle) = references::cycle(&start, edges) {
            let path: Vec<_> = cycle.iter().map(|(kind, name)| format!("{kind} {name}")).collect();
            let problem = format!("the references form a cycle: {}", path.join(" -> "));
            return Err(Unresolved::Invalid { field: field.to_owned(), problem });
        }
        // While nobody has observed it yet, it may well be ready.
        match found.is_ready() {
            Some(false) => Err(Unresolved::RefNotReady { what }),
            Some(true) | None => Ok(object),
        }
    }

    /// The authorities to trust, as PEM that can be read.
    ///
    /// # Errors
    /// What is missing, or is no certificate.
    pub(super) async fn ca(&self, reference: &CaRef) -> Result<String, Unresolved> {
        let CaRef { kind, name, key } = reference;
        let (holder, pem) = match kind {
            CaKind::Secret => {
                let secret = self.secret(name).await?;
                (format!("the Secret {name}"), text(&secret, name, key)?.expose_secret().to_owned())
            }
            CaKind::ConfigMap => {
                let map = self.references.config_map(self.namespace, name).await?;
                let map =
                    map.ok_or_else(|| Unresolved::RefNotFound { what: format!("the ConfigMap {name}") })?;
                let pem = map.get(key).cloned();
                let missing =
                    || Unresolved::RefNotFound { what: format!("the key {key} of the ConfigMap {name}") };
                (format!("the ConfigMap {name}"), pem.ok_or_else(missing)?)
            }
        };
        transport::trusted(&pem).map_err(|fault| Unresolved::SecretInvalidValue {
            name: holder,
            key: key.clone(),
            problem: format!("is no CA certificate: {}", fault.detail),
        })?;
        Ok(pem)
    }

    /// How connections are protected, with what the spec names for it.
    ///
    /// # Errors
    /// What is missing, or cannot serve.
    pub async fn tls(
        &self,
        mode: TlsMode,
        ca: Option<&CaRef>,
        client: Option<&SecretRef>,
    ) -> Result<TlsSettings, Unresolved> {
        let ca = match ca {
            Some(reference) => Some(self.ca(reference).await?),
            None => None,
        };
        let client = match client {
            Some(reference) => Some(self.client_certificate(reference).await?),
            None => None,
        };
        Ok(TlsSettings { mode, ca, client })
    }

    /// A client certificate as PEM that can be read, and its key.
    ///
    /// # Errors
    /// What is missing, or is no certificate.
    async fn client_certificate(&self, reference: &SecretRef) -> Result<(String, SecretString), Unresolved> {
        let name = &reference.name;
        let secret = self.secret(name).await?;
        let certificate = text(&secret, name, "tls.crt")?.expose_secret().to_owned();
        transport::certificates(&certificate).map_err(|fault| Unresolved::SecretInvalidValue {
            name: format!("the Secret {name}"),
            key: "tls.crt".to_owned(),
            problem: format!("is no client certificate: {}", fault.detail),
        })?;
        Ok((certificate, text(&secret, name, "tls.key")?))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use futures::{FutureExt, future::BoxFuture};
    use serde_json::json;

    use super::*;
    use crate::{
        api::{
            Reason,
            v1alpha1::{Database, ExternalApi},
        },
        cluster::{
            references::ConfigContent,
            resources::{NamedResource, NotSynced},
        },
    };

    /// Objects as a cache would have them.
    #[derive(Default)]
    struct Objects(HashMap<(Kind, String), NamedResource>);

    impl Objects {
        fn database(&mut self, name: &str, ready: Option<&str>, names: Vec<Reference>) {
            let condition = |status| {
                json!([{ "type": "Ready", "status": status, "reason": "Available", "message": "",
                         "lastTransitionTime": "2026-01-01T00:00:00Z" }])
            };
            let database: Database = serde_json::from_value(json!({
                "metadata": { "name": name, "namespace": "shop" },
                "spec": { "type": "redis", "host": "cache" },
                "status": { "conditions": ready.map(condition).unwrap_or(json!([])) },
            }))
            .expect("a Database");
            let mut resource = NamedResource::new(database);
            resource.references = names;
            self.0.insert((Kind::Database, name.to_owned()), resource);
        }

        fn get(&self, name: &str) -> Result<String, String> {
            let lookup = Lookup { references: self, namespace: "shop" };
            let found = lookup.resource::<Database>((Kind::ExternalApi, "billing"), "spec.x", name);
            found.map(|found| found.spec.host.clone().unwrap_or_default()).map_err(|error| error.to_string())
        }
    }

    impl References for Objects {
        fn secret<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, kube::Result<Option<Arc<SecretContent>>>> {
            std::future::ready(Ok(None)).boxed()
        }

        fn config_map<'a>(
            &'a self,
            _: &'a str,
            _: &'a str,
        ) -> BoxFuture<'a, kube::Result<Option<Arc<ConfigContent>>>> {
            std::future::ready(Ok(None)).boxed()
        }

        fn resource(&self, kind: Kind, _: &str, name: &str) -> Result<Option<NamedResource>, NotSynced> {
            Ok(self.0.get(&(kind, name.to_owned())).cloned())
        }
    }

    #[test]
    fn another_object_is_found_unless_it_is_missing_not_ready_or_of_another_kind() {
        let mut objects = Objects::default();
        objects.database("up", Some("True"), Vec::new());
        objects.database("new", None, Vec::new());
        objects.database("pending", Some("Unknown"), Vec::new());
        objects.database("down", Some("False"), Vec::new());
        for name in ["up", "new", "pending"] {
            assert_eq!(objects.get(name).as_deref(), Ok("cache"), "{name}");
        }
        assert_eq!(objects.get("down"), Err("the Database down is not ready".to_owned()));
        assert_eq!(objects.get("none"), Err("the Database none does not exist".to_owned()));
        let lookup = Lookup { references: &objects, namespace: "shop" };
        let other = lookup.resource::<ExternalApi>((Kind::Database, "x"), "spec.x", "up");
        assert_eq!(other.expect_err("of another kind").reason(), Reason::RefNotFound);
    }

    #[test]
    fn references_that_form_a_cycle_are_refused_and_named() {
        let mut objects = Objects::default();
        let back = vec![Reference::Resource(Kind::ExternalApi, "billing".to_owned())];
        objects.database("up", Some("True"), back);
        let path = "ExternalApi billing -> Database up -> ExternalApi billing";
        assert_eq!(objects.get("up"), Err(format!("spec.x: the references form a cycle: {path}")));
    }
}
