//! The manifests of `authlink check`, and the Secrets and ConfigMaps among them.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read,
    path::Path,
    sync::Arc,
};

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use secrecy::SecretSlice;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;

use super::schema::Schemas;
use crate::{
    api::{GROUP, Kind, for_each_kind, v1alpha1},
    cluster::{
        references::{ConfigContent, References, SecretContent, content_of},
        resources::{NamedResource, NotSynced},
    },
    domain::label::is_label,
};

/// A value from the environment for a key of a Secret: `NAME=VAR` or `NAME/KEY=VAR`.
#[derive(Clone, Debug)]
pub struct FromEnv {
    name: String,
    key: String,
    variable: String,
}

impl std::str::FromStr for FromEnv {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let usage = "must look like NAME=VARIABLE or NAME/KEY=VARIABLE";
        let (target, variable) = text.split_once('=').ok_or(usage)?;
        let (name, key) = target.split_once('/').unwrap_or((target, "password"));
        if [name, key, variable].iter().any(|part| part.is_empty()) || key.contains('/') {
            return Err(usage);
        }
        Ok(Self { name: name.to_owned(), key: key.to_owned(), variable: variable.to_owned() })
    }
}

/// What the files say.
#[derive(Default)]
pub struct Files {
    /// The objects of authlink's own kinds, in order.
    pub manifests: Vec<Manifest>,
    /// What manifests may name.
    pub references: FileReferences,
    /// What was passed over.
    pub notes: Vec<String>,
    seen: HashSet<(String, Name)>,
}

/// An object to check.
pub struct Manifest {
    /// Its `apiVersion`.
    pub api_version: String,
    /// Its kind.
    pub kind: String,
    /// Its namespace; `default` where it has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// All of it.
    pub value: Value,
}

/// Namespace and name.
type Name = (String, String);

/// Secrets and ConfigMaps from files and the environment.
#[derive(Default)]
pub struct FileReferences {
    secrets: HashMap<Name, Arc<SecretContent>>,
    config_maps: HashMap<Name, Arc<ConfigContent>>,
    /// By name alone, for namespaces whose files do not have the Secret.
    from_env: HashMap<String, Arc<SecretContent>>,
    /// The objects of the files, which other objects may name.
    resources: HashMap<(Kind, String, String), NamedResource>,
}

impl Files {
    /// Reads all of them; `-` is the standard input.
    ///
    /// # Errors
    /// The file and the document that cannot be read or used, without any of its values.
    pub fn read<P: AsRef<Path>>(
        paths: &[P],
        from_env: &[FromEnv],
        schemas: &Schemas,
    ) -> Result<Self, String> {
        let mut files = Self::default();
        // One for the whole run: two runs must not tell whether a secret is still the same.
        let salt = format!("{:032x}", rand::random::<u128>());
        for path in paths {
            let path = path.as_ref();
            let named =
                if path.as_os_str() == "-" { "standard input".into() } else { path.to_string_lossy() };
            let text = read(path).map_err(|error| format!("{named}: {error}"))?;
            for (index, document) in
                documents(&text).map_err(|error| format!("{named}: {error}"))?.iter().enumerate()
            {
                let place = format!("{named}, document {}", index + 1);
                files.take(document, &place, &salt, schemas)?;
            }
        }
        files.references.complete(from_env, &salt)?;
        Ok(files)
    }

    fn take(&mut self, document: &Value, place: &str, salt: &str, schemas: &Schemas) -> Result<(), String> {
        let text = |pointer| document.pointer(pointer).and_then(Value::as_str);
        let (Some(api_version), Some(kind)) = (text("/apiVersion"), text("/kind")) else {
            return Err(format!("{place}: is no manifest: apiVersion and kind are needed"));
        };
        // As `kubectl get -o yaml` prints several objects.
        if (api_version, kind) == ("v1", "List") {
            let items = document.get("items").and_then(Value::as_array);
            let take = |item| self.take(item, place, salt, schemas);
            return items.into_iter().flatten().try_for_each(take);
        }
        let ours = api_version == GROUP || api_version.starts_with(&format!("{GROUP}/"));
        let referable = api_version == "v1" && ["Secret", "ConfigMap"].contains(&kind);
        if !ours && !referable {
            self.notes.push(format!("{place}: {kind} ({api_version}) is not checked"));
            return Ok(());
        }
        if ours && schemas.kind(api_version, kind).is_none() {
            let known = schemas.names().join(", ");
            return Err(format!("{place}: this version does not know {kind} ({api_version}), only {known}"));
        }
        let Some(name) = text("/metadata/name").filter(|name| !name.is_empty()) else {
            return Err(format!("{place}: the {kind} needs a metadata.name"));
        };
        if name.len() > 253 || !name.split('.').all(is_label) {
            return Err(format!(
                "{place}: the {kind} cannot have the metadata.name {name:?}: use at most 253 lower-case letters, digits, \
                 \"-\" and \".\", with a letter or digit at the ends and beside each \".\""
            ));
        }
        let namespace = text("/metadata/namespace").filter(|name| !name.is_empty()).unwrap_or("default");
        if namespace.len() > 63 || !is_label(namespace) {
            return Err(format!(
                "{place}: the {kind} {name} cannot have the metadata.namespace {namespace:?}: use at most 63 lower-case \
                 letters, digits and \"-\", with a letter or digit at the ends"
            ));
        }
        let key = (namespace.to_owned(), name.to_owned());
        if !self.seen.insert((kind.to_owned(), key.clone())) {
            return Err(format!("{place}: the {kind} {namespace}/{name} is there twice"));
        }
        match kind {
            "Secret" if referable => {
                let mut secret: Secret = decode(document, place, kind, name)?;
                secret.metadata.uid = Some(salt.to_owned());
                self.references.secrets.insert(key, Arc::new(content_of(secret)));
            }
            "ConfigMap" if referable => {
                let map: ConfigMap = decode(document, place, kind, name)?;
                self.references.config_maps.insert(key, Arc::new(map.data.unwrap_or_default()));
            }
            _ => {
                let (api_version, kind) = (api_version.to_owned(), kind.to_owned());
                let (namespace, name) = key;
                let mut value = document.clone();
                // Of an exported manifest: what it said then is no finding of now.
                value.as_object_mut().and_then(|fields| fields.remove("status"));
                let resource =
                    Kind::from_name(&kind).and_then(|kind| Some((kind, named_resource(kind, &value)?)));
                if let Some((kind, resource)) = resource {
                    self.references.resources.insert((kind, namespace.clone(), name.clone()), resource);
                }
                self.manifests.push(Manifest { api_version, kind, namespace, name, value });
            }
        }
        Ok(())
    }
}

