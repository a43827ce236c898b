//! What the API server does with a manifest before it is stored, without the API server: strict decoding, defaults, the
//! schema and its CEL rules.

use jsonschema::{Draft, Validator, error::ValidationErrorKind};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::core::cel;
use serde_json::{Map, Value, json};

use crate::api::{GROUP, all_crds};

/// The kinds of this version.
pub struct Schemas(Vec<KindSchema>);

/// One version of one kind.
pub struct KindSchema {
    name: String,
    version: String,
    schema: Value,
    validator: Validator,
}

impl Schemas {
    /// Of every kind.
    ///
    /// # Errors
    /// A schema that cannot be used; a test shows that there is none.
    pub fn new() -> Result<Self, String> {
        let crds = all_crds();
        crds.iter().flat_map(KindSchema::versions).collect::<Result<_, _>>().map(Self)
    }

    /// The kind of this `apiVersion` and `kind`, if this version has it.
    #[must_use]
    pub fn kind(&self, api_version: &str, kind: &str) -> Option<&KindSchema> {
        let version = api_version.strip_prefix(GROUP)?.strip_prefix('/')?;
        self.0.iter().find(|known| known.name == kind && known.version == version)
    }

    /// Every kind, as users write it.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|kind| format!("{} ({GROUP}/{})", kind.name, kind.version)).collect()
    }
}

impl KindSchema {
    fn versions(crd: &CustomResourceDefinition) -> impl Iterator<Item = Result<Self, String>> {
        crd.spec.versions.iter().map(|version| {
            let schema = version.schema.as_ref().and_then(|schema| schema.open_api_v3_schema.as_ref());
            let schema = serde_json::to_value(schema).map_err(|error| error.to_string())?;
            let mut plain = schema.clone();
            make_plain(&mut plain);
            let validator = jsonschema::options()
                // The dialect that OpenAPI 3.0 extends.
                .with_draft(Draft::Draft4)
                .build(&plain)
                .map_err(|error| format!("the schema of {}: {error}", crd.spec.names.kind))?;
            Ok(Self { name: crd.spec.names.kind.clone(), version: version.name.clone(), schema, validator })
        })
    }

    /// As in `kind:`.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Gives the manifest its defaults, as the API server does, and tells everything that is wrong with it. No text
    /// repeats a value: a password may have got into the wrong field.
    pub fn admit(&self, manifest: &mut Value) -> Vec<String> {
        let mut problems = Vec::new();
        if let Value::Object(fields) = manifest {
            // What every kind has is no part of its schema; what the status says is the operator's.
            let common: Vec<_> = ["apiVersion", "kind", "metadata"]
                .into_iter()
                .filter_map(|name| fields.remove_entry(name))
                .collect();
            fields.remove("status");
            let mut walk = Walk { problems: &mut problems };
            walk.object(&self.schema, fields, "");
            fields.extend(common);
        }
        problems.extend(self.validator.iter_errors(manifest).map(|error| {
            let path = path_of(error.instance_path().as_str());
            match error.kind() {
                // Its own text cuts long lists short.
                ValidationErrorKind::Enum { options } => format!("{path}: must be one of {options}"),
                _ => format!("{path}: {}", error.masked()),
            }
        }));
        // As in the API server, rules are asked of what the schema lets through.
        if problems.is_empty()
            && let Err(errors) = cel::Validator::new().validate(&self.schema, manifest, None)
        {
            problems.extend(errors.iter().map(ToString::to_string));
        }
        problems
    }
}

