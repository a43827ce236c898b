//! Writes the results to the terminal, to docs/benchmarks.json and to docs/benchmarks.md.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Outcome;

/// The explanation of the table.
const NOTES: &str = "\
How to read the table:

- The **floor** of a start is the time that kube alone needs for one server-side apply of a status per object, with \
statuses of the same size, the same permissions and the same concurrency, in the same run, with only the watch of \
the benchmark as additional load. An operator that reports a status for every object cannot be faster. Operator and \
floor alternate on newly created objects; both numbers are medians, and both end when a watch shows the last object \
as Ready.
- The start includes everything from the start of the process: reading the configuration, acquiring the Lease, \
listing, connecting to the four servers, and the first probe.
- MB are 1,000,000 bytes, as in `VmRSS`. CPU is relative to one core. Writes are all requests of the operator in the \
audit log of the API server that change something, including Events, without its Lease.
- A failure starts when the process of the server is gone, a recovery with the first login that succeeds (for nginx: \
connection); both end when a watch shows the condition. The bound is `unhealthyThreshold` (or `healthyThreshold`) x \
`interval` + `timeout` + 250 ms, for EndpointSlices + 500 ms.
- Comparison with nginx: gateway and nginx use the same core in turn, while the other one is idle; wrk and the \
backend, an nginx with a response of 1 KiB, share the other core. Every call includes RBAC (cached), `allow`, rate \
limit, circuit breaker, metrics and access log.
- Queries: wrk uses the same two cores as gateway and PostgreSQL; the sqlx loop has no HTTP. The minimal HTTP server \
runs in the process of the benchmark: it runs the same statement with sqlx and responds with the number of rows, \
without authentication and without encoding the rows.
- Deliveries: engine and 32 producers are in the process of the benchmark, the receiver is another process on the same two cores; \
8 endpoints with a concurrency of 8 share the events of 1 KB, and all settings are the defaults. The rate includes the time until the last event \
was received. The bare client is hyper's with its pool: it signs the same bodies and sends them with 64 requests at a time, and stores nothing. \
Each event is handed in after the previous one of its producer was accepted, which waits for a sync of the disk: 32 producers cannot have more \
than 32 events accepted for each sync.
- If the reference is neither a floor nor a bound, it is External Secrets with its fake provider on the same \
machine: 1,000 objects in 103 s with 4 writes each and 102 MB (for 1,000 objects in every row).
- The API server, etcd, the four servers and the benchmark share the cores of the machine with the operator.
";

/// The benchmarks, in the order of the table.
const BENCHES: [&str; 4] = ["fleet", "detection", "gateway", "delivery"];

/// A result.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// The name, with the name of the benchmark as its prefix.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The value to compare with, in the same unit.
    pub(crate) reference: Option<f64>,
    /// The value divided by the reference.
    pub(crate) ratio: Option<f64>,
    /// The goal; none if the value is only reported.
    pub(crate) goal: Option<String>,
    pub(crate) met: Option<bool>,
}

impl Measure {
    /// A value without a goal.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &str, reference: Option<f64>) -> Self {
        let ratio = reference.filter(|reference| *reference != 0.0).map(|reference| round(value / reference));
        let (name, value, unit) = (name.into(), round(value), unit.to_owned());
        Self { name, value, unit, reference: reference.map(round), ratio, goal: None, met: None }
    }

    /// Adds a goal.
    pub(crate) fn wanting(self, goal: impl Into<String>, met: bool) -> Self {
        Self { goal: Some(goal.into()), met: Some(met), ..self }
    }

    /// Adds the goal that the value is at most the reference.
    pub(crate) fn within(self) -> Self {
        let met = self.reference.is_some_and(|reference| self.value <= reference);
        self.wanting("at most the reference", met)
    }

    fn cells(&self) -> [String; 6] {
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        [
            self.name.clone(),
            format!("{} {}", self.value, self.unit),
            or_dash(self.reference.map(|reference| format!("{reference} {}", self.unit))),
            or_dash(self.ratio.map(|ratio| ratio.to_string())),
            or_dash(self.goal.clone()),
            match self.met {
                Some(true) => "yes".to_owned(),
                Some(false) => "**no**".to_owned(),
                None => "reported".to_owned(),
            },
        ]
    }
}

/// The results of one benchmark.
pub(crate) struct Report {
    bench: &'static str,
    measures: Vec<Measure>,
}

impl Report {
    pub(crate) fn new(bench: &'static str) -> Self {
        Self { bench, measures: Vec::new() }
    }

    /// Prints a result and adds it.
    pub(crate) fn add(&mut self, measure: Measure) {
        let measure = Measure { name: format!("{}: {}", self.bench, measure.name), ..measure };
        let [name, value, reference, ratio, goal, met] = measure.cells();
        println!("{name}: {value}, reference {reference}, ratio {ratio}, goal {goal}: {met}");
        self.measures.push(measure);
    }

    /// Writes both files to the directory AUTHLINK_BENCH_DOCS, if it is set. The results of the other benchmarks are kept.
    pub(crate) fn write(self) -> Outcome<()> {
        let Some(folder) = std::env::var_os("AUTHLINK_BENCH_DOCS").map(PathBuf::from) else { return Ok(()) };
        let file = folder.join("benchmarks.json");
        let mut all: Vec<Measure> = match std::fs::read(&file) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(_) => Vec::new(),
        };
        let prefix = format!("{}: ", self.bench);
        all.retain(|measure| !measure.name.starts_with(&prefix));
        all.extend(self.measures);
        // The order of the table must not depend on which benchmark ran last.
        all.sort_by_key(|measure| {
            BENCHES.iter().position(|bench| {
                measure.name.starts_with(bench) && measure.name[bench.len()..].starts_with(':')
            })
        });
        std::fs::write(&file, format!("{}\n", serde_json::to_string_pretty(&all)?))?;
        write_table(&folder, &all)
    }
}

fn write_table(folder: &Path, measures: &[Measure]) -> Outcome<()> {
    let mut text = String::from("# Benchmarks\n\n");
    let command = std::env::var("AUTHLINK_BENCH_COMMAND").unwrap_or_else(|_| "make bench".to_owned());
    writeln!(text, "- Date: {}", Timestamp::now().strftime("%Y-%m-%d"))?;
    writeln!(text, "- Machine: {}", machine()?)?;
    if let Ok(load) = std::env::var("AUTHLINK_BENCH_LOAD") {
        writeln!(text, "- Load average before the run (1, 5 and 15 minutes): {load}")?;
    }
    writeln!(text, "- Command: `{command}`\n")?;
    writeln!(text, "| Result | Value | Reference | Ratio | Goal | Met |")?;
    writeln!(text, "|---|---:|---:|---:|---|---|")?;
    for measure in measures {
        writeln!(text, "| {} |", measure.cells().join(" | "))?;
    }
    writeln!(text, "\n{NOTES}\nThe same numbers are in [benchmarks.json](benchmarks.json).")?;
    Ok(std::fs::write(folder.join("benchmarks.md"), text)?)
}

fn machine() -> Outcome<String> {
    let field = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).and_then(|line| line.split_once(':'));
        line.map_or_else(|| "unknown".to_owned(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism()?;
    let model = field(&std::fs::read_to_string("/proc/cpuinfo")?, "model name");
    let memory = field(&std::fs::read_to_string("/proc/meminfo")?, "MemTotal");
    let memory: f64 = memory.trim_end_matches(" kB").parse().unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let memory = memory / 1024.0 / 1024.0;
    Ok(format!("{cores} cores of {model}, {memory:.1} GiB of memory, Linux {}", kernel.trim()))
}

/// Rounds to three decimals.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
