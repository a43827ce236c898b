//! Many objects: duration of a start, memory, and CPU usage and writes while nothing changes.
//!
//! Settings: AUTHLINK_BENCH_SIZES (1000,5000), AUTHLINK_BENCH_ROUNDS (3; half of it for the larger sizes) and
//! AUTHLINK_BENCH_REST (300s).

mod support;

use std::time::{Duration, Instant};

use authlink::{
    api::v1alpha1::{Database, ExternalApi},
    cluster::objects,
    controllers::Object,
};
use futures::{StreamExt, stream};
use kube::api::ListParams;
use serde_json::{Value, json};

use support::{
    Outcome,
    audit::Mark,
    cluster::{Cluster, specs},
    median,
    operator::Operator,
    ready::Watch,
    report::{Measure, Report},
    seconds, setting, variable,
};

/// The operator's default.
const CONCURRENCY: usize = 16;

/// The addresses of the test network are private, which must be allowed for ExternalApis.
const EGRESS: [&str; 2] = ["--egress-allow-cidrs", "10.99.0.0/16"];

/// The number of ExternalApis.
const APIS: usize = 1000;

/// Allowed growth of the cost per object, for the noise between two runs.
const NOISE: f64 = 1.1;

struct Bench {
    cluster: Cluster,
    specs: Vec<Value>,
    with_binding: Vec<Value>,
    /// The statuses that the operator writes for the four servers.
    statuses: Vec<Value>,
    report: Report,
}

/// One start of the operator.
struct Start {
    seconds: f64,
    cpu: f64,
    writes: f64,
    operator: Operator,
}

#[tokio::main]
async fn main() -> Outcome<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let sizes = setting("AUTHLINK_BENCH_SIZES", "1000,5000".to_owned())?;
    let sizes = sizes.split(',').map(str::parse).collect::<Result<Vec<usize>, _>>()?;
    let rounds: usize = setting("AUTHLINK_BENCH_ROUNDS", 3)?;
    let mut bench = Bench {
        cluster: Cluster::prepare("fleet").await?,
        specs: specs(false)?,
        with_binding: specs(true)?,
        statuses: Vec::new(),
        report: Report::new("fleet"),
    };
    bench.warm_up().await?;
    let mut per_object = Vec::new();
    for (index, size) in sizes.iter().enumerate() {
        let rounds = if index == 0 { rounds } else { rounds.div_ceil(2) };
        per_object.push(bench.starts(*size, rounds).await?);
    }
    if let [(small, floor_small), .., (large, floor_large)] = per_object[..] {
        let name = format!("cost per object, {} objects relative to {}", sizes[sizes.len() - 1], sizes[0]);
        let growth = large / small;
        let measure = Measure::new(name, growth, "x", Some(floor_large / floor_small));
        bench.report.add(measure.wanting("at most 1.1 x (10 % noise)", growth <= NOISE));
    }
    bench.apis(rounds).await?;
    let most = sizes.iter().copied().max().unwrap_or_default();
    bench.rest(most, seconds("AUTHLINK_BENCH_REST", 300)?).await?;
    bench.report.write()
}

impl Bench {
    /// Creates one object per server, to read the statuses for the floor and to warm up caches.
    async fn warm_up(&mut self) -> Outcome<()> {
        let start = self.start::<Database>(&self.specs, self.specs.len()).await?;
        let mut made = self.cluster.api::<Database>().list(&ListParams::default()).await?.items;
        made.sort_by_key(|database| database.metadata.name.clone());
        self.statuses =
            made.iter().map(|database| serde_json::to_value(&database.status)).collect::<Result<_, _>>()?;
        start.operator.stop().await?;
        self.cluster.clear::<Database>().await
    }

