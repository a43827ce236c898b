//! The binary: reads the command line, and hands over to the library.

use std::process::ExitCode;

use clap::Parser;

#[tokio::main]
async fn main() -> ExitCode {
    // One TLS provider for every client; fails only if one was installed before, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    authlink::cli::Cli::parse().run().await
}
