//! A stable hash.

/// Computes FNV-1a. Its values are stable across versions of the operator, unlike those of the standard library's
/// hashers.
#[must_use]
pub fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}
