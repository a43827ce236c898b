//! Authorization servers: how clients authenticate, and what a token is for.

use authlink::api::v1alpha1::ExternalApi;
use k8s_openapi::api::core::v1::Secret;
use serde_json::{Value, json};

use super::{ALLOWED, Row, verify};
use crate::{
    http_api::nginx,
    support::{ApiServer, Namespace, Operator, SOON, condition, secret, tls_file},
};

/// An API, and a token endpoint with these fields; null removes one.
fn spec(server: &ApiServer, changes: &Value) -> Value {
    let mut oauth2 = json!({
        "tokenUrl": format!("http://127.0.0.1:{}/token", server.port),
        "clientId": "basic", "clientSecretRef": { "name": "client", "key": "secret" },
        "scopes": ["billing:read"], "params": { "resource": "urn:billing" },
    });
    for (name, value) in changes.as_object().expect("fields") {
        match value {
            Value::Null => drop(oauth2.as_object_mut().expect("fields").remove(name)),
            value => oauth2[name] = value.clone(),
        }
    }
    json!({
        "endpoints": [{ "url": nginx().0.replace("localhost", "127.0.0.1") }],
        "auth": { "type": "OAuth2ClientCredentials", "oauth2": oauth2 },
    })
}

fn secrets(server: &ApiServer) -> [Value; 1] {
    let rsa = std::fs::read_to_string(server.folder().join("data/rsa.pem")).expect("a key");
    let keys =
        [("secret", "app-secret"), ("wrong", "hunter2"), ("ec", &tls_file("client.key")), ("rsa", &rsa)];
    [secret("client", "Opaque", &keys)]
}

#[tokio::test]
async fn a_client_authenticates_as_its_server_wants_it_and_a_refusal_is_the_object_s() {
    let server = ApiServer::start("oidc-provider");
    let tls = format!("https://127.0.0.1:{}/token", server.port + 1);
    let signer = |id: &str, key: &str, more: Value| {
        let mut jwt = json!({ "keyRef": { "name": "client", "key": key } });
        jwt.as_object_mut().expect("fields").extend(more.as_object().expect("fields").clone());
        json!({ "clientId": id, "clientAuth": "PrivateKeyJwt", "clientSecretRef": null, "privateKeyJwt": jwt })
    };
    let own_ca = |spec: Value| {
        let mut spec = spec;
        spec["auth"]["oauth2"]["tokenUrl"] = json!(tls);
        spec
    };
    let issuer = json!({ "keyId": "ec", "audience": format!("http://127.0.0.1:{}", server.port) });
    let with = |changes: Value| spec(&server, &changes);
    let rows = [
        Row::works("basic", with(json!({}))),
        Row::works("post", with(json!({ "clientId": "post", "clientAuth": "Post" }))),
        Row::works("es256", with(signer("signer", "ec", json!({})))),
        Row::works("es256-for-the-issuer", with(signer("signer", "ec", issuer))),
        Row::works("rs256", with(signer("signer-rsa", "rsa", json!({ "keyId": "rsa" })))),
        Row::works("own-authority", own_ca(with(json!({ "caRef": { "name": "ca" } })))),
        Row::fails("public-authority", own_ca(with(json!({}))), "TlsFailed", "token endpoint: "),
        Row::fails(
            "post-by-basic",
            with(json!({ "clientId": "post" })),
            "AuthenticationFailed",
            "token endpoint: the client was refused (invalid_client) with auth.oauth2.clientAuth Basic",
        ),
        Row::fails(
            "wrong-secret",
            with(json!({ "clientSecretRef": { "name": "client", "key": "wrong" } })),
            "AuthenticationFailed",
            "token endpoint: the client was refused (invalid_client)",
        ),
        Row::fails(
            "wrong-key",
            with(signer("signer", "rsa", json!({}))),
            "AuthenticationFailed",
            "with auth.oauth2.clientAuth PrivateKeyJwt",
        ),
        Row::fails(
            "no-key",
            with(signer("signer", "secret", json!({}))),
            "SecretInvalidValue",
            "the private key is not a PEM",
        ),
        Row::fails(
            "no-resource",
            with(json!({ "params": null })),
            "PermissionDenied",
            "the request was refused (invalid_target); check auth.oauth2.scopes, audience and params",
        ),
    ];
    verify::<ExternalApi>(&rows, &secrets(&server)).await;
}

#[tokio::test]
async fn a_token_endpoint_that_goes_away_is_told_and_the_endpoints_stay_in_the_slice() {
    let server = ApiServer::start("oidc-provider");
    let namespace = Namespace::create().await;
    for secret in secrets(&server) {
        namespace.apply::<Secret>(secret).await;
    }
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    let mut spec = spec(&server, &json!({}));
    spec["healthCheck"] = json!({ "interval": "1s", "timeout": "900ms", "healthyThreshold": 1 });
    let row = Row::works("billing", spec.clone());
    let mut manifest = row.manifest("ExternalApi");
    manifest["spec"]["healthCheck"] = spec["healthCheck"].clone();
    namespace.apply::<ExternalApi>(manifest.clone()).await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;

    // The tokens of another client are others, and there is none to be had.
    server.kill();
    manifest["spec"]["auth"]["oauth2"].as_object_mut().expect("fields").remove("scopes");
    namespace.apply::<ExternalApi>(manifest.clone()).await;
    let wanted = [("Ready", "False", "ConnectionRefused"), ("Healthy", "True", "ProbeSucceeded")];
    let api = namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    let message = &condition(&api, "Connected").expect("Connected").message;
    assert!(message.starts_with("token endpoint: the connection was refused"), "{message}");
    assert!(api.status.expect("a status").common.endpoints[0].ready, "the API itself is there");
}

#[tokio::test]
async fn a_changed_client_secret_is_tried_first_and_a_wrong_one_leaves_the_old_one_in_use() {
    let server = ApiServer::start("oidc-provider");
    let namespace = Namespace::create().await;
    let _operator = Operator::start(&namespace, &ALLOWED).await;
    let client = |value: &str| secret("client", "Opaque", &[("secret", value)]);
    namespace.apply::<Secret>(client("app-secret")).await;
    namespace
        .apply::<ExternalApi>(Row::works("billing", spec(&server, &json!({}))).manifest("ExternalApi"))
        .await;
    namespace.expect_of::<ExternalApi>("billing", &[("Ready", "True", "Available")]).await;
    namespace.apply::<Secret>(client("hunter2")).await;
    let wanted = [("Ready", "True", "Available"), ("Degraded", "True", "PreviousCredentialInUse")];
    let api = namespace.expect_of::<ExternalApi>("billing", &wanted).await;
    let message = &condition(&api, "Degraded").expect("Degraded").message;
    assert!(message.contains("the client was refused (invalid_client)"), "{message}");
    namespace.apply::<Secret>(client("app-secret")).await;
    let well = |api: &ExternalApi| condition(api, "Degraded").is_none();
    namespace.follow("billing", SOON, "the secret that works", well).await;
}
