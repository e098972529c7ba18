//! Builds snapshots for tests.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use miniz_oxide::deflate::compress_to_vec_zlib;

/// The line of a termination message in which a worker leaves a snapshot with this JSON.
#[must_use]
pub fn message(json: &str) -> String {
    format!(
        "loadtest.v1 {}",
        STANDARD.encode(compress_to_vec_zlib(json.as_bytes(), 6))
    )
}
