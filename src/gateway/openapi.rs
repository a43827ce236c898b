//! The `OpenAPI` 3.1 document of the routes.

use serde_json::{Map, Value, json};

use super::{
    family::{Families, Route},
    problem::ProblemKind,
};

/// The document.
#[must_use]
pub(super) fn document() -> Value {
    let mut paths: Map<_, _> =
        Families::routes().map(|route| (route.path.to_owned(), path_item(route))).collect();
    paths.insert("/openapi.json".to_owned(), own());
    let mut schemas = json!({ "Problem": problem() });
    Families::schemas().for_each(|more| merge(&mut schemas, more));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "authlink gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Calls what the objects of authlink.dev describe. Callers authenticate by a ServiceAccount token with \
                            the audience authlink, and need the permission that each operation names.",
        },
        "security": [{ "token": [] }],
        "paths": paths,
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": { "Problem": {
                "description": "a problem document (RFC 9457)",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            } },
            "schemas": schemas,
        },
    })
}

/// The operations of a route, with the names in its path and the permission that each needs.
fn path_item(route: &Route) -> Value {
    let mut item = (route.operations)();
    let permission = &route.permission;
    let needs = format!("Needs the permission to {} {}.", permission.verb, permission.resource());
    for (_, operation) in item.as_object_mut().into_iter().flatten() {
        let description = match operation["description"].as_str() {
            Some(description) => format!("{description} {needs}"),
            None => needs.clone(),
        };
        operation["description"] = description.into();
    }
    let names = route.path.split('/').filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<_> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } }))
        .collect();
    item["parameters"] = parameters.into();
    item
}

fn own() -> Value {
    json!({ "get": {
        "operationId": "document", "summary": "This document", "security": [],
        "responses": { "200": { "description": "the document", "content": { "application/json": {} } } },
    } })
}

fn problem() -> Value {
    let types = ProblemKind::ALL.iter().map(|kind| format!("urn:authlink:{}", kind.as_str()));
    json!({
        "type": "object", "required": ["type", "title", "status", "detail"],
        "properties": {
            "type": { "type": "string", "enum": types.collect::<Vec<_>>() },
            "title": { "type": "string" },
            "status": { "type": "integer" },
            "detail": { "type": "string" },
        },
    })
}

fn merge(all: &mut Value, more: Value) {
    if let (Value::Object(all), Value::Object(more)) = (all, more) {
        all.extend(more);
    }
}
