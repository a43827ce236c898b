//! Version `v1alpha1`: one file per kind.

pub mod database;
pub mod external_api;

pub use database::Database;
pub use external_api::ExternalApi;

/// The version in `apiVersion: authlink.dev/v1alpha1`.
pub const VERSION: &str = "v1alpha1";
