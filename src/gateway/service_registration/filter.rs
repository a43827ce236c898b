//! Which instances a caller asks for.

use std::error::Error;

use axum::extract::{Query, rejection::QueryRejection};
use kube::core::{Expression, Selector};
use serde::{Deserialize, Deserializer, de};

use crate::gateway::problem::{Problem, ProblemKind};

/// Which instances are asked for.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Filter {
    /// As `kubectl` takes it: `version=2,!canary`.
    #[serde(default, deserialize_with = "selector")]
    pub(super) selector: Selector,
    /// Only instances there.
    pub(super) zone: Option<String>,
    /// Only instances whose probes pass, and that are not drained.
    #[serde(default = "yes")]
    pub(super) healthy: bool,
}

fn yes() -> bool {
    true
}

/// The filter of a request.
///
/// # Errors
/// `BadRequest`.
pub(super) fn parsed(filter: Result<Query<Filter>, QueryRejection>) -> Result<Filter, Problem> {
    let Query(filter) = filter.map_err(|error| {
        let why = error.source().map_or_else(|| error.body_text(), ToString::to_string);
        Problem::new(ProblemKind::BadRequest, format!("invalid query string: {why}"))
    })?;
    Ok(filter)
}

fn selector<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Selector, D::Error> {
    parse_selector(&String::deserialize(deserializer)?).map_err(de::Error::custom)
}

/// The equality-based form of Kubernetes' selectors.
fn parse_selector(text: &str) -> Result<Selector, String> {
    let label = |name: &str| {
        let name = name.trim();
        let valid = !name.is_empty() && !name.contains([' ', '(', ')', '!', '=']);
        valid.then(|| name.to_owned()).ok_or_else(|| {
            format!("{name} is not a label: expected a selector such as version=2,tier!=test,canary,!old")
        })
    };
    let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
    let expressions = parts.map(|part| {
        Ok(if let Some((key, value)) = part.split_once("!=") {
            Expression::NotEqual(label(key)?, value.trim().to_owned())
        } else if let Some((key, value)) = part.split_once("==").or_else(|| part.split_once('=')) {
            Expression::Equal(label(key)?, value.trim().to_owned())
        } else if let Some(key) = part.strip_prefix('!') {
            Expression::DoesNotExist(label(key)?)
        } else {
            Expression::Exists(label(part)?)
        })
    });
    expressions.collect::<Result<_, String>>()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kube::core::SelectorExt;

    use super::*;

    #[test]
    fn a_selector_is_read_as_kubectl_reads_it() {
        let labels =
            BTreeMap::from([("version", "2"), ("tier", "prod")].map(|(k, v)| (k.to_owned(), v.to_owned())));
        let matches = |text: &str| parse_selector(text).expect(text).matches(&labels);
        assert!(
            matches("")
                && matches("version=2")
                && matches("version==2, tier!=test")
                && matches("tier,!canary")
        );
        assert!(
            !matches("version=1")
                && !matches("canary")
                && !matches("!tier")
                && !matches("tier=prod,version=3")
        );
        assert!(parse_selector("version in (1)").is_err() && parse_selector("=2").is_err());
    }
}
