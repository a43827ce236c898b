//! The base URL of an endpoint, to which the paths of calls and probes are appended.

use http::uri::{Authority, PathAndQuery, Scheme, Uri};

use crate::{
    api::Reason,
    backends::{Fault, transport},
};

/// The base URL of an endpoint, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base {
    pub(super) scheme: Scheme,
    pub(super) authority: Authority,
    /// Without a trailing slash.
    pub(super) prefix: String,
    host: String,
    port: u16,
    /// What requests name as their host, instead of `authority`.
    pub(super) request_host: Option<Authority>,
}

impl Base {
    /// Parses `http(s)://host[:port][/path]`.
    ///
    /// # Errors
    /// What is wrong, without any part of the URL: it may contain a password.
    pub fn parse(url: &str) -> Result<Self, &'static str> {
        let parts = url
            .parse::<Uri>()
            .map_err(|_| "is not a valid URL, or contains characters that must be percent-encoded")?
            .into_parts();
        let scheme = parts.scheme.filter(|scheme| [Scheme::HTTP, Scheme::HTTPS].contains(scheme));
        let scheme = scheme.ok_or("must begin with http:// or https://")?;
        let authority = parts.authority.filter(|it| !it.host().is_empty()).ok_or("has no host")?;
        let path = parts.path_and_query.unwrap_or_else(|| PathAndQuery::from_static("/"));
        if authority.as_str().contains('@') {
            return Err("must not contain a user: use spec.auth");
        }
        if path.query().is_some() || url.contains('#') {
            return Err("must not contain a query or a fragment");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']').to_owned();
        // An invalid port is not the same as none.
        let port = match (
            authority.port_u16(),
            authority.as_str().rsplit_once(']').map_or(authority.as_str(), |it| it.1),
        ) {
            (Some(0), _) => return Err("has the port 0"),
            (Some(port), _) => port,
            (None, rest) if rest.contains(':') => {
                return Err("has a port that is not a number from 1 to 65535");
            }
            (None, _) if scheme == Scheme::HTTPS => 443,
            (None, _) => 80,
        };
        let prefix = path.path().trim_end_matches('/').to_owned();
        Ok(Self { scheme, authority, prefix, host, port, request_host: None })
    }

    /// With another host in requests (the header `Host`, or `:authority`), such as `api.example.com` or `api.example.com:8443`.
    /// Connections still go to the URL's host and port.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn with_request_host(self, host: &str) -> Result<Self, &'static str> {
        let host = host.parse::<Authority>().ok().filter(|host| !host.as_str().contains('@'));
        Ok(Self {
            request_host: Some(host.ok_or("is not a host name or address, maybe with a port")?),
            ..self
        })
    }

    /// The host that a server is expected to answer to whose certificate is valid for `name`: with the port, where the URL has one.
    #[must_use]
    pub fn host_of(&self, name: &str) -> String {
        match self.authority.port() {
            Some(port) => format!("{name}:{port}"),
            None => name.to_owned(),
        }
    }

    /// Host name or address, without brackets.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// TCP port.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Whether it is https.
    #[must_use]
    pub fn encrypted(&self) -> bool {
        self.scheme == Scheme::HTTPS
    }

    /// `host:port`, as users read it.
    #[must_use]
    pub fn endpoint(&self) -> String {
        transport::endpoint(&self.host, self.port)
    }

    /// All of it, for digests.
    pub(super) fn text(&self) -> String {
        let host = self.request_host.as_ref().map(Authority::as_str).unwrap_or_default();
        format!("{}://{}{} {host}", self.scheme, self.authority, self.prefix)
    }

    /// The server to connect to.
    ///
    /// # Errors
    /// As with [`Base::join`].
    pub(super) fn server(&self) -> Result<Uri, Fault> {
        Self { request_host: None, ..self.clone() }.join(&PathAndQuery::from_static("/"))
    }

    /// What requests name as their host.
    pub(super) fn named_host(&self) -> &Authority {
        self.request_host.as_ref().unwrap_or(&self.authority)
    }

    /// The absolute URI of a path that is relative to this one, query included.
    ///
    /// # Errors
    /// `ProtocolError` for a path that no request can have.
    pub fn join(&self, path: &PathAndQuery) -> Result<Uri, Fault> {
        let path = match (self.prefix.as_str(), path.query()) {
            ("", _) => Ok(path.clone()),
            (prefix, None) => PathAndQuery::from_maybe_shared(format!("{prefix}{}", path.path())),
            (prefix, Some(query)) => {
                PathAndQuery::from_maybe_shared(format!("{prefix}{}?{query}", path.path()))
            }
        };
        let invalid = || Fault::new(Reason::ProtocolError, "the path is not valid in a request");
        let mut parts = http::uri::Parts::default();
        parts.scheme = Some(self.scheme.clone());
        parts.authority = Some(self.named_host().clone());
        parts.path_and_query = Some(path.map_err(|_| invalid())?);
        Uri::from_parts(parts).map_err(|_| invalid())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(base: &str, path: &str) -> String {
        Base::parse(base).unwrap().join(&path.parse().unwrap()).unwrap().to_string()
    }

    #[test]
    fn a_path_is_appended_to_the_url() {
        assert_eq!(joined("https://a.example", "/b?c=d"), "https://a.example/b?c=d");
        assert_eq!(joined("https://a.example/v2", "/b?c=d"), "https://a.example/v2/b?c=d");
        assert_eq!(joined("https://a.example:8443/v2/", "/b"), "https://a.example:8443/v2/b");
        assert_eq!(joined("http://[2001:db8::1]:81/v2", "?c=d"), "http://[2001:db8::1]:81/v2/?c=d");
    }

    #[test]
    fn requests_may_name_another_host_than_the_one_to_connect_to() {
        let base = Base::parse("https://192.0.2.1:8443/v2").unwrap();
        let host = base.host_of("api.example.com");
        let base = base.with_request_host(&host).unwrap();
        assert_eq!(base.join(&"/a".parse().unwrap()).unwrap(), "https://api.example.com:8443/v2/a");
        assert_eq!(base.server().unwrap().authority().map(Authority::as_str), Some("192.0.2.1:8443"));
        assert_eq!((base.host(), base.endpoint().as_str()), ("192.0.2.1", "192.0.2.1:8443"));
        assert!(base.with_request_host("user@api.example.com").is_err());
        assert_eq!(Base::parse("https://192.0.2.1").unwrap().host_of("api.example.com"), "api.example.com");
    }

    #[test]
    fn a_path_can_never_change_the_host() {
        for path in ["//evil.example/b", "/@evil.example", "/\\evil.example", "/../.."] {
            let Ok(path) = path.parse::<PathAndQuery>() else { continue };
            let uri = Base::parse("https://a.example").unwrap().join(&path).unwrap();
            assert_eq!(uri.authority().map(Authority::as_str), Some("a.example"), "{path}");
        }
    }

    #[test]
    fn host_and_port_are_read() {
        let parts = |url: &str| {
            let base = Base::parse(url).unwrap();
            (base.host().to_owned(), base.port(), base.encrypted(), base.endpoint())
        };
        assert_eq!(parts("https://a.example"), ("a.example".into(), 443, true, "a.example:443".into()));
        assert_eq!(parts("http://a.example/x"), ("a.example".into(), 80, false, "a.example:80".into()));
        assert_eq!(parts("http://[::1]:81"), ("::1".into(), 81, false, "[::1]:81".into()));
        assert_eq!(parts("https://[::1]"), ("::1".into(), 443, true, "[::1]:443".into()));
    }

    #[test]
    fn an_error_does_not_repeat_the_url() {
        for url in [
            "https://user:hunter2@a.example",
            "https://a.example/?key=hunter2",
            "https://a.example/#hunter2",
            "ftp://hunter2",
            "/hunter2",
            "https://a.example:hunter2",
            "https://a.example:70000",
            "https://a.example:0",
            "https://:80",
            "https://a b/hunter2",
            "https://bücher.example/hunter2",
            "",
        ] {
            let error = Base::parse(url).expect_err(url);
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
