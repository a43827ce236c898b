//! A query parameter is either converted without loss, or rejected with a message that does not repeat it.
#![no_main]
#![allow(dead_code, reason = "only a part of the included modules is used")]

// Single modules instead of the crate, whose hundreds of dependencies would be instrumented as well.
#[path = "../../src/api/v1alpha1/database/param_type.rs"]
#[rustfmt::skip]
mod param_type;
#[path = "../../src/domain/parameters.rs"]
#[rustfmt::skip]
mod parameters;

/// The module paths that the included modules import from.
mod api {
    pub mod v1alpha1 {
        pub mod database {
            pub use crate::param_type::ParamType;
        }
    }
}

use std::{collections::BTreeSet, sync::Mutex};

use api::v1alpha1::database::ParamType;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use bigdecimal::BigDecimal;
use libfuzzer_sys::fuzz_target;
use parameters::{MAX_DIGITS, Value, bind};
use serde_json::value::RawValue;

/// All error messages. A single message does not show whether it repeats the value, since the fuzzer learns to send parts of messages; but
/// if messages repeated values, there would be as many messages as values.
static MESSAGES: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// More than the number of parameter types times the number of JSON types.
const MAX_MESSAGES: usize = 100;

fuzz_target!(|json: &str| {
    let Ok(raw) = serde_json::from_str::<Box<RawValue>>(json) else { return };
    let text = serde_json::from_str::<String>(raw.get()).ok();
    for kind in ParamType::ALL {
        match bind(&[kind], std::slice::from_ref(&raw)) {
            Ok(bound) => match bound[0].value() {
                Some(value) => assert_unchanged(value, &raw, text.as_deref()),
                None => assert_eq!(raw.get(), "null"),
            },
            Err(mismatch) => {
                let mut messages = MESSAGES.lock().unwrap();
                messages.insert(mismatch.to_string());
                assert!(messages.len() <= MAX_MESSAGES, "{messages:#?}");
            }
        }
    }
});

/// Asserts that the value is the one that was sent.
fn assert_unchanged(value: &Value, raw: &RawValue, text: Option<&str>) {
    let digits = text.unwrap_or(raw.get());
    match value {
        Value::Text(kept) => assert_eq!(Some(kept.as_str()), text),
        Value::Integer(kept) => assert_eq!(digits.parse::<i128>().ok(), Some(i128::from(*kept))),
        Value::Number(kept) => {
            assert_eq!(digits.parse::<BigDecimal>().ok().as_ref(), Some(kept));
            let written = kept.to_plain_string();
            assert!(written.bytes().filter(u8::is_ascii_digit).count() as u64 <= MAX_DIGITS + 1, "{written}");
        }
        Value::Boolean(kept) => assert_eq!(raw.get(), kept.to_string()),
        Value::Timestamp(kept) => {
            let text = text.expect("a string");
            assert_eq!(text.parse().ok(), Some(*kept));
            assert_eq!(kept.subsec_nanosecond() % 1000, 0, "{text}");
        }
        Value::Uuid(kept) => {
            let hex = |text: &str| text.replace(['-', '{', '}'], "").to_ascii_lowercase();
            let text = text.expect("a string");
            assert_eq!(hex(text.trim_start_matches("urn:uuid:")), hex(&kept.to_string()));
        }
        Value::Json(kept) => assert_eq!(kept.get(), raw.get()),
        Value::Bytes(kept) => assert_eq!(Some(STANDARD.encode(kept).as_str()), text),
    }
}
