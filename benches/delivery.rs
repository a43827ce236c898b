//! Deliveries to webhooks: throughput compared to a bare HTTP client, latency, isolation, memory and idle costs.
//!
//! AUTHLINK_BENCH_SECONDS (10s) is the duration of a measurement, AUTHLINK_BENCH_ROUNDS (3) the number of repetitions,
//! AUTHLINK_BENCH_BACKLOG (1000000) the number of deliveries of the dead endpoint, AUTHLINK_BENCH_ENDPOINTS (10000) the number of endpoints of
//! the event for many.

mod support;

use std::{
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, Instant},
};

use authlink::api::v1alpha1::Webhook;
use serde_json::json;
use sqlx::{AssertSqlSafe, Connection};

use support::{
    Outcome,
    audit::Mark,
    bare::{CONNECTIONS, bare_rate, per_second, syncs},
    cluster::Cluster,
    engine::{Deliverer, PRODUCERS, data, event},
    load::{Call, wrk},
    median,
    operator::Operator,
    process, quantile,
    ready::Watch,
    receiver::{Receiver, SLOW, run_if_asked},
    report::{Measure, Report},
    run_folder, seconds, setting, variable,
};

/// Endpoints that share the events, each with the default concurrency of 8.
const ENDPOINTS: usize = 8;
const BOTH_CORES: &str = "0,1";
/// The time within which a backlog must be delivered.
const DRAIN: Duration = Duration::from_mins(2);
const RATE: u32 = 500;

struct Bench {
    receiver: Receiver,
    rounds: usize,
    period: Duration,
    report: Report,
    folder: PathBuf,
}

fn main() -> Outcome<()> {
    run_if_asked()?;
    tokio::runtime::Runtime::new()?.block_on(measure())
}

async fn measure() -> Outcome<()> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let folder = run_folder()?.join("bench-delivery");
    std::fs::create_dir_all(&folder)?;
    let mut bench = Bench {
        receiver: Receiver::start().await?,
        rounds: setting("AUTHLINK_BENCH_ROUNDS", 3)?,
        period: seconds("AUTHLINK_BENCH_SECONDS", 10)?,
        report: Report::new("delivery"),
        folder,
    };
    bench.idle().await?;
    // First of all that allocates: its memory is that of the process.
    bench.backlog().await?;
    bench.throughput().await?;
    bench.latency().await?;
    bench.slow().await?;
    bench.many().await?;
    bench.gateway().await?;
    bench.report.write()
}

impl Bench {
    fn file(&self, name: &str) -> String {
        format!("sqlite://{}/{name}.db", self.folder.display())
    }

    /// An engine with the endpoints that share the events.
    async fn engine(&self, store: &str) -> Outcome<Deliverer> {
        let engine = Deliverer::start(store).await?;
        for number in 0..ENDPOINTS {
            engine.add(&format!("t{number}"), &format!("hook-{number}"), &self.receiver.url("hook"))?;
        }
        Ok(engine)
    }

    /// Deliveries per second, from the first event being handed in to the last one being received.
    async fn rate(&mut self, engine: &Deliverer) -> Outcome<f64> {
        self.receiver.reset().await?;
        let began = Instant::now();
        let accepted = engine.flood(ENDPOINTS, self.period).await?;
        let (accepting, received) = (began.elapsed(), self.receiver.requests().await?);
        self.receiver.until(accepted, DRAIN).await?;
        let rate = per_second(accepted, began.elapsed());
        println!(
            "  accepted {:.0}/s, received meanwhile {:.0}/s, delivered {rate:.0}/s",
            per_second(accepted, accepting),
            per_second(received, accepting)
        );
        Ok(rate)
    }

