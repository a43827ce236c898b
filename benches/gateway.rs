//! The cost of a call through the gateway, compared to nginx, to a direct call, and to the statement alone.
//!
//! AUTHLINK_BENCH_SECONDS (10s) is the duration of a measurement, AUTHLINK_BENCH_ROUNDS (3) the number of repetitions.

mod support;

use std::{
    net::SocketAddr,
    path::Path,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use authlink::api::v1alpha1::{Database, ExternalApi};
use axum::Router;
use futures::future::try_join_all;
use serde_json::{Value, json};
use sqlx::postgres::{PgConnectOptions, PgPool, PgPoolOptions, PgSslMode};

use support::{
    Outcome,
    cluster::Cluster,
    load::{Call, Caller, paced, wrk},
    median,
    operator::Operator,
    quantile,
    ready::Watch,
    report::{Measure, Report},
    seconds, setting, variable,
};

/// Both proxies use this core, wrk and the backend use the other one.
const PROXY_CORE: &str = "0";
const OTHER_CORE: &str = "1";
const BOTH_CORES: &str = "0,1";
const CONNECTIONS: usize = 64;
/// The number of callers of queries, and of connections of the sqlx loop.
const CALLERS: usize = 16;
/// The request rate for latency and memory, per second.
const RATE: u32 = 1000;
const OBJECTS: usize = 1000;
/// The addresses of the test network are private, which must be allowed for ExternalApis.
const FLAGS: [&str; 4] = ["--roles", "operator,gateway", "--egress-allow-cidrs", "10.99.0.0/16"];

struct Bench {
    cluster: Cluster,
    token: String,
    gateway: SocketAddr,
    backend: SocketAddr,
    proxy: SocketAddr,
    rounds: usize,
    period: Duration,
    report: Report,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let cluster = Cluster::prepare("gateway").await?;
    let host = variable("AUTHLINK_TEST_NGINX")?.parse::<SocketAddr>()?.ip();
    let [gateway, backend, proxy] = [0; 3].map(|_| free(host));
    let (gateway, backend, proxy) = (gateway?, backend?, proxy?);
    let mut bench = Bench {
        token: cluster.caller(&["externalapis.authlink.dev/invoke", "databases.authlink.dev/query"]).await?,
        cluster,
        gateway,
        backend,
        proxy,
        rounds: setting("AUTHLINK_BENCH_ROUNDS", 3)?,
        period: seconds("AUTHLINK_BENCH_SECONDS", 10)?,
        report: Report::new("gateway"),
    };
    let _backend = Nginx::start(&bench.cluster.folder, "backend", OTHER_CORE, &backend_of(backend))?;
    let _proxy = Nginx::start(&bench.cluster.folder, "proxy", PROXY_CORE, &proxy_of(proxy, backend))?;
    bench.throughput().await?;
    bench.latency().await?;
    bench.queries().await?;
    bench.memory().await?;
    bench.report.write()
}

impl Bench {
    fn call(&self, address: SocketAddr, path: impl Into<String>) -> Call {
        Call { address, path: path.into(), token: Some(self.token.clone()), body: None }
    }

    fn path(&self, name: &str) -> String {
        format!("/v1/apis/{}/{name}/", self.cluster.namespace)
    }

    /// An ExternalApi with all features that add to the cost of a call.
    fn api(&self) -> Value {
        json!({
            "endpoints": [{ "url": format!("http://{}", self.backend) }],
            "allow": [{ "methods": ["GET"], "pathPrefix": "/" }],
            "rateLimit": { "requests": 1_000_000, "per": "1s" },
            "circuitBreaker": { "failureThreshold": 50 },
            "retry": { "attempts": 3 },
        })
    }

    fn start(&self, core: Option<&str>) -> Outcome<Operator> {
        let listen = self.gateway.to_string();
        let flags = [&FLAGS[..], &["--gateway-addr", &listen]].concat();
        match core {
            Some(core) => Operator::start_on(core, &self.cluster, &flags),
            None => Operator::start(&self.cluster, &flags),
        }
    }

    /// Starts the gateway with one ExternalApi that is Ready and has been called.
    async fn with_one_api(&self, core: Option<&str>) -> Outcome<Operator> {
        let mut watch =
            Watch::start::<ExternalApi>(&self.cluster.admin, &self.cluster.namespace, "Ready").await?;
        let operator = self.start(core)?;
        self.cluster.make::<ExternalApi>(&[self.api()], 1).await?;
        watch.all_true(1).await?;
        wait_for(&self.call(self.gateway, self.path("fleet-00000"))).await?;
        Ok(operator)
    }

    async fn end(&self, operator: Operator) -> Outcome<()> {
        operator.stop().await?;
        self.cluster.clear::<ExternalApi>().await
    }

    async fn throughput(&mut self) -> Outcome<()> {
        let operator = self.with_one_api(Some(PROXY_CORE)).await?;
        let through = self.call(self.gateway, self.path("fleet-00000"));
        let beside = self.call(self.proxy, "/");
        let (mut own, mut nginx) = (Vec::new(), Vec::new());
        for round in 1..=self.rounds {
            nginx.push(wrk(OTHER_CORE, &beside, CONNECTIONS, self.period).await?);
            own.push(wrk(OTHER_CORE, &through, CONNECTIONS, self.period).await?);
            println!("round {round}: nginx {:.0}/s, gateway {:.0}/s", nginx[round - 1], own[round - 1]);
        }
        self.end(operator).await?;
        let (own, nginx) = (median(&own), median(&nginx));
        let name = format!("requests per second, {CONNECTIONS} connections, compared to nginx");
        let measure = Measure::new(name, own, "1/s", Some(nginx));
        self.report.add(measure.wanting("at least 0.7 x nginx", own >= 0.7 * nginx));
        Ok(())
    }

    async fn latency(&mut self) -> Outcome<()> {
        let operator = self.with_one_api(None).await?;
        let through = self.call(self.gateway, self.path("fleet-00000"));
        let direct = self.call(self.backend, "/");
        let beside = self.call(self.proxy, "/");
        let (mut own, mut bare, mut nginx) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            for (call, took) in [(&direct, &mut bare), (&beside, &mut nginx), (&through, &mut own)] {
                took.extend(paced(call, std::slice::from_ref(&call.path), RATE, self.period).await?);
            }
        }
        self.end(operator).await?;
        for (part, name, goal) in [(0.5, "p50", 0.3), (0.99, "p99", 1.5)] {
            let [own, bare, nginx] = [&own, &bare, &nginx].map(|took| quantile(took, part));
            let name = format!("latency at {RATE} requests/s, {name}");
            let measure = Measure::new(format!("{name}, compared to a direct call"), own, "ms", Some(bare));
            self.report.add(measure.wanting(format!("adds at most {goal} ms"), own - bare <= goal));
            self.report.add(Measure::new(format!("{name}, compared to nginx"), own, "ms", Some(nginx)));
        }
        Ok(())
    }

    async fn queries(&mut self) -> Outcome<()> {
        let address = variable("AUTHLINK_TEST_POSTGRESQL")?;
        let (host, port) = address.rsplit_once(':').ok_or("not HOST:PORT")?;
        let port = port.parse()?;
        let pool = bare_pool(host, port).await?;
        let spec = json!({
            "type": "postgresql", "host": host, "port": port, "database": "app",
            "credentialsRef": { "name": "login" }, "tls": { "mode": "None" },
            "pool": { "max": CALLERS },
            "queries": [
                { "name": "one", "statement": ONE, "params": ["integer"], "readOnly": true },
                { "name": "hundred", "statement": HUNDRED, "params": ["integer"], "readOnly": true },
            ],
        });
        let mut watch =
            Watch::start::<Database>(&self.cluster.admin, &self.cluster.namespace, "Ready").await?;
        let operator = self.start(None)?;
        self.cluster.make::<Database>(&[spec], 1).await?;
        watch.all_true(1).await?;
        for (query, statement, rows) in [("one", ONE, "1 row"), ("hundred", HUNDRED, "100 rows")] {
            let path = format!("/v1/databases/{}/fleet-00000/queries/{query}", self.cluster.namespace);
            let call = Call { body: Some(r#"{"params":[400]}"#.to_owned()), ..self.call(self.gateway, path) };
            wait_for(&call).await?;
            let served = Call { address: bare_server(pool.clone(), statement).await?, ..call.clone() };
            let (mut own, mut bare, mut http) = (Vec::new(), Vec::new(), Vec::new());
            for _ in 0..self.rounds {
                bare.push(bare_loop(&pool, statement, self.period).await?);
                http.push(wrk(BOTH_CORES, &served, CALLERS, self.period).await?);
                own.push(wrk(BOTH_CORES, &call, CALLERS, self.period).await?);
            }
            let (own, bare, http) = (median(&own), median(&bare), median(&http));
            let name = format!("queries per second, {rows}, {CALLERS} callers");
            let measure = Measure::new(format!("{name}, compared to sqlx in a loop"), own, "1/s", Some(bare));
            self.report.add(measure.wanting("at least 0.7 x sqlx", own >= 0.7 * bare));
            self.report.add(Measure::new(
                format!("{name}, compared to a minimal HTTP server"),
                own,
                "1/s",
                Some(http),
            ));
        }
        operator.stop().await?;
        self.cluster.clear::<Database>().await
    }

    async fn memory(&mut self) -> Outcome<()> {
        let specs: Vec<_> = (0..OBJECTS)
            .map(|number| {
                let mut spec = self.api();
                spec["endpoints"][0]["url"] = format!("http://{}/{number}", self.backend).into();
                spec
            })
            .collect();
        let mut watch =
            Watch::start::<ExternalApi>(&self.cluster.admin, &self.cluster.namespace, "Ready").await?;
        let operator = self.start(None)?;
        self.cluster.make::<ExternalApi>(&specs, OBJECTS).await?;
        watch.all_true(OBJECTS).await?;
        let paths: Vec<_> = (0..OBJECTS).map(|number| self.path(&format!("fleet-{number:05}"))).collect();
        let call = self.call(self.gateway, paths[0].clone());
        wait_for(&call).await?;
        paced(&call, &paths, RATE, self.period * 3).await?;
        let (memory, peak) = operator.memory()?;
        self.end(operator).await?;
        let name = format!("resident memory of both roles, {OBJECTS} ExternalApis, {RATE} requests/s");
        let measure = Measure::new(name.clone(), memory, "MB", Some(100.0));
        self.report.add(measure.wanting("at most 100 MB", memory <= 100.0));
        self.report.add(Measure::new(format!("{name}, peak"), peak, "MB", Some(100.0)));
        Ok(())
    }
}

/// A table with 10,000 rows of a few columns.
const TABLE: &str = "create table if not exists bench as \
    select n as id, md5(n::text) as name, now() as at, n * 1.5 as price from generate_series(1, 10000) n; \
    create index if not exists bench_id on bench (id)";
const ONE: &str = "select id, name, at, price from bench where id = $1";
const HUNDRED: &str = "select id, name, at, price from bench where id >= $1 order by id limit 100";

async fn bare_pool(host: &str, port: u16) -> Outcome<PgPool> {
    let options = PgConnectOptions::new_without_pgpass()
        .host(host)
        .port(port)
        .username("app")
        .password("app-secret")
        .database("app")
        .ssl_mode(PgSslMode::Disable);
    let connections = u32::try_from(CALLERS)?;
    let pool = PgPoolOptions::new().max_connections(connections).connect_with(options).await?;
    sqlx::raw_sql(TABLE).execute(&pool).await?;
    Ok(pool)
}

/// The number of statements per second in a loop.
async fn bare_loop(pool: &PgPool, statement: &'static str, period: Duration) -> Outcome<f64> {
    let began = Instant::now();
    let loops = (0..CALLERS).map(|_| {
        let pool = pool.clone();
        tokio::spawn(async move {
            let mut connection = pool.acquire().await?;
            let mut count = 0_u32;
            while began.elapsed() < period {
                sqlx::query(statement).bind(400).fetch_all(&mut *connection).await?;
                count += 1;
            }
            Outcome::Ok(count)
        })
    });
    let mut all = 0.0;
    for done in try_join_all(loops).await? {
        all += f64::from(done?);
    }
    Ok(all / began.elapsed().as_secs_f64())
}

/// A server that runs the statement for every request and responds with the number of rows, to measure the cost of HTTP.
async fn bare_server(pool: PgPool, statement: &'static str) -> Outcome<SocketAddr> {
    let run = move || {
        let pool = pool.clone();
        async move {
            let rows = sqlx::query(statement).bind(400).fetch_all(&pool).await;
            rows.map_or_else(|error| error.to_string(), |rows| rows.len().to_string())
        }
    };
    let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await?;
    let address = listener.local_addr()?;
    let routes = Router::new().fallback(run);
    tokio::spawn(async move { axum::serve(listener, routes).await });
    Ok(address)
}

/// Calls until the watch of the gateway has received the object.
async fn wait_for(call: &Call) -> Outcome<()> {
    let end = Instant::now() + Duration::from_secs(30);
    loop {
        let called = async { Caller::connect(call).await?.call(&call.path, call.body.as_deref()).await };
        match called.await {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() > end => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
        }
    }
}

/// An nginx with one worker, which is stopped when this is dropped.
struct Nginx(Child);

impl Nginx {
    fn start(folder: &Path, name: &str, core: &str, server: &str) -> Outcome<Self> {
        let file = folder.join(format!("{name}.conf"));
        let folder = folder.display();
        std::fs::write(
            &file,
            format!(
                "user root; daemon off; pid {folder}/{name}.pid; worker_processes 1; worker_rlimit_nofile 8192;\n\
                 events {{ worker_connections 4096; }}\n\
                 http {{ access_log off; keepalive_requests 1000000000; client_body_temp_path {folder}/{name}-body;\n\
                 proxy_temp_path {folder}/{name}-proxy; fastcgi_temp_path {folder}/{name}-fcgi;\n\
                 uwsgi_temp_path {folder}/{name}-uwsgi; scgi_temp_path {folder}/{name}-scgi;\n{server} }}\n"
            ),
        )?;
        let log = format!("{folder}/{name}.log");
        let path = std::env::var("PATH").unwrap_or_default();
        let child = Command::new("taskset")
            .args(["-c", core, "nginx", "-e", &log, "-c"])
            .arg(&file)
            .env("PATH", format!("{path}:/usr/sbin"))
            .stdin(Stdio::null())
            .spawn()?;
        Ok(Self(child))
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        // Its worker ends with it, which it would not after a kill.
        let _ = Command::new("kill").args(["-TERM", &self.0.id().to_string()]).status();
        let _ = self.0.wait();
    }
}

fn backend_of(address: SocketAddr) -> String {
    let body = "x".repeat(1024);
    format!("server {{ listen {address}; location / {{ return 200 {body}; }} }}")
}

fn proxy_of(address: SocketAddr, backend: SocketAddr) -> String {
    format!(
        "upstream backend {{ server {backend}; keepalive {CONNECTIONS}; keepalive_requests 1000000000; }}\n\
         server {{ listen {address}; location / {{ proxy_pass http://backend; proxy_http_version 1.1; \
         proxy_set_header Connection \"\"; }} }}"
    )
}

fn free(host: std::net::IpAddr) -> Outcome<SocketAddr> {
    Ok(std::net::TcpListener::bind((host, 0))?.local_addr()?)
}