macro_rules! named_resource {
    ($($Kind:ident => $module:ident,)+) => {
        /// The object, if it can be read; what is wrong with it, its own check reports.
        fn named_resource(kind: Kind, document: &Value) -> Option<NamedResource> {
            match kind {
                $(Kind::$Kind => v1alpha1::$Kind::deserialize(document).ok().map(NamedResource::new),)+
            }
        }
    };
}

for_each_kind!(named_resource);

fn read(path: &Path) -> std::io::Result<String> {
    if path.as_os_str() != "-" {
        return std::fs::read_to_string(path);
    }
    let mut text = String::new();
    std::io::stdin().read_to_string(&mut text)?;
    Ok(text)
}

fn documents(text: &str) -> Result<Vec<Value>, String> {
    // A snippet of the place could show a password, and so could any text of the error that quotes what was found.
    let options = serde_saphyr::options! { with_snippet: false };
    serde_saphyr::from_multiple_with_options(text, options).map_err(|error| {
        let problem = match error {
            serde_saphyr::Error::DuplicateMappingKey { .. } => "has a key twice",
            _ => "is no valid YAML",
        };
        match error.location() {
            Some(place) => format!("{problem} (line {}, column {})", place.line(), place.column()),
            None => problem.to_owned(),
        }
    })
}

/// The error of the decoder would quote the value.
fn decode<T: DeserializeOwned>(document: &Value, place: &str, kind: &str, name: &str) -> Result<T, String> {
    let hint = match kind {
        "Secret" => "the values of data must be base64, those of stringData text",
        _ => "the values of data must be text",
    };
    T::deserialize(document).map_err(|_| format!("{place}: the {kind} {name} cannot be read: {hint}"))
}

impl FileReferences {
    /// Adds what comes from the environment: it wins over the files.
    fn complete(&mut self, from_env: &[FromEnv], salt: &str) -> Result<(), String> {
        let mut given = BTreeMap::<&str, BTreeMap<String, SecretSlice<u8>>>::new();
        for FromEnv { name, key, variable } in from_env {
            let value = std::env::var(variable)
                .map_err(|_| format!("--secret-from-env: the environment variable {variable} is not set"))?;
            given.entry(name).or_default().insert(key.clone(), SecretSlice::from(value.into_bytes()));
        }
        for (name, data) in given {
            for ((_, _), content) in self.secrets.iter_mut().filter(|((_, of), _)| of == name) {
                let mut merged = content.data.clone();
                merged.extend(data.clone());
                let (type_, uid) = (content.type_.clone(), content.uid.clone());
                *content = Arc::new(SecretContent { type_, uid, data: merged });
            }
            let content = SecretContent { type_: "Opaque".to_owned(), uid: salt.to_owned(), data };
            self.from_env.insert(name.to_owned(), Arc::new(content));
        }
        Ok(())
    }
}

impl References for FileReferences {
    fn secret<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<SecretContent>>>> {
        let found = self.secrets.get(&(namespace.to_owned(), name.to_owned()));
        let found = found.or_else(|| self.from_env.get(name)).cloned();
        std::future::ready(Ok(found)).boxed()
    }

    fn config_map<'a>(
        &'a self,
        namespace: &'a str,
        name: &'a str,
    ) -> BoxFuture<'a, kube::Result<Option<Arc<ConfigContent>>>> {
        let found = self.config_maps.get(&(namespace.to_owned(), name.to_owned())).cloned();
        std::future::ready(Ok(found)).boxed()
    }

    fn resource(&self, kind: Kind, namespace: &str, name: &str) -> Result<Option<NamedResource>, NotSynced> {
        Ok(self.resources.get(&(kind, namespace.to_owned(), name.to_owned())).cloned())
    }
}