/// Removes what JSON Schema does not know, or takes for something else.
fn make_plain(schema: &mut Value) {
    let Value::Object(keywords) = schema else { return };
    keywords.retain(|name, _| {
        !name.starts_with("x-kubernetes-") && !["default", "format", "description"].contains(&name.as_str())
    });
    if keywords.remove("nullable") == Some(Value::Bool(true))
        && let Some(type_) = keywords.get_mut("type")
    {
        *type_ = json!([type_, "null"]);
    }
    // In Rust's type of a schema every bound is a fraction, and users would read 65535.0.
    if keywords.get("type") == Some(&json!("integer")) {
        for name in ["minimum", "maximum"] {
            let whole = keywords.get(name).and_then(Value::as_f64).map(|bound| format!("{bound:.0}"));
            if let Some(whole) = whole.and_then(|text| text.parse::<i64>().ok()) {
                keywords.insert(name.to_owned(), json!(whole));
            }
        }
    }
    if let Some(Value::Object(properties)) = keywords.get_mut("properties") {
        properties.values_mut().for_each(make_plain);
    }
    for name in ["items", "additionalProperties", "not"] {
        keywords.get_mut(name).into_iter().for_each(make_plain);
    }
    for name in ["allOf", "anyOf", "oneOf"] {
        keywords.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().for_each(make_plain);
    }
}

/// One way down a manifest and its schema: removes nulls, sets defaults, finds unknown fields and duplicates.
struct Walk<'a> {
    problems: &'a mut Vec<String>,
}

impl Walk<'_> {
    fn value(&mut self, schema: &Value, value: &mut Value, path: &str) {
        match value {
            Value::Object(fields) => self.object(schema, fields, path),
            Value::Array(items) => self.list(schema, items, path),
            _ => {}
        }
    }

    fn object(&mut self, schema: &Value, fields: &mut Map<String, Value>, path: &str) {
        let empty = Map::new();
        let properties = schema.get("properties").and_then(Value::as_object).unwrap_or(&empty);
        fields.retain(|name, value| {
            let nullable = || properties.get(name).is_none_or(|of| of.get("nullable") == Some(&json!(true)));
            !value.is_null() || nullable()
        });
        for (name, of) in properties {
            // The default of a status is for the API server: it says that nobody has looked yet.
            if let (Some(default), false) = (of.get("default"), path.is_empty() && name == "status") {
                fields.entry(name).or_insert_with(|| default.clone());
            }
        }
        let others = schema.get("additionalProperties").filter(|of| of.is_object());
        let keeps = schema.get("x-kubernetes-preserve-unknown-fields") == Some(&json!(true));
        for (name, value) in fields.iter_mut() {
            let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
            match properties.get(name).or(others) {
                Some(schema) => self.value(schema, value, &path),
                None if keeps => {}
                None => self.problems.push(format!("{path}: there is no such field")),
            }
        }
    }

    fn list(&mut self, schema: &Value, items: &mut [Value], path: &str) {
        if let Some(of) = schema.get("items") {
            for (index, item) in items.iter_mut().enumerate() {
                self.value(of, item, &format!("{path}[{index}]"));
            }
        }
        let keys = schema.get("x-kubernetes-list-map-keys").and_then(Value::as_array);
        let key = |item: &Value| -> Option<Vec<Value>> {
            keys.map(|keys| {
                keys.iter().filter_map(|key| item.get(key.as_str()?)).cloned().collect::<Vec<_>>()
            })
        };
        let is_set = schema.get("x-kubernetes-list-type") == Some(&json!("set"));
        for (index, item) in items.iter().enumerate() {
            let again = |before: &Value| match key(item) {
                Some(key_of_item) => key(before) == Some(key_of_item),
                None => is_set && before == item,
            };
            if items.iter().take(index).any(again) {
                self.problems.push(format!("{path}[{index}]: is there twice"));
            }
        }
    }
}

/// From a JSON pointer to the way that the API server writes it: `spec.hosts[0].port`.
fn path_of(pointer: &str) -> String {
    let mut path = String::new();
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        if part.chars().all(|char| char.is_ascii_digit()) {
            path.extend(["[", &part, "]"]);
        } else {
            if !path.is_empty() {
                path.push('.');
            }
            path.push_str(&part);
        }
    }
    if path.is_empty() { "the manifest".to_owned() } else { path }
}
