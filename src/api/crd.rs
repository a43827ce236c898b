//! Generates the CRDs from the Rust types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSON, JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use serde_json::json;

use super::{ConditionType, Managed, Reason, shared::Duration};

/// A CRD as a YAML document.
///
/// # Errors
/// A value that YAML cannot hold; no CRD has one.
pub fn to_yaml(crd: &CustomResourceDefinition) -> Result<String, serde_saphyr::SerializeError> {
    Ok(quote_keys(&serde_saphyr::to_string(crd)?))
}

/// Adds to a generated CRD what the derive macros leave out, and removes what the API server warns about.
pub(super) fn finish<K: Managed>(mut crd: CustomResourceDefinition) -> CustomResourceDefinition {
    for version in &mut crd.spec.versions {
        let Some(schema) = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut())
        else {
            continue;
        };
        tidy(schema);
        let of_spec = schema.properties.as_ref().and_then(|properties| properties.get("spec"));
        schema.description = of_spec.and_then(|spec| spec.description.clone());
        let status = schema.properties.as_mut().and_then(|properties| properties.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(json!({ "conditions": pending::<K>() })));
        }
    }
    crd
}

/// The conditions of a new object, all `Unknown/Pending`. They are the schema's default for `status`, so that an
/// object has them even while no operator runs, without a write. (The Gateway API does the same.)
fn pending<K: Managed>() -> Vec<serde_json::Value> {
    std::iter::once(ConditionType::Ready)
        .chain(K::CONDITIONS.iter().copied())
        .map(|kind| {
            json!({
                "type": kind.as_str(), "status": "Unknown", "reason": Reason::Pending.as_str(),
                "message": "waiting for the operator's first reconcile", "lastTransitionTime": "1970-01-01T00:00:00Z",
            })
        })
        .collect()
}

fn tidy(schema: &mut JSONSchemaProps) {
    let bounds = bounds(schema);
    // Without `nullable` the API server drops a null field; with it the null would be stored, and `has()` in a rule
    // would be true.
    schema.nullable = None;
    // The API server warns about formats that it does not know, and the bounds are more precise than `uint16`.
    if schema.type_.as_deref() == Some("integer")
        && !matches!(schema.format.as_deref(), Some("int32" | "int64"))
    {
        schema.format = None;
    }
    // `kubectl explain` prints descriptions, but neither bounds nor defaults. A description that already has bounds
    // ("; at least ...") gives those of a rule, which are narrower.
    let bounds = schema.description.as_mut().zip(bounds).filter(|(text, _)| !text.contains("; at "));
    if let Some((text, (low, high))) = bounds {
        text.extend([" From ", &low, " to ", &high, "."]);
    }
    if let (Some(text), Some(JSON(default))) = (&mut schema.description, &schema.default)
        && !default.is_object()
        && !default.is_array()
    {
        text.push_str(" Defaults to ");
        text.push_str(default.as_str().map_or_else(|| default.to_string(), str::to_owned).as_str());
        text.push('.');
    }
    for property in schema.properties.iter_mut().flat_map(|properties| properties.values_mut()) {
        tidy(property);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &mut schema.items {
        tidy(items);
    }
    if let Some(JSONSchemaPropsOrBool::Schema(values)) = &mut schema.additional_properties {
        tidy(values);
    }
}

/// The minimum and maximum of a number or a duration.
fn bounds(schema: &JSONSchemaProps) -> Option<(String, String)> {
    if schema.pattern.as_deref() == Some(Duration::PATTERN) {
        return Some(("1ms".to_owned(), "24h".to_owned()));
    }
    schema.minimum.zip(schema.maximum).map(|(low, high)| (low.to_string(), high.to_string()))
}

/// Quotes the keys that YAML 1.1, which kubectl and Helm read, parses as booleans.
fn quote_keys(yaml: &str) -> String {
    let mut text = String::with_capacity(yaml.len());
    // The indentation of the key of the block scalar that this line belongs to, if any.
    let mut block = None;
    for line in yaml.lines() {
        let bare = line.trim_start_matches([' ', '-']);
        let indent = line.len() - bare.len();
        if !bare.is_empty() && block.is_some_and(|key| line.len() - line.trim_start().len() <= key) {
            block = None;
        }
        match bare.split_once(':') {
            Some((key, rest)) if block.is_none() && is_yaml_boolean(key) => {
                text.extend([&line[..indent], "\"", key, "\":", rest]);
            }
            _ => text.push_str(line),
        }
        text.push('\n');
        let opens = [": >", ": >-", ": |", ": |-"].iter().any(|end| line.ends_with(end));
        if block.is_none() && opens {
            block = Some(indent);
        }
    }
    text
}

fn is_yaml_boolean(key: &str) -> bool {
    ["y", "n", "yes", "no", "on", "off", "true", "false"].contains(&key.to_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use super::quote_keys;

    #[test]
    fn keys_that_yaml_1_1_parses_as_booleans_are_quoted_and_block_scalars_are_unchanged() {
        let yaml = "on:\n  text: >-\n    off: as it\n    was\n  Yes: 1\n  only: on\n- n: 2\n- - no: 3\n";
        let quoted = "\"on\":\n  text: >-\n    off: as it\n    was\n  \"Yes\": 1\n  only: on\n- \"n\": 2\n- - \"no\": 3\n";
        assert_eq!(quote_keys(yaml), quoted);
    }
}
