//! What the benches share: the operator as a process, the cluster around it, and the report.
#![allow(dead_code, reason = "each bench uses its part of it")]

pub(crate) mod audit;
pub(crate) mod bare;
pub(crate) mod cluster;
pub(crate) mod engine;
pub(crate) mod load;
pub(crate) mod operator;
pub(crate) mod process;
pub(crate) mod ready;
pub(crate) mod receiver;
pub(crate) mod report;

use std::{
    error::Error,
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
    str::FromStr,
    time::Duration,
};

/// Whatever goes wrong ends the bench, in its own words.
pub(crate) type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

/// The folder of the run, which `e2e/with` made.
pub(crate) fn run_folder() -> Outcome<PathBuf> {
    Ok(PathBuf::from(variable("AUTHLINK_TEST_DIR")?))
}

/// An environment variable that `e2e/with` sets.
pub(crate) fn variable(name: &str) -> Outcome<String> {
    std::env::var(name).map_err(|_| format!("{name} is not set: run e2e/bench").into())
}

/// An environment variable that shortens or lengthens the bench.
pub(crate) fn setting<T: FromStr>(name: &str, default: T) -> Outcome<T> {
    match std::env::var(name) {
        Ok(text) => text.parse().map_err(|_| format!("{name}: {text} cannot be used").into()),
        Err(_) => Ok(default),
    }
}

/// Such a variable with seconds: `60s` or `60`.
pub(crate) fn seconds(name: &str, default: u64) -> Outcome<Duration> {
    let text = setting(name, format!("{default}s"))?;
    let seconds = text.trim_end_matches('s').parse();
    seconds.map(Duration::from_secs).map_err(|_| format!("{name}: {text} is not like 60s").into())
}

/// Runs a program to its end, with `input` on its stdin; gives its stdout.
pub(crate) async fn run(program: &str, args: &[&str], input: &str) -> Outcome<String> {
    let mut command = Command::new(program);
    command.args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let (words, input) = (format!("{program} {}", args.join(" ")), input.to_owned());
    let output = tokio::task::spawn_blocking(move || {
        let mut child = command.spawn()?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output()
    });
    let output = output.await?.map_err(|error| format!("{words}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{words}: {}", String::from_utf8_lossy(&output.stderr).trim()).into());
    }
    Ok(String::from_utf8(output.stdout)?.trim().to_owned())
}

/// The value in the middle, or between the two that are there.
pub(crate) fn median(values: &[f64]) -> f64 {
    let upside_down: Vec<_> = values.iter().map(|value| -value).collect();
    f64::midpoint(quantile(values, 0.5), -quantile(&upside_down, 0.5))
}

/// The smallest value that so large a part of all is not above.
#[allow(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    clippy::cast_precision_loss,
    reason = "a few thousand values at the most"
)]
pub(crate) fn quantile(values: &[f64], part: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let rank = (part * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(f64::NAN)
}
