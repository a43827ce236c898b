//! A server that is as lenient as possible, for tests and fuzzing only.

use percent_encoding::percent_decode;

/// The segments that such a server reads from a path: it decodes the path `decodings` times, reads `\` as `/`, ends
/// the path at a NUL, `?` or `#`, ignores the part of a segment after a `;` and spaces at its end, and resolves dot
/// segments (RFC 3986 5.2.4).
#[must_use]
pub(super) fn reading(path: &str, decodings: usize) -> Vec<Vec<u8>> {
    let decode = |bytes: Vec<u8>, _| percent_decode(&bytes).collect();
    let bytes = (0..decodings).fold(path.as_bytes().to_vec(), decode);
    let mut segments = Vec::new();
    for segment in until(&bytes, b"\0?#").split(|byte| b"/\\".contains(byte)) {
        match until(segment, b";").trim_ascii_end() {
            b"" | b"." => {}
            // Windows removes dots and spaces from the end of a name, and may read more than two dots as the parent.
            name if name.iter().all(|byte| b". ".contains(byte)) => drop(segments.pop()),
            name => segments.push(name.to_vec()),
        }
    }
    segments
}

fn until<'a>(bytes: &'a [u8], ends: &[u8]) -> &'a [u8] {
    bytes.split(|byte| ends.contains(byte)).next().unwrap_or_default()
}
