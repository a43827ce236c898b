//! `authlink check`: what the API server and the operator would say of manifests, asked once and without a cluster.

mod files;
mod schema;
mod table;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use futures::future::join_all;
use jiff::Timestamp;
use kube::Resource;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    api::{
        ConditionType, Kind, Managed, Reason, for_each_kind,
        status::{CommonStatus, Status},
    },
    backends::{database::PoolRegistry, directory::DirectoryRegistry, http::Egress},
    controllers::{
        self, DeliveryReader, Error, ObserveContext, Reconciler, ReconcilerDeps, Report, RequeueFn,
        UsageReader,
    },
    domain::conditions::{self, ConditionUpdate},
    store::Store,
    telemetry::metrics::Metrics,
};

pub use files::{FileReferences, Files, FromEnv, Manifest};
pub use schema::{KindSchema, Schemas};

/// How long one object may take, as in the operator.
const DEADLINE: Duration = Duration::from_mins(1);

/// The flags.
#[derive(Clone, Debug, Args)]
#[command(
    after_help = "The exit code is 0 when every object is Ready, 1 when one is not, and 2 when the files \
                        or flags cannot be used.\nObjects without a namespace are taken to be in the namespace \
                        default. A spec that is suspended is not probed."
)]
pub struct CheckArgs {
    /// Files with manifests, the Secrets and ConfigMaps that they name included; - is the standard input
    #[arg(short, long = "filename", value_name = "FILE", required = true, num_args = 1..)]
    files: Vec<PathBuf>,

    /// Put an environment variable into a key of a Secret, by default into the key password
    ///
    /// For instance `--secret-from-env orders-login/username=DB_USER --secret-from-env orders-login=DB_PASSWORD`. The
    /// value wins over the files, in every namespace; a Secret that no file has is made, with the type Opaque.
    #[arg(long, value_name = "NAME[/KEY]=VARIABLE")]
    secret_from_env: Vec<FromEnv>,

    /// Also read all users of LdapDirectories, and show in status.plan what a first sync would do
    #[arg(long)]
    plan: bool,

