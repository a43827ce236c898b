//! The operator's own binary, as the chart's ServiceAccount.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use super::{Namespace, SOON, environment::operator_kubeconfig, eventually, free_port, processes, test_dir};

/// A running operator, ended with the value.
pub(crate) struct Operator {
    process: Child,
    address: SocketAddr,
    log: PathBuf,
}

impl Operator {
    /// Starts one for this namespace, and waits until it is ready.
    pub(crate) async fn start(namespace: &Namespace, flags: &[&str]) -> Self {
        Self::start_as(&operator_kubeconfig(), namespace, flags).await
    }

    /// The same with another cluster or account.
    pub(crate) async fn start_as(kubeconfig: &Path, namespace: &Namespace, flags: &[&str]) -> Self {
        let operator = Self::spawn(kubeconfig, &namespace.name, flags);
        operator.is_ready().await;
        operator
    }

    /// The same with this as its `/etc/hosts`, in a mount namespace of its own.
    pub(crate) async fn start_with_hosts(namespace: &Namespace, hosts: &str) -> Self {
        let file = test_dir().join(format!("hosts-{}", namespace.name));
        fs::write(&file, hosts).expect("the test folder can be written to");
        Self::start_with_file(namespace, "/etc/hosts", &file).await
    }

    /// The same with this file in the place of one of the system's.
    pub(crate) async fn start_with_file(namespace: &Namespace, place: &str, file: &Path) -> Self {
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.arg(file).args([place, env!("CARGO_BIN_EXE_authlink")]);
        let operator = Self::spawn_by(command, &operator_kubeconfig(), &namespace.name, &[]);
        operator.is_ready().await;
        operator
    }

    /// Waits until it is ready.
    pub(crate) async fn is_ready(&self) {
        eventually(SOON, "the operator is ready", async || match self.get("/readyz") {
            Ok((200, _)) => Ok(()),
            Ok((status, body)) => Err(format!("{status} {body}")),
            Err(error) => Err(format!("{error}; it logged {}", self.logs())),
        })
        .await;
    }

    /// What it says of its readiness: status and text.
    pub(crate) fn readiness(&self) -> io::Result<(u16, String)> {
        self.get("/readyz")
    }

    /// Starts one, and does not wait.
    pub(crate) fn spawn(kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Self {
        Self::spawn_by(Command::new(env!("CARGO_BIN_EXE_authlink")), kubeconfig, namespace, flags)
    }

    fn spawn_by(mut command: Command, kubeconfig: &Path, namespace: &str, flags: &[&str]) -> Self {
        let address = SocketAddr::from(([127, 0, 0, 1], free_port()));
        let folder = test_dir().join("operators");
        fs::create_dir_all(&folder).expect("the test folder can be written to");
        let log = folder.join(format!("{namespace}-{}.log", address.port()));
        let file = File::create(&log).expect("a log file");
        let process = command
            .args(["run", "--watch-namespaces", namespace, "--leader-elect", "false"])
            .args(["--http-addr", &address.to_string(), "--log-format", "json"])
            .args(["--log-level", "authlink=debug,info"])
            .args(flags)
            .env("KUBECONFIG", kubeconfig)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("a file"))
            .stderr(file)
            .spawn()
            .expect("the operator starts");
        Self { process, address, log }
    }

    /// Sends it a signal.
    pub(crate) fn signal(&self, name: &str) {
        processes::signal(name, &self.process.id().to_string());
    }

    fn get(&self, path: &str) -> io::Result<(u16, String)> {
        let mut stream = TcpStream::connect_timeout(&self.address, Duration::from_secs(5))?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        write!(stream, "GET {path} HTTP/1.0\r\nHost: authlink\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let status = answer.split(' ').nth(1).and_then(|status| status.parse().ok());
        let body = answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
        status.zip(body).ok_or_else(|| io::Error::other(answer))
    }

    /// The page of metrics.
    pub(crate) fn metrics(&self) -> String {
        let (status, page) = self.get("/metrics").expect("metrics");
        assert_eq!(status, 200);
        page
    }

    /// The sum of the series of this name whose labels contain this text.
    pub(crate) fn metric(&self, name: &str, label: &str) -> f64 {
        let page = self.metrics();
        let values = page.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let (found, labels) = series.split_once('{').unwrap_or((series, ""));
            (found == name && labels.contains(label)).then(|| value.parse::<f64>().expect("a number"))
        });
        values.sum()
    }

    /// Resident memory, in bytes.
    pub(crate) fn memory(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.process.id())).expect("a process");
        let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("its size");
        line.split_whitespace().nth(1).and_then(|size| size.parse::<u64>().ok()).expect("a size") * 1024
    }

    /// Probes that passed, and those that failed, by reason.
    pub(crate) fn probes(&self) -> (u64, BTreeMap<String, u64>) {
        let page = self.metrics();
        let mut failed = BTreeMap::new();
        let mut passed = 0;
        for line in page.lines().filter(|line| line.starts_with("authlink_probe_total{")) {
            let count: u64 =
                line.rsplit_once(' ').and_then(|(_, count)| count.parse().ok()).expect("a count");
            let reason = line.split("reason=\"").nth(1).and_then(|rest| rest.split('"').next());
            if line.contains("result=\"success\"") {
                passed += count;
            } else {
                *failed.entry(reason.unwrap_or_default().to_owned()).or_default() += count;
            }
        }
        (passed, failed)
    }

    /// Waits until so many more probes are over.
    pub(crate) async fn more_probes(&self, count: u64) {
        let over = || {
            let (passed, failed) = self.probes();
            passed + failed.values().sum::<u64>()
        };
        let before = over();
        eventually(SOON + Duration::from_secs(2 * count), "more probes", async || {
            let now = over() - before;
            if now >= count { Ok(()) } else { Err(format!("{now} of {count}")) }
        })
        .await;
    }

    /// Waits until so many more probes are over, of which at least so many in this process have got no answer in time.
    pub(crate) async fn more_probes_with_late_ones(&self, count: u64, late: u64) {
        self.more_probes(count).await;
        let failed = self.probes().1;
        assert!(failed["Timeout"] >= late, "{failed:?}");
    }

    /// Everything that it logged.
    pub(crate) fn logs(&self) -> String {
        fs::read_to_string(&self.log).expect("the log")
    }

    /// The same once all these words are there: lines are written a moment after what they tell of.
    pub(crate) async fn logged(&self, words: &[&str]) -> String {
        eventually(SOON, "lines in the log", async || {
            let logs = self.logs();
            match words.iter().find(|words| !logs.contains(**words)) {
                None => Ok(logs),
                Some(missing) => Err(format!("no {missing} in {logs}")),
            }
        })
        .await
    }

    /// Whether it ends by itself, within this time.
    pub(crate) fn ended_within(&mut self, patience: Duration) -> bool {
        let started = Instant::now();
        while started.elapsed() < patience {
            if !matches!(self.process.try_wait(), Ok(None)) {
                return true;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        false
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the operator's log is {}", self.log.display());
        }
        let id = self.process.id().to_string();
        let _ = Command::new("kill").args(["-TERM", &id]).status();
        // One that a test has frozen cannot hear it.
        let _ = Command::new("kill").args(["-CONT", &id]).status();
        if !self.ended_within(Duration::from_secs(5)) {
            let _ = self.process.kill();
            let _ = self.process.wait();
        }
    }
}
