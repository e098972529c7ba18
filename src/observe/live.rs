//! What the workers of a running test reported last, or an earlier process recorded of it.

use std::sync::Arc;

use kube::api::Api;
use loadtest_api::v1alpha1::{LoadTest, Results};

use crate::cache::{ObjectRef, object_ref};
use crate::context::Context;
use crate::runtime::api_error::with_timeout;
use crate::state::{JobState, LiveResults, WorkerStatus};

/// The live results of a test. They are read from the record where the test ends before this process has read its workers.
pub(super) async fn live_results(
    ctx: &Context,
    test: &LoadTest,
    job: &JobState,
    workers: &[Arc<WorkerStatus>],
) -> Option<Arc<LiveResults>> {
    let key = object_ref(&test.metadata);
    let latest = match job {
        JobState::Owned(job) | JobState::Deleted(Some(job)) => ctx.live.latest(&key, &job.uid),
        _ => None,
    };
    let ends = match job {
        JobState::Owned(job) => {
            let has_ended = job.outcome.is_some() || job.deleting || job.suspended;
            has_ended || workers.iter().all(|worker| worker.has_ended())
        }
        JobState::Deleted(_) => true,
        _ => false,
    };
    let results = test
        .status
        .as_ref()
        .and_then(|status| status.results.as_ref());
    let is_recorded = results.is_some_and(|results| results.is_placeholder());
    if latest.is_some() || !ends || !is_recorded {
        return latest;
    }
    let recorded = recorded_results(ctx, &key).await?;
    LiveResults::from_record(recorded).map(Arc::new)
}

/// The recorded results of a test, which the store does not keep. None if they cannot be read: the end of a test does not wait for the
/// course of its load.
pub(crate) async fn recorded_results(ctx: &Context, key: &ObjectRef) -> Option<Results> {
    let tests: Api<LoadTest> = Api::namespaced(ctx.client.clone(), &key.namespace);
    let test = with_timeout(tests.get(&key.name)).await.ok()?;
    Some(*test.status?.results?)
}
