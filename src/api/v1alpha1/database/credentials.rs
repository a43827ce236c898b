//! Where a `Database`'s user name and password are.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A Secret, of any type, with user name and password. A line break at the end of a value is not part of it, and an empty value counts as
/// absent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.username) || !has(self.usernameKey)")
    .message("set username or usernameKey, not both"))]
pub struct CredentialsRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// The user name, for a Secret that has only the password.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    pub username: Option<String>,
    /// Key of the user name; by default `username`. On redis the key may be missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub username_key: Option<String>,
    /// Key of the password; by default `password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub password_key: Option<String>,
}
