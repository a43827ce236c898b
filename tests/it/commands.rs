//! The programs that users run.

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        LazyLock, OnceLock,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
};

/// What a program said.
#[derive(Debug)]
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Said {
    /// What it printed; it must have gone well.
    #[track_caller]
    pub(crate) fn well(self) -> String {
        assert_eq!(self.code, Some(0), "{}{}", self.out, self.err);
        self.out
    }
}

/// The folder of the sources, where cargo starts every test. Not the folder that they were compiled in: checkouts share their
/// compiled code.
pub(crate) fn root() -> &'static Path {
    static ROOT: LazyLock<PathBuf> = LazyLock::new(|| std::env::current_dir().expect("a working directory"));
    &ROOT
}

/// A variable that `e2e/with` exports.
pub(crate) fn variable(name: &str) -> String {
    std::env::var(name).unwrap_or_else(|_| panic!("{name} is not set: e2e/with starts what the tests need"))
}

/// Host and port of a test system.
pub(crate) fn address(system: &str) -> (String, u16) {
    let text = variable(&format!("AUTHLINK_TEST_{system}"));
    let (host, port) = text.rsplit_once(':').expect("HOST:PORT");
    (host.to_owned(), port.parse().expect("a port"))
}

/// One of the test certificates, as PEM.
pub(crate) fn certificate(name: &str) -> String {
    let path = Path::new(&variable("AUTHLINK_TEST_DIR")).join("tls").join(name);
    std::fs::read_to_string(path).expect("the test certificates")
}

/// Runs to the end.
pub(crate) fn run(command: &mut Command, stdin: &str) -> Said {
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("the program starts");
    // A program that does not read its input ends first, which is not for us to judge.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    let output = child.wait_with_output().expect("the program ends");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    Said { code: output.status.code(), out: text(&output.stdout), err: text(&output.stderr) }
}

/// `kubectl`, once the CRDs are there.
pub(crate) fn kubectl(arguments: &[&str], stdin: &str) -> Said {
    install_crds();
    run(&mut with_cluster("kubectl", arguments), stdin)
}

/// A program that talks to the API server; what it keeps of the cluster's kinds is from this run, and not from an
/// earlier cluster at the same address.
pub(crate) fn with_cluster(program: &str, arguments: &[&str]) -> Command {
    static CACHE: OnceLock<PathBuf> = OnceLock::new();
    variable("KUBECONFIG");
    let mut command = Command::new(program);
    command.args(arguments).env("KUBECACHEDIR", CACHE.get_or_init(|| scratch("kinds")));
    command
}

/// `authlink`, far from any cluster.
pub(crate) fn authlink(arguments: &[&str], stdin: &str) -> Said {
    run(Command::new(env!("CARGO_BIN_EXE_authlink")).args(arguments).env_remove("KUBECONFIG"), stdin)
}

/// A new folder; the system's cleaning takes it away.
pub(crate) fn scratch(name: &str) -> PathBuf {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let name = format!("authlink-{name}-{}-{}", std::process::id(), COUNT.fetch_add(1, Relaxed));
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    std::fs::create_dir_all(&folder).expect("a folder");
    folder
}

/// The files of a folder that end so, in order.
pub(crate) fn files(folder: &str, ending: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(root().join(folder)).expect(folder);
    let mut files: Vec<_> = entries.map(|entry| entry.expect("a file").path()).collect();
    files.retain(|path| path.to_string_lossy().ends_with(ending));
    files.sort();
    files
}

/// Installs the CRDs, once for all tests.
fn install_crds() {
    static INSTALLED: OnceLock<()> = OnceLock::new();
    INSTALLED.get_or_init(|| {
        let kubectl = |arguments: &[&str]| run(&mut with_cluster("kubectl", arguments), "").well();
        for crd in files("crds", ".yaml") {
            let file = crd.to_string_lossy();
            kubectl(&["apply", "--server-side", "--force-conflicts", "-f", &file]);
            kubectl(&["wait", "--for=condition=Established", "--timeout=30s", "-f", &file]);
        }
        // A list of kinds that was kept meanwhile may lack them.
        kubectl(&["api-resources", "--cached=false", "--api-group=authlink.dev"]);
    });
}

/// A namespace that goes with the test.
pub(crate) struct Place(String);

impl Place {
    pub(crate) fn new(purpose: &str) -> Self {
        let name = format!("{purpose}-{}", std::process::id());
        kubectl(&["create", "namespace", &name], "").well();
        Self(name)
    }

    pub(crate) fn name(&self) -> &str {
        &self.0
    }

    pub(crate) fn kubectl(&self, arguments: &[&str], stdin: &str) -> Said {
        kubectl(&[&["--namespace", &self.0], arguments].concat(), stdin)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        kubectl(&["delete", "namespace", &self.0, "--wait=false"], "");
    }
}
