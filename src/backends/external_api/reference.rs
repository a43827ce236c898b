//! What the URI references of a response mean to whoever calls the API through another address.

use http::uri::Authority;

use super::Base;

/// A URI reference of a response (RFC 9110, sections 8.7 and 10.2.2).
#[derive(Debug, PartialEq, Eq)]
pub enum Reference<'a> {
    /// To the API, below its base URL: the rest of the path, with query and fragment.
    Api(&'a str),
    /// To the API's server, and not below its base URL: as an absolute URI.
    Server(String),
    /// To something else, or relative to the path of the request: it means the same through every address.
    Other,
}

impl Base {
    /// What a reference of a response to a request below this URL means.
    #[must_use]
    pub fn reference<'a>(&self, text: &'a str) -> Reference<'a> {
        let (path, absolute) = if let Some(path) = self.own_path(text) {
            (path, true)
        } else if text.starts_with('/') && !text.starts_with("//") {
            (text, false)
        } else {
            return Reference::Other;
        };
        let rest = path.strip_prefix(self.prefix.as_str());
        match rest.filter(|rest| rest.is_empty() || rest.starts_with(['/', '?', '#'])) {
            Some(rest) => Reference::Api(rest),
            None if absolute => Reference::Other,
            None => Reference::Server(format!("{}://{}{path}", self.scheme, self.named_host())),
        }
    }

    /// The path of an absolute URI (or a reference such as `//host/path`) to this server, with query and fragment.
    fn own_path<'a>(&self, text: &'a str) -> Option<&'a str> {
        let (scheme, rest) = match text.split_once("://") {
            Some((scheme, rest)) => (Some(scheme), rest),
            None => (None, text.strip_prefix("//")?),
        };
        if scheme
            .is_some_and(|scheme| !["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known)))
        {
            return None;
        }
        let (authority, path) = rest.split_at(rest.find(['/', '?', '#']).unwrap_or(rest.len()));
        let authority: Authority = authority.parse().ok()?;
        let known = [Some(&self.authority), self.request_host.as_ref()];
        known.into_iter().flatten().any(|known| self.is_same(known, &authority)).then_some(path)
    }

    /// Whether both name the same server. Behind a proxy that ends TLS an API may well write http for https: where neither has a
    /// port, the scheme does not matter.
    fn is_same(&self, known: &Authority, authority: &Authority) -> bool {
        let default = if self.encrypted() { 443 } else { 80 };
        let port = known.port_u16().unwrap_or(default);
        known.host().eq_ignore_ascii_case(authority.host())
            && authority.port_u16().map_or(port == default, |written| written == port)
            && !authority.as_str().contains('@')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reference_to_the_api_is_recognized_however_it_is_written() {
        let base = Base::parse("https://api.example.com/v2").unwrap();
        for (text, rest) in [
            ("https://api.example.com/v2/invoices/7?a=b#c", "/invoices/7?a=b#c"),
            ("https://API.example.com:443/v2", ""),
            ("http://api.example.com/v2/", "/"),
            ("//api.example.com/v2?a=b", "?a=b"),
            ("/v2/invoices/7", "/invoices/7"),
        ] {
            assert_eq!(base.reference(text), Reference::Api(rest), "{text}");
        }
        let named =
            Base::parse("https://192.0.2.1:8443").unwrap().with_request_host("api.example.com:8443").unwrap();
        for text in ["https://192.0.2.1:8443/a", "https://api.example.com:8443/a", "/a"] {
            assert_eq!(named.reference(text), Reference::Api("/a"), "{text}");
        }
    }

    #[test]
    fn all_other_references_lead_where_they_led_without_the_gateway() {
        let base = Base::parse("https://api.example.com/v2").unwrap();
        for text in [
            "",
            "7",
            "../7",
            "?a=b",
            "#top",
            "https://login.example.com/v2/a",
            "https://api.example.com:8443/v2/a",
            "https://api.example.com/v20/a",
            "https://user@api.example.com/v2/a",
            "ftp://api.example.com/v2/a",
            "//other.example/v2",
            "mailto:a@example.com",
            "https://[bad/v2",
        ] {
            assert_eq!(base.reference(text), Reference::Other, "{text}");
        }
        let outside = Reference::Server("https://api.example.com/login?next=1".to_owned());
        assert_eq!(base.reference("/login?next=1"), outside);
    }
}
