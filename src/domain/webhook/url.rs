//! The url of an endpoint, read as browsers read it (<https://url.spec.whatwg.org/>), so that no two programs on the way see another host
//! in it.

use url::{Host, Url};

/// Where events are sent.
#[derive(Clone, PartialEq, Eq)]
pub struct Target {
    url: Url,
    host: String,
    port: u16,
}

/// Why a url cannot be used. None of these texts repeats it: it may have a password or a token in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidUrl {
    /// Not a url.
    #[error("is not a valid URL, such as https://hooks.example.com/auth")]
    NoUrl,
    /// Characters that another program may read otherwise.
    #[error(
        "has spaces or characters that are not ASCII: use the xn-- form of international host names and percent-encoding"
    )]
    NotAscii,
    /// `ftp:` and others.
    #[error("must begin with https:// or http://")]
    Scheme,
    /// `http:` without leave.
    #[error("must be https, unless verification.allowHttp is true")]
    Http,
    /// A user or a password.
    #[error("has a user or password: set the header Authorization in headers, from a Secret")]
    User,
    /// After `#`.
    #[error("has a fragment: remove # and the text after it")]
    Fragment,
    /// No server can have it.
    #[error("has the port 0")]
    Port,
    /// Longer than DNS has it (RFC 1035, section 2.3.4).
    #[error("has an invalid host name: labels must have 1 to 63 characters, the whole name at most 253")]
    HostName,
    /// More than any server takes.
    #[error("has more than 2048 characters")]
    Long,
}

/// The longest url, in characters.
const LONGEST: usize = 2048;

impl Target {
    /// Reads a url, with one line end behind it, which is no part of it.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str, allow_http: bool) -> Result<Self, InvalidUrl> {
        let text = text.strip_suffix('\n').map_or(text, |text| text.strip_suffix('\r').unwrap_or(text));
        if text.len() > LONGEST {
            return Err(InvalidUrl::Long);
        }
        // What would be left out, or written in another way.
        if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(InvalidUrl::NotAscii);
        }
        let (scheme, rest) = text.split_once("://").ok_or(InvalidUrl::NoUrl)?;
        let http = scheme.eq_ignore_ascii_case("http");
        if !http && !scheme.eq_ignore_ascii_case("https") {
            return Err(InvalidUrl::Scheme);
        }
        // It takes any number of slashes and backslashes, and others take what follows for the path.
        if rest.starts_with(['/', '\\'])
            || rest.split(['?', '#']).next().is_some_and(|path| path.contains('\\'))
        {
            return Err(InvalidUrl::NoUrl);
        }
        let url = Url::parse(text).map_err(|_| InvalidUrl::NoUrl)?;
        if !url.username().is_empty() || url.password().is_some() || authority(rest).contains('@') {
            return Err(InvalidUrl::User);
        }
        if url.fragment().is_some() {
            return Err(InvalidUrl::Fragment);
        }
        if http && !allow_http {
            return Err(InvalidUrl::Http);
        }
        let host = match url.host().ok_or(InvalidUrl::NoUrl)? {
            Host::Domain(name) if is_name(name) => name.to_owned(),
            Host::Domain(_) => return Err(InvalidUrl::HostName),
            Host::Ipv4(address) => address.to_string(),
            Host::Ipv6(address) => address.to_string(),
        };
        let port = url.port_or_known_default().filter(|port| *port != 0).ok_or(InvalidUrl::Port)?;
        Ok(Self { url, host, port })
    }

    /// Host name, with a final dot if it was given one, or address, without brackets.
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
        self.url.scheme() == "https"
    }

    /// Whether its host is this machine by its name (RFC 6761, section 6.3), whatever DNS says.
    #[must_use]
    pub fn is_localhost(&self) -> bool {
        let name = self.host.trim_end_matches('.');
        name == "localhost" || name.ends_with(".localhost")
    }

    /// All of it; it may be a secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        self.url.as_str()
    }
}

impl std::fmt::Debug for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}://{}:{}/..", self.url.scheme(), self.host, self.port)
    }
}

fn authority(rest: &str) -> &str {
    rest.split(['/', '?', '#']).next().unwrap_or_default()
}

