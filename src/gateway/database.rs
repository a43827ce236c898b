//! `/v1/databases`: the declared queries of a Database, by name.

mod rows;

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use axum::{
    body::{Body, Bytes},
    http::{HeaderMap, HeaderValue, Request, Response, header},
};
use futures::{StreamExt, stream};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use hyper::body::Incoming;
use kube::ResourceExt;
use parking_lot::Mutex;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::{Instant, timeout_at};

use super::{
    Gateway,
    access_log::CallRecord,
    client_cache::{BuildClient, CallDeps},
    problem::{Kind, Problem},
    usage::UsageGuard,
};
use crate::{
    api::{
        Reason,
        status::EndpointStatus,
        v1alpha1::{
            Database,
            database::{Query, QueryLimits},
        },
    },
    backends::{
        database::{Answer, Item, PoolHandle, QueryFault, Run, ServerSettings},
        transport::endpoint,
    },
    cluster::{references::References, review::Permission},
    domain::usage::Tally,
    resolving::{self, Resolved},
    telemetry::metrics::Calls,
};
use rows::Text;

/// Bytes of parameters that a call may bring.
const MAX_BODY: usize = 1024 * 1024;

/// How long the parameters may take to arrive.
const BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// What comes within this time and has at most so many bytes is answered as a whole; all else as it comes.
const MOMENT: Duration = Duration::from_millis(1);
const WHOLE: usize = 64 * 1024;

/// The body of a call.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    #[serde(default)]
    params: Vec<Box<RawValue>>,
}

/// The servers of a Database with their pools, and what it declares.
pub(super) struct DatabaseClient {
    all: Vec<Arc<PoolHandle>>,
    engine: &'static str,
    queries: HashMap<String, Arc<Query>>,
    limits: QueryLimits,
    tally: Arc<Mutex<Tally>>,
    calls: Arc<Calls>,
    /// The one that takes statements: a primary whose probes pass, else any whose probes pass, else the first.
    chosen: AtomicUsize,
}

impl BuildClient for DatabaseClient {
    type Object = Database;
    type Settings = ServerSettings;

    async fn resolve(
        database: &Database,
        references: &dyn References,
    ) -> Result<Resolved<ServerSettings>, resolving::Unresolved> {
        resolving::database::resolve(database, references).await
    }

    fn key(settings: &ServerSettings) -> [u8; 32] {
        settings.key()
    }

    fn make(database: &Database, settings: Vec<ServerSettings>, deps: &CallDeps) -> Result<Self, Problem> {
        let servers = settings.into_iter().map(|it| deps.pools.share(it)).collect::<Result<_, _>>();
        let spec = &database.spec;
        Ok(Self {
            all: servers.map_err(|fault| Problem::new(Kind::NotReady, fault.message()))?,
            engine: spec.engine.as_str(),
            queries: spec.queries.iter().map(|it| (it.name.clone(), Arc::new(it.clone()))).collect(),
            limits: spec.query.clone(),
            tally: deps.counters.of(&database.uid().unwrap_or_default()),
            calls: deps.calls(database).into(),
            chosen: 0.into(),
        })
    }

    fn follow(&self, database: &Database) {
        let endpoints = database.status.iter().flat_map(|status| &status.common.endpoints);
        let ready = || endpoints.clone().filter(|endpoint| endpoint.ready);
        let primary = |endpoint: &&EndpointStatus| endpoint.role.as_deref() == Some("Primary");
        // By address, since the status may be about the hosts of before.
        let server = |status: &EndpointStatus| {
            let address = endpoint(&status.address, status.port);
            self.all.iter().position(|server| server.endpoint() == address)
        };
        let chosen = ready().filter(primary).find_map(server).or_else(|| ready().find_map(server));
        let chosen = chosen.unwrap_or_default();
        self.chosen.store(chosen, Relaxed);
    }
}

impl Gateway {
    /// The Databases whose pool has no room for callers, by uid.
    pub(super) fn saturated(&self) -> Vec<String> {
        let full =
            self.databases.all().into_iter().filter(|it| it.prepared.all.iter().any(|it| it.saturated()));
        full.map(|made| made.uid).collect()
    }
}

