//! Which headers pass, in both directions.

use axum::http::{HeaderMap, HeaderName, header};

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

/// Room for what is added: host, credential, API key.
const OF_THE_GATEWAY: usize = 3;

/// What is between the caller and the gateway, and nobody else's business: its token above all.
static OF_THE_CALLER: [HeaderName; 4] = [header::AUTHORIZATION, header::HOST, header::COOKIE, header::EXPECT];

/// What some servers take for method or path, instead of the request's own: those are what `allow` was asked about.
const OVERRIDES: [&str; 5] =
    ["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];

/// The headers of a request as the API gets them.
pub(super) fn outbound(sent: &HeaderMap) -> HeaderMap {
    let named = named_by_connection(sent);
    let passes = |name: &HeaderName| {
        !HOP_BY_HOP.contains(name)
            && !OF_THE_CALLER.contains(name)
            && !named.contains(name)
            && !is_override(name)
    };
    let mut headers = HeaderMap::with_capacity(sent.len() + OF_THE_GATEWAY);
    let passing = sent.iter().filter(|(name, _)| passes(name));
    headers.extend(passing.map(|(name, value)| (name.clone(), value.clone())));
    headers
}

fn is_override(name: &HeaderName) -> bool {
    // Whoever makes variables of headers (RFC 3875, 4.1.18) cannot tell these apart.
    let bytes = name.as_str().bytes().map(|byte| if byte == b'_' { b'-' } else { byte });
    OVERRIDES.iter().any(|known| known.bytes().eq(bytes.clone()))
}

/// The headers of an answer as the caller gets them. A cookie of the API would be one of the gateway, for every API that it
/// calls.
pub(super) fn inbound(headers: &mut HeaderMap) {
    for name in named_by_connection(headers) {
        headers.remove(name);
    }
    let drops = |name: &HeaderName| HOP_BY_HOP.contains(name) || *name == header::SET_COOKIE;
    while let Some(name) = headers.keys().find(|name| drops(name)).cloned() {
        headers.remove(name);
    }
}

/// What a message says of its own headers: that they are for the next one in line alone.
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
    use axum::http::HeaderValue;

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
    fn neither_the_connections_headers_nor_the_callers_token_pass_nor_another_method_or_path() {
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
        inbound(&mut answered);
        assert_eq!(names(&answered), ["etag"]);
    }
}
