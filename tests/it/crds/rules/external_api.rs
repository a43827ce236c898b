//! The rules of an `ExternalApi`.

use authlink::api::{Managed, shared::Reference, v1alpha1::ExternalApi};
use serde_json::{Value, json};

use super::{Refused, manifest};

/// A spec that is right, with some fields set otherwise.
fn spec(changes: Value) -> Value {
    let mut spec = json!({ "endpoints": [{ "url": "https://api.example.com/v2" }] });
    let Value::Object(changes) = changes else { panic!("fields") };
    spec.as_object_mut().unwrap().extend(changes);
    spec
}

/// A rule that both say in the same words.
fn both(spec: Value, message: &'static str) -> Refused {
    (spec, message, message)
}

pub(super) fn refused() -> Vec<Refused> {
    [endpoints(), auth(), health(), policy()].concat()
}

fn endpoints() -> Vec<Refused> {
    let url = |url: &str| json!({ "endpoints": [{ "url": url }] });
    let wrong_url = |text: &str| both(url(text), "url must be an http or https URL without user");
    let many: Vec<_> =
        (0..17).map(|number| json!({ "url": format!("https://h{number}.example.com") })).collect();
    let plain = |tls: Value| json!({ "endpoints": [{ "url": "http://api.example.com" }], "tls": tls });
    vec![
        (json!({}), "spec.endpoints: Required value", "\"endpoints\" is a required property"),
        (json!({ "endpoints": [] }), "should have at least 1 items", "spec.endpoints: "),
        (json!({ "endpoints": many }), "must have at most 16 items", "spec.endpoints: "),
        (
            json!({ "endpoints": [{ "url": "http://a.example" }, { "url": "http://a.example" }] }),
            "spec.endpoints[1]: Duplicate value",
            "spec.endpoints[1]: is there twice",
        ),
        wrong_url("ftp://api.example.com"),
        wrong_url("https:///path"),
        wrong_url("https://user:password@api.example.com"),
        wrong_url("https://api.example.com?key=1"),
        wrong_url("https://api.example.com/v2#top"),
        wrong_url("https://api.example.com/a b"),
        wrong_url("https://[::1"),
        (url("https:"), "should be at least 8 chars long", "spec.endpoints[0].url: "),
        both(
            json!({ "endpoints": [{ "url": "http://a.example", "weight": 0 }] }),
            "endpoints must have at least one entry with a weight above 0",
        ),
        (
            json!({ "endpoints": [{ "url": "http://a.example", "weight": 1001 }] }),
            "less than or equal to 1000",
            "spec.endpoints[0].weight: value is greater than the maximum of 1000",
        ),
        (
            json!({ "endpoints": [{ "url": "http://a.example", "zone": "eu 1" }] }),
            "should match",
            "spec.endpoints[0].zone: value does not match",
        ),
        both(
            plain(json!({ "caRef": { "name": "ca" } })),
            "tls.caRef and tls.serverName have no effect on http",
        ),
        both(
            plain(json!({ "serverName": "a.example" })),
            "tls.caRef and tls.serverName have no effect on http",
        ),
        both(
            plain(json!({ "clientCertRef": { "name": "c" } })),
            "tls.clientCertRef needs an https url in every entry of endpoints",
        ),
        (
            spec(json!({ "tls": { "mode": "None" } })),
            "unknown field \"spec.tls.mode\"",
            "spec.tls.mode: there is no such field",
        ),
    ]
}

