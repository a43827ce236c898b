//! The binding Secret, in the form of the Service Binding specification for Kubernetes 1.1 (section "Well-known
//! Secret Entries").

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Secret;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;

use super::{
    TargetObservation,
    report::{has_role, preferred},
};
use crate::{
    api::{
        Reason,
        status::BindingStatus,
        v1alpha1::{
            Database,
            database::{Engine, TlsMode},
        },
    },
    backends::database::{Role, ServerSettings},
    cluster::owned::{Desired, Over, SecretData},
    controllers::{
        Error, ReconcileContext,
        owned::{OwnedOutcome, OwnedWriter},
    },
};

/// Makes the Secret what it should be: written, or gone. Gives what the status says of it, or what prevents it.
pub(super) async fn publish(
    writer: &OwnedWriter<Secret>,
    database: &Database,
    observed: &TargetObservation,
    cx: &ReconcileContext,
) -> Result<Result<Option<BindingStatus>, (Reason, String)>, Error> {
    let reported = database.status.as_ref().and_then(|status| status.common.binding.as_ref());
    let known = reported.map(|binding| binding.name.as_str());
    let Some(name) = database.binding_name() else {
        writer.remove(database, known, cx).await?;
        return Ok(Ok(None));
    };
    // Only a credential and a server that work are handed out; until then, what was handed out before stays.
    let ready = observed.verified.is_some() && is_decided(observed);
    let Some(desired) = ready.then(|| desired(name, observed)).flatten() else {
        return Ok(Ok(reported.cloned()));
    };
    Ok(match writer.write(database, desired, known, cx).await? {
        OwnedOutcome::Written(name) => Ok(Some(BindingStatus { name })),
        OwnedOutcome::Pending => Ok(reported.cloned()),
        OwnedOutcome::Conflict(name) => {
            Err((Reason::BindingConflict, format!("the Secret {name} exists and belongs to somebody else")))
        }
        OwnedOutcome::Refused(name) => {
            Err((Reason::BindingRefused, format!("the API server refuses the Secret {name}")))
        }
    })
}

/// The Secret that the status names, if it still is the object's own.
pub(super) fn kept(database: &Database, cx: &ReconcileContext) -> Option<BindingStatus> {
    let reported = database.status.as_ref()?.common.binding.clone()?;
    OwnedWriter::<Secret>::is_owned(database, &reported.name, cx).then_some(reported)
}

/// Whether it is known which of several servers is to be handed out: not while none works, nor while one that works
/// may yet say that it is the primary.
fn is_decided(observed: &TargetObservation) -> bool {
    let Some(preferred) = preferred(observed) else { return observed.targets.len() == 1 };
    has_role(preferred, Role::Primary)
        || observed.targets.iter().filter(|target| target.works()).all(|target| target.facts().is_some())
}

fn desired(name: String, observed: &TargetObservation) -> Option<Desired<Secret>> {
    let servers: Vec<_> = observed.targets.iter().map(|target| &target.settings.settings).collect();
    let server = &preferred(observed).or(observed.targets.first())?.settings.settings;
    let engine = server.engine.as_str();
    let mut data = BTreeMap::from([
        ("type", engine.to_owned()),
        ("provider", "authlink".to_owned()),
        ("host", server.host.clone()),
        ("port", server.port.to_string()),
        ("uri", uri(&servers, server)),
    ]);
    data.extend(server.database.clone().map(|database| ("database", database)));
    data.extend(server.credential.username.clone().map(|username| ("username", username)));
    let password = server.credential.password.as_ref();
    data.extend(password.map(|password| ("password", password.expose_secret().to_owned())));
    // Of the specification, `certificates` and `private-key` are the client's; it has no entry for the authorities to trust.
    data.extend(server.tls.ca.clone().map(|ca| ("ca.crt", ca)));
    if let Some((certificate, key)) = &server.tls.client {
        data.insert("certificates", certificate.clone());
        data.insert("private-key", key.expose_secret().to_owned());
    }
    let verified =
        observed.verified.map(|time| ("authlink.dev/verified-at".to_owned(), format!("{time:.0}")));
    let values = data.into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect();
    let data = SecretData { type_: format!("servicebinding.io/{engine}"), values };
    Some(Desired { name, annotations: verified.into_iter().collect(), data, over: Over::Any })
}

/// A URI as the engine's own clients take it; PostgreSQL and MongoDB take every server in it.
fn uri(servers: &[&ServerSettings], chosen: &ServerSettings) -> String {
    let engine = chosen.engine;
    let encode = |text: &str| utf8_percent_encode(text, NON_ALPHANUMERIC).to_string();
    let tls = chosen.tls.mode;
    let scheme = match engine {
        Engine::Redis if tls != TlsMode::None => "rediss",
        engine => engine.as_str(),
    };
    let login = match (&chosen.credential.username, &chosen.credential.password) {
        (None, None) => String::new(),
        (username, password) => {
            // Clients of Redis take an empty name for one that is meant.
            let username = username.as_deref().or((engine == Engine::Redis).then_some("default"));
            let username = username.map(encode).unwrap_or_default();
            let password = password.as_ref().map(|it| format!(":{}", encode(it.expose_secret())));
            format!("{username}{}@", password.unwrap_or_default())
        }
    };
    let hosts = match engine {
        Engine::Postgresql | Engine::Mongodb => {
            servers.iter().map(|server| server.endpoint()).collect::<Vec<_>>().join(",")
        }
        Engine::Mysql | Engine::Redis => chosen.endpoint(),
    };
    let database = chosen.database.as_deref().map(encode).unwrap_or_default();
    let tls = match (engine, tls) {
        (Engine::Postgresql, TlsMode::None) => Some("sslmode=disable"),
        (Engine::Postgresql, TlsMode::Require) => Some("sslmode=require"),
        (Engine::Postgresql, TlsMode::VerifyCa) => Some("sslmode=verify-ca"),
        (Engine::Postgresql, TlsMode::VerifyFull) => Some("sslmode=verify-full"),
        (Engine::Mysql, TlsMode::None) => Some("ssl-mode=DISABLED"),
        (Engine::Mysql, TlsMode::Require) => Some("ssl-mode=REQUIRED"),
        (Engine::Mysql, TlsMode::VerifyCa) => Some("ssl-mode=VERIFY_CA"),
        (Engine::Mysql, TlsMode::VerifyFull) => Some("ssl-mode=VERIFY_IDENTITY"),
        (Engine::Mongodb, TlsMode::None) => Some("tls=false"),
        (Engine::Mongodb, TlsMode::Require) => Some("tls=true&tlsAllowInvalidCertificates=true"),
        (Engine::Mongodb, TlsMode::VerifyCa) => Some("tls=true&tlsAllowInvalidHostnames=true"),
        (Engine::Mongodb, TlsMode::VerifyFull) => Some("tls=true"),
        (Engine::Redis, _) => None,
    };
    let source = chosen.auth_source.as_deref().map(|source| format!("authSource={}", encode(source)));
    let kept = chosen.options.iter().map(|(name, value)| format!("{name}={}", encode(value)));
    let options: Vec<_> = tls.map(str::to_owned).into_iter().chain(source).chain(kept).collect();
    let query = if options.is_empty() { String::new() } else { format!("?{}", options.join("&")) };
    format!("{scheme}://{login}{hosts}/{database}{query}")
}
