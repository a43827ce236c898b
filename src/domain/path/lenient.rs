//! The most lenient server of all: for tests and fuzzing, never for use.

use percent_encoding::percent_decode;

/// The segments that such a server reads from a path: it decodes so many times, takes `\` for `/`, ends at a NUL, a `?`
/// or a `#`, ignores from each segment what follows a `;` and spaces at the end, and resolves dots (RFC 3986 5.2.4).
#[must_use]
pub(super) fn reading(path: &str, decodings: usize) -> Vec<Vec<u8>> {
    let decode = |bytes: Vec<u8>, _| percent_decode(&bytes).collect();
    let bytes = (0..decodings).fold(path.as_bytes().to_vec(), decode);
    let mut segments = Vec::new();
    for segment in until(&bytes, b"\0?#").split(|byte| b"/\\".contains(byte)) {
        match until(segment, b";").trim_ascii_end() {
            b"" | b"." => {}
            // Windows drops dots and spaces at the end of a name, and may find a parent in what had more than two.
            name if name.iter().all(|byte| b". ".contains(byte)) => drop(segments.pop()),
            name => segments.push(name.to_vec()),
        }
    }
    segments
}

fn until<'a>(bytes: &'a [u8], ends: &[u8]) -> &'a [u8] {
    bytes.split(|byte| ends.contains(byte)).next().unwrap_or_default()
}
