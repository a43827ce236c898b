//! The parameter types of declared queries.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The type of a query parameter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "the names are the documentation")]
pub enum ParamType {
    Text,
    Integer,
    Number,
    Boolean,
    Timestamp,
    Uuid,
    Json,
    Bytes,
}

impl ParamType {
    /// Every type.
    pub const ALL: [Self; 8] = [
        Self::Text,
        Self::Integer,
        Self::Number,
        Self::Boolean,
        Self::Timestamp,
        Self::Uuid,
        Self::Json,
        Self::Bytes,
    ];

    /// The name of the type in a spec.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Timestamp => "timestamp",
            Self::Uuid => "uuid",
            Self::Json => "json",
            Self::Bytes => "bytes",
        }
    }
}
