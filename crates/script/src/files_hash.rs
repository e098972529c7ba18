//! A hash of the files of a test, which each worker compares with the files that it finds.

use std::fmt;

const OFFSET_BASES: [u32; 2] = [0x811c_9dc5, 0x9747_b28c];
const PRIME: u32 = 0x0100_0193;

/// The hash of files: 16 hex digits. The order of the files does not matter. `worker/preload/files-hash.cjs` computes the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FilesHash([u32; 2]);

impl FilesHash {
    /// Adds a file.
    pub fn add(&mut self, name: &str, content: &[u8]) {
        for (sum, base) in self.0.iter_mut().zip(OFFSET_BASES) {
            let bytes = name.bytes().chain([0]).chain(content.iter().copied());
            let hash = bytes.fold(base, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(PRIME)
            });
            *sum = sum.wrapping_add(hash);
        }
    }

    /// Adds all files of another hash.
    pub fn merge(&mut self, other: Self) {
        for (sum, other) in self.0.iter_mut().zip(other.0) {
            *sum = sum.wrapping_add(other);
        }
    }
}

impl fmt::Display for FilesHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}{:08x}", self.0[0], self.0[1])
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::FilesHash;

    /// The cases of `worker/test/files-hash.test.mjs`.
    const CASES: &str = include_str!("../../../worker/test/fixtures/files-hash.json");

    fn content(value: &Value) -> Vec<u8> {
        value.as_str().map_or_else(
            || serde_json::from_value(value.clone()).unwrap(),
            |text| text.as_bytes().to_vec(),
        )
    }

    #[test]
    fn operator_and_workers_compute_the_same_hash() {
        let cases: Vec<Value> = serde_json::from_str(CASES).unwrap();
        assert!(!cases.is_empty());
        for case in cases {
            let mut hash = FilesHash::default();
            for file in case["files"].as_array().unwrap() {
                let mut one = FilesHash::default();
                one.add(file[0].as_str().unwrap(), &content(&file[1]));
                hash.merge(one);
            }
            assert_eq!(
                hash.to_string(),
                case["hash"].as_str().unwrap(),
                "{}",
                case["name"]
            );
        }
    }
}
