//! Which headers pass, in both directions.

use axum::http::{HeaderMap, HeaderName, HeaderValue, header};

/// The headers of a connection, not of a message (RFC 9110 7.6.1, and those of its predecessors).
const HOP_BY_HOP: [HeaderName; 8] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
];

/// What is between the caller and the gateway, and nobody else's business: its token above all.
const OF_THE_CALLER: [HeaderName; 4] = [header::AUTHORIZATION, header::HOST, header::COOKIE, header::EXPECT];

/// The headers of a request as the API gets them.
pub(super) fn outbound(mut headers: HeaderMap) -> HeaderMap {
    drop_hop_by_hop(&mut headers);
    for name in OF_THE_CALLER {
        headers.remove(name);
    }
    headers
}

/// The headers of an answer as the caller gets them.
pub(super) fn inbound(headers: &mut HeaderMap) {
    drop_hop_by_hop(headers);
    // A cookie of the API would be one of the gateway, for every API that it calls.
    headers.remove(header::SET_COOKIE);
}

fn drop_hop_by_hop(headers: &mut HeaderMap) {
    if let Some(named) = headers.get(header::CONNECTION).and_then(|value| HeaderValue::to_str(value).ok()) {
        let named: Vec<_> =
            named.split(',').filter_map(|name| HeaderName::try_from(name.trim()).ok()).collect();
        for name in named {
            headers.remove(name);
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
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
    fn neither_the_connections_headers_nor_the_callers_token_pass() {
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
            ("accept", "*/*"),
            ("traceparent", "00-1-2-01"),
        ]);
        assert_eq!(names(&outbound(sent)), ["accept", "traceparent"]);
        let mut answered =
            headers(&[("connection", "x-hop"), ("x-hop", "1"), ("set-cookie", "a=b"), ("etag", "1")]);
        inbound(&mut answered);
        assert_eq!(names(&answered), ["etag"]);
    }
}
