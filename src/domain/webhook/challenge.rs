//! The question whether an endpoint wants events, and its answer.

use serde_json::{Value, json};

/// The body of the question.
#[must_use]
pub fn question(text: &str) -> String {
    json!({ "type": "webhook.challenge", "challenge": text }).to_string()
}

/// Whether the body answers it: by the text, with or without quotes and a line end, or by `{"challenge": text}`. Who sends back whatever it
/// is sent has not understood the question.
#[must_use]
pub fn is_answer(body: &[u8], text: &str) -> bool {
    let Ok(body) = std::str::from_utf8(body) else { return false };
    let body = body.trim();
    if body == text {
        return true;
    }
    match serde_json::from_str(body) {
        Ok(Value::String(answer)) => answer == text,
        Ok(Value::Object(members)) => {
            members.len() == 1 && members.get("challenge").and_then(Value::as_str) == Some(text)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_sends_the_text_back_has_understood() {
        for body in ["c4", "c4\r\n", "\"c4\"", "{\"challenge\":\"c4\"}", " { \"challenge\" : \"c4\" }\n"] {
            assert!(is_answer(body.as_bytes(), "c4"), "{body}");
        }
    }

    #[test]
    fn whoever_sends_something_else_or_all_of_it_has_not() {
        let nested = format!("{{\"json\":{}}}", question("c4"));
        let bodies = [
            &question("c4"),
            &nested,
            "",
            "{}",
            "c5",
            "c4 c4",
            "{\"status\":\"success\"}",
            "[\"c4\"]",
            "{\"challenge\":4}",
        ];
        for body in bodies {
            assert!(!is_answer(body.as_bytes(), "c4"), "{body}");
        }
        assert!(!is_answer(b"\xff", "c4"));
    }
}
