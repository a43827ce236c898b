//! Which headers are forwarded, in both directions.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

use crate::backends::external_api::{Base, Reference};

/// The headers of a connection, not of a message (RFC 9110 7.6.1, and those of its predecessors).
static HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// Capacity for what is added: host, credential, API key.
const ADDED: usize = 3;

/// Headers that are meant for the gateway alone: above all the caller's token.
static FOR_THE_GATEWAY: [HeaderName; 4] =
    [header::AUTHORIZATION, header::HOST, header::COOKIE, header::EXPECT];

/// Headers by which some servers replace method or path, which `spec.allow` has checked.
const OVERRIDES: [&str; 5] =
    ["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];

/// The headers of a request as the API gets them.
pub(super) fn outbound(sent: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(sent);
    let forwarded = |name: &HeaderName| {
        !HOP_BY_HOP.contains(name)
            && !FOR_THE_GATEWAY.contains(name)
            && !named.contains(name)
            && !is_override(name)
    };
    let mut headers = HeaderMap::with_capacity(sent.len() + ADDED);
    let headers_sent = sent.iter().filter(|(name, _)| forwarded(name));
    headers.extend(headers_sent.map(|(name, value)| (name.clone(), value.clone())));
    headers
}

fn is_override(name: &HeaderName) -> bool {
    // Servers that make variables of headers (RFC 3875 4.1.18) cannot tell `-` from `_`.
    let bytes = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    OVERRIDES.iter().any(|known| known.bytes().eq(bytes.clone()))
}

/// The headers of a response as the caller gets them; `own_path` is the path at the gateway of the API at `base`. A cookie of the API would become one of the gateway, and be sent to every
/// other API.
pub(super) fn inbound(headers: &mut HeaderMap, base: &Base, own_path: &str) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let Some(value) = headers.get_mut(name) else { continue };
        let moved = value.to_str().ok().and_then(|text| match base.reference(text) {
            Reference::Api(rest) => Some(format!("{own_path}{rest}")),
            Reference::Server(uri) => Some(uri),
            Reference::Other => None,
        });
        if let Some(moved) = moved.and_then(|text| HeaderValue::try_from(text).ok()) {
            *value = moved;
        }
    }
    let dropped = |name: &HeaderName| HOP_BY_HOP.contains(name) || *name == header::SET_COOKIE;
    while let Some(name) = headers.keys().find(|name| dropped(name)).cloned() {
        headers.remove(name);
    }
}

/// The headers that a message itself declares hop-by-hop.
fn named_by_connection(headers: &HeaderMap) -> Vec<HeaderName> {
    let values = headers.get_all(header::CONNECTION).iter().filter_map(|value| value.to_str().ok());
    let names = values.flat_map(|value| value.split(',')).map(str::trim);
    names
        .filter(|name| !name.eq_ignore_ascii_case("keep-alive"))
        .filter_map(|name| name.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let pair = |(name, value): &(&'static str, &'static str)| {
            (HeaderName::from_static(name), HeaderValue::from_static(value))
        };
        pairs.iter().map(pair).collect()
    }

    fn names(headers: &HeaderMap) -> Vec<&str> {
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn hop_by_hop_headers_the_callers_token_and_method_overrides_are_not_forwarded() {
        let sent = headers(&[
            ("connection", "close, X-Secret-Hop"),
            ("x-secret-hop", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "trailers"),
            ("transfer-encoding", "chunked"),
            ("upgrade", "websocket"),
            ("proxy-authorization", "Basic x"),
            ("authorization", "Bearer token"),
            ("cookie", "session=1"),
            ("host", "gateway"),
            ("x-http-method-override", "DELETE"),
            ("x_original-url", "/admin"),
            ("accept", "*/*"),
            ("traceparent", "00-1-2-01"),
        ]);
        assert_eq!(names(&outbound(&sent)), ["accept", "traceparent"]);
        let mut answered =
            headers(&[("connection", "x-hop"), ("x-hop", "1"), ("set-cookie", "a=b"), ("etag", "1")]);
        let base = Base::parse("https://api.example.com/v2").unwrap();
        inbound(&mut answered, &base, "/v1/apis/shop/billing");
        assert_eq!(names(&answered), ["etag"]);
    }

    #[test]
    fn references_into_the_api_lead_through_the_gateway() {
        let base = Base::parse("https://api.example.com/v2").unwrap();
        let mut answered = headers(&[
            ("location", "https://api.example.com/v2/invoices/7"),
            ("content-location", "/v2/invoices/7?a=b"),
        ]);
        inbound(&mut answered, &base, "/v1/apis/shop/billing");
        assert_eq!(answered["location"], "/v1/apis/shop/billing/invoices/7");
        assert_eq!(answered["content-location"], "/v1/apis/shop/billing/invoices/7?a=b");
        let mut answered =
            headers(&[("location", "https://login.example.com/"), ("content-location", "/login")]);
        inbound(&mut answered, &base, "/v1/apis/shop/billing");
        assert_eq!(answered["location"], "https://login.example.com/");
        assert_eq!(answered["content-location"], "https://api.example.com/login");
    }
}
