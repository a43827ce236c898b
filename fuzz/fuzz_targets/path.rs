//! No server reads an allowed path as a path outside of its prefix, however lenient it is.
#![no_main]
#![allow(dead_code, reason = "only a part of the included modules is used")]

// Single modules instead of the crate, whose hundreds of dependencies would be instrumented as well.
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
    assert_eq!(normalize(path.as_str()).as_ref(), Ok(&path), "a normalized path does not change");

    // Each of its parents is a prefix that could allow it.
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
