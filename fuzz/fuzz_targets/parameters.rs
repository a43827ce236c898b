//! A caller's value is either what its parameter's declared type says, without loss, or refused without being repeated.
#![no_main]
#![allow(dead_code, reason = "the modules are the product's own, of which this uses a part")]

// The modules instead of the crate, which would bring hundreds of others to be instrumented.
#[path = "../../src/api/v1alpha1/database/param_type.rs"]
#[rustfmt::skip]
mod param_type;
#[path = "../../src/domain/parameters.rs"]
#[rustfmt::skip]
mod parameters;

/// Where the product's modules look for what they use.
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

/// What was ever said of a value. Whether a message repeats its value cannot be seen from the two, since the fuzzer learns to
/// send pieces of messages; but if one did, there would be as many messages as values.
static TOLD: Mutex<BTreeSet<String>> = Mutex::new(BTreeSet::new());

/// More than there are types of parameters, times types of JSON.
const MESSAGES: usize = 100;

fuzz_target!(|json: &str| {
    let Ok(raw) = serde_json::from_str::<Box<RawValue>>(json) else { return };
    let text = serde_json::from_str::<String>(raw.get()).ok();
    for kind in ParamType::ALL {
        match bind(&[kind], std::slice::from_ref(&raw)) {
            Ok(bound) => match bound[0].value() {
                Some(value) => keeps(value, &raw, text.as_deref()),
                None => assert_eq!(raw.get(), "null"),
            },
            Err(mismatch) => {
                let mut told = TOLD.lock().unwrap();
                told.insert(mismatch.to_string());
                assert!(told.len() <= MESSAGES, "{told:#?}");
            }
        }
    }
});

/// Whether the value is what was sent.
fn keeps(value: &Value, raw: &RawValue, text: Option<&str>) {
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
