//! `/v1/apis`: calls of an ExternalApi, within what its spec allows.

mod attempts;
mod headers;
mod prepared;

use axum::{
    body::Body,
    extract::{Path, Request},
    http::{Response, Uri},
    response::IntoResponse,
};

use super::{
    Gateway, State,
    audit::Called,
    counts::Counting,
    problem::{Kind, Problem},
};
use crate::{cluster::review::Right, domain::path};

pub(super) use prepared::Prepared;

/// Calls the API of this name.
pub(super) async fn call(
    state: State,
    Path(names): Path<Vec<(String, String)>>,
    request: Request,
) -> Response<Body> {
    let [namespace, name] = ["namespace", "name"].map(|wanted| {
        names.iter().find(|(name, _)| name == wanted).map(|(_, value)| value.clone()).unwrap_or_default()
    });
    let called = Called::new("ExternalApi", &namespace, &name, request.method().as_str());
    let answer = forward(&state.0, &namespace, &name, request, &called).await;
    let mut answer = answer.unwrap_or_else(IntoResponse::into_response);
    answer.extensions_mut().insert(called);
    answer
}

async fn forward(
    gateway: &Gateway,
    namespace: &str,
    name: &str,
    request: Request,
    called: &Called,
) -> Result<Response<Body>, Problem> {
    let right = Right {
        verb: "create",
        resource: "externalapis",
        subresource: Some("invoke"),
        namespace: namespace.to_owned(),
        name: name.to_owned(),
    };
    let caller = gateway.admit(request.headers(), &right).await?;
    called.by(&caller.name);
    let (api, ()) = gateway.apis.get(namespace, name, |_| Ok(())).await?;
    called.found();
    let mut counting = Counting::start(&api.tally);
    let sent = async {
        let target = api.target(request.method().as_str(), raw_path(request.uri()), request.uri().query())?;
        api.admit(&caller.name)?;
        attempts::send(&api, request, target, called).await
    };
    let answer = sent.await;
    if called.was_sent() {
        counting.served();
    }
    match &answer {
        Ok(answer) => counting.answered(answer.status().as_u16()),
        Err(problem) => {
            if problem.kind == Kind::RateLimited {
                counting.limited();
                gateway.metrics.gateway.limited(namespace, name);
            }
            counting.answered(problem.kind.status().as_u16());
        }
    }
    answer
}

/// What follows the name in the path, as it was sent: what was decoded could not be told from what was meant.
fn raw_path(uri: &Uri) -> &str {
    // /v1/apis/{namespace}/{name}/...
    let rest = uri.path().splitn(6, '/').nth(5);
    rest.map_or("/", |rest| &uri.path()[uri.path().len() - rest.len() - 1..])
}

impl Prepared {
    /// Path and query to call, if the spec allows it.
    ///
    /// # Errors
    /// `BadRequest` for a path that could be read in more than one way, `CallNotAllowed`.
    fn target(&self, method: &str, raw: &str, query: Option<&str>) -> Result<String, Problem> {
        let path = path::normalize(raw)
            .map_err(|problem| Problem::new(Kind::BadRequest, format!("the path {problem}")))?;
        if !self.allow.iter().any(|allow| allow.matches(method, &path)) {
            let detail = format!("{method} {path} is not in spec.allow of the ExternalApi {}", self.name);
            return Err(Problem::new(Kind::CallNotAllowed, detail));
        }
        Ok(match query {
            Some(query) => format!("{path}?{query}"),
            None => path.to_string(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_follows_the_name_is_taken_as_it_was_sent() {
        let rows = [
            ("/v1/apis/shop/billing", "/"),
            ("/v1/apis/shop/billing/", "/"),
            ("/v1/apis/shop/billing/a%2Fb//c", "/a%2Fb//c"),
            ("/v1/apis/shop/billing/../../x?q=/y", "/../../x"),
        ];
        for (uri, path) in rows {
            assert_eq!(raw_path(&uri.parse().expect("a URI")), path, "{uri}");
        }
    }
}
