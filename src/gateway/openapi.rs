//! The OpenAPI 3.1 document of the routes.

use serde_json::{Value, json};

use super::problem::Kind;

/// The document.
#[must_use]
pub(super) fn document() -> Value {
    let problems = Kind::ALL.iter().map(|kind| format!("urn:authlink:{}", kind.as_str()));
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "authlink gateway",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Calls what the objects of authlink.dev describe. Callers show a ServiceAccount token with the audience \
                            authlink, and need the permission that each route names.",
        },
        "security": [{ "token": [] }],
        "paths": {
            "/v1/apis/{namespace}/{name}/{path}": apis(),
            "/v1/databases/{namespace}/{name}/queries/{query}": { "post": queries() },
            "/v1/discovery/{namespace}/{service}": { "get": discovery(
                "find", "Lists the instances of a service, the least loaded one first",
                &json!({ "application/json": { "schema": {
                    "type": "object",
                    "properties": {
                        "service": { "type": "string" },
                        "instances": { "type": "array", "items": { "$ref": "#/components/schemas/Instance" } },
                    },
                } } }),
            ) },
            "/v1/discovery/{namespace}/{service}/watch": { "get": discovery(
                "watch", "Tells of register, deregister and health_change, beginning with what is there",
                &json!({ "text/event-stream": { "schema": { "$ref": "#/components/schemas/Instance" } } }),
            ) },
            "/openapi.json": { "get": {
                "operationId": "document", "summary": "This document", "security": [],
                "responses": { "200": { "description": "the document", "content": { "application/json": {} } } },
            } },
        },
        "components": {
            "securitySchemes": { "token": { "type": "http", "scheme": "bearer", "bearerFormat": "JWT" } },
            "responses": { "Problem": {
                "description": "what went wrong (RFC 9457)",
                "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
            } },
            "schemas": {
                "Problem": {
                    "type": "object", "required": ["type", "title", "status", "detail"],
                    "properties": {
                        "type": { "type": "string", "enum": problems.collect::<Vec<_>>() },
                        "title": { "type": "string" },
                        "status": { "type": "integer" },
                        "detail": { "type": "string" },
                    },
                },
                "Rows": {
                    "type": "object", "required": ["rows", "truncated", "affected"],
                    "properties": {
                        "rows": { "type": "array" },
                        "truncated": { "type": "boolean", "description": "there were more rows than maxRows" },
                        "affected": { "type": ["integer", "null"], "description": "rows that a statement without rows has changed" },
                    },
                },
                "Instance": {
                    "type": "object", "required": ["instanceId", "addresses", "ports", "weight", "labels", "healthy", "draining"],
                    "properties": {
                        "instanceId": { "type": "string" },
                        "addresses": { "type": "array", "items": { "type": "string" } },
                        "ports": { "type": "array", "items": { "type": "object", "properties": {
                            "name": { "type": "string" }, "port": { "type": "integer" }, "appProtocol": { "type": "string" },
                        } } },
                        "zone": { "type": "string" },
                        "weight": { "type": "integer" },
                        "labels": { "type": "object", "additionalProperties": { "type": "string" } },
                        "healthy": { "type": "boolean" },
                        "draining": { "type": "boolean" },
                        "load": { "type": "number", "description": "As the status last had it, which may be half an hour ago" },
                    },
                },
            },
        },
    })
}

fn parameters(names: &[&str]) -> Vec<Value> {
    let of =
        |name: &&str| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string" } });
    names.iter().map(of).collect()
}

fn apis() -> Value {
    let mut methods = serde_json::Map::new();
    for method in ["get", "head", "post", "put", "patch", "delete", "options"] {
        let operation = json!({
            "operationId": format!("{method}Api"),
            "summary": "Calls an ExternalApi, within its spec.allow: needs create externalapis/invoke",
            "responses": {
                "default": { "description": "what the API answers; a problem document (RFC 9457) where it was not reached" },
            },
        });
        methods.insert(method.to_owned(), operation);
    }
    let mut parameters = parameters(&["namespace", "name", "path"]);
    parameters[2]["description"] =
        "with slashes as they are: a client that escapes them as %2F, as generated ones do, is refused"
            .into();
    methods.insert("parameters".to_owned(), parameters.into());
    methods.into()
}

fn queries() -> Value {
    json!({
        "operationId": "query",
        "summary": "Runs a declared query of a Database: needs create databases/query",
        "parameters": parameters(&["namespace", "name", "query"]),
        "requestBody": { "content": { "application/json": { "schema": {
            "type": "object", "additionalProperties": false,
            "properties": { "params": { "type": "array", "description": "the values of spec.queries[].params, in order" } },
        } } } },
        "responses": {
            "200": {
                "description": "the rows, as one document or by `Accept: application/x-ndjson` a line each, and a last line with $end or $problem",
                "content": {
                    "application/json": { "schema": { "$ref": "#/components/schemas/Rows" } },
                    "application/x-ndjson": {},
                },
            },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    })
}

fn discovery(id: &str, summary: &str, content: &Value) -> Value {
    let mut parameters = parameters(&["namespace", "service"]);
    for (name, kind, what) in [
        ("selector", "string", "labels, as kubectl takes them: version=2,!canary"),
        ("zone", "string", "only instances there"),
        ("healthy", "boolean", "false for all, whatever their probes say"),
    ] {
        // A watch tells of what becomes unhealthy, too.
        if id == "find" || name != "healthy" {
            parameters.push(
                json!({ "name": name, "in": "query", "description": what, "schema": { "type": kind } }),
            );
        }
    }
    json!({
        "operationId": id,
        "summary": format!("{summary}: needs get serviceregistrations, with the service as the resource's name"),
        "parameters": parameters,
        "responses": {
            "200": { "description": "the instances", "content": content },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    })
}
