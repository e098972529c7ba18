//! A hash of the files of a test, which each worker compares with the files that it finds.

const OFFSET_BASES: [u32; 2] = [0x811c_9dc5, 0x9747_b28c];
const PRIME: u32 = 0x0100_0193;

/// Returns the hash of files, each given as its name and its content: 16 hex digits. The order of the files does not
/// matter. `worker/preload/files-hash.cjs` computes the same.
pub fn files_hash<'a>(files: impl Iterator<Item = (&'a str, &'a [u8])>) -> String {
    let mut sums = [0_u32; 2];
    for (name, content) in files {
        for (sum, base) in sums.iter_mut().zip(OFFSET_BASES) {
            let bytes = name.bytes().chain([0]).chain(content.iter().copied());
            let hash = bytes.fold(base, |hash, byte| {
                (hash ^ u32::from(byte)).wrapping_mul(PRIME)
            });
            *sum = sum.wrapping_add(hash);
        }
    }
    format!("{:08x}{:08x}", sums[0], sums[1])
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use serde_json::Value;

    use super::files_hash;

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
            let files: Vec<(&str, Vec<u8>)> = case["files"]
                .as_array()
                .unwrap()
                .iter()
                .map(|file| (file[0].as_str().unwrap(), content(&file[1])))
                .collect();
            let hash = files_hash(files.iter().map(|(name, content)| (*name, &content[..])));
            assert_eq!(hash, case["hash"].as_str().unwrap(), "{}", case["name"]);
        }
    }
}