    /// Measures operator and floor in turn. Returns the seconds per object of both.
    async fn starts(&mut self, size: usize, rounds: usize) -> Outcome<(f64, f64)> {
        let (mut floors, mut starts, mut bound, mut writes) =
            (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        let mut bound_writes = Vec::new();
        for round in 1..=rounds {
            let floor = self.floor::<Database>(&self.specs, &self.statuses, size).await?;
            self.cluster.clear::<Database>().await?;
            let plain = self.start::<Database>(&self.specs, size).await?;
            plain.operator.stop().await?;
            self.cluster.clear::<Database>().await?;
            let binding = self.start::<Database>(&self.with_binding, size).await?;
            binding.operator.stop().await?;
            self.cluster.clear::<Database>().await?;
            println!(
                "{size} objects, round {round}: floor {floor:.2} s; start {:.2} s ({:.2} s of a core); \
                 with binding {:.2} s ({:.2} s of a core)",
                plain.seconds, plain.cpu, binding.seconds, binding.cpu
            );
            floors.push(floor);
            starts.push(plain.seconds);
            writes.push(plain.writes);
            bound.push(binding.seconds);
            bound_writes.push(binding.writes);
        }
        let (floor, start) = (median(&floors), median(&starts));
        let name = format!("start to all Ready, {size} objects");
        let measure = Measure::new(name, start, "s", Some(floor));
        self.report.add(measure.wanting("at most 2 x the floor", start <= 2.0 * floor));
        let name = format!("start to all Ready, {size} objects with binding Secrets");
        self.report.add(Measure::new(name, median(&bound), "s", Some(floor)));
        let name = format!("writes per object until Ready, {size} objects");
        self.report.add(Measure::new(name, median(&writes), "writes", Some(1.0)).within());
        let name = format!("writes per object until Ready, {size} objects with binding Secrets");
        self.report.add(Measure::new(name, median(&bound_writes), "writes", Some(2.0)).within());
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let count = size as f64;
        Ok((start / count, floor / count))
    }

    /// The same for ExternalApis, each with a URL of its own, so that they do not share probes.
    async fn apis(&mut self, rounds: usize) -> Outcome<()> {
        let nginx = variable("AUTHLINK_TEST_NGINX")?;
        let specs: Vec<_> = (0..APIS)
            .map(|number| json!({ "endpoints": [{ "url": format!("http://{nginx}/{number}") }] }))
            .collect();
        let warm = self.start::<ExternalApi>(&specs, 1).await?;
        let one = self.cluster.api::<ExternalApi>().list(&ListParams::default()).await?.items;
        let statuses: Vec<_> =
            one.iter().map(|api| serde_json::to_value(&api.status)).collect::<Result<_, _>>()?;
        warm.operator.stop().await?;
        self.cluster.clear::<ExternalApi>().await?;
        let (mut floors, mut starts) = (Vec::new(), Vec::new());
        for round in 1..=rounds {
            let floor = self.floor::<ExternalApi>(&specs, &statuses, APIS).await?;
            self.cluster.clear::<ExternalApi>().await?;
            let start = self.start::<ExternalApi>(&specs, APIS).await?;
            start.operator.stop().await?;
            self.cluster.clear::<ExternalApi>().await?;
            println!("{APIS} ExternalApis, round {round}: floor {floor:.2} s; start {:.2} s", start.seconds);
            floors.push(floor);
            starts.push(start.seconds);
        }
        let (floor, start) = (median(&floors), median(&starts));
        let measure =
            Measure::new(format!("start to all Ready, {APIS} ExternalApis"), start, "s", Some(floor));
        self.report.add(measure.wanting("at most 2 x the floor", start <= 2.0 * floor));
        Ok(())
    }

    /// Measures the same number of applies without an operator.
    async fn floor<K: Object>(&self, specs: &[Value], statuses: &[Value], size: usize) -> Outcome<f64> {
        let made = self.cluster.make::<K>(specs, size).await?;
        let mut watch = Watch::start::<K>(&self.cluster.operator, &self.cluster.namespace, "Ready").await?;
        let work: Vec<(K, Value)> = made.into_iter().zip(statuses.iter().cloned().cycle()).collect();
        let began = Instant::now();
        let client = &self.cluster.operator;
        let applies = stream::iter(work).map(|(object, status)| {
            let client = client.clone();
            tokio::spawn(async move { objects::apply_status(&client, &object, &status).await })
        });
        let mut applies = applies.buffer_unordered(CONCURRENCY);
        while let Some(done) = applies.next().await {
            done??;
        }
        let ready = watch.all_true(size).await?;
        Ok((ready - began).as_secs_f64())
    }

    /// Creates the objects, then starts the operator and waits until all of them are Ready.
    async fn start<K: Object>(&self, specs: &[Value], size: usize) -> Outcome<Start> {
        self.cluster.make::<K>(specs, size).await?;
        let mut watch = Watch::start::<K>(&self.cluster.admin, &self.cluster.namespace, "Ready").await?;
        let mark = Mark::now()?;
        let began = Instant::now();
        let operator = Operator::start(&self.cluster, &EGRESS)?;
        let patience = Duration::from_mins(10);
        let ready = tokio::time::timeout(patience, watch.all_true(size)).await;
        let ready = ready.map_err(|_| format!("not all Ready after {patience:?}: see operator.log"))??;
        let cpu = operator.cpu()?;
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        let writes = mark.writes(&self.cluster.user)? as f64 / size as f64;
        Ok(Start { seconds: (ready - began).as_secs_f64(), cpu, writes, operator })
    }

    /// Measures memory, CPU and writes while nothing changes, with probes every 30 seconds.
    async fn rest(&mut self, size: usize, period: Duration) -> Outcome<()> {
        let Start { operator, .. } = self.start::<Database>(&self.specs, size).await?;
        tokio::time::sleep(Duration::from_secs(15)).await;
        let (before, _) = operator.memory()?;
        let (mark, cpu) = (Mark::now()?, operator.cpu()?);
        tokio::time::sleep(period).await;
        let used = (operator.cpu()? - cpu) / period.as_secs_f64() * 100.0;
        let requests = mark.requests(&self.cluster.user)?;
        println!("requests at rest: {requests:?}");
        let (after, peak) = operator.memory()?;
        let memory = before.max(after);
        let name = format!("resident memory, {size} objects");
        self.report
            .add(Measure::new(name, memory, "MB", Some(102.0)).wanting("at most 120 MB", memory <= 120.0));
        let name = format!("peak resident memory, {size} objects");
        self.report.add(Measure::new(name, peak, "MB", Some(102.0)));
        let seconds = period.as_secs();
        let name = format!("CPU in {seconds} s idle, {size} objects, probes every 30 s");
        self.report.add(Measure::new(name, used, "% of a core", Some(2.0)).wanting("under 2 %", used < 2.0));
        let writes = mark.writes(&self.cluster.user)?;
        let name = format!("API writes in {seconds} s idle, {size} objects");
        #[allow(clippy::cast_precision_loss, reason = "a few thousand")]
        self.report.add(Measure::new(name, writes as f64, "writes", Some(0.0)).within());
        operator.stop().await?;
        self.cluster.clear::<Database>().await
    }
}
