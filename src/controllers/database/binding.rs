//! The binding Secret, in the form of the Service Binding specification for Kubernetes 1.1 (section "Well-known
//! Secret Entries").

use std::collections::{BTreeMap, HashMap};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{Resource, ResourceExt};
use parking_lot::Mutex;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use secrecy::ExposeSecret;
use sha2::{Digest, Sha256};

use super::{
    TargetObservation,
    report::{chosen, is},
};
use crate::{
    api::{
        Reason,
        status::EndpointStatus,
        v1alpha1::{
            Database,
            database::{Engine, TlsMode},
        },
    },
    backends::database::{Role, ServerSettings},
    cluster::{
        objects::refusal,
        secrets::{self, Desired, owned_by},
    },
    controllers::{Context, Error, targets::works},
};

/// What was written for each object, so that a pass without a change writes nothing.
#[derive(Default)]
pub(super) struct Bindings(Mutex<HashMap<String, Written>>);

/// The Secret's name, or what stands in its way.
type PublishOutcome = Result<Option<String>, (Reason, String)>;

#[derive(Clone, PartialEq)]
struct Written {
    name: String,
    secret: Option<String>,
    version: String,
    content: [u8; 32],
}

impl Written {
    fn of(name: &str, meta: &ObjectMeta, content: [u8; 32]) -> Option<Self> {
        let version = meta.resource_version.clone()?;
        Some(Self { name: name.to_owned(), secret: meta.uid.clone(), version, content })
    }
}

impl Bindings {
    /// Makes the Secret what it should be: written, or gone. Gives its name, or what stands in the way. `told` is the
    /// status of each server.
    pub(super) async fn settle(
        &self,
        database: &Database,
        look: &TargetObservation,
        told: &[EndpointStatus],
        cx: &Context,
    ) -> Result<PublishOutcome, Error> {
        let wanted = database.binding_name();
        let known = database.status.as_ref().and_then(|status| status.common.binding.as_ref());
        let known = known.map(|binding| binding.name.clone());
        let written = self.written(&database.uid().unwrap_or_default());
        if let Some(name) = &wanted {
            // Only a credential and a server that work are handed out; until then, what was handed out before stays.
            if look.verified.is_none() || !is_settled(look, told) {
                return Ok(Ok(known));
            }
            let settled = self.write(database, desired(name.clone(), look, told), cx).await?;
            if settled.is_err() {
                return Ok(settled);
            }
        }
        // What has another name goes last: whoever uses it finds the new one by then.
        let other = |name: &str| Some(name) != wanted.as_deref();
        if let Some(old) = written.filter(|old| other(&old.name)) {
            self.remove_written(database, old, cx).await?;
        }
        if let Some(old) = known.filter(|old| other(old)) {
            self.remove(database, &old, cx).await?;
        }
        Ok(Ok(wanted))
    }

    /// The Secret that the status names, if it still is the object's own.
    pub(super) fn kept(database: &Database, cx: &Context) -> Option<String> {
        let name = &database.status.as_ref()?.common.binding.as_ref()?.name;
        let secret = cx.references.secret_meta(&database.namespace()?, name)?;
        owned_by(&secret.metadata, &database.uid()?).then(|| name.clone())
    }

    async fn write(
        &self,
        database: &Database,
        desired: Desired,
        cx: &Context,
    ) -> Result<PublishOutcome, Error> {
        let (uid, namespace) = (database.uid().unwrap_or_default(), database.namespace().unwrap_or_default());
        let name = desired.name.clone();
        let existing = cx.references.secret_meta(&namespace, &name);
        if existing.as_ref().is_some_and(|secret| !owned_by(&secret.metadata, &uid)) {
            let problem = format!("the Secret {name} exists and belongs to somebody else");
            return Ok(Err((Reason::BindingConflict, problem)));
        }
        let content = digest(&desired);
        let existing = existing.as_ref();
        let written = existing.and_then(|secret| Written::of(&name, &secret.metadata, content));
        if written.is_some() && self.written(&uid) == written {
            return Ok(Ok(Some(name)));
        }
        let Some(owner) = database.controller_owner_ref(&()) else { return Ok(Ok(None)) };
        cx.fence.check()?;
        match secrets::write(&cx.client, &namespace, owner, desired, existing.is_some()).await {
            // Made this moment, by us or by somebody else: the watch tells which, and starts another pass.
            Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(Ok(Some(name))),
            // The database itself is fine.
            Err(error) if refusal(&error).is_some() => {
                Ok(Err((Reason::BindingRefused, format!("the API server refuses the Secret {name}"))))
            }
            answer => {
                let written = Written::of(&name, &answer?.metadata, content);
                let mut all = self.0.lock();
                all.extend(written.map(|written| (uid, written)));
                drop(all);
                Ok(Ok(Some(name)))
            }
        }
    }

