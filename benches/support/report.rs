//! What was measured: for the terminal, and as docs/benchmarks.json and docs/benchmarks.md.

use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Outcome;

/// What a reader of the table needs to know, whatever the numbers are.
const NOTES: &str = "\
How to read it:

- The **floor** of a start is the time that kube alone takes for one server-side status apply per object, with a status of \
the same size, the same rights and the same number of requests at once, in the same run, with only \
the bench's own watch beside it. No operator that reports on every object can be faster. The operator and the floor take turns on objects that are \
made afresh; both numbers are medians, and both clocks stop when a watch has shown the last object as Ready.
- The start includes everything from the start of the process: reading the configuration, taking the Lease, listing, \
connecting to the four servers, and the first probe.
- MB are 1,000,000 bytes, as in `VmRSS`. CPU is of one core. Writes are all requests of the operator's user in the API \
server's audit log that change something, Events included, and its Lease left out.
- A death is the moment in which the server's process is gone, a revival the start of the first login that succeeds (of \
nginx: connection); the clock stops when a watch shows the condition. The bound is `unhealthyThreshold` (or `healthyThreshold`) x `interval` + \
`timeout` + 250 ms, for EndpointSlices + 500 ms.
- Beside nginx: gateway and nginx have one core in turns, each with the other idle; wrk and the backend, an nginx that answers 1 KiB, share the \
other core. Every call passes RBAC (remembered), `allow`, rate limit, breaker, metrics and the audit log.
- Queries: wrk is on the same two cores as gateway and PostgreSQL; the bare loop has no HTTP at all. The bare HTTP \
server is one of a few lines, in the bench's own process: it runs the same statement by sqlx and answers how many rows there were, without looking \
at who asks or at what the rows hold.
- Where the reference is neither a floor nor a bound: External Secrets with its fake provider, 1,000 objects in 103 s with 4 \
writes each and 102 MB (of 1,000 objects, whatever number stands beside it), on the same machine.
- The API server, etcd, the four servers and the bench share the machine's cores with the operator.
";

/// In the order of the table.
const BENCHES: [&str; 3] = ["fleet", "detection", "gateway"];

/// One number.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Measure {
    /// Starts with the bench's name.
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// What the value is held against, in the same unit.
    pub(crate) reference: Option<f64>,
    /// The value by the reference.
    pub(crate) ratio: Option<f64>,
    /// What is wanted; none where the number is only reported.
    pub(crate) goal: Option<String>,
    pub(crate) met: Option<bool>,
}

impl Measure {
    /// Only reported.
    pub(crate) fn new(name: impl Into<String>, value: f64, unit: &str, reference: Option<f64>) -> Self {
        let ratio = reference.filter(|reference| *reference != 0.0).map(|reference| round(value / reference));
        let (name, value, unit) = (name.into(), round(value), unit.to_owned());
        Self { name, value, unit, reference: reference.map(round), ratio, goal: None, met: None }
    }

    /// With a goal.
    pub(crate) fn wanting(self, goal: impl Into<String>, met: bool) -> Self {
        Self { goal: Some(goal.into()), met: Some(met), ..self }
    }

    /// At most the reference.
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

/// Collects the measures of one bench.
pub(crate) struct Report {
    bench: &'static str,
    measures: Vec<Measure>,
}

impl Report {
    pub(crate) fn new(bench: &'static str) -> Self {
        Self { bench, measures: Vec::new() }
    }

    /// Prints a measure, and keeps it.
    pub(crate) fn add(&mut self, measure: Measure) {
        let measure = Measure { name: format!("{}: {}", self.bench, measure.name), ..measure };
        let [name, value, reference, ratio, goal, met] = measure.cells();
        println!("{name}: {value}, reference {reference}, ratio {ratio}, goal {goal}: {met}");
        self.measures.push(measure);
    }

    /// Writes both files into the folder AUTHLINK_BENCH_DOCS, if it is set; the other benches' measures stay.
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
        // The order of the table does not depend on which bench ran last.
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
    writeln!(text, "| Measure | Value | Reference | Ratio | Goal | Met |")?;
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

/// Three decimals are more than any of this is worth.
fn round(value: f64) -> f64 {
    (value * 1000.0).round() / 1000.0
}
