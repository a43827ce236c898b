//! Version `v1alpha1`: one file per kind.

pub mod database;

pub use database::Database;

/// The version in `apiVersion: authlink.dev/v1alpha1`.
pub const VERSION: &str = "v1alpha1";
