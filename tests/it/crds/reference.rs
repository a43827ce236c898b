//! The field reference of `crds/README.md`, from the schemas.

use std::fmt::Write;

use authlink::api::Reason;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    CustomResourceDefinition, JSONSchemaProps, JSONSchemaPropsOrArray,
};
use serde_json::Value;

use crate::commands::root;

const HEAD: &str = "\
# Custom resources

Generated from the CRDs by the tests (`UPDATE_GOLDEN=1` regenerates it). All kinds are namespaced; `kubectl get auth-integrations` lists the
objects of every kind. [examples/](examples) has manifests to start from; `authlink check -f FILE` validates and probes a manifest
before you apply it.

Required fields are marked with \\*. References are to objects in the same namespace. `[]` stands for an item of a list.
";

/// The whole file.
pub(super) fn render(crds: &[CustomResourceDefinition]) -> String {
    let mut text = HEAD.to_owned();
    for crd in crds {
        let names = &crd.spec.names;
        for version in &crd.spec.versions {
            let schema = version.schema.as_ref().and_then(|it| it.open_api_v3_schema.as_ref()).unwrap();
            let short =
                names.short_names.iter().flatten().map(|name| format!("`{name}`")).collect::<Vec<_>>();
            write!(text, "\n## {} (`{}/{}`)\n\n", names.kind, crd.spec.group, version.name).unwrap();
            writeln!(text, "{}\n", schema.description.as_deref().unwrap_or_default()).unwrap();
            writeln!(text, "Short name: {}.", short.join(", ")).unwrap();
            for part in ["spec", "status"] {
                let fields = &schema.properties.as_ref().unwrap()[part];
                writeln!(text, "\n### {} {part}\n", names.kind).unwrap();
                for message in rules(fields) {
                    writeln!(text, "- Rule: {message}.").unwrap();
                }
                if !rules(fields).is_empty() {
                    text.push('\n');
                }
                text.push_str("| Field | Type | Default | Description |\n| --- | --- | --- | --- |\n");
                rows(fields, "", &mut text);
            }
        }
    }
    reasons(&mut text);
    text
}

const REASONS: &str = "
## Reasons

The reasons of conditions and Events, and the label `reason` of metrics. The message of a condition includes the remedy.

| Reason | Meaning | Remedy |
| --- | --- | --- |
";

fn reasons(text: &mut String) {
    text.push_str(REASONS);
    let source = std::fs::read_to_string(root().join("src/api/reason.rs")).unwrap();
    let lines: Vec<_> = source.lines().map(str::trim).collect();
    for reason in Reason::ALL {
        let name = reason.as_str();
        let place = lines.iter().position(|line| line.strip_suffix(',') == Some(name)).unwrap();
        let mut comment: Vec<_> =
            lines[..place].iter().rev().map_while(|line| line.strip_prefix("/// ")).collect();
        assert!(!comment.is_empty(), "{name} has no comment");
        comment.reverse();
        writeln!(text, "| `{name}` | {} | {} |", comment.join(" "), reason.remedy()).unwrap();
    }
}

fn rows(schema: &JSONSchemaProps, above: &str, text: &mut String) {
    for (name, field) in schema.properties.iter().flatten() {
        let required = schema.required.iter().flatten().any(|it| it == name);
        let path = if above.is_empty() { name.clone() } else { format!("{above}.{name}") };
        let default = scalar(field).map(|default| format!("`{default}`")).unwrap_or_default();
        let mut description =
            field.description.clone().unwrap_or_default().replace('|', "\\|").replace('\n', " ");
        // Both have their columns here.
        let bounds = field.minimum.zip(field.maximum).map(|(low, high)| format!(" From {low} to {high}."));
        let default_said = scalar(field).map(|default| format!(" Defaults to {default}."));
        for said in bounds.iter().chain(&default_said) {
            description = description.replace(said.as_str(), "");
        }
        if is_duration(field) {
            description = description.replace(" From 1ms to 24h.", "");
        }
        for message in rules(field) {
            write!(description, " Rule: {message}.").unwrap();
        }
        let mark = if required { " \\*" } else { "" };
        writeln!(text, "| `{path}`{mark} | {} | {default} | {description} |", type_of(field)).unwrap();
        rows(field, &path, text);
        if let Some(item) = item_of(field) {
            rows(item, &format!("{path}[]"), text);
        }
    }
}

fn item_of(schema: &JSONSchemaProps) -> Option<&JSONSchemaProps> {
    match &schema.items {
        Some(JSONSchemaPropsOrArray::Schema(item)) => Some(item),
        _ => None,
    }
}

fn rules(schema: &JSONSchemaProps) -> Vec<String> {
    // The type of a duration says it.
    let rules = schema.x_kubernetes_validations.iter().flatten().filter(|_| !is_duration(schema));
    rules.map(|rule| rule.message.clone().unwrap_or_else(|| rule.rule.clone())).collect()
}

fn is_duration(schema: &JSONSchemaProps) -> bool {
    schema.pattern.as_deref().is_some_and(|pattern| pattern.contains("(ms|s|m|h)"))
}

/// The default that users would write themselves; an object's is that of its fields.
fn scalar(schema: &JSONSchemaProps) -> Option<String> {
    match &schema.default.as_ref()?.0 {
        Value::Object(_) | Value::Array(_) => None,
        Value::String(text) => Some(text.clone()),
        other => Some(other.to_string()),
    }
}

fn type_of(schema: &JSONSchemaProps) -> String {
    if let Some(options) = &schema.enum_ {
        return options
            .iter()
            .map(|it| format!("`{}`", it.0.as_str().unwrap()))
            .collect::<Vec<_>>()
            .join(", ");
    }
    let bounds = |low: Option<String>, high: Option<String>, unit: &str| match (low, high) {
        (Some(low), Some(high)) if low == high => format!(", {low}{unit}"),
        (Some(low), Some(high)) => format!(", {low} to {high}{unit}"),
        (None, Some(high)) => format!(", at most {high}{unit}"),
        (Some(low), None) => format!(", at least {low}{unit}"),
        (None, None) => String::new(),
    };
    let whole = |bound: Option<f64>| bound.map(|bound| format!("{bound:.0}"));
    let count = |bound: Option<i64>| bound.map(|bound| bound.to_string());
    match schema.type_.as_deref().unwrap_or_default() {
        "array" => {
            let item = item_of(schema).map(type_of).unwrap_or_default();
            let key =
                schema.x_kubernetes_list_map_keys.iter().flatten().cloned().collect::<Vec<_>>().join(", ");
            let unique = if key.is_empty() { String::new() } else { format!(", unique by `{key}`") };
            format!(
                "list of {item}{}{unique}",
                bounds(count(schema.min_items), count(schema.max_items), " items")
            )
        }
        "string" if is_duration(schema) => "duration, 1ms to 24h, such as `1h30m`".to_owned(),
        "string" if schema.format.is_some() => schema.format.clone().unwrap(),
        "string" => {
            format!("string{}", bounds(count(schema.min_length), count(schema.max_length), " characters"))
        }
        kind => format!("{kind}{}", bounds(whole(schema.minimum), whole(schema.maximum), "")),
    }
}
