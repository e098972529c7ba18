//! LoadTests of which only a part is kept, so that a tenant with many large ones does not fill the memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use loadtest_api::v1alpha1::{LoadTest, TestScript, WorkerTemplate};

/// How long the kept part of a spec may be as JSON, together with the labels of the test. A longer one is abridged.
const MAX_KEPT_BYTES: usize = 2048;

/// The annotation in memory of an abridged test. Nothing reads a test's own annotations, so no others are kept.
const MARK: &str = "abridged";

/// Drops what only the start of a test needs, if it is large. The test is read again when it starts.
pub(crate) fn abridge(test: &mut LoadTest) {
    let labels = test.metadata.labels.iter().flatten();
    let size_of_labels: usize = labels.map(|(name, value)| name.len() + value.len()).sum();
    // Serializing a spec cannot fail. If it did, the test would be read again.
    let size = serde_json::to_vec(&test.spec).map_or(usize::MAX, |json| json.len());
    if size.saturating_add(size_of_labels) <= MAX_KEPT_BYTES {
        return;
    }
    let image = test.spec.worker.take().and_then(|worker| worker.image);
    let small_worker = |image| {
        Box::new(WorkerTemplate {
            image: Some(image),
            ..WorkerTemplate::default()
        })
    };
    test.metadata.labels = None;
    test.spec.worker = image.map(small_worker);
    test.spec.test_script = TestScript::default();
    test.spec.variables = BTreeMap::new();
    test.spec.thresholds = Vec::new();
    (test.spec.environment, test.spec.target) = (None, None);
    test.metadata.annotations = Some([(MARK.to_owned(), String::new())].into());
}

/// Whether only a part of the test is kept.
pub(crate) fn is_abridged(test: &LoadTest) -> bool {
    let annotations = test.metadata.annotations.as_ref();
    annotations.is_some_and(|annotations| annotations.contains_key(MARK))
}

/// The test as written, as whole as it was read.
pub(crate) fn restore(written: Arc<LoadTest>, read: &LoadTest) -> Arc<LoadTest> {
    if !is_abridged(&written) || is_abridged(read) {
        return written;
    }
    let mut whole = read.clone();
    whole
        .metadata
        .resource_version
        .clone_from(&written.metadata.resource_version);
    whole.status.clone_from(&written.status);
    Arc::new(whole)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixtures::load_test;

    #[test]
    fn a_large_test_keeps_what_decisions_before_its_start_need() {
        let large: [fn(&mut LoadTest); 4] = [
            |test| test.spec.test_script.inline = Some("x".repeat(60_000)),
            |test| {
                let value = "x".repeat(60_000).into();
                test.spec.variables = [("v".to_owned(), value)].into();
            },
            |test| test.spec.thresholds = vec!["a < 1".repeat(20); 100],
            |test| {
                let labels = (0..1000).map(|i| (format!("label-{i}"), String::new()));
                test.metadata.labels = Some(labels.collect());
            },
        ];
        for enlarge in large {
            let mut test = load_test().build();
            test.spec.suspend = Some(true);
            test.spec.count = 7;
            abridge(&mut test);
            assert!(!is_abridged(&test));
            enlarge(&mut test);
            let whole = test.clone();
            abridge(&mut test);
            assert!(is_abridged(&test));
            let restored = restore(Arc::new(test.clone()), &whole);
            assert_eq!(restored.spec, whole.spec);
            assert!(!is_abridged(&restored));
            assert_eq!((test.spec.count, test.spec.suspend), (7, Some(true)));
            assert!(serde_json::to_vec(&test).is_ok_and(|json| json.len() < 700));
        }
    }
}
