//! Servers of `e2e/systems` that stand for APIs and authorization servers.

use std::path::{Path, PathBuf};

use super::{environment::test_dir, free_port, systems::run_script};

/// A server of one's own, gone with the value.
pub(crate) struct ApiServer {
    pub(crate) port: u16,
    system: &'static str,
    dir: PathBuf,
}

impl ApiServer {
    /// A server by the name of its script, on all addresses.
    pub(crate) fn start(system: &'static str) -> Self {
        Self::start_with(system, &[])
    }

    /// The same with settings of the script.
    pub(crate) fn start_with(system: &'static str, settings: &[(&'static str, &str)]) -> Self {
        let port = free_port();
        let dir = test_dir().join("systems").join(format!("{system}-{port}-{}", std::process::id()));
        let all = [&[("BIND", "0.0.0.0")], settings].concat();
        let all: Vec<_> = all.into_iter().map(|(name, value)| (name, value.to_owned())).collect();
        run_script(system, &dir, port, "start", &all);
        Self { port, system, dir }
    }

    /// Where it keeps its data.
    pub(crate) fn folder(&self) -> &Path {
        &self.dir
    }

    /// Crashes it.
    pub(crate) fn kill(&self) {
        run_script(self.system, &self.dir, self.port, "kill", &[]);
    }
}

impl Drop for ApiServer {
    fn drop(&mut self) {
        // Not asserted, since a panic here would hide the test's own.
        let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.kill()));
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