fn is_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name);
    name.len() <= 253 && name.split('.').all(|part| !part.is_empty() && part.len() <= 63)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Target, InvalidUrl> {
        Target::parse(text, true)
    }

    #[test]
    fn a_url_is_taken_with_its_path_and_query() {
        let target = parse("https://Hooks.Example.com/a%20b?c=d").unwrap();
        let parts = (target.host(), target.port(), target.encrypted(), target.expose());
        assert_eq!(parts, ("hooks.example.com", 443, true, "https://hooks.example.com/a%20b?c=d"));
        assert_eq!(parse("http://[2001:db8::1]:81").unwrap().host(), "2001:db8::1");
        assert_eq!(parse("https://a.example/x\n").unwrap(), parse("https://a.example/x").unwrap());
        assert_eq!(parse("https://a.example/x\r\n").unwrap(), parse("https://a.example/x").unwrap());
        assert_eq!(
            parse("http://hooks.shop.svc.cluster.local.:8080/a").unwrap().host(),
            "hooks.shop.svc.cluster.local."
        );
        assert_eq!(parse("https://xn--bcher-kva.example").unwrap().host(), "xn--bcher-kva.example");
    }

    #[test]
    fn an_address_in_disguise_is_an_address() {
        for disguise in
            ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "127.0.0.1", "0x7f000001", "%31%32%37.0.0.1"]
        {
            assert_eq!(parse(&format!("http://{disguise}/")).unwrap().host(), "127.0.0.1", "{disguise}");
        }
        assert_eq!(parse("http://[::ffff:127.0.0.1]").unwrap().host(), "::ffff:127.0.0.1");
        for name in ["localhost", "LOCALHOST.", "a.localhost"] {
            assert!(parse(&format!("http://{name}")).unwrap().is_localhost(), "{name}");
        }
        assert!(!parse("http://localhost.example").unwrap().is_localhost());
    }

    #[test]
    fn what_cannot_be_used_is_refused_without_a_word_of_it() {
        let label = "h".repeat(64);
        let rows = [
            ("http://user:hunter2@a.example".to_owned(), InvalidUrl::User),
            ("https://hunter2@a.example".to_owned(), InvalidUrl::User),
            ("https://@a.example".to_owned(), InvalidUrl::User),
            ("https://a.example/#hunter2".to_owned(), InvalidUrl::Fragment),
            ("https://a.example:0/".to_owned(), InvalidUrl::Port),
            ("https://a.example:70000/hunter2".to_owned(), InvalidUrl::NoUrl),
            ("https://".to_owned(), InvalidUrl::NoUrl),
            ("https:///hunter2".to_owned(), InvalidUrl::NoUrl),
            ("https:\\\\a.example\\hunter2".to_owned(), InvalidUrl::NoUrl),
            ("https://a.example\\@b.example/".to_owned(), InvalidUrl::NoUrl),
            ("https:a.example".to_owned(), InvalidUrl::NoUrl),
            ("file:///etc/hunter2".to_owned(), InvalidUrl::Scheme),
            ("gopher://a.example".to_owned(), InvalidUrl::Scheme),
            ("unix:///run/hunter2".to_owned(), InvalidUrl::Scheme),
            ("hunter2".to_owned(), InvalidUrl::NoUrl),
            (" https://a.example".to_owned(), InvalidUrl::NotAscii),
            ("https://a.example/hunter2\nX: y".to_owned(), InvalidUrl::NotAscii),
            ("https://bücher.example/hunter2".to_owned(), InvalidUrl::NotAscii),
            ("https://аpple.example/".to_owned(), InvalidUrl::NotAscii),
            (format!("https://{label}.example/"), InvalidUrl::HostName),
            ("https://a..example/".to_owned(), InvalidUrl::HostName),
            (format!("https://a.example/{}", "h".repeat(2048)), InvalidUrl::Long),
            (String::new(), InvalidUrl::NoUrl),
        ];
        for (text, why) in rows {
            let error = parse(&text).expect_err(&text);
            assert_eq!(error, why, "{text}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
        assert_eq!(Target::parse("http://a.example", false), Err(InvalidUrl::Http));
        let shown = format!("{:?}", parse("https://a.example/hunter2?token=hunter2").unwrap());
        assert_eq!(shown, "https://a.example:443/..");
    }
}
