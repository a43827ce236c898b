//! `/v1/databases`: the declared queries of a Database, by name.

use std::sync::{Arc, Mutex};

use axum::{
    body::{Body, Bytes},
    extract::{Path, Request},
    http::{HeaderMap, HeaderValue, Response, header},
    response::IntoResponse,
};
use futures::{Stream, StreamExt, stream};
use kube::ResourceExt;
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::{
    Gateway, State,
    audit::Called,
    counts::Counting,
    problem::{Kind, Problem},
    ready::{Prepare, World},
};
use crate::{
    api::v1alpha1::Database,
    backends::database::{self, Item, QueryFault, Run, Settings},
    cluster::{references::References, review::Right},
    domain::usage::Tally,
    resolving,
};

/// Bytes of parameters that a call may bring.
const MAX_BODY: usize = 1024 * 1024;

const NDJSON: &str = "application/x-ndjson";

/// The body of a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    params: Vec<Box<RawValue>>,
}

/// The servers of a Database with their pools.
pub(super) struct Servers {
    all: Vec<Arc<dyn database::Database>>,
    tally: Arc<Mutex<Tally>>,
    /// The one that takes statements: a primary whose probes pass, else any whose probes pass, else the first.
    chosen: std::sync::atomic::AtomicUsize,
}

impl Prepare for Servers {
    type Object = Database;
    type Settings = Settings;

    async fn resolve(
        database: &Database,
        references: &dyn References,
    ) -> Result<Vec<Settings>, resolving::Unresolved> {
        Ok(resolving::database::resolve(database, references).await?.targets)
    }

    fn key(settings: &Settings) -> [u8; 32] {
        settings.key()
    }

    fn make(database: &Database, settings: Vec<Settings>, world: &World) -> Result<Self, Problem> {
        let servers = settings.into_iter().map(database::connect).collect::<Result<_, _>>();
        let servers = servers.map_err(|fault| Problem::new(Kind::NotReady, fault.message()))?;
        let tally = world.counters.of(&database.uid().unwrap_or_default());
        Ok(Self { all: servers, tally, chosen: 0.into() })
    }

    fn follow(&self, database: &Database) {
        let endpoints = database.status.iter().flat_map(|status| &status.common.endpoints);
        let ready = || endpoints.clone().enumerate().filter(|(_, endpoint)| endpoint.ready);
        let primary = ready().find(|(_, endpoint)| endpoint.role.as_deref() == Some("Primary"));
        let chosen = primary.or_else(|| ready().next()).map_or(0, |(index, _)| index);
        self.chosen.store(chosen, std::sync::atomic::Ordering::Relaxed);
    }
}

/// Runs the query of this name.
pub(super) async fn run(
    state: State,
    Path((namespace, name, query)): Path<(String, String, String)>,
    request: Request,
) -> Response<Body> {
    let called = Called::new("Database", &namespace, &name, &query);
    let answer = answer(&state.0, (&namespace, &name, &query), request, &called).await;
    let mut answer = answer.unwrap_or_else(IntoResponse::into_response);
    answer.extensions_mut().insert(called);
    answer
}