    /// How the outcome is printed
    #[arg(short, long, value_enum, default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// What was found of one object.
#[derive(Debug, Serialize)]
struct Finding {
    kind: String,
    namespace: String,
    name: String,
    /// The status of `Ready`: `True`, `False` or `Unknown`.
    ready: String,
    reason: String,
    message: String,
    /// As the operator would write it.
    status: Value,
}

/// Checks everything in the files, and prints what was found.
///
/// # Errors
/// Files and flags that cannot be used.
pub async fn run(args: CheckArgs) -> Result<ExitCode, String> {
    let schemas = Schemas::new()?;
    let files = Files::read(&args.files, &args.secret_from_env, &schemas)?;
    for note in &files.notes {
        eprintln!("authlink: {note}");
    }
    if files.manifests.is_empty() {
        return Err(format!("there is nothing to check: no file has a {}", schemas.names().join(" or a ")));
    }
    let checks = Checks::new(&deps(args.plan));
    let Files { manifests, references, .. } = files;
    let looks = manifests
        .into_iter()
        .enumerate()
        .map(async |(index, manifest)| check(index, manifest, &schemas, &checks, &references).await);
    let findings = join_all(looks).await;
    match args.output {
        Output::Table => print!("{}", table::render(&findings)),
        Output::Json => {
            let json = serde_json::to_string_pretty(&findings).map_err(|error| error.to_string())?;
            println!("{json}");
        }
    }
    let ready = findings.iter().all(|finding| finding.ready == "True");
    Ok(if ready { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

macro_rules! checks {
    ($($Kind:ident => $module:ident,)+) => {
        /// The controller of each kind.
        struct Checks { $($module: controllers::$module::Controller),+ }

        impl Checks {
            fn new(deps: &ReconcilerDeps) -> Self {
                Self { $($module: controllers::$module::Controller::new(deps)),+ }
            }

            async fn check(&self, kind: Kind, index: usize, manifest: &Manifest, references: &FileReferences) -> Finding {
                match kind {
                    $(Kind::$Kind => check_kind(&self.$module, index, manifest, references).await),+
                }
            }
        }
    };
}

for_each_kind!(checks);

fn deps(plan: bool) -> ReconcilerDeps {
    // Whoever runs this may connect from here to wherever they please.
    let egress = Egress::unrestricted();
    let metrics = Arc::new(Metrics::registered().0);
    // Of deliveries nothing is known here: the store stays empty.
    let store = Arc::new(Store::in_memory(metrics.store.clone()));
    ReconcilerDeps {
        deliveries: Arc::new(DeliveryReader::new(Arc::clone(&store), DEADLINE)),
        metrics,
        usage: Arc::new(UsageReader::new(DEADLINE)),
        pools: Arc::new(PoolRegistry::new(egress.clone())),
        directories: Arc::new(DirectoryRegistry::new(egress.clone())),
        store,
        egress: egress.clone(),
        instance_egress: egress,
        plan,
    }
}

async fn check(
    index: usize,
    mut manifest: Manifest,
    schemas: &Schemas,
    checks: &Checks,
    references: &FileReferences,
) -> Finding {
    let known = schemas.kind(&manifest.api_version, &manifest.kind).zip(Kind::from_name(&manifest.kind));
    let Some((schema, kind)) = known else {
        return invalid(&manifest, "this version has no such kind".to_owned());
    };
    let problems = schema.admit(&mut manifest.value);
    if !problems.is_empty() {
        return invalid(&manifest, problems.join("; "));
    }
    checks.check(kind, index, &manifest, references).await
}

async fn check_kind<R: Reconciler>(
    reconciler: &R,
    index: usize,
    manifest: &Manifest,
    references: &FileReferences,
) -> Finding {
    // The error would quote the value.
    let Ok(mut object) = R::Object::deserialize(&manifest.value) else {
        return invalid(manifest, "the manifest cannot be read".to_owned());
    };
    object.meta_mut().namespace = Some(manifest.namespace.clone());
    // The state of an object is kept by its uid, which files do not have.
    object.meta_mut().uid = Some(index.to_string());
    if object.suspended() {
        let message = "spec.suspend is set: nothing is probed";
        let conditions = vec![ConditionUpdate::unknown(ConditionType::Ready, Reason::Suspended, message)];
        return found::<R::Object>(manifest, Report { conditions, ..Report::default() });
    }
    if let Some(check) = object.health_check_mut() {
        // There is one probe: it decides.
        (check.unhealthy_threshold, check.healthy_threshold) = (1, 1);
    }
    let requeue: RequeueFn = Arc::new(|| ());
    let cx = ObserveContext { references, requeue: &requeue };
    let observe = async {
        loop {
            match reconciler.observe(&object, &cx).await {
                Err(Error::FirstProbePending) => {}
                observed => return observed,
            }
        }
    };
    let observed = tokio::time::timeout(DEADLINE, observe).await;
    let report = observed.unwrap_or(Err(Error::TimedOut(DEADLINE))).unwrap_or_else(|error| {
        let mut conditions = error.conditions(R::Object::CONDITIONS);
        if conditions.is_empty() {
            let connected = ConditionType::Connected;
            conditions.push(ConditionUpdate::is_false(connected, error.reason(), error.to_string()));
        }
        Report { conditions, ..Report::default() }
    });
    let conditions = conditions::complete(R::Object::CONDITIONS, R::Object::READY_WHEN, report.conditions);
    found::<R::Object>(manifest, Report { conditions, ..report })
}

/// The API server would refuse it.
fn invalid(manifest: &Manifest, problem: String) -> Finding {
    let status = CommonStatus {
        conditions: conditions::merge(
            &[],
            &[
                ConditionUpdate::is_false(ConditionType::Ready, Reason::InvalidSpec, problem.clone()),
                ConditionUpdate::is_false(ConditionType::Accepted, Reason::InvalidSpec, problem),
            ],
            None,
            Timestamp::now(),
        ),
        ..CommonStatus::default()
    };
    finding(manifest, &status, serde_json::to_value(&status).unwrap_or_default())
}

fn found<K: Managed>(manifest: &Manifest, report: Report<K::Status>) -> Finding {
    let mut status = report.status;
    status.common_mut().conditions = conditions::merge(&[], &report.conditions, None, Timestamp::now());
    finding(manifest, status.common(), serde_json::to_value(&status).unwrap_or_default())
}

fn finding(manifest: &Manifest, common: &CommonStatus, status: Value) -> Finding {
    let (ready, reason, mut message) = match common.condition(ConditionType::Ready) {
        Some(ready) => (ready.status.clone(), ready.reason.clone(), ready.message.clone()),
        None => ("Unknown".to_owned(), Reason::Pending.to_string(), String::new()),
    };
    if let Some(degraded) = common.condition(ConditionType::Degraded) {
        message = format!("{message}; {}: {}", degraded.reason, degraded.message);
    }
    Finding {
        kind: manifest.kind.clone(),
        namespace: manifest.namespace.clone(),
        name: manifest.name.clone(),
        ready,
        reason,
        message,
        status,
    }
}
