//! Request paths that every server reads in the same way, and which of them are allowed.

#[cfg(test)]
mod lenient;

use std::fmt;

use percent_encoding::{percent_decode_str, percent_encode_byte};

/// The maximum length in bytes, which every server accepts (RFC 9110 4.1 recommends 8000 bytes for a URI).
const MAX_LENGTH: usize = 8000;

/// A normalized path: it starts with `/`, has no empty segment (except the last one) and no dot segment, and only the
/// characters that need it are percent-encoded. The path that is matched is the path that is forwarded.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Path {
    text: String,
    encoded_slash: bool,
}

const ENCODED_SLASH: &str = "%2F";

/// Why a path is rejected; the message continues "the path ...". Servers read such paths in different ways, so that
/// the path that is allowed could differ from the path that is served. Ordinary clients do not send them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// Longer than [`MAX_LENGTH`].
    #[error("is longer than {MAX_LENGTH} bytes")]
    TooLong,
    /// It does not start with `/`.
    #[error("does not start with /")]
    NotAbsolute,
    /// A `%` without two hexadecimal digits.
    #[error("contains an invalid percent-encoding: % must be followed by two hexadecimal digits")]
    InvalidEncoding,
    /// A character that a path cannot have (RFC 3986 3.3).
    #[error("contains a character that must be percent-encoded")]
    NotEncoded,
    /// The decoded bytes are not UTF-8.
    #[error("is not UTF-8")]
    NotUtf8,
    /// A control character, percent-encoded or not.
    #[error("contains a control character")]
    Control,
    /// `\` or `%5C`, which some servers read as `/`.
    #[error("contains a backslash")]
    Backslash,
    /// `;` or `%3B`, after which some servers ignore the rest of a segment.
    #[error("contains a semicolon")]
    Semicolon,
    /// `%25`, which a server that decodes twice reads as the start of another percent-encoding.
    #[error("contains a percent-encoded percent sign")]
    EncodedPercent,
    /// `//`, which some servers read as `/`, and some as the start of a host name.
    #[error("contains an empty segment")]
    EmptySegment,
    /// `.` and `..`, percent-encoded or not, and the variants that some servers read as one of them (`...`, `..%20`,
    /// `..%3F`). Clients resolve dot segments before they send a path (RFC 3986 5.2.4).
    #[error("contains a dot segment: resolve it before the call")]
    DotSegment,
}

/// Normalizes a request path without its query (RFC 3986 6.2.2): characters that need no percent-encoding are
/// decoded, and hexadecimal digits become upper-case. A normalized path does not change. An encoded slash (`%2F`) is kept: some
/// servers read it as `/`, so each entry of `allow` decides whether it takes one.
///
/// # Errors
/// Servers could read the path in different ways.
pub fn normalize(raw: &str) -> Result<Path, PathError> {
    if raw.len() > MAX_LENGTH {
        return Err(PathError::TooLong);
    }
    if !raw.starts_with('/') {
        return Err(PathError::NotAbsolute);
    }
    let mut normal = String::with_capacity(raw.len());
    let mut bytes = raw.bytes();
    let (mut any_encoded, mut encoded_slash) = (false, false);
    while let Some(first) = bytes.next() {
        let encoded = first == b'%';
        any_encoded |= encoded;
        let byte = if encoded { decode(bytes.next(), bytes.next())? } else { first };
        match byte {
            b'\\' => return Err(PathError::Backslash),
            b';' => return Err(PathError::Semicolon),
            b'%' => return Err(PathError::EncodedPercent),
            b'/' if encoded => {
                encoded_slash = true;
                normal.push_str(ENCODED_SLASH);
            }
            _ if byte.is_ascii_control() => return Err(PathError::Control),
            _ if is_unreserved(byte) || (is_delimiter(byte) && !encoded) => normal.push(char::from(byte)),
            _ if encoded => normal.push_str(percent_encode_byte(byte)),
            _ => return Err(PathError::NotEncoded),
        }
    }
    if any_encoded && percent_decode_str(&normal).decode_utf8().is_err() {
        return Err(PathError::NotUtf8);
    }
    if normal.as_bytes().windows(2).any(|pair| pair == b"//") {
        return Err(PathError::EmptySegment);
    }
    // A server that reads an encoded slash as `/` resolves what is between two of them, too.
    if normal.contains('.')
        && normal.split('/').flat_map(|part| part.split(ENCODED_SLASH)).any(is_dot_segment)
    {
        return Err(PathError::DotSegment);
    }
    Ok(Path { text: normal, encoded_slash })
}

fn decode(high: Option<u8>, low: Option<u8>) -> Result<u8, PathError> {
    let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
    let value = digit(high).zip(digit(low)).and_then(|(high, low)| u8::try_from(high * 16 + low).ok());
    value.ok_or(PathError::InvalidEncoding)
}

/// Unreserved characters, which are equivalent with and without percent-encoding (RFC 3986 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)
}

/// Delimiters that a path can have, whose meaning can change with percent-encoding (RFC 3986 2.2, 3.3). Without `;`.
fn is_delimiter(byte: u8) -> bool {
    b"/!$&'()*+,=:@".contains(&byte)
}

/// Whether some server reads the segment as a dot segment: Windows removes spaces and dots from its end, and a server
/// that decodes before it looks for the query ends it at a `?`.
fn is_dot_segment(segment: &str) -> bool {
    let end = ["%3F", "%23"].iter().filter_map(|mark| segment.find(mark)).min().unwrap_or(segment.len());
    let name = &segment[..end];
    name.contains('.') && name.split("%20").all(|part| part.bytes().all(|byte| byte == b'.'))
}

impl Path {
    /// The path as it is forwarded.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether it contains an encoded slash.
    #[must_use]
    pub fn has_encoded_slash(&self) -> bool {
        self.encoded_slash
    }

