//! What is dropped of a LoadTest before it is kept.

use std::collections::BTreeMap;

use loadtest_api::v1alpha1::{LoadTest, LoadTestStatus, Phase, Results};

use crate::state::abridged::abridge;

/// Drops what no decision reads. A finished test keeps only its end, its time to live, and
/// what metrics show; a large one that has not finished loses what only its start needs.
pub(crate) fn prune(test: &mut LoadTest) {
    test.metadata.managed_fields = None;
    test.metadata.annotations = None;
    test.metadata.owner_references = None;
    test.metadata.finalizers = None;
    if !test.phase().is_some_and(Phase::is_terminal) {
        // Those of running tests are only written.
        if let Some(results) = test.status.as_mut().and_then(|s| s.results.as_mut()) {
            **results = Results::placeholder();
        }
        return abridge(test);
    }
    test.metadata.labels = None;
    test.spec.test_script.inline = None;
    test.spec.variables = BTreeMap::new();
    test.spec.worker = None;
    // A status that is written again must be whole.
    if test.misses_events() {
        return;
    }
    test.status = test.status.take().map(|status| LoadTestStatus {
        observed_generation: status.observed_generation,
        phase: status.phase,
        completion_time: status.completion_time,
        verdict: status.verdict,
        results: status
            .results
            .map(|results| Box::new(results.for_metrics())),
        ..LoadTestStatus::default()
    });
}
