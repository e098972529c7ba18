//! Objects for tests.
#![allow(clippy::unwrap_used)]

use loadtest_api::v1alpha1::{LoadTest, LoadTestSpec};
use serde_json::{Value, json};

/// Builds a `LoadTest` named `t` in the namespace `n`, with the UID `u` and a script in the `ConfigMap` `s`.
pub(crate) fn load_test() -> LoadTestBuilder {
    LoadTestBuilder(json!({"testScript": {"config": {"configMap": "s"}}}))
}

/// Builds a `LoadTest`.
pub(crate) struct LoadTestBuilder(Value);

impl LoadTestBuilder {
    /// The test.
    pub(crate) fn build(self) -> LoadTest {
        let spec: LoadTestSpec = serde_json::from_value(self.0).unwrap();
        let mut test = LoadTest::new("t", spec);
        test.metadata.namespace = Some("n".into());
        test.metadata.uid = Some("u".into());
        test
    }
}
