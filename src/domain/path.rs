//! Request paths that mean the same to everyone who reads them, and which of them may be called.

#[cfg(test)]
mod lenient;

use std::fmt;

use percent_encoding::{percent_decode_str, percent_encode_byte};

/// What every server takes (RFC 9110 4.1 asks for 8000 bytes of URI).
const MAX_LENGTH: usize = 8000;

/// A normal path: it starts with `/`, has no segment that is empty (but the last one may be) or of dots alone, and is
/// escaped where it must be and nowhere else. What is matched is what is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path(String);

/// Why a path is refused. Servers disagree on what such a path means, so that one could be allowed as one thing and
/// answered as another; a client that means no harm has no use for them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than any path needs to be.
    #[error("the path is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It does not start with `/`.
    #[error("the path does not start with /")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("the path has a % that two hexadecimal digits do not follow: write %20 for a space, say")]
    BrokenEscape,
    /// What a path cannot have unescaped (RFC 3986 3.3).
    #[error("the path has a character that must be escaped with %")]
    Unescaped,
    /// Bytes that are no text.
    #[error("the path is not UTF-8")]
    NotUtf8,
    /// Escaped or not.
    #[error("the path has a control character")]
    Control,
    /// `\` or `%5C`, which some servers read as `/`.
    #[error("the path has a backslash")]
    Backslash,
    /// `;` or `%3B`, from which on some servers ignore a segment.
    #[error("the path has a semicolon")]
    Semicolon,
    /// `%2F`, which some servers read as `/`.
    #[error("the path has an escaped slash")]
    EscapedSlash,
    /// `%25`, which what is decoded twice reads as the start of another escape.
    #[error("the path has an escaped percent sign")]
    EscapedPercent,
    /// `//`, which some servers read as `/` and some as the start of a host name.
    #[error("the path has an empty segment")]
    EmptySegment,
    /// `.` and `..`, escaped or not, and what some servers take for them (`...`, `..%20`, `..%3F`). Clients resolve them
    /// before they send a path (RFC 3986 5.2.4).
    #[error("the path has a segment of dots: resolve it before the call")]
    Dots,
}

/// Brings a request's path, without its query, to the one form of all that mean the same (RFC 3986 6.2.2): what needs
/// no escape has none, and hexadecimal digits are upper-case. A path in that form stays as it is.
///
/// # Errors
/// When servers could read it in different ways.
pub fn normalize(raw: &str) -> Result<Path, PathError> {
    if raw.len() > MAX_LENGTH {
        return Err(PathError::TooLong);
    }
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let mut normal = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    let mut any_escape = false;
    while let Some(first) = bytes.next() {
        let escaped = first == b'%';
        any_escape |= escaped;
        let byte = if escaped { unescape(bytes.next(), bytes.next())? } else { first };
        match byte {
            b'\\' => return Err(PathError::Backslash),
            b';' => return Err(PathError::Semicolon),
            b'%' => return Err(PathError::EscapedPercent),
            b'/' if escaped => return Err(PathError::EscapedSlash),
            _ if byte.is_ascii_control() => return Err(PathError::Control),
            _ if unreserved(byte) || (separating(byte) && !escaped) => normal.push(char::from(byte)),
            _ if escaped => normal.push_str(percent_encode_byte(byte)),
            _ => return Err(PathError::Unescaped),
        }
    }
    if any_escape && percent_decode_str(&normal).decode_utf8().is_err() {
        return Err(PathError::NotUtf8);
    }
    if normal.as_bytes().windows(2).any(|pair| pair == b"//") {
        return Err(PathError::EmptySegment);
    }
    if normal.contains('.') && normal.split('/').any(dots) {
        return Err(PathError::Dots);
    }
    Ok(Path(normal))
}

fn unescape(high: Option<u8>, low: Option<u8>) -> Result<u8, PathError> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let value = digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
    value.ok_or(PathError::BrokenEscape)
}

