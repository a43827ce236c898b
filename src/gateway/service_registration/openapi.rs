//! The part of the routes in `/openapi.json`.

use serde_json::{Value, json};

pub(super) fn schemas() -> Value {
    json!({ "Instance": {
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
            "load": { "type": "number", "description": "as in the status of the object, which may be half an hour old" },
        },
    } })
}

pub(super) fn find() -> Value {
    let content = json!({ "application/json": { "schema": {
        "type": "object",
        "properties": {
            "service": { "type": "string" },
            "instances": { "type": "array", "items": { "$ref": "#/components/schemas/Instance" } },
        },
    } } });
    let healthy =
        parameter("healthy", "boolean", "false: also those whose probes fail, and those that are drained");
    let parameters: Vec<_> = filter_parameters().into_iter().chain([healthy]).collect();
    operation("find", "Lists the instances of a service, the least loaded one first", &parameters, &content)
}

pub(super) fn watch() -> Value {
    let content = json!({ "text/event-stream": { "schema": { "$ref": "#/components/schemas/Instance" } } });
    let summary =
        "Reports the events register, deregister and health_change, beginning with the current instances";
    operation("watch", summary, &filter_parameters(), &content)
}

fn filter_parameters() -> [Value; 2] {
    [
        parameter("selector", "string", "labels, as kubectl takes them: version=2,!canary"),
        parameter("zone", "string", "only instances in this zone"),
    ]
}

fn parameter(name: &str, kind: &str, description: &str) -> Value {
    json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind } })
}

fn operation(id: &str, summary: &str, parameters: &[Value], content: &Value) -> Value {
    json!({ "get": {
        "operationId": id,
        "summary": summary,
        "description": "The resourceNames of a Role are names of services.",
        "parameters": parameters,
        "responses": {
            "200": { "description": "the instances", "content": content },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}
