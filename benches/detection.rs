//! The time from the failure of a server until the object is Healthy=False, or its endpoint is not ready in the
//! EndpointSlice, and the time from the recovery of the server.
//!
//! AUTHLINK_BENCH_KILLS (50) is the number of failures.

mod support;

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use authlink::api::v1alpha1::{Database, ExternalApi};
use serde_json::{Value, json};
use sqlx::{ConnectOptions, Connection, postgres::PgConnectOptions};

use support::{
    Outcome,
    cluster::Cluster,
    operator::Operator,
    quantile,
    ready::Watch,
    report::{Measure, Report},
    run, run_folder, setting, variable,
};

const INTERVAL_MS: u32 = 500;
const TIMEOUT_MS: u32 = 250;
const UNHEALTHY: u32 = 3;
const HEALTHY: u32 = 2;
/// The time to write the status and to receive it from a watch.
const SLACK_MS: u32 = 250;

/// The same, including the write of the slice.
const SLICE_SLACK_MS: u32 = 500;

/// A server of the benchmark's own, which is killed.
struct Server {
    script: String,
    folder: PathBuf,
    port: u16,
    /// Its address.
    host: IpAddr,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kills: usize = setting("AUTHLINK_BENCH_KILLS", 50)?;
    let cluster = Cluster::prepare("detection").await?;
    let operator = Operator::start(&cluster, &["--egress-allow-cidrs", "10.99.0.0/16"])?;
    let mut report = Report::new("detection");

    let server = Server::start("postgresql").await?;
    let mut watch = Watch::start::<Database>(&cluster.admin, &cluster.namespace, "Healthy").await?;
    let spec = json!({
        "type": "postgresql", "host": server.host, "port": server.port, "database": "app",
        "credentialsRef": { "name": "login" },
        "tls": { "mode": "None" },
        "healthCheck": health_check(),
    });
    cluster.make::<Database>(&[spec], 1).await?;
    let (deaths, revivals) = server.dies(kills, &mut watch).await?;
    cluster.clear::<Database>().await?;
    describe(&mut report, &format!("failure to Healthy=False, {kills} kills"), &deaths, UNHEALTHY, SLACK_MS);
    let name = format!("recovery to Healthy=True, {kills} recoveries");
    describe(&mut report, &name, &revivals, HEALTHY, SLACK_MS);

    let server = Server::start("nginx").await?;
    let mut watch = Watch::start_on_slices(&cluster.admin, &cluster.namespace).await?;
    let spec = json!({
        "endpoints": [{ "url": format!("http://{}", SocketAddr::from((server.host, server.port))) }],
        "healthCheck": health_check(),
        "discovery": {},
    });
    cluster.make::<ExternalApi>(&[spec], 1).await?;
    let (deaths, revivals) = server.dies(kills, &mut watch).await?;
    cluster.clear::<ExternalApi>().await?;
    let name = format!("failure to not ready in the EndpointSlice, {kills} kills");
    describe(&mut report, &name, &deaths, UNHEALTHY, SLICE_SLACK_MS);
    let name = format!("recovery to ready in the EndpointSlice, {kills} recoveries");
    describe(&mut report, &name, &revivals, HEALTHY, SLICE_SLACK_MS);
    operator.stop().await?;
    report.write()
}

fn health_check() -> Value {
    json!({
        "interval": format!("{INTERVAL_MS}ms"), "timeout": format!("{TIMEOUT_MS}ms"), "jitterPercent": 10,
        "unhealthyThreshold": UNHEALTHY, "healthyThreshold": HEALTHY,
    })
}

fn describe(report: &mut Report, name: &str, times: &[f64], threshold: u32, slack: u32) {
    let bound = Some(f64::from(threshold * INTERVAL_MS + TIMEOUT_MS + slack));
    let measure = |part: &str, value| Measure::new(format!("{name}, {part}"), value, "ms", bound);
    report.add(measure("p50", quantile(times, 0.5)));
    report.add(measure("p99", quantile(times, 0.99)).within());
    report.add(measure("maximum", quantile(times, 1.0)));
}

async fn within<T>(wait: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, wait).await.map_err(|_| "the condition did not come: see operator.log")?
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Server {
    async fn start(system: &str) -> Outcome<Self> {
        let script = format!("{}/systems/{system}", variable("AUTHLINK_E2E")?);
        let host = variable("AUTHLINK_TEST_NGINX")?.parse::<SocketAddr>()?.ip();
        // An nginx has the next port as well.
        let port = TcpListener::bind((host, 0))?.local_addr()?.port();
        let folder = run_folder()?.join(format!("systems/detection-{system}"));
        let server = Self { script, folder, port, host };
        server.does("start").await?;
        Ok(server)
    }

    /// Kills and starts it this many times. Returns the times until `watch` shows it, in milliseconds.
    async fn dies(self, kills: usize, watch: &mut Watch) -> Outcome<(Vec<f64>, Vec<f64>)> {
        let (mut deaths, mut revivals) = (Vec::new(), Vec::new());
        within(watch.until("True")).await?;
        for round in 1..=kills {
            // At any moment between two probes.
            let interval = Duration::from_millis(INTERVAL_MS.into());
            tokio::time::sleep(interval.mul_f64(1.0 + rand::random::<f64>())).await;
            let died = self.kill().await?;
            let seen = within(watch.until("False")).await?;
            deaths.push(milliseconds(died, seen));
            tokio::time::sleep(interval.mul_f64(rand::random())).await;
            let revived = self.revive().await?;
            let seen = within(watch.until("True")).await?;
            revivals.push(milliseconds(revived, seen));
            let latest = |times: &[f64]| times.last().copied().unwrap_or_default();
            println!(
                "kill {round}: seen after {:.0} ms, revival {:.0} ms",
                latest(&deaths),
                latest(&revivals)
            );
        }
        self.does("stop").await?;
        Ok((deaths, revivals))
    }

    async fn does(&self, verb: &str) -> Outcome<()> {
        let folder = self.folder.display().to_string();
        run("env", &["BIND=0.0.0.0", &self.script, &folder, &self.port.to_string(), verb], "").await.map(drop)
    }

    /// Kills it. Returns the time at which its process was gone.
    async fn kill(&self) -> Outcome<Instant> {
        let file = std::fs::read_to_string(self.folder.join("pid"))?;
        let pid = file.split_whitespace().next().ok_or("the server has no process id")?;
        let process = Path::new("/proc").join(pid).join("stat");
        let gone = async {
            // The script returns later, which would flatter the result.
            while lives(&process) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            Ok(Instant::now())
        };
        Ok(tokio::try_join!(self.does("kill"), gone)?.1)
    }

    /// Starts it again. Returns the start of the first successful login, the earliest time at which it can be available.
    async fn revive(&self) -> Outcome<Instant> {
        let answers = async {
            loop {
                let began = Instant::now();
                if self.answers().await {
                    return Ok(began);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Ok(tokio::try_join!(self.does("start"), answers)?.1)
    }

    /// Whether a login succeeds, or for nginx a connection.
    async fn answers(&self) -> bool {
        if !self.script.ends_with("postgresql") {
            return tokio::net::TcpStream::connect((self.host, self.port)).await.is_ok();
        }
        let options = PgConnectOptions::new_without_pgpass()
            .host(&self.host.to_string())
            .port(self.port)
            .username("app")
            .password("app-secret")
            .database("app")
            .ssl_mode(sqlx::postgres::PgSslMode::Disable);
        match options.connect().await {
            Ok(connection) => connection.close().await.is_ok(),
            Err(_) => false,
        }
    }
}

/// Whether the process is running; a zombie is not.
fn lives(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}