fn auth() -> Vec<Refused> {
    let auth = |auth: Value| spec(json!({ "auth": auth }));
    let value = json!({ "name": "s", "key": "k" });
    let api_key = |type_: &str, header: &str| {
        let token = if type_ == "ApiKey" { Value::Null } else { json!({ "tokenRef": value }) };
        auth(json!({ "type": type_, "bearer": token, "apiKey": { "header": header, "keyRef": value } }))
    };
    let oauth2 = |changes: Value| {
        let mut oauth2 =
            json!({ "tokenUrl": "https://login.example.com", "clientId": "a", "clientSecretRef": value });
        oauth2.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        auth(json!({ "type": "OAuth2ClientCredentials", "oauth2": oauth2 }))
    };
    vec![
        (
            auth(json!({ "type": "Digest" })),
            "Unsupported value: \"Digest\"",
            "spec.auth.type: must be one of",
        ),
        both(auth(json!({ "type": "Bearer" })), "auth.bearer must be set if and only if"),
        both(auth(json!({ "bearer": { "tokenRef": value } })), "auth.bearer must be set if and only if"),
        both(
            auth(json!({ "type": "BearerAndApiKey", "bearer": { "tokenRef": value } })),
            "auth.apiKey must be set if and only if auth.type is ApiKey or BearerAndApiKey",
        ),
        both(
            auth(json!({ "type": "None", "apiKey": { "keyRef": value } })),
            "auth.apiKey must be set if and only if auth.type is ApiKey or BearerAndApiKey",
        ),
        both(auth(json!({ "type": "Basic" })), "auth.basic must be set if and only if auth.type is Basic"),
        both(
            auth(json!({ "type": "Mtls", "basic": { "secretRef": { "name": "s" } } })),
            "auth.basic must be set if and only if auth.type is Basic",
        ),
        both(
            auth(json!({ "type": "OAuth2ClientCredentials" })),
            "auth.oauth2 must be set if and only if auth.type is OAuth2ClientCredentials",
        ),
        both(auth(json!({ "type": "Mtls" })), "auth.type Mtls needs tls.clientCertRef"),
        both(
            api_key("ApiKey", "Content-Length"),
            "auth.apiKey.header must not be a header that HTTP itself uses",
        ),
        both(api_key("ApiKey", "HOST"), "auth.apiKey.header must not be a header that HTTP itself uses"),
        both(
            api_key("BearerAndApiKey", "authorization"),
            "auth.apiKey.header must not be Authorization, which carries auth.bearer",
        ),
        (api_key("ApiKey", "X Key"), "should match", "spec.auth.apiKey.header: value does not match"),
        (
            auth(json!({ "type": "Bearer", "bearer": { "tokenRef": { "name": "s" } } })),
            "spec.auth.bearer.tokenRef.key: Required value",
            "spec.auth.bearer.tokenRef: \"key\" is a required property",
        ),
        (
            auth(json!({ "type": "Bearer", "bearer": { "token": "in the clear" } })),
            "unknown field \"spec.auth.bearer.token\"",
            "spec.auth.bearer.token: there is no such field",
        ),
        both(
            oauth2(json!({ "tokenUrl": "https://a@login.example.com" })),
            "auth.oauth2.tokenUrl must be an http or https URL",
        ),
        (
            oauth2(json!({ "scopes": ["a b"] })),
            "should match",
            "spec.auth.oauth2.scopes[0]: value does not match",
        ),
        (
            oauth2(json!({ "scopes": ["a", "a"] })),
            "spec.auth.oauth2.scopes[1]: Duplicate value",
            "spec.auth.oauth2.scopes[1]: is there twice",
        ),
        both(
            oauth2(json!({ "clientAuth": "PrivateKeyJwt", "privateKeyJwt": { "keyRef": value } })),
            "auth.oauth2.clientSecretRef must be set if and only if auth.oauth2.clientAuth is Basic or Post",
        ),
        both(
            oauth2(json!({ "privateKeyJwt": { "keyRef": value } })),
            "auth.oauth2.privateKeyJwt must be set if and only if auth.oauth2.clientAuth is PrivateKeyJwt",
        ),
        both(
            oauth2(json!({ "tokenUrl": "http://login.example.com", "caRef": { "name": "ca" } })),
            "auth.oauth2.caRef needs an https URL in auth.oauth2.tokenUrl",
        ),
        both(
            oauth2(json!({ "params": { "client_secret": "a" } })),
            "auth.oauth2.params must not contain audience",
        ),
        both(
            oauth2(json!({ "params": { "a b": "c" } })),
            "auth.oauth2.params must have parameter names as keys",
        ),
    ]
}

