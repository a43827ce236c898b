//! The command line.

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};

use crate::{
    api::{all_crds, to_yaml},
    runtime::{self, check::CheckArgs, settings::RunArgs},
    telemetry::log,
};

/// Kubernetes operator and gateway that connect an authentication platform with databases, HTTP APIs and external
/// services.
#[derive(Debug, Parser)]
#[command(version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the operator, the gateway, or both
    Run(Box<RunArgs>),
    /// Print the CRDs, or write one file per CRD
    Crds {
        /// Directory for the files
        #[arg(long)]
        out: Option<PathBuf>,
    },
    /// Validate manifests and probe their targets once, without a cluster
    Check(CheckArgs),
}

/// Runs the command line.
///
/// # Panics
/// If the runtime cannot start its threads.
#[tokio::main]
#[must_use]
pub async fn main() -> ExitCode {
    // One TLS provider for every client. It fails only if one is installed already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    Cli::parse().run().await
}

impl Cli {
    async fn run(self) -> ExitCode {
        let done = match self.command {
            Command::Run(args) => run(*args).await.map(|()| ExitCode::SUCCESS),
            Command::Crds { out } => crds(out.as_deref()).map(|()| ExitCode::SUCCESS),
            Command::Check(args) => runtime::check::run(args).await,
        };
        done.unwrap_or_else(|error| {
            eprintln!("authlink: {error}");
            ExitCode::from(2)
        })
    }
}

async fn run(args: RunArgs) -> Result<(), String> {
    let _flush_on_drop = log::init(&args.log_level, args.log_format)?;
    runtime::run(args.settings()?).await.map_err(|error| error.to_string())
}

fn crds(out: Option<&Path>) -> Result<(), String> {
    for crd in all_crds() {
        let yaml = to_yaml(&crd).map_err(|error| error.to_string())?;
        match out {
            None => println!("---\n{yaml}"),
            Some(folder) => {
                let name = crd.metadata.name.unwrap_or_default();
                let file = folder.join(format!("{name}.yaml"));
                std::fs::create_dir_all(folder)
                    .and_then(|()| std::fs::write(&file, yaml))
                    .map_err(|error| format!("{}: {error}", file.display()))?;
            }
        }
    }
    Ok(())
}