    /// Removes what this process status_written: neither status nor caches need to know of it yet.
    async fn remove_written(&self, database: &Database, old: Written, cx: &Context) -> Result<(), Error> {
        cx.fence.check()?;
        let namespace = database.namespace().unwrap_or_default();
        secrets::delete(&cx.client, &namespace, &old.name, old.secret).await?;
        self.forget_named(database, &old.name);
        Ok(())
    }

    async fn remove(&self, database: &Database, name: &str, cx: &Context) -> Result<(), Error> {
        let uid = database.uid().unwrap_or_default();
        let namespace = database.namespace().unwrap_or_default();
        self.forget_named(database, name);
        match cx.references.secret_meta(&namespace, name) {
            Some(secret) if owned_by(&secret.metadata, &uid) => {
                cx.fence.check()?;
                Ok(secrets::delete(&cx.client, &namespace, name, secret.uid()).await?)
            }
            _ => Ok(()),
        }
    }

    fn written(&self, uid: &str) -> Option<Written> {
        self.0.lock().get(uid).cloned()
    }

    fn forget_named(&self, database: &Database, name: &str) {
        let uid = database.uid().unwrap_or_default();
        if self.written(&uid).is_some_and(|written| written.name == name) {
            self.forget(&uid);
        }
    }

    pub(super) fn forget(&self, uid: &str) {
        self.0.lock().remove(uid);
    }
}

/// Whether it is known which of several servers is to be handed out: not while none works, nor while one that works
/// may yet say that it is the primary.
fn is_settled(look: &TargetObservation, told: &[EndpointStatus]) -> bool {
    let seen = &look.observations;
    let Some(chosen) = chosen(told) else { return seen.len() == 1 };
    is(&told[chosen], Role::Primary)
        || seen.iter().filter(|seen| works(seen)).all(|seen| seen.facts.is_some())
}

fn desired(name: String, look: &TargetObservation, told: &[EndpointStatus]) -> Desired {
    let servers: Vec<_> = look.resolved.targets.iter().map(|reached| &reached.settings).collect();
    let server = servers[chosen(told).unwrap_or(0)];
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
    data.extend(server.tls.ca.clone().map(|ca| ("certificates", ca)));
    if let Some((_, key)) = &server.tls.client {
        data.insert("private-key", key.expose_secret().to_owned());
    }
    let verified = look.verified.map(|time| ("authlink.dev/verified-at".to_owned(), format!("{time:.0}")));
    Desired {
        name,
        type_: format!("servicebinding.io/{engine}"),
        annotations: verified.into_iter().collect(),
        data: data.into_iter().map(|(key, value)| (key.to_owned(), value.into_bytes())).collect(),
    }
}

/// The values alone: that the same credential was verified again is not worth a write.
fn digest(desired: &Desired) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (key, value) in &desired.data {
        hash.update(key.len().to_le_bytes());
        hash.update(key);
        hash.update(value.len().to_le_bytes());
        hash.update(value);
    }
    hash.finalize().into()
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
            let username = username.as_deref().map(encode).unwrap_or_default();
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
    let option = match (engine, tls) {
        (Engine::Postgresql, TlsMode::None) => "?sslmode=disable",
        (Engine::Postgresql, TlsMode::Require) => "?sslmode=require",
        (Engine::Postgresql, TlsMode::VerifyCa) => "?sslmode=verify-ca",
        (Engine::Postgresql, TlsMode::VerifyFull) => "?sslmode=verify-full",
        (Engine::Mysql, TlsMode::None) => "?ssl-mode=DISABLED",
        (Engine::Mysql, TlsMode::Require) => "?ssl-mode=REQUIRED",
        (Engine::Mysql, TlsMode::VerifyCa) => "?ssl-mode=VERIFY_CA",
        (Engine::Mysql, TlsMode::VerifyFull) => "?ssl-mode=VERIFY_IDENTITY",
        (Engine::Mongodb, TlsMode::None) => "?tls=false",
        (Engine::Mongodb, _) => "?tls=true",
        (Engine::Redis, _) => "",
    };
    format!("{scheme}://{login}{hosts}/{database}{option}")
}