/// What means the same with and without an escape (RFC 3986 2.3).
fn unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// What a path may have without an escape, and what could mean something else with one (RFC 3986 2.2, 3.3). Not `;`.
fn separating(byte: u8) -> bool {
    b"/!$&'()*+,=:@".contains(&byte)
}

/// Whether a segment is, or for some server could be, one of dots: Windows drops spaces and dots from its end, and who
/// decodes before looking for the query ends it at a `?`.
fn dots(segment: &str) -> bool {
    let end = ["%3F", "%23"].iter().filter_map(|mark| segment.find(mark)).min().unwrap_or(segment.len());
    let name = &segment[..end];
    name.contains('.') && name.split("%20").all(|part| part.bytes().all(|byte| byte == b'.'))
}

impl Path {
    /// The path as it is forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether the path is the prefix or under it, by whole segments, as Kubernetes matches an Ingress's `Prefix`:
    /// `/a` has `/a`, `/a/` and `/a/b` within, not `/ab`, and `/a/` means the same.
    #[must_use]
    pub fn within(&self, prefix: &Self) -> bool {
        let prefix = prefix.0.strip_suffix('/').unwrap_or(&prefix.0);
        self.0.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An entry of an `allow` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// These methods, as they are written (RFC 9110 9.1: case matters).
    pub methods: Vec<String>,
    /// ... on what is [`within`](Path::within) this.
    pub path_prefix: Path,
}

impl Allow {
    /// Whether the entry allows the call.
    #[must_use]
    pub fn matches(&self, method: &str, path: &Path) -> bool {
        self.methods.iter().any(|allowed| allowed == method) && path.within(&self.path_prefix)
    }
}

#[cfg(test)]
mod tests {
    use proptest::{prelude::*, sample::select};

    use super::{lenient::reading, *};

    fn path(raw: &str) -> Path {
        normalize(raw).unwrap()
    }

    #[test]
    fn what_means_the_same_is_written_the_same() {
        let written = [
            ("/", "/"),
            ("/invoices/7", "/invoices/7"),
            ("/invoices/", "/invoices/"),
            ("/%69nv%6Fices/%37", "/invoices/7"),
            ("/%7euser/a%2db", "/~user/a-b"),
            ("/caf%c3%a9/%20", "/caf%C3%A9/%20"),
            ("/a%2Cb,c/(d)/e@f:g=h", "/a%2Cb,c/(d)/e@f:g=h"),
            ("/C%23/what%3f", "/C%23/what%3F"),
            ("/v1.2/.well-known/..a/b..", "/v1.2/.well-known/..a/b.."),
        ];
        for (raw, normal) in written {
            assert_eq!(normalize(raw).as_ref().map(Path::as_str), Ok(normal), "{raw}");
        }
    }

    #[test]
    fn what_servers_read_in_different_ways_is_refused() {
        use PathError::*;
        let refused: &[(PathError, &[&str])] = &[
            (NotAbsolute, &["", "a", "*", "http://a/", "%2Fa", "\\a"]),
            (BrokenEscape, &["/%", "/%2", "/%zz", "/%u002e", "/a%+1", "/%é"]),
            (Unescaped, &["/a b", "/a?b", "/a#b", "/<a>", "/{id}", "/a|b", "/[a]", "/\"", "/^", "/`", "/é"]),
            (NotUtf8, &["/%ff", "/%c0%ae%c0%ae/a", "/%c0%af", "/%ed%a0%80", "/%c3"]),
            (Control, &["/a%00", "/a%0d%0aHost:x", "/a\0", "/a\n", "/%7f", "/a%09"]),
            (Backslash, &["/a\\..\\b", "/a%5cb", "/%5C"]),
            (Semicolon, &["/a/..;/b", "/a;v=1", "/;/a", "/a/..%3bx/b"]),
            (EscapedSlash, &["/a%2fb", "/a/..%2Fb"]),
            (EscapedPercent, &["/%252e%252e/a", "/a%25", "/%25%32%65"]),
            (EmptySegment, &["//", "//evil.example/a", "/a//b", "/a//"]),
            (
                Dots,
                &[
                    "/.",
                    "/..",
                    "/a/../b",
                    "/a/./b",
                    "/%2e%2E/a",
                    "/a/.%2e",
                    "/a/...",
                    "/a/..%20/b",
                    "/.%20",
                    "/a/.%20./b",
                    "/a/..%3f",
                    "/a/.%23/b",
                    "/..%20%3F",
                ],
            ),
        ];
        for (error, paths) in refused {
            for raw in *paths {
                assert_eq!(normalize(raw), Err(*error), "{raw}");
            }
        }
        assert_eq!(normalize(&"/a".repeat(MAX_LENGTH / 2)).map(|_| ()), Ok(()));
        assert_eq!(normalize(&"/a".repeat(MAX_LENGTH)), Err(TooLong));
    }