    /// Whether the path matches the prefix, by whole segments, as a `Prefix` path of a Kubernetes Ingress: `/a`
    /// matches `/a`, `/a/` and `/a/b`, but not `/ab`. `/a/` is equivalent to `/a`.
    #[must_use]
    pub fn within(&self, prefix: &Self) -> bool {
        let prefix = prefix.text.strip_suffix('/').unwrap_or(&prefix.text);
        self.text.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

impl fmt::Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// An entry of an `allow` list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// The HTTP methods, case-sensitive (RFC 9110 9.1).
    pub methods: Vec<String>,
    /// The path prefix, see [`Path::within`].
    pub path_prefix: Path,
    /// Paths may contain encoded slashes.
    pub encoded_slashes: bool,
    /// A GET may open a WebSocket.
    pub web_socket: bool,
}

impl Allow {
    /// Whether the entry has this method and path.
    #[must_use]
    pub fn matches(&self, method: &str, path: &Path) -> bool {
        self.methods.iter().any(|allowed| allowed == method) && path.within(&self.path_prefix)
    }

    /// Whether the entry takes the path's encoded slashes, if it has any.
    #[must_use]
    pub fn takes_slashes(&self, path: &Path) -> bool {
        self.encoded_slashes || !path.has_encoded_slash()
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
    fn equivalent_paths_have_the_same_normalized_form() {
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
    fn paths_that_servers_read_in_different_ways_are_rejected() {
        use PathError::*;
        let rejected: &[(PathError, &[&str])] = &[
            (NotAbsolute, &["", "a", "*", "http://a/", "%2Fa", "\\a"]),
            (InvalidEncoding, &["/%", "/%2", "/%zz", "/%u002e", "/a%+1", "/%é"]),
            (NotEncoded, &["/a b", "/a?b", "/a#b", "/<a>", "/{id}", "/a|b", "/[a]", "/\"", "/^", "/`", "/é"]),
            (NotUtf8, &["/%ff", "/%c0%ae%c0%ae/a", "/%c0%af", "/%ed%a0%80", "/%c3"]),
            (Control, &["/a%00", "/a%0d%0aHost:x", "/a\0", "/a\n", "/%7f", "/a%09"]),
            (Backslash, &["/a\\..\\b", "/a%5cb", "/%5C"]),
            (Semicolon, &["/a/..;/b", "/a;v=1", "/;/a", "/a/..%3bx/b"]),
            (EncodedPercent, &["/%252e%252e/a", "/a%25", "/%25%32%65"]),
            (EmptySegment, &["//", "//evil.example/a", "/a//b", "/a//"]),
            (
                DotSegment,
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
                    "/a/..%2Fb",
                    "/a%2f..%2fb",
                    "/a%2F%2e",
                ],
            ),
        ];
        for (error, paths) in rejected {
            for raw in *paths {
                assert_eq!(normalize(raw), Err(*error), "{raw}");
            }
        }
        assert_eq!(normalize(&"/a".repeat(MAX_LENGTH / 2)).map(|_| ()), Ok(()));
        assert_eq!(normalize(&"/a".repeat(MAX_LENGTH)), Err(TooLong));
    }

    #[test]
    fn a_prefix_matches_whole_segments_and_methods_are_case_sensitive() {
        let methods = ["GET", "PUT"].map(str::to_owned);
        let allow = |prefix| Allow {
            methods: methods.to_vec(),
            path_prefix: path(prefix),
            encoded_slashes: false,
            web_socket: false,
        };
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

    #[test]
    fn an_encoded_slash_is_kept_and_told() {
        for (raw, normal) in [("/a%2fb", "/a%2Fb"), ("/api/queues/%2F/jobs", "/api/queues/%2F/jobs")] {
            let path = path(raw);
            assert_eq!((path.as_str(), path.has_encoded_slash()), (normal, true));
            assert!(!path.within(&self::path("/a")) && path.within(&self::path("/")), "it separates nothing");
        }
        assert!(!path("/a/b").has_encoded_slash());
    }

    const PREFIXES: &[&str] = &["/", "/a", "/a/b/", "/a%c3%a9", "/a%20", "/a%3f"];

    const PLAIN: &[&str] = &["/", "/b", "/%62/", "c", "é", "%c3%a9", "%2c", "+", "~@", "%"];

    const DOTS: &[&str] =
        &["..", "..", "%2e.", ".%2E", "...", ".", "%252e.", "%25%32%65.", "%c0%ae.", "%u002e.", ""];

    /// Characters that some server reads as the end of a segment.
    const ENDS: &[&str] = &[
        "/", "/", "//", "%2f", "%252F", "\\", "%5c", "%255c", "%c0%af", ";", ";x/", "%3b", "%253b", "?",
        "%3f", "#", "%23", "%00", "%2500", " ", "%20", "%09", "\n", "",
    ];

    /// The rest of a raw path, often with a path traversal.
    fn rest() -> impl Strategy<Value = String> {
        let trick = (select(ENDS), select(DOTS), select(ENDS))
            .prop_map(|(start, dots, end)| [start, dots, end].concat());
        let part = prop_oneof![2 => select(PLAIN).prop_map(str::to_owned), 1 => trick];
        prop::collection::vec(part, 1..5).prop_map(|parts| parts.concat())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5000))]

        #[test]
        fn a_normalized_path_does_not_change(rest in prop_oneof![rest(), any::<String>()]) {
            if let Ok(normal) = normalize(&format!("/{rest}")) {
                prop_assert_eq!(normalize(normal.as_str()), Ok(normal));
            }
        }

        #[test]
        fn no_server_reads_an_allowed_path_as_a_path_outside_of_its_prefix(prefix in select(PREFIXES), rest in rest()) {
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