    async fn throughput(&mut self) -> Outcome<()> {
        let postgresql = postgresql("rate").await?;
        let (mut bare, mut sqlite, mut shared) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            bare.push(bare_rate(self.receiver.port, self.period).await?);
            for (store, rates) in [(&self.file("rate"), &mut sqlite), (&postgresql, &mut shared)] {
                let engine = self.engine(store).await?;
                rates.push(self.rate(&engine).await?);
                engine.stop().await?;
            }
        }
        println!("bare {bare:.0?}, SQLite {sqlite:.0?}, PostgreSQL {shared:.0?}");
        let syncs = syncs(&self.folder.join("syncs"))?;
        self.report.add(Measure::new(
            "syncs of 8 KiB per second by the disk of the stores",
            syncs,
            "1/s",
            None,
        ));
        let bare = median(&bare);
        for (store, rates, part) in [("SQLite", sqlite, 0.4), ("PostgreSQL", shared, 0.2)] {
            let rate = median(&rates);
            let name = format!("deliveries per second, {store}, 32 producers, compared to a bare client");
            let measure = Measure::new(name, rate, "1/s", Some(bare));
            self.report.add(measure.wanting(format!("at least {part} x the client"), rate >= part * bare));
        }
        Ok(())
    }

    async fn latency(&mut self) -> Outcome<()> {
        let postgresql = postgresql("latency").await?;
        for (name, store) in [("SQLite", self.file("latency")), ("PostgreSQL", postgresql)] {
            let engine = self.engine(&store).await?;
            engine.pace(ENDPOINTS, RATE, Duration::from_secs(2)).await?;
            let took = engine.pace(ENDPOINTS, 1000, self.period).await?;
            for (part, word, goal) in [(0.5, "p50", None), (0.99, "p99", Some(20.0))] {
                let took = quantile(&took, part);
                let measure = Measure::new(
                    format!("time to accept an event at 1000/s, {name}, {word}"),
                    took,
                    "ms",
                    None,
                );
                self.report.add(match goal {
                    Some(goal) => measure.wanting(format!("at most {goal} ms"), took <= goal),
                    None => measure,
                });
            }
            let took = self.first_bytes(&engine).await?;
            for (part, word, goal) in [(0.5, "p50", 10.0), (0.99, "p99", 50.0)] {
                let took = quantile(&took, part);
                let measure = Measure::new(
                    format!("event handed in to request received at {RATE}/s, {name}, {word}"),
                    took,
                    "ms",
                    None,
                );
                self.report.add(measure.wanting(format!("at most {goal} ms"), took <= goal));
            }
            engine.stop().await?;
        }
        Ok(())
    }

    /// The times from events being handed in to the receiver having the head of the request.
    async fn first_bytes(&mut self, engine: &Deliverer) -> Outcome<Vec<f64>> {
        tokio::time::sleep(Duration::from_millis(500)).await;
        self.receiver.reset().await?;
        let accepted = engine.pace(ENDPOINTS, RATE, self.period).await?.len();
        self.receiver.until(accepted, DRAIN).await?;
        Ok(self.receiver.received().await?.took)
    }

    async fn slow(&mut self) -> Outcome<()> {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..self.rounds {
            let engine = self.engine(&self.file(&format!("slow-{round}"))).await?;
            engine.pace(ENDPOINTS, RATE, Duration::from_secs(2)).await?;
            without.push(quantile(&self.first_bytes(&engine).await?, 0.99));
            engine.add("slow", "slow", &self.receiver.url("slow"))?;
            for _ in 0..20 {
                let events = (0..500).map(|_| event("slow")).collect::<Outcome<_>>()?;
                engine.accept(events).await?;
            }
            with.push(quantile(&self.first_bytes(&engine).await?, 0.99));
            engine.stop().await?;
        }
        let (with, without) = (median(&with), median(&without));
        let name = format!(
            "event to request, p99 at {RATE}/s, with an endpoint that responds after {} s and has 10000 pending, \
             compared to without it",
            SLOW.as_secs()
        );
        let measure = Measure::new(name, with, "ms", Some(without));
        self.report.add(measure.wanting("adds at most 50 ms", with - without <= 50.0));
        Ok(())
    }

    async fn backlog(&mut self) -> Outcome<()> {
        let pending: usize = setting("AUTHLINK_BENCH_BACKLOG", 1_000_000)?;
        let (long, short) = (self.file("long"), self.file("short"));
        let engine = self.engine(&long).await?;
        // Nobody listens on this port.
        engine.add("dead", "dead", "http://127.0.0.1:9/")?;
        let began = Instant::now();
        for batch in 0..pending.div_ceil(500) {
            let events =
                (0..500.min(pending - batch * 500)).map(|_| event("dead")).collect::<Outcome<_>>()?;
            engine.accept(events).await?;
        }
        println!("{pending} events for the dead endpoint accepted in {:?}", began.elapsed());
        engine.stop().await?;
        let (mut with, mut without, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.rounds {
            let engine = self.engine(&short).await?;
            without.push(self.rate(&engine).await?);
            engine.stop().await?;
            let engine = self.engine(&long).await?;
            engine.add("dead", "dead", "http://127.0.0.1:9/")?;
            with.push(self.rate(&engine).await?);
            let state = engine.engine.state("uid-dead").map(|(_, pending)| pending);
            if state != Some(pending as u64) {
                return Err(format!("{state:?} are pending, instead of {pending}").into());
            }
            memory.push(process::memory("self")?.0);
            engine.stop().await?;
        }
        println!("with {with:.0?}, without {without:.0?}, memory {memory:.1?}");
        let (with, without) = (median(&with), median(&without));
        let name = format!("deliveries per second, {pending} pending for a dead endpoint, compared to none");
        let measure = Measure::new(name, with, "1/s", Some(without));
        self.report.add(measure.wanting("at least 0.95 x that", with >= 0.95 * without));
        let memory = median(&memory);
        let name = format!("resident memory, engine and producers, {pending} pending");
        self.report.add(Measure::new(name, memory, "MB", Some(80.0)).within());
        Ok(())
    }

    async fn many(&mut self) -> Outcome<()> {
        let count: usize = setting("AUTHLINK_BENCH_ENDPOINTS", 10_000)?;
        let (mut accepted, mut arrived) = (Vec::new(), Vec::new());
        let engine = Deliverer::start(&self.file("many")).await?;
        for number in 0..count {
            engine.add("all", &format!("hook-{number}"), &self.receiver.url(&number.to_string()))?;
        }
        for _ in 0..self.rounds {
            self.receiver.reset().await?;
            let began = Instant::now();
            let answer = engine.accept(vec![event("all")?]).await?;
            accepted.push(began.elapsed().as_secs_f64());
            if answer.iter().map(|answer| answer.matched.len()).sum::<usize>() != count {
                return Err("not all endpoints have matched".into());
            }
            self.receiver.until(count, DRAIN).await?;
            arrived.push(began.elapsed().as_secs_f64());
        }
        engine.stop().await?;
        let accepted = median(&accepted);
        let measure =
            Measure::new(format!("one event for {count} endpoints, accepted"), accepted, "s", Some(1.0));
        self.report.add(measure.within());
        let name = format!("one event for {count} endpoints, received by the last one");
        self.report.add(Measure::new(name, median(&arrived), "s", None));
        Ok(())
    }

    /// The same through the gateway's HTTP API, and what a process costs that has nothing to do.
    async fn gateway(&mut self) -> Outcome<()> {
        let cluster = Cluster::prepare("delivery").await?;
        let host = variable("AUTHLINK_TEST_NGINX")?.parse::<SocketAddr>()?.ip();
        let address = std::net::TcpListener::bind((host, 0))?.local_addr()?;
        let (listen, file) = (address.to_string(), self.file("gateway"));
        let flags = ["--roles", "operator,gateway", "--gateway-addr", &listen, "--store", &file];
        let flags = [&flags[..], &["--egress-allow-cidrs", "10.99.0.0/16"]].concat();
        let mut watch = Watch::start::<Webhook>(&cluster.admin, &cluster.namespace, "Ready").await?;
        let operator = Operator::start(&cluster, &flags)?;
        let spec = json!({
            "url": format!("http://{host}:{}/hook", self.receiver.port), "events": ["*"],
            "verification": { "mode": "None", "allowHttp": true }, "delivery": { "concurrency": CONNECTIONS },
        });
        cluster.make::<Webhook>(&[spec], 1).await?;
        watch.all_true(1).await?;
        let call = Call {
            address,
            path: format!("/v1/events/{}", cluster.namespace),
            token: Some(cluster.caller(&["webhooks.authlink.dev/trigger"]).await?),
            body: Some(format!(r#"{{"type":"a","data":{}}}"#, data())),
        };
        let mut rates = Vec::new();
        for _ in 0..self.rounds {
            self.receiver.reset().await?;
            rates.push(wrk(BOTH_CORES, &call, PRODUCERS, self.period).await?);
            let (mut before, mut received) = (0, self.receiver.requests().await?);
            while received > before {
                tokio::time::sleep(Duration::from_secs(1)).await;
                (before, received) = (received, self.receiver.requests().await?);
            }
        }
        let name =
            format!("events accepted by HTTP per second, SQLite, {PRODUCERS} connections, while delivered");
        self.report.add(Measure::new(name, median(&rates), "1/s", None));
        // Until the last counts are in the store, and from there in the status.
        tokio::time::sleep(Duration::from_secs(45)).await;
        let (rest, mark, cpu) = (self.period * 3, Mark::now()?, operator.cpu()?);
        tokio::time::sleep(rest).await;
        let used = 100.0 * (operator.cpu()? - cpu) / rest.as_secs_f64();
        let name = format!("CPU in {} s idle, both roles, 1 Webhook", rest.as_secs());
        self.report.add(Measure::new(name, used, "% of a core", Some(1.0)).within());
        let writes = u32::try_from(mark.writes(&cluster.user)?)?;
        let name = format!("API writes in {} s idle, both roles, 1 Webhook", rest.as_secs());
        self.report.add(Measure::new(name, writes.into(), "writes", Some(0.0)).within());
        operator.stop().await
    }

    async fn idle(&mut self) -> Outcome<()> {
        const COUNT: usize = 1000;
        let engine = Deliverer::start(&self.file("idle")).await?;
        for number in 0..COUNT {
            engine.add("all", &format!("hook-{number}"), &self.receiver.url("hook"))?;
        }
        engine.accept(vec![event("all")?]).await?;
        self.receiver.until(COUNT, DRAIN).await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        let (before, began) = (process::cpu("self")?, Instant::now());
        tokio::time::sleep(self.period * 3).await;
        let used = 100.0 * (process::cpu("self")? - before) / began.elapsed().as_secs_f64();
        engine.stop().await?;
        let name = format!("CPU in {} s idle, {COUNT} endpoints", (self.period * 3).as_secs());
        let measure = Measure::new(name, used, "% of a core", Some(1.0));
        self.report.add(measure.within());
        Ok(())
    }
}

/// The URL of a new database.
async fn postgresql(name: &str) -> Outcome<String> {
    let server = variable("AUTHLINK_TEST_POSTGRESQL")?;
    let admin = format!("postgres://postgres:admin-secret@{server}/postgres");
    let create = format!("create database delivery_{name} owner app");
    sqlx::raw_sql(AssertSqlSafe(create)).execute(&mut sqlx::PgConnection::connect(&admin).await?).await?;
    Ok(format!("postgres://app:app-secret@{server}/delivery_{name}"))
}
