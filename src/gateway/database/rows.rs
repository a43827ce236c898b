//! Rows as callers read them: one JSON document, or one line for each row and a last one.

use axum::body::Bytes;
use serde_json::json;

use crate::gateway::problem::Problem;

/// The media type of one line for each row.
pub(super) const LINES: &str = "application/x-ndjson";

/// Rows that were not sent yet, in one of the two formats.
///
/// A document is `{"rows": [...], "truncated": false, "affected": null}`; one that ends early is invalid JSON, so that nobody
/// takes it for complete. The last line, which no row looks like, is `{"$end": {"truncated": false, "affected": null}}` or
/// `{"$problem": {...}}`.
pub(super) struct RowBuffer {
    lines: bool,
    begun: bool,
    unsent: String,
}

impl RowBuffer {
    pub(super) fn new(lines: bool) -> Self {
        Self { lines, begun: false, unsent: String::new() }
    }

    pub(super) fn content_type(&self) -> &'static str {
        if self.lines { LINES } else { "application/json" }
    }

    /// Bytes that were not sent yet.
    pub(super) fn len(&self) -> usize {
        self.unsent.len()
    }

    pub(super) fn take(&mut self) -> Bytes {
        std::mem::take(&mut self.unsent).into()
    }

    /// Rows, each on a line of its own.
    pub(super) fn rows(&mut self, rows: &str) {
        if self.lines {
            return self.unsent.push_str(rows);
        }
        self.unsent.reserve(rows.len() + rows.len() / 8);
        for row in rows.lines() {
            self.open(",\n");
            self.unsent.push_str(row);
        }
    }

    pub(super) fn end(&mut self, truncated: bool, affected: Option<u64>) {
        if self.lines {
            let end = json!({ "$end": { "truncated": truncated, "affected": affected } });
            self.unsent.push_str(&end.to_string());
        } else {
            self.open("");
            self.unsent.push_str("],\"truncated\":");
            self.unsent.push_str(if truncated { "true" } else { "false" });
            self.unsent.push_str(",\"affected\":");
            self.unsent.push_str(&affected.map_or("null".to_owned(), |rows| rows.to_string()));
            self.unsent.push('}');
        }
        self.unsent.push('\n');
    }

    /// Whether each row is a line: then a fault can be reported after rows were sent.
    pub(super) fn has_lines(&self) -> bool {
        self.lines
    }

    pub(super) fn fault(&mut self, problem: &Problem) {
        self.unsent.push_str(&json!({ "$problem": problem.document() }).to_string());
        self.unsent.push('\n');
    }

    /// The start of a document, or what separates two of its rows.
    fn open(&mut self, between: &str) {
        self.unsent.push_str(if self.begun { between } else { "{\"rows\":[" });
        self.begun = true;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;

    fn sent(text: &mut RowBuffer) -> String {
        String::from_utf8(text.take().to_vec()).expect("UTF-8")
    }

    #[test]
    fn a_document_is_whole_however_its_rows_come() {
        for parts in [&[][..], &["1\n"], &["1\n2\n", "3\n"]] {
            let mut text = RowBuffer::new(false);
            let mut whole = String::new();
            for rows in parts {
                text.rows(rows);
                whole += &sent(&mut text);
            }
            assert!(serde_json::from_str::<Value>(&whole).is_err(), "it is not over: {whole}");
            text.end(true, Some(7));
            whole += &sent(&mut text);
            let document: Value = serde_json::from_str(&whole).expect("JSON");
            let rows: Vec<i64> = parts.concat().lines().map(|row| row.parse().expect("a number")).collect();
            assert_eq!(document, json!({ "rows": rows, "truncated": true, "affected": 7 }));
        }
    }

    #[test]
    fn lines_end_with_one_that_is_no_row() {
        let mut text = RowBuffer::new(true);
        text.rows("1\n2\n");
        text.end(false, None);
        assert_eq!(sent(&mut text), "1\n2\n{\"$end\":{\"affected\":null,\"truncated\":false}}\n");
    }
}
