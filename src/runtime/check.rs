//! `authlink check`.
use std::process::ExitCode;
/// Flags.
#[derive(Clone, Debug, clap::Args)]
pub struct CheckArgs {}
/// Run.
pub async fn run(_: CheckArgs) -> Result<ExitCode, String> {
    Err("not yet".to_owned())
}
