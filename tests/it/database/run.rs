//! Declared queries, run by the backends against the real servers.

mod mongodb;
mod mysql;
mod postgresql;
mod redis;

use std::{sync::Arc, time::Duration};

use authlink::{
    api::v1alpha1::database::{Engine, Pool, Query, QueryLimits, TlsMode},
    backends::{
        database::{BoundQuery, Credential, Database, Item, QueryFault, RowStream, ServerSettings, connect},
        http::Egress,
        transport::TlsSettings,
    },
    telemetry::metrics::Metrics,
};
use futures::StreamExt;
use serde_json::{Value, json, value::RawValue};

use crate::support::{SOON, System, eventually, tls_file};

/// A server as a user has it, with a pool of so many connections.
struct Backend {
    database: Arc<dyn Database>,
    metrics: Metrics,
}

/// What a query gave: rows as text, and the end.
struct Ran {
    rows: Vec<String>,
    end: Result<End, QueryFault>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct End {
    truncated: bool,
    affected: Option<u64>,
}

impl Backend {
    /// The shared server, as the user `app` over TLS, with one connection: whatever a query leaves behind meets the next one.
    fn of(system: System) -> Self {
        Self::on(system, system.port(), "app", "app-secret")
    }

    fn on(system: System, port: u16, username: &str, password: &str) -> Self {
        Self::with(system, port, username, password, 1)
    }

    /// With so many connections.
    fn with(system: System, port: u16, username: &str, password: &str, connections: u32) -> Self {
        let pool = json!({ "max": connections });
        Self::bounded(system, port, (username, password), pool, Duration::from_secs(10))
    }

    /// With this pool, and this time for probes and for connecting.
    fn bounded(
        system: System,
        port: u16,
        (username, password): (&str, &str),
        pool: Value,
        timeout: Duration,
    ) -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let engine = match system {
            System::Postgresql | System::Pgbouncer => Engine::Postgresql,
            System::Mariadb => Engine::Mysql,
            System::Redis => Engine::Redis,
            System::Ferretdb => Engine::Mongodb,
            System::Slapd | System::Samba => panic!("a directory is no database"),
        };
        let pool: Pool = serde_json::from_value(pool).expect("a pool");
        let settings = ServerSettings {
            engine,
            host: "localhost".to_owned(),
            port: system.tls_port(port),
            database: (system != System::Redis).then(|| "app".to_owned()),
            credential: Credential { username: Some(username.to_owned()), password: Some(password.into()) },
            auth_source: None,
            options: Vec::new(),
            ignored_options: Vec::new(),
            tls: TlsSettings { mode: TlsMode::VerifyFull, ca: Some(tls_file("ca.pem")), client: None },
            pool: (&pool).into(),
            timeout,
        };
        let (metrics, _) = Metrics::registered();
        let egress = Egress::new(Arc::new(|_| Ok(())));
        Self { database: connect(settings, egress).expect("a backend"), metrics }
    }

    /// Starts a query, which goes on by itself.
    fn start(&self, query: &Value, values: &str) -> RowStream {
        let mut answer = self.ask(query, values);
        answer.detach();
        answer
    }

    /// A query that runs while its answer is read.
    fn ask(&self, query: &Value, values: &str) -> RowStream {
        let query = Arc::new(query_of(query));
        let values: Vec<Box<RawValue>> = serde_json::from_str(values).expect("a list");
        let bound = BoundQuery::new(&query, &QueryLimits::default(), &values).expect("values that fit");
        let observed = self.metrics.queries.start("test", "test", "test", "test");
        Arc::clone(&self.database).run(bound, observed)
    }

    /// Runs a query to its end.
    async fn run(&self, query: &Value, values: &str) -> Ran {
        let mut answer = self.ask(query, values);
        let mut rows = Vec::new();
        while let Some(item) = answer.next().await {
            let end = match item {
                Ok(Item::Rows(some)) => {
                    for row in some.lines() {
                        assert!(serde_json::from_str::<&RawValue>(row).is_ok(), "{row}");
                        rows.push(row.to_owned());
                    }
                    continue;
                }
                Ok(Item::End { truncated, affected }) => Ok(End { truncated, affected }),
                Err(fault) => Err(fault),
            };
            assert!(answer.next().await.is_none(), "nothing comes after the end");
            return Ran { rows, end };
        }
        panic!("an answer without an end");
    }

    /// The rows of a query that succeeds.
    async fn rows(&self, query: &Value, values: &str) -> Vec<String> {
        let ran = self.run(query, values).await;
        ran.end.expect("a query that succeeds");
        ran.rows
    }

    /// The fault of a query that fails; the same connection serves the next one.
    async fn fault(&self, query: &Value, values: &str) -> QueryFault {
        self.run(query, values).await.end.expect_err("a query that fails")
    }

    /// What a check finds wrong.
    async fn unfit(&self, query: &Value) -> String {
        let fault = self.database.check(&query_of(query)).await.expect_err("an invalid query");
        assert_eq!(fault.reason.as_str(), "QueryInvalid", "{fault}");
        fault.detail
    }

    async fn fits(&self, query: &Value) {
        self.database.check(&query_of(query)).await.expect("a valid query");
    }

    /// The one connection, if there is one, is free.
    async fn is_at_rest(&self) {
        eventually(SOON, "every connection is idle", async || {
            let view = self.database.pool();
            if view.size == view.idle && view.waiting == 0 { Ok(()) } else { Err(format!("{view:?}")) }
        })
        .await;
    }
}

/// The first rows of an answer, as many or a few more.
async fn first(answer: &mut RowStream, count: usize) -> String {
    let mut rows = String::new();
    while rows.lines().count() < count {
        match answer.next().await {
            Some(Ok(Item::Rows(some))) => rows += &some,
            other => panic!("{other:?} after {rows}"),
        }
    }
    rows
}

/// A query from its manifest; its name does not matter here.
fn query_of(query: &Value) -> Query {
    let mut named = query.clone();
    named["name"] = json!("query");
    serde_json::from_value(named).expect("a query")
}

/// A query without parameters that only reads.
fn read(statement: &str) -> Value {
    json!({ "statement": statement, "readOnly": true })
}

/// A query that may write.
fn write(statement: &str, params: &Value) -> Value {
    json!({ "statement": statement, "params": params })
}

/// A name that no other test has.
fn unique(what: &str) -> String {
    format!("{what}_{:012x}", rand::random::<u64>() >> 16)
}
