//! The part of the routes in `/openapi.json`.

use serde_json::{Value, json};

const EVENT: &str = "#/components/schemas/Event";

pub(super) fn schemas() -> Value {
    json!({
        "Event": {
            "type": "object", "required": ["type"], "additionalProperties": false,
            "properties": {
                "type": { "type": "string", "description": "parts separated by dots, such as user.created" },
                "data": { "description": "any JSON, sent as it is" },
                "id": { "type": "string", "description": "an event of the same source and id is accepted once" },
                "source": { "type": "string" },
                "subject": { "type": "string" },
                "timestamp": { "type": "string", "format": "date-time" },
            },
        },
        "AcceptedEvent": {
            "type": "object", "required": ["id", "state", "webhooks"],
            "properties": {
                "id": { "type": ["string", "null"], "description": "the webhook-id of every delivery" },
                "state": { "enum": ["Accepted", "Duplicate", "Conflict"] },
                "webhooks": { "type": "array", "items": { "type": "object", "properties": {
                    "name": { "type": "string" }, "state": { "enum": ["Pending", "Held", "Skipped"] },
                } } },
            },
        },
        "Attempt": {
            "type": "object", "required": ["id", "eventId", "number", "origin", "time", "durationMs", "outcome", "host"],
            "properties": {
                "id": { "type": "integer" },
                "eventId": { "type": "string" },
                "number": { "type": "integer" },
                "origin": { "enum": ["Event", "Replay", "DeadLetter", "Test"] },
                "time": { "type": "string", "format": "date-time" },
                "durationMs": { "type": "integer" },
                "outcome": { "type": "string" },
                "status": { "type": ["integer", "null"] },
                "host": { "type": "string" },
                "detail": { "type": "string" },
                "response": { "type": "string", "description": "the first 4 KiB of the body, if the attempt failed" },
            },
        },
    })
}

pub(super) fn events() -> Value {
    let accepted = json!({ "$ref": "#/components/schemas/AcceptedEvent" });
    let body = json!({ "required": true, "content": {
        "application/json": { "schema": { "$ref": EVENT } },
        "application/cloudevents+json": { "schema": { "type": "object", "description": "CloudEvents 1.0" } },
        "application/cloudevents-batch+json": { "schema": { "type": "array", "maxItems": 500 } },
    } });
    json!({ "post": {
        "operationId": "accept",
        "summary": "Accepts events for the Webhooks of the namespace; 202 once they are on the disk",
        "description": "The permission is for all Webhooks of the namespace: a Role with resourceNames does not grant it.",
        "requestBody": body,
        "responses": {
            "202": { "description": "accepted", "content": { "application/json": { "schema": { "oneOf": [
                accepted, { "type": "object", "properties": { "events": { "type": "array", "items": accepted } } },
            ] } } } },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}

pub(super) fn test() -> Value {
    operation(
        "post",
        "test",
        "Sends one event, or an example, to the endpoint once",
        json!({ "requestBody": { "content": { "application/json": { "schema": { "$ref": EVENT } } } } }),
        "200",
        &json!({ "type": "object", "properties": {
            "eventId": { "type": "string" }, "outcome": { "type": "string" }, "status": { "type": ["integer", "null"] },
            "durationMs": { "type": "integer" }, "detail": { "type": "string" }, "response": { "type": "string" },
        } }),
    )
}

pub(super) fn attempts() -> Value {
    let parameter = |name: &str, kind: &str, description: &str| json!({ "name": name, "in": "query", "description": description, "schema": { "type": kind } });
    let parameters = json!({ "parameters": [
        parameter("outcome", "string", "only attempts with this outcome"),
        parameter("eventId", "string", "only attempts of this event"),
        parameter("before", "integer", "the next of the page before"),
        parameter("limit", "integer", "1 to 500; 100 by default"),
    ] });
    let schema = json!({ "type": "object", "properties": {
        "attempts": { "type": "array", "items": { "$ref": "#/components/schemas/Attempt" } },
        "next": { "type": ["integer", "null"] },
    } });
    operation(
        "get",
        "attempts",
        "Lists the attempts at the endpoint, the latest first",
        parameters,
        "200",
        &schema,
    )
}

pub(super) fn replay() -> Value {
    let body = json!({ "requestBody": { "required": true, "content": { "application/json": { "schema": {
        "type": "object", "additionalProperties": false,
        "properties": {
            "since": { "type": "string", "format": "date-time", "description": "events accepted from then on" },
            "until": { "type": "string", "format": "date-time" },
            "onlyFailed": { "type": "boolean", "default": true, "description": "only dead and skipped deliveries" },
            "eventId": { "type": "string" },
        },
    } } } } });
    let schema = json!({ "type": "object", "properties": { "replayed": { "type": "integer" } } });
    operation("post", "replay", "Delivers events to the endpoint again", body, "202", &schema)
}

fn operation(method: &str, id: &str, summary: &str, mut more: Value, status: &str, schema: &Value) -> Value {
    more["operationId"] = json!(id);
    more["summary"] = json!(summary);
    more["responses"] = json!({
        status: { "description": summary, "content": { "application/json": { "schema": schema } } },
        "default": { "$ref": "#/components/responses/Problem" },
    });
    json!({ method: more })
}
