//! An engine and its producers as a process of their own, which can be killed: this test's binary, started anew.

use std::{
    fs::File,
    io::Write,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use authlink::{
    backends::http::Egress,
    delivery::{Engine, EngineSettings},
    domain::delivery::scheduler::EndpointConfig,
    store::{Location, Store},
    telemetry::metrics::Metrics,
};
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::bed::{NAMESPACE, configured, endpoint, event};

/// What such a process is to do.
#[derive(Clone)]
pub(super) struct Program {
    pub(super) store: String,
    pub(super) receiver: String,
    /// Ids that were accepted are appended to this file, once they are.
    pub(super) log: PathBuf,
    /// Who holds the leases.
    pub(super) owner: String,
    /// Events that are to be accepted in all, counted by the lines of the log.
    pub(super) events: usize,
    /// Producers at once.
    pub(super) producers: usize,
    pub(super) lease: Duration,
    /// Whether nothing is sent.
    pub(super) suspended: bool,
}

/// A process; killed with the value.
pub(super) struct Process(pub(super) Child);

impl Program {
    pub(super) fn start(&self) -> Process {
        self.start_under(&[])
    }

    /// The same under another program, which is given the rest of its command line.
    pub(super) fn start_under(&self, wrapper: &[&str]) -> Process {
        let binary = std::env::current_exe().expect("this program");
        let mut command = match wrapper {
            [] => Command::new(&binary),
            [program, args @ ..] => {
                let mut command = Command::new(program);
                command.args(args).arg(&binary);
                command
            }
        };
        command.args(["--exact", "delivery::process::is_an_engine_of_its_own", "--ignored", "--nocapture"]);
        let variables = [
            ("STORE", self.store.clone()),
            ("RECEIVER", self.receiver.clone()),
            ("LOG", self.log.display().to_string()),
            ("OWNER", self.owner.clone()),
            ("EVENTS", self.events.to_string()),
            ("PRODUCERS", self.producers.to_string()),
            ("LEASE", self.lease.as_millis().to_string()),
            ("SUSPENDED", self.suspended.to_string()),
        ];
        command.envs(variables.map(|(name, value)| (format!("AUTHLINK_ENGINE_{name}"), value)));
        command.process_group(0);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        Process(child.expect("a process"))
    }

    /// Ids that were accepted, as far as somebody was told.
    pub(super) fn accepted(&self) -> Vec<String> {
        ids(&self.log)
    }
}

impl Process {
    pub(super) fn kill(&mut self) {
        // With what it runs, if it is a program that runs another one. It may have ended.
        let group = format!("-{}", self.0.id());
        let _ = Command::new("kill").args(["-KILL", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.0.kill();
        let _ = self.0.wait();
    }

    pub(super) fn pid(&self) -> String {
        self.0.id().to_string()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whole lines of a file; a process that dies leaves half of one.
pub(super) fn lines(path: &Path) -> Vec<String> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(str::to_owned).collect()
}

/// The ids in a log of what was accepted.
fn ids(path: &Path) -> Vec<String> {
    let mut lines = lines(path);
    lines.retain(|line| line.len() == "evt_".len() + 32);
    lines
}

fn setting(name: &str) -> String {
    std::env::var(format!("AUTHLINK_ENGINE_{name}")).expect(name)
}

#[tokio::test]
#[ignore = "other tests start it, as a process"]
async fn is_an_engine_of_its_own() {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let (metrics, _) = Metrics::registered();
    let store =
        Arc::new(Store::new(Location::Url(setting("STORE").into()), metrics.store.clone()).expect("a store"));
    let lease_time = Duration::from_millis(setting("LEASE").parse().expect("LEASE"));
    let settings = EngineSettings { owner: setting("OWNER"), lease_time, ..EngineSettings::default() };
    let engine = Engine::new(store, Egress::unrestricted(), settings, metrics.delivery.clone());
    let engine = engine.expect("an engine");
    let hook = endpoint("hook", &setting("RECEIVER"));
    let config = EndpointConfig { suspended: setting("SUSPENDED") == "true", ..hook.config.clone() };
    engine.set_endpoint(configured(hook, config)).expect("an endpoint");
    let running = engine.clone();
    tokio::spawn(async move { running.run(CancellationToken::new()).await });
    let log = PathBuf::from(setting("LOG"));
    let already = ids(&log).len();
    let mut file = File::options().append(true).create(true).open(&log).expect("a log");
    // What the process before has left of a line is not a line of this one.
    file.write_all(b"\n").expect("a log");
    let (file, left) = (
        Arc::new(Mutex::new(file)),
        setting("EVENTS").parse::<usize>().expect("EVENTS").saturating_sub(already),
    );
    let left = Arc::new(Mutex::new(left));
    for producer in 0..setting("PRODUCERS").parse::<usize>().expect("PRODUCERS") {
        let (engine, file, left) = (engine.clone(), Arc::clone(&file), Arc::clone(&left));
        tokio::spawn(async move {
            loop {
                {
                    let mut left = left.lock();
                    if *left == 0 {
                        return;
                    }
                    *left -= 1;
                }
                let event = event(&format!(
                    r#"{{"type":"user.created","data":"{producer}-{:x}"}}"#,
                    rand::random::<u64>()
                ));
                if let Ok(accepted) = engine.accept(NAMESPACE, vec![event]).await {
                    let id = accepted[0].id.clone().expect("an id");
                    file.lock().write_all(format!("{id}\n").as_bytes()).expect("a log");
                } else {
                    // The store is away: a producer would try again.
                    *left.lock() += 1;
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            }
        });
    }
    std::future::pending::<()>().await;
}
