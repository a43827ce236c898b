//! `/v1/ldap`: logins of the users of an LdapDirectory.

use std::{sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::{Body, Bytes},
    extract::State,
    http::Request,
    routing::post,
};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use kube::ResourceExt;
use secrecy::SecretString;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    CallDeps,
    access_log::CallRecord,
    call_guard::{CallCounters, CallGuard},
    client_cache::{BuildClient, ClientCache},
    family::{Route, RouteFamily},
    problem::{Problem, ProblemKind},
    routes::Names,
};
use crate::{
    api::{Kind, v1alpha1::LdapDirectory},
    cluster::{object_cache::ObjectCache, references::References, review::Permission},
    resolving::{self, Resolved, ldap_directory::ResolvedDirectory},
    store::users::{Person, SourceName},
    sync::login::{LoginError, LoginMode, LoginSettings, Logins},
};

/// Limit of the body of a request, in bytes: a name of 1 KiB and a password of 4 KiB, escaped.
const MAX_BODY: usize = 32 * 1024;

/// How long the body of a request may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

static AUTHENTICATE: Route = Route {
    path: "/v1/ldap/{namespace}/{name}/authenticate",
    permission: Permission { kind: Kind::LdapDirectory, subresource: Some("authenticate"), verb: "create" },
    operations,
};

/// The routes of LdapDirectories.
pub(super) struct Family {
    deps: Arc<CallDeps>,
    clients: ClientCache<LoginClient>,
}

impl RouteFamily for Family {
    fn routes() -> &'static [Route] {
        std::slice::from_ref(&AUTHENTICATE)
    }

    fn schemas() -> Value {
        json!({ "User": {
            "type": "object", "required": ["id", "groups", "roles"],
            "properties": {
                "id": { "type": "string", "description": "ID of the user in the store; it never changes" },
                "username": { "type": ["string", "null"] },
                "email": { "type": ["string", "null"] },
                "name": { "type": ["string", "null"] },
                "groups": { "type": "array", "items": { "type": "string" } },
                "roles": { "type": "array", "items": { "type": "string" } },
            },
        } })
    }

    fn router(self: Arc<Self>) -> Router {
        Router::new().route(AUTHENTICATE.path, post(authenticate)).with_state(self)
    }

    fn evict(&self) {
        let exists = |namespace: &str, name: &str| self.clients.has(namespace, name);
        self.deps.metrics.gateway.retain(Kind::LdapDirectory, exists);
    }
}

impl Family {
    pub(super) fn new(deps: &Arc<CallDeps>, objects: &ObjectCache<LdapDirectory>) -> Self {
        Self { deps: Arc::clone(deps), clients: ClientCache::new(objects, deps) }
    }
}

/// The logins of one directory.
struct LoginClient {
    logins: Logins,
    call_counters: CallCounters,
}

impl BuildClient for LoginClient {
    type Object = LdapDirectory;
    type Settings = ResolvedDirectory;

    async fn resolve(
        directory: &LdapDirectory,
        references: &dyn References,
    ) -> Result<Resolved<ResolvedDirectory>, resolving::Unresolved> {
        resolving::ldap_directory::resolve(directory, references).await
    }

    fn key(settings: &ResolvedDirectory) -> [u8; 32] {
        settings.key()
    }

    fn build(
        object: &LdapDirectory,
        settings: Vec<ResolvedDirectory>,
        deps: &CallDeps,
    ) -> Result<Self, Problem> {
        let not_ready = |why: String| Problem::new(ProblemKind::NotReady, why);
        let resolved = settings.into_iter().next();
        let resolved = resolved.ok_or_else(|| not_ready("the directory has no server".to_owned()))?;
        let directory = deps.directories.directory(resolved.servers);
        let directory = directory.map_err(|fault| not_ready(fault.message()))?;
        let settings = LoginSettings {
            source: SourceName {
                uid: object.uid().unwrap_or_default(),
                namespace: object.namespace().unwrap_or_default(),
                name: object.name_any(),
            },
            users: resolved.layout.users,
            filter: resolved.login_filter,
            mode: resolved.dn_template.map_or(LoginMode::SearchThenBind, LoginMode::Template),
        };
        Ok(Self { logins: Logins::new(directory, settings), call_counters: deps.counters(object) })
    }