    #[test]
    fn a_prefix_matches_whole_segments_and_a_method_its_own_name() {
        let allow = |prefix| Allow { methods: vec!["GET".into(), "PUT".into()], path_prefix: path(prefix) };
        for prefix in ["/invoices", "/invoices/", "/%69nvoices"] {
            for raw in ["/invoices", "/invoices/", "/invoices/7", "/invo%69ces/7/lines"] {
                assert!(allow(prefix).matches("GET", &path(raw)), "{raw} in {prefix}");
            }
            for raw in
                ["/", "/invoices2", "/invoice", "/Invoices", "/a/invoices", "/invoices%20", "/invoices%3F"]
            {
                assert!(!allow(prefix).matches("GET", &path(raw)), "{raw} in {prefix}");
            }
        }
        assert!(allow("/").matches("PUT", &path("/anything")));
        for method in ["POST", "get", "HEAD", ""] {
            assert!(!allow("/").matches(method, &path("/")), "{method}");
        }
    }

    const PREFIXES: &[&str] = &["/", "/a", "/a/b/", "/a%c3%a9", "/a%20", "/a%3f"];

    const PLAIN: &[&str] = &["/", "/b", "/%62/", "c", "é", "%c3%a9", "%2c", "+", "~@", "%"];

    const DOTS: &[&str] =
        &["..", "..", "%2e.", ".%2E", "...", ".", "%252e.", "%25%32%65.", "%c0%ae.", "%u002e.", ""];

    /// What servers have taken for the end of a segment.
    const ENDS: &[&str] = &[
        "/", "/", "//", "%2f", "%252F", "\\", "%5c", "%255c", "%c0%af", ";", ";x/", "%3b", "%253b", "?",
        "%3f", "#", "%23", "%00", "%2500", " ", "%20", "%09", "\n", "",
    ];

    /// The rest of a raw path, often with a trick that has fooled servers.
    fn rest() -> impl Strategy<Value = String> {
        let trick = (select(ENDS), select(DOTS), select(ENDS))
            .prop_map(|(start, dots, end)| [start, dots, end].concat());
        let part = prop_oneof![2 => select(PLAIN).prop_map(str::to_owned), 1 => trick];
        prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn a_normal_path_stays_as_it_is(rest in prop_oneof![rest(), any::<String>()]) {
            if let Ok(normal) = normalize(&format!("/{rest}")) {
                prop_assert_eq!(normalize(normal.as_str()), Ok(normal));
            }
        }

        #[test]
        fn no_server_reads_an_allowed_path_as_one_outside_of_its_prefix(prefix in select(PREFIXES), rest in rest()) {
            let (prefix, path) = (path(prefix), normalize(&format!("{prefix}{rest}")));
            if let Ok(path) = path && path.within(&prefix) {
                for decodings in 0..=3 {
                    let (read, allowed) = (reading(path.as_str(), decodings), reading(prefix.as_str(), decodings));
                    prop_assert!(read.starts_with(&allowed), "{path} is read as {read:?}");
                }
            }
        }
    }
}
