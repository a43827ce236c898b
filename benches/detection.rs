//! How long it takes from a server's death until the object says so, and from its revival likewise.
//!
//! AUTHLINK_BENCH_KILLS (50) is the number of deaths.

mod support;

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde_json::json;
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
/// What writing the status and seeing it may add.
const SLACK_MS: u32 = 250;

/// A PostgreSQL of the bench's own, since it dies.
struct Server {
    script: String,
    folder: PathBuf,
    port: u16,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let kills: usize = setting("AUTHLINK_BENCH_KILLS", 50)?;
    let cluster = Cluster::prepare("detection").await?;
    let server = Server::start().await?;
    let mut watch = Watch::start(&cluster.admin, &cluster.namespace, "Healthy").await?;
    let operator = Operator::start(&cluster)?;
    let spec = json!({
        "type": "postgresql", "host": "127.0.0.1", "port": server.port, "database": "app",
        "credentialsRef": { "name": "login" },
        "tls": { "mode": "None" },
        "healthCheck": {
            "interval": format!("{INTERVAL_MS}ms"), "timeout": format!("{TIMEOUT_MS}ms"), "jitterPercent": 10,
            "unhealthyThreshold": UNHEALTHY, "healthyThreshold": HEALTHY,
        },
    });
    cluster.make(&[spec], 1).await?;
    within(watch.until("True")).await?;

    let (mut deaths, mut revivals) = (Vec::new(), Vec::new());
    for round in 1..=kills {
        // At any moment between two probes.
        tokio::time::sleep(Duration::from_millis(INTERVAL_MS.into()).mul_f64(1.0 + rand::random::<f64>()))
            .await;
        let died = server.kill().await?;
        let seen = within(watch.until("False")).await?;
        deaths.push(milliseconds(died, seen));
        tokio::time::sleep(Duration::from_millis(INTERVAL_MS.into()).mul_f64(rand::random())).await;
        let revived = server.revive().await?;
        let seen = within(watch.until("True")).await?;
        revivals.push(milliseconds(revived, seen));
        let latest = |times: &[f64]| times.last().copied().unwrap_or_default();
        println!("kill {round}: seen after {:.0} ms, revival {:.0} ms", latest(&deaths), latest(&revivals));
    }
    operator.stop().await?;
    server.stop().await?;

    let mut report = Report::new("detection");
    describe(&mut report, &format!("death to Healthy=False, {kills} kills"), &deaths, UNHEALTHY);
    describe(&mut report, &format!("revival to Healthy=True, {kills} revivals"), &revivals, HEALTHY);
    report.write()
}

fn describe(report: &mut Report, name: &str, times: &[f64], threshold: u32) {
    let bound = Some(f64::from(threshold * INTERVAL_MS + TIMEOUT_MS + SLACK_MS));
    let measure = |part: &str, value| Measure::new(format!("{name}, {part}"), value, "ms", bound);
    report.add(measure("p50", quantile(times, 0.5)));
    report.add(measure("p99", quantile(times, 0.99)).within());
    report.add(measure("longest", quantile(times, 1.0)));
}

async fn within<T>(wait: impl Future<Output = Outcome<T>>) -> Outcome<T> {
    let patience = Duration::from_mins(1);
    tokio::time::timeout(patience, wait).await.map_err(|_| "the condition did not come: see operator.log")?
}

fn milliseconds(from: Instant, to: Instant) -> f64 {
    to.saturating_duration_since(from).as_secs_f64() * 1000.0
}

impl Server {
    async fn start() -> Outcome<Self> {
        let script = format!("{}/systems/postgresql", variable("AUTHLINK_E2E")?);
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let server = Self { script, folder: run_folder()?.join("systems/detection"), port };
        server.does("start").await?;
        Ok(server)
    }

    async fn does(&self, verb: &str) -> Outcome<()> {
        let folder = self.folder.display().to_string();
        run(&self.script, &[&folder, &self.port.to_string(), verb], "").await.map(drop)
    }

    /// Kills it; gives the moment in which its process was gone.
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

    /// Starts it again; gives the moment in which the first login that succeeds began, the earliest that it can have
    /// served.
    async fn revive(&self) -> Outcome<Instant> {
        let options = PgConnectOptions::new_without_pgpass()
            .host("127.0.0.1")
            .port(self.port)
            .username("app")
            .password("app-secret")
            .database("app")
            .ssl_mode(sqlx::postgres::PgSslMode::Disable);
        let answers = async {
            loop {
                let began = Instant::now();
                if let Ok(connection) = options.connect().await {
                    let _ = connection.close().await;
                    return Ok(began);
                }
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        Ok(tokio::try_join!(self.does("start"), answers)?.1)
    }

    async fn stop(&self) -> Outcome<()> {
        self.does("stop").await
    }
}

/// A zombie is as dead as one that is gone.
fn lives(process: &Path) -> bool {
    let stat = std::fs::read_to_string(process).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, fields)| !fields.starts_with(['Z', 'X']))
}