    fn observe_status(&self, _: &LdapDirectory) {}
}

/// The body of a request.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LoginRequest {
    username: String,
    password: SecretString,
}

/// Logs a user in.
async fn authenticate(
    State(family): State<Arc<Family>>,
    Names((namespace, name)): Names<(String, String)>,
    Extension(record): Extension<CallRecord>,
    request: Request<Body>,
) -> Result<Json<Value>, Problem> {
    let (object, deps) = ((&*namespace, &*name), &family.deps);
    let access = record.clone();
    let mut guard =
        CallGuard::admit(&deps.reviewer, &AUTHENTICATE, object, request.headers(), record).await?;
    let client = family.clients.get(&namespace, &name).await?;
    guard.count(&client.call_counters, "authenticate");
    let LoginRequest { username, password } = read(request.into_body()).await?;
    let caller = guard.caller().to_owned();
    let done = client.logins.authenticate(&deps.store, &caller, &username, &password).await;
    guard.served();
    match done {
        Ok(person) => Ok(Json(shown(&person))),
        Err(error) => {
            if let LoginError::Refused(denial) = &error {
                access.denied(denial.as_str());
            }
            Err(problem(&error))
        }
    }
}

fn shown(person: &Person) -> Value {
    let Person { user, username, email, name, groups, roles, .. } = person;
    json!({ "id": user, "username": username, "email": email, "name": name, "groups": groups, "roles": roles })
}

async fn read(body: Body) -> Result<LoginRequest, Problem> {
    let bad = |detail: &str| Problem::new(ProblemKind::BadRequest, detail);
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let body: Bytes = body
        .map_err(|_| bad("the request body did not arrive in time"))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => {
                let detail = format!("the request body must have at most {MAX_BODY} bytes");
                Problem::new(ProblemKind::TooLarge, detail)
            }
            None => bad("the caller aborted the request"),
        })?
        .to_bytes();
    // The parser's own message could have parts of the password in it.
    serde_json::from_slice(&body).map_err(|_| {
        bad("the request body must be a JSON object: {\"username\": \"...\", \"password\": \"...\"}")
    })
}

fn problem(error: &LoginError) -> Problem {
    match error {
        LoginError::Invalid(invalid) => Problem::new(ProblemKind::LoginInvalid, invalid.to_string()),
        // The same for every reason, which is in the access log.
        LoginError::Refused(_) => Problem::new(ProblemKind::LoginRefused, error.to_string()),
        LoginError::Throttled(wait) => {
            let detail = "there were too many failed logins of this user or by this caller";
            Problem::new(ProblemKind::LoginThrottled, detail).after(*wait)
        }
        LoginError::Unavailable(fault) => {
            Problem::new(ProblemKind::DirectoryUnavailable, fault.message()).after(Duration::from_secs(1))
        }
        LoginError::Store(error) => {
            Problem::new(ProblemKind::StoreUnavailable, error.to_string()).after(Duration::from_secs(1))
        }
    }
}

fn operations() -> Value {
    json!({ "post": {
        "operationId": "authenticate",
        "summary": "Logs a user of an LdapDirectory in",
        "description": "401 with the problem type login-refused means that user name or password are wrong, or that the account may not \
                        be used; the access log says which. 401 with unauthenticated is about the caller's own token.",
        "requestBody": { "required": true, "content": { "application/json": { "schema": {
            "type": "object", "additionalProperties": false, "required": ["username", "password"],
            "properties": {
                "username": { "type": "string", "maxLength": 1024 },
                "password": { "type": "string", "maxLength": 4096, "format": "password" },
            },
        } } } },
        "responses": {
            "200": {
                "description": "the user, who is added to the store if it is not there yet",
                "content": { "application/json": { "schema": { "$ref": "#/components/schemas/User" } } },
            },
            "default": { "$ref": "#/components/responses/Problem" },
        },
    } })
}