async fn answer(
    gateway: &Gateway,
    (namespace, name, query): (&str, &str, &str),
    request: Request,
    called: &Called,
) -> Result<Response<Body>, Problem> {
    let right = Right {
        verb: "create",
        resource: "databases",
        subresource: Some("query"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let caller = gateway.admit(request.headers(), &right).await?;
    called.by(&caller.name);
    let (head, body) = request.into_parts();
    let declared = |database: &Database| {
        let found = database.spec.queries.iter().find(|declared| declared.name == query);
        let found = found.cloned().ok_or_else(|| {
            let detail = format!("the Database {name} declares no query {query}");
            Problem::new(Kind::QueryNotFound, detail)
        })?;
        Ok((found, database.spec.query.clone(), database.spec.engine))
    };
    let (servers, (declared, limits, engine)) = gateway.databases.get(namespace, name, declared).await?;
    called.found();
    let mut counting = Counting::start(&servers.tally);
    let asked = read(body).await?;
    let run = Run::new(&declared, &limits, &asked.params)
        .map_err(|mismatch| Problem::new(Kind::ParameterInvalid, mismatch.to_string()))?;
    let chosen = servers.chosen.load(std::sync::atomic::Ordering::Relaxed);
    let server = servers.all.get(chosen).or(servers.all.first());
    let server =
        server.ok_or_else(|| Problem::new(Kind::NotReady, format!("the Database {name} has no server")))?;
    let observed = gateway.metrics.queries.start(engine.as_str(), namespace, name, query);
    let mut rows = Arc::clone(server).run(run, observed).inspect(move |item| match item {
        Ok(Item::Row(_)) => {}
        Ok(Item::End { .. }) => counting.served(),
        Err(fault) => {
            counting.served();
            counting.answered(problem(fault).kind.status().as_u16());
        }
    });
    // The head of the answer waits for what comes first: a query that fails at once fails by its status.
    let first = rows.next().await.transpose().map_err(|fault| problem(&fault))?;
    Ok(respond(first, rows, wants_lines(&head.headers)))
}

async fn read(body: Body) -> Result<Asked, Problem> {
    let body = axum::body::to_bytes(body, MAX_BODY)
        .await
        .map_err(|_| Problem::new(Kind::TooLarge, format!("the body must have at most {MAX_BODY} bytes")))?;
    if body.is_empty() {
        return Ok(Asked { params: Vec::new() });
    }
    serde_json::from_slice(&body).map_err(|_| {
        Problem::new(Kind::BadRequest, "the body must be JSON such as {\"params\": [\"a@example.com\"]}")
    })
}

fn wants_lines(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| accept.as_bytes().starts_with(NDJSON.as_bytes()))
}

/// As one JSON document, or a line for each row and one for the end; written while the rows come.
fn respond(
    first: Option<Item>,
    rows: impl Stream<Item = Result<Item, QueryFault>> + Send + 'static,
    lines: bool,
) -> Response<Body> {
    let items = stream::iter(first.map(Ok)).chain(rows);
    let (kind, body) = if lines {
        (NDJSON, Body::from_stream(as_lines(items)))
    } else {
        ("application/json", Body::from_stream(as_document(items)))
    };
    let mut response = body.into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

type Chunk = Result<Bytes, QueryFault>;

/// `{"rows": [...], "truncated": false, "affected": null}`. A document that breaks off is no JSON, so nobody takes it for
/// whole.
fn as_document(items: impl Stream<Item = Result<Item, QueryFault>>) -> impl Stream<Item = Chunk> {
    let mut before = "{\"rows\":[";
    items.map(move |item| {
        Ok(match item? {
            Item::Row(row) => format!("{}{row}", std::mem::replace(&mut before, ",\n")).into(),
            Item::End { truncated, affected } => {
                let open = if before == ",\n" { "" } else { before };
                format!("{open}],\"truncated\":{truncated},\"affected\":{}}}\n", json!(affected)).into()
            }
        })
    })
}

/// A row a line, and at the end a line that no row looks like: `{"$end": {"truncated": false, "affected": null}}`, or
/// `{"$problem": {...}}`.
fn as_lines(items: impl Stream<Item = Result<Item, QueryFault>>) -> impl Stream<Item = Chunk> {
    items.map(|item| {
        Ok(match item {
            Ok(Item::Row(row)) => format!("{row}\n").into(),
            Ok(Item::End { truncated, affected }) => {
                format!("{}\n", json!({ "$end": { "truncated": truncated, "affected": affected } })).into()
            }
            Err(fault) => format!("{}\n", json!({ "$problem": problem(&fault).document() })).into(),
        })
    })
}

fn problem(fault: &QueryFault) -> Problem {
    let kind = match fault {
        QueryFault::Value(_) => Kind::ParameterInvalid,
        QueryFault::Constraint(_) | QueryFault::Conflict(_) | QueryFault::ReadOnly(_) => Kind::QueryRefused,
        QueryFault::TimedOut => Kind::UpstreamTimeout,
        QueryFault::Invalid(_) | QueryFault::Denied(_) | QueryFault::Server(_) => Kind::Upstream,
    };
    Problem::new(kind, fault.to_string())
}