/// Runs the query of this namespace, Database and name.
pub(super) async fn run(
    gateway: &Gateway,
    (namespace, name, query): (&str, &str, &str),
    request: Request<Incoming>,
    record: &mut CallRecord,
) -> Result<Response<Body>, Problem> {
    let permission =
        Permission { verb: "create", resource: "databases", subresource: Some("query"), namespace, name };
    record.by = Some(gateway.admit(request.headers(), &permission).await?);
    let servers = gateway.databases.get(namespace, name).await?;
    let declared = servers.queries.get(query).ok_or_else(|| {
        let detail = format!("the Database {name} declares no query {query}");
        Problem::new(Kind::QueryNotFound, detail)
    })?;
    record.found = Some((Arc::clone(&servers.calls), query.to_owned().into()));
    let usage = UsageGuard::start(&servers.tally);
    let lines = wants_lines(request.headers());
    let asked = read(request.into_body()).await?;
    let run = Run::new(declared, &servers.limits, &asked.params)
        .map_err(|mismatch| Problem::new(Kind::ParameterInvalid, mismatch.to_string()))?;
    let server = servers.all.get(servers.chosen.load(Relaxed)).or(servers.all.first());
    let server =
        server.ok_or_else(|| Problem::new(Kind::NotReady, format!("the Database {name} has no server")))?;
    let observed = gateway.metrics.queries.start(servers.engine, namespace, name, query);
    let rows = Arc::clone(&**server).run(run, observed);
    Running { rows, usage, text: Text::new(lines) }.respond().await
}

async fn read(body: Incoming) -> Result<Asked, Problem> {
    let body = tokio::time::timeout(BODY_TIMEOUT, Limited::new(body, MAX_BODY).collect()).await;
    let body = body
        .map_err(|_| Problem::new(Kind::BadRequest, "the body did not arrive in time"))?
        .map_err(|error| match error.downcast_ref::<LengthLimitError>() {
            Some(_) => Problem::new(Kind::TooLarge, format!("the body must have at most {MAX_BODY} bytes")),
            None => Problem::new(Kind::BadRequest, "the body broke off"),
        })?
        .to_bytes();
    if body.is_empty() {
        return Ok(Asked { params: Vec::new() });
    }
    serde_json::from_slice(&body).map_err(|_| {
        Problem::new(Kind::BadRequest, "the body must be JSON such as {\"params\": [\"a@example.com\"]}")
    })
}

fn wants_lines(headers: &HeaderMap) -> bool {
    headers.get_all(header::ACCEPT).iter().any(|accept| accept.as_bytes().starts_with(rows::LINES.as_bytes()))
}

/// A query that runs, on its way to the caller.
struct Running {
    rows: Answer,
    usage: UsageGuard,
    text: Text,
}

impl Running {
    /// The head of the answer waits for what comes first: a query that fails at once fails by its status.
    async fn respond(mut self) -> Result<Response<Body>, Problem> {
        let kind = HeaderValue::from_static(self.text.content_type());
        let mut next = self.rows.next().await;
        let moment = Instant::now() + MOMENT;
        while let Some(item) = next {
            self.take(item).map_err(|fault| problem(&fault))?;
            if self.text.len() > WHOLE {
                break;
            }
            let Ok(more) = timeout_at(moment, self.rows.next()).await else { break };
            next = more;
            if next.is_none() {
                return Ok(respond(kind, Body::from(self.text.sent())));
            }
        }
        self.rows.detach();
        let first = self.text.sent();
        let rest = stream::unfold(Some(self), async |running| {
            let mut running = running?;
            let taken = match running.rows.next().await? {
                Err(fault) if running.text.tells_faults() => {
                    running.fails(&fault);
                    running.text.fault(&problem(&fault));
                    Ok(())
                }
                item => running.take(item),
            };
            match taken {
                Ok(()) => Some((Ok(running.text.sent()), Some(running))),
                Err(fault) => Some((Err(fault), None)),
            }
        });
        let all = stream::iter([Ok::<Bytes, QueryFault>(first)]).chain(rest);
        Ok(respond(kind, Body::from_stream(all)))
    }

    fn take(&mut self, item: Result<Item, QueryFault>) -> Result<(), QueryFault> {
        match item.inspect_err(|fault| self.fails(fault))? {
            Item::Rows(rows) => self.text.rows(&rows),
            Item::End { truncated, affected } => {
                self.usage.served();
                self.text.end(truncated, affected);
            }
        }
        Ok(())
    }

    fn fails(&mut self, fault: &QueryFault) {
        self.usage.served();
        self.usage.answered(problem(fault).kind.status().as_u16());
    }
}

fn respond(kind: HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    response
}

fn problem(fault: &QueryFault) -> Problem {
    let kind = match fault {
        QueryFault::Value(_) => Kind::ParameterInvalid,
        QueryFault::Constraint(_) | QueryFault::Conflict(_) | QueryFault::ReadOnly(_) => Kind::QueryRefused,
        QueryFault::TimedOut => Kind::UpstreamTimeout,
        QueryFault::Invalid(_) => Kind::QueryInvalid,
        QueryFault::Server(fault) => match fault.reason {
            Reason::PoolSaturated => Kind::Overloaded,
            Reason::Timeout => Kind::UpstreamTimeout,
            _ => Kind::Upstream,
        },
        QueryFault::Denied(_) => Kind::Upstream,
    };
    let problem = Problem::new(kind, fault.to_string());
    if kind == Kind::Overloaded { problem.after(Duration::from_secs(1)) } else { problem }
}
