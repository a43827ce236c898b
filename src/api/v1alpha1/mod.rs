//! API version `v1alpha1`: one file per kind.

pub mod database;
pub mod external_api;
pub mod ldap_directory;
pub mod service_registration;
pub mod webhook;

pub use database::Database;
pub use external_api::ExternalApi;
pub use ldap_directory::LdapDirectory;
pub use service_registration::ServiceRegistration;
pub use webhook::Webhook;

/// The version in `apiVersion: authlink.dev/v1alpha1`.
pub const VERSION: &str = "v1alpha1";
