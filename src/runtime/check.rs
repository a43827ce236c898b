//! `authlink check`: what the API server and the operator would say of manifests, asked once and without a cluster.

mod files;
mod schema;
mod table;

use std::{path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use clap::{Args, ValueEnum};
use futures::future::join_all;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;

use crate::{
    api::{
        ConditionType, Managed, Reason,
        shared::HealthCheck,
        status::{CommonStatus, Status},
        v1alpha1::{
            Database, ExternalApi, ServiceRegistration, database::DatabaseStatus,
            external_api::ExternalApiStatus, service_registration::ServiceRegistrationStatus,
        },
    },
    backends::{database::PoolRegistry, http::Egress},
    controllers::{
        self, Error, Report,
        database::{self, Databases},
        external_api::{self, ExternalApis},
        service_registration::ServiceRegistrations,
    },
    domain::conditions::{self, ConditionUpdate},
    telemetry::metrics::Metrics,
};

pub use files::{FileReferences, Files, FromEnv, Manifest};
pub use schema::{Kind, Schemas};

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
    let checks = Checks::new();
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

/// What each kind is looked at with.
struct Checks {
    databases: Databases,
    external_apis: ExternalApis,
    registrations: ServiceRegistrations,
}

impl Checks {
    fn new() -> Self {
        let metrics = Arc::new(Metrics::registered().0);
        // Whoever runs this may connect from here to wherever they please.
        let egress = Egress::unrestricted();
        Self {
            databases: Databases::new(Arc::clone(&metrics), Arc::new(PoolRegistry::new(egress.clone()))),
            external_apis: ExternalApis::new(Arc::clone(&metrics), egress.clone()),
            registrations: ServiceRegistrations::new(metrics, egress),
        }
    }
}

async fn check(
    index: usize,
    mut manifest: Manifest,
    schemas: &Schemas,
    checks: &Checks,
    references: &FileReferences,
) -> Finding {
    let problems = match schemas.kind(&manifest.api_version, &manifest.kind) {
        Some(kind) => kind.admit(&mut manifest.value),
        None => vec!["this version does not know the kind".to_owned()],
    };
    if !problems.is_empty() {
        return invalid(&manifest, problems.join("; "));
    }
    // A new kind is one more arm here, and one more `Checked`.
    match manifest.kind.as_str() {
        "Database" => check_kind::<Database>(index, &manifest, checks, references).await,
        "ServiceRegistration" => {
            check_kind::<ServiceRegistration>(index, &manifest, checks, references).await
        }
        _ => check_kind::<ExternalApi>(index, &manifest, checks, references).await,
    }
}

/// A kind that can be looked at without a cluster.
trait Checked: controllers::Object {
    /// There is one probe: what it says is the verdict.
    fn probe_once(&mut self);

    async fn look(&self, checks: &Checks, references: &FileReferences)
    -> Result<Report<Self::Status>, Error>;
}

impl Checked for Database {
    fn probe_once(&mut self) {
        once(&mut self.spec.health_check);
    }

    async fn look(
        &self,
        checks: &Checks,
        references: &FileReferences,
    ) -> Result<Report<DatabaseStatus>, Error> {
        let look = checks.databases.look(self, references, Arc::new(|| ())).await?;
        Ok(database::report(&look, self, false).await)
    }
}

impl Checked for ExternalApi {
    fn probe_once(&mut self) {
        once(&mut self.spec.health_check.schedule);
    }

    async fn look(
        &self,
        checks: &Checks,
        references: &FileReferences,
    ) -> Result<Report<ExternalApiStatus>, Error> {
        let look = checks.external_apis.look(self, references, Arc::new(|| ())).await?;
        Ok(external_api::report(&look, self))
    }
}

impl Checked for ServiceRegistration {
    fn probe_once(&mut self) {
        once(&mut self.spec.health_check.schedule);
    }

    async fn look(
        &self,
        checks: &Checks,
        _: &FileReferences,
    ) -> Result<Report<ServiceRegistrationStatus>, Error> {
        Ok(checks.registrations.look(self, Arc::new(|| ())).await?.report)
    }
}

fn once(check: &mut HealthCheck) {
    check.unhealthy_threshold = 1;
    check.healthy_threshold = 1;
}

async fn check_kind<K: Checked>(
    index: usize,
    manifest: &Manifest,
    checks: &Checks,
    references: &FileReferences,
) -> Finding {
    // The error would quote the value.
    let Ok(mut object) = K::deserialize(&manifest.value) else {
        return invalid(manifest, "the manifest cannot be read".to_owned());
    };
    object.meta_mut().namespace = Some(manifest.namespace.clone());
    // What is held for an object is held by its uid, which files do not have.
    object.meta_mut().uid = Some(index.to_string());
    if object.suspended() {
        let message = "spec.suspend is set: nothing is probed";
        let verdicts = vec![ConditionUpdate::unknown(ConditionType::Ready, Reason::Suspended, message)];
        return found::<K>(manifest, Report { verdicts, ..Report::default() });
    }
    object.probe_once();
    let look = async {
        loop {
            match object.look(checks, references).await {
                Err(Error::NotProbedYet) => {}
                looked => return looked,
            }
        }
    };
    let looked = tokio::time::timeout(DEADLINE, look).await;
    let report = looked.unwrap_or(Err(Error::DeadlineExceeded(DEADLINE))).unwrap_or_else(|error| {
        let mut verdicts = error.verdicts(K::CONDITIONS);
        if verdicts.is_empty() {
            let connected = ConditionType::Connected;
            verdicts.push(ConditionUpdate::is_false(connected, error.reason(), error.to_string()));
        }
        Report { verdicts, ..Report::default() }
    });
    let verdicts = conditions::complete(K::CONDITIONS, K::READY_WHEN, report.verdicts);
    found::<K>(manifest, Report { verdicts, ..report })
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
    status.common_mut().conditions = conditions::merge(&[], &report.verdicts, None, Timestamp::now());
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