fn health() -> Vec<Refused> {
    let check = |check: Value| spec(json!({ "healthCheck": check }));
    let http = |http: Value| check(json!({ "http": http }));
    vec![
        both(
            check(json!({ "interval": "5s", "timeout": "5s" })),
            "healthCheck.timeout must be shorter than healthCheck.interval",
        ),
        both(check(json!({ "interval": "2m", "timeout": "31s" })), "healthCheck.timeout must be at most 30s"),
        both(check(json!({ "type": "Tcp", "http": {} })), "healthCheck.http needs healthCheck.type Http"),
        both(
            check(json!({ "type": "None", "authenticated": true })),
            "healthCheck.authenticated needs healthCheck.type Http",
        ),
        both(http(json!({ "scheme": "Https" })), "healthCheck.http.scheme must not be set"),
        both(
            http(json!({ "headers": { "authorization": "Bearer a" } })),
            "healthCheck.http.headers must not contain Authorization",
        ),
        both(
            http(json!({ "headers": { "X Probe": "1" } })),
            "healthCheck.http.headers must have header names as keys",
        ),
        (http(json!({ "host": "a/b" })), "should match", "spec.healthCheck.http.host: value does not match"),
        both(
            http(json!({ "method": "HEAD", "expectedBody": "ok" })),
            "healthCheck.http.expectedBody cannot be used with method HEAD",
        ),
        both(
            http(json!({ "expectedStatuses": ["204", "299-200"] })),
            "healthCheck.http.expectedStatuses must have ranges with the lower status code first",
        ),
        (
            http(json!({ "expectedStatuses": ["2xx"] })),
            "should match",
            "spec.healthCheck.http.expectedStatuses[0]: value does not match",
        ),
        (
            http(json!({ "expectedStatuses": ["100"] })),
            "should match",
            "spec.healthCheck.http.expectedStatuses[0]: value does not match",
        ),
        (
            http(json!({ "method": "POST" })),
            "Unsupported value",
            "spec.healthCheck.http.method: must be one of",
        ),
        (
            http(json!({ "path": "healthz" })),
            "should match",
            "spec.healthCheck.http.path: value does not match",
        ),
        (http(json!({ "path": "/a#b" })), "should match", "spec.healthCheck.http.path: value does not match"),
    ]
}

fn policy() -> Vec<Refused> {
    let allow = |path: &str| spec(json!({ "allow": [{ "methods": ["GET"], "pathPrefix": path }] }));
    let dots = |path: &str| both(allow(path), "allow.pathPrefix must not contain //, /./ or /../");
    let many: Vec<_> =
        (0..65).map(|number| json!({ "methods": ["GET"], "pathPrefix": format!("/{number}") })).collect();
    vec![
        both(
            spec(json!({ "allow": [{ "methods": ["POST"], "pathPrefix": "/", "webSocket": true }] })),
            "allow.webSocket needs GET in allow.methods",
        ),
        (
            spec(json!({ "rateLimit": { "per": "1s" } })),
            "spec.rateLimit.requests: Required value",
            "spec.rateLimit: \"requests\" is a required property",
        ),
        (
            spec(json!({ "rateLimit": { "requests": 0 } })),
            "greater than or equal to 1",
            "spec.rateLimit.requests: value is less than the minimum of 1",
        ),
        (
            spec(json!({ "circuitBreaker": { "failureThreshold": 101 } })),
            "less than or equal to 100",
            "spec.circuitBreaker.failureThreshold: value is greater than the maximum of 100",
        ),
        both(
            spec(json!({ "retry": { "backoff": { "initial": "6s" } } })),
            "retry.backoff.initial must be at most retry.backoff.max",
        ),
        (
            spec(json!({ "retry": { "on": ["404"] } })),
            "Unsupported value: \"404\"",
            "spec.retry.on[0]: must be one of",
        ),
        (
            spec(json!({ "retry": { "on": ["5xx", "5xx"] } })),
            "spec.retry.on[1]: Duplicate value",
            "spec.retry.on[1]: is there twice",
        ),
        (
            spec(json!({ "timeout": "0s" })),
            "must be a duration from 1ms to 24h",
            "must be a duration from 1ms to 24h",
        ),
        (
            spec(json!({ "allow": [{ "methods": [], "pathPrefix": "/" }] })),
            "should have at least 1 items",
            "spec.allow[0].methods: ",
        ),
        (
            spec(json!({ "allow": [{ "methods": ["CONNECT"], "pathPrefix": "/" }] })),
            "Unsupported value: \"CONNECT\"",
            "spec.allow[0].methods[0]: must be one of",
        ),
        (allow("invoices"), "should match", "spec.allow[0].pathPrefix: value does not match"),
        (allow("/%2e%2e/"), "should match", "spec.allow[0].pathPrefix: value does not match"),
        (allow("/a;b"), "should match", "spec.allow[0].pathPrefix: value does not match"),
        dots("//a"),
        dots("/a/../b"),
        dots("/a/."),
        (spec(json!({ "allow": many })), "must have at most 64 items", "spec.allow: "),
    ]
}

