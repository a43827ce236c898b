//! No server reads an allowed path as one outside of its prefix, however lenient it is.
#![no_main]
#![allow(dead_code, reason = "the modules are the product's own, of which this uses a part")]

// The modules instead of the crate, which would bring hundreds of others to be instrumented.
#[path = "../../src/domain/path/lenient.rs"]
mod lenient;
#[path = "../../src/domain/path.rs"]
#[rustfmt::skip]
mod path;

use lenient::reading;
use libfuzzer_sys::fuzz_target;
use path::normalize;

fuzz_target!(|data: &str| {
    let Ok(path) = normalize(data) else { return };
    assert_eq!(normalize(path.as_str()).as_ref(), Ok(&path), "a normal path stays as it is");

    // Each path above it is a prefix that could allow it.
    let normal = path.as_str();
    let ends = normal.match_indices('/').map(|(end, _)| end.max(1)).chain([normal.len()]);
    for prefix in ends.map(|end| normalize(&normal[..end]).unwrap()) {
        assert!(path.within(&prefix), "{path} is within {prefix}");
        for decodings in 0..=3 {
            let (read, allowed) = (reading(normal, decodings), reading(prefix.as_str(), decodings));
            assert!(read.starts_with(&allowed), "{path} within {prefix} is read as {read:?}");
        }
    }
});
