//! The operator as users run it: its binary, as a process, seen from outside.

use std::{
    fs::File,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use super::{Outcome, cluster::Cluster, process, run};

/// A process that runs; it ends with the value.
pub(crate) struct Operator {
    child: Child,
    pid: u32,
}

impl Operator {
    /// Starts it, with the rights that the chart gives and all other settings at their defaults.
    pub(crate) fn start(cluster: &Cluster, flags: &[&str]) -> Outcome<Self> {
        Self::start_by(Command::new(binary()), cluster, flags)
    }

    /// The same, on one core.
    pub(crate) fn start_on(core: &str, cluster: &Cluster, flags: &[&str]) -> Outcome<Self> {
        let mut command = Command::new("taskset");
        command.args(["-c", core]).arg(binary());
        Self::start_by(command, cluster, flags)
    }

    fn start_by(mut command: Command, cluster: &Cluster, flags: &[&str]) -> Outcome<Self> {
        let log = File::options().create(true).append(true).open(cluster.folder.join("operator.log"))?;
        let child = command
            .args(["run", "--http-addr", "127.0.0.1:0", "--lease-namespace", &cluster.home])
            .args(flags)
            .env("KUBECONFIG", &cluster.operator_kubeconfig)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()?;
        let pid = child.id();
        Ok(Self { child, pid })
    }

    /// Ends it in an orderly way, so that its Lease is free for the next one.
    pub(crate) async fn stop(mut self) -> Outcome<()> {
        run("kill", &["-TERM", &self.pid.to_string()], "").await?;
        for _ in 0..400 {
            if self.child.try_wait()?.is_some() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Err("the operator does not stop".into())
    }

    /// Resident memory now and at its peak, in MB of 1,000,000 bytes.
    pub(crate) fn memory(&self) -> Outcome<(f64, f64)> {
        process::memory(&self.pid.to_string())
    }

    /// Seconds of a core that it has used so far.
    pub(crate) fn cpu(&self) -> Outcome<f64> {
        process::cpu(&self.pid.to_string())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        // Fails only where it has ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The binary that is measured.
fn binary() -> PathBuf {
    let given = std::env::var_os("AUTHLINK_BINARY").map(PathBuf::from);
    given.unwrap_or_else(|| Path::new(env!("CARGO_BIN_EXE_authlink")).to_owned())
}