pub(super) fn good() -> Vec<Value> {
    let value = json!({ "name": "s", "key": "k" });
    vec![
        spec(json!({})),
        json!({ "endpoints": [
            { "url": "https://api.example.com:8443/v2", "weight": 0, "zone": "eu-1" },
            { "url": "http://192.0.2.1" },
            { "url": "http://[2001:db8::1]:80/a%20b" },
            { "url": "http://localhost/" },
        ] }),
        spec(json!({
            "auth": { "type": "BearerAndApiKey", "bearer": { "tokenRef": value }, "apiKey": { "keyRef": value } },
            "rateLimit": { "requests": 100 }, "circuitBreaker": {}, "retry": {},
            "allow": [{ "methods": ["GET", "POST"], "pathPrefix": "/invoices/.well-known" }],
        })),
        spec(json!({
            "auth": { "type": "ApiKey", "apiKey": { "header": "Authorization", "keyRef": value } },
            "healthCheck": { "type": "Tcp", "interval": "1m" },
        })),
        spec(json!({
            "auth": { "type": "Mtls" },
            "tls": { "caRef": { "name": "ca" }, "serverName": "a.example", "clientCertRef": { "name": "c" } },
            "healthCheck": { "http": {
                "path": "/healthz?full=1", "expectedStatuses": ["200-299", "404"], "expectedBody": "\"up\"",
            }, "authenticated": true },
        })),
        json!({
            "endpoints": [{ "url": "http://api.example.com", "host": "[::1]:8080" }],
            "tls": { "caRef": { "name": "ca" } },
            "healthCheck": { "http": { "host": "a_b.example:80", "headers": { "X-Probe": "1" } } },
            "allow": [{ "methods": ["GET"], "pathPrefix": "/", "encodedSlashes": true, "webSocket": true }],
            "auth": { "type": "OAuth2ClientCredentials", "oauth2": {
                "tokenUrl": "https://login.example.com/token?tenant=a", "clientId": "a", "clientSecretRef": value,
                "scopes": ["read", "https://api.example.com/.default"], "audience": "urn:api",
                "params": { "resource": "urn:billing" }, "caRef": { "name": "ca" },
            } },
        }),
    ]
}

#[test]
fn every_secret_and_config_map_that_an_api_names_is_a_reference() {
    let value = |name: &str| json!({ "name": name, "key": "k" });
    let api = manifest(
        "ExternalApi",
        &spec(json!({
            "auth": {
                "bearer": { "tokenRef": value("token") }, "apiKey": { "keyRef": value("key") },
                "basic": { "secretRef": { "name": "login" } },
                "oauth2": {
                    "tokenUrl": "", "clientId": "", "clientSecretRef": value("client"),
                    "caRef": { "name": "login-ca", "kind": "Secret" },
                },
            },
            "tls": { "caRef": { "name": "ca" }, "clientCertRef": { "name": "pair" } },
        })),
    );
    let api: ExternalApi = serde_json::from_value(api).unwrap();
    let secrets = ["token", "key", "login", "client", "pair"].map(|name| Reference::Secret(name.to_owned()));
    let authorities = [Reference::ConfigMap("ca".to_owned()), Reference::Secret("login-ca".to_owned())];
    let all = [&secrets[..], &authorities].concat();
    assert_eq!(api.references(), all);
}
