//! Everything that is read about a test, and nothing that is decided. Reads come from the store, which watches fill, and from
//! the API server where the store cannot know: the script, a Job that the store misses, a dry run of a new Job.

mod events;
mod job;
mod live;
mod script;
mod worker_files;

use std::sync::Arc;
use std::time::Instant;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::Api;
use loadtest_api::v1alpha1::{LoadTest, Phase, Reason};
use tokio::sync::OwnedSemaphorePermit;

use crate::cache::object_ref;
use crate::context::Context;
use crate::decide::object_to_explain;
use crate::error::Error;
use crate::runtime::api_error::with_timeout;
use crate::state::abridged::is_abridged;
use crate::state::{FailedCall, JobState, Observed, ScriptState, WorkerFiles};

pub use job::find_job;
pub(crate) use live::recorded_results;
pub(crate) use worker_files::read_worker_files;

/// What was read for one reconcile.
pub(crate) struct Observation {
    /// The test; whole, if it may start.
    pub test: Arc<LoadTest>,
    /// What decisions are made from.
    pub observed: Observed,
    /// The first read that failed. It is part of what is observed, too.
    pub failure: Option<Error>,
    /// Limits the large tests that are held at a time.
    _large_test: Option<OwnedSemaphorePermit>,
}

/// Reads what a decision about a test needs.
pub async fn observe(ctx: &Context, test: &Arc<LoadTest>, now: Timestamp) -> Observation {
    let mut test = test.clone();
    let mut large_test = None;
    let mut failure = None;
    let mut note = |error: Error| {
        failure.get_or_insert(error);
    };
    let key = object_ref(&test.metadata);
    let stored = ctx.store().job(&key, &test.uid().unwrap_or_default());
    let worker_files = match ctx.worker_files.get(&key.namespace, Instant::now()) {
        Some(()) => WorkerFiles::Verified,
        None if test.is_pending_for(Reason::NameConflict) => read_worker_files(ctx, &key.namespace)
            .await
            .unwrap_or_else(|error| {
                note(error);
                WorkerFiles::Unknown
            }),
        // Read where they cannot be created.
        None => WorkerFiles::Unknown,
    };
    let mut job = match stored {
        Some(job) => job,
        // A Job of others under this name is found by the next attempt to create one.
        None if test.phase().is_some_and(|p| !Phase::is_terminal(p))
            && !test.last_create_was_rejected() =>
        {
            job::find_job(ctx, &test).await.unwrap_or_else(|error| {
                note(error);
                JobState::Unknown
            })
        }
        None => JobState::Absent,
    };
    let mut may_start = job == JobState::Absent && !test.needs_no_script();
    if may_start && is_abridged(&test) {
        large_test = ctx.large_tests.clone().acquire_owned().await.ok();
        match read_whole(ctx, &test).await {
            Ok(Some(whole)) => test = Arc::new(whole),
            // It was deleted.
            Ok(None) => (job, may_start) = (JobState::Unknown, false),
            Err(error) => {
                note(error);
                may_start = false;
            }
        }
    }
    let script = if may_start {
        script::read_script(ctx, &test)
            .await
            .unwrap_or_else(|error| {
                note(error);
                ScriptState::NotRead
            })
    } else {
        ScriptState::NotRead
    };
    let can_start =
        worker_files == WorkerFiles::Verified && !matches!(script, ScriptState::NotRead);
    if job == JobState::Absent && can_start {
        job = job::dry_run_job(ctx, &test, &script).await;
    }
    let workers = match &job {
        JobState::Owned(job) | JobState::Deleted(Some(job)) => ctx.store().workers(&key, &job.uid),
        _ => Vec::new(),
    };
    let running_jobs = ctx.running_jobs(Instant::now());
    let blocker = match object_to_explain(&test, &job, &workers, running_jobs, now) {
        Some(object) => events::warning_about(ctx, &key.namespace, &object)
            .await
            .unwrap_or_else(|error| {
                note(error);
                None
            }),
        None => None,
    };
    let live = live::live_results(ctx, &test, &job, &workers).await;
    let observed = Observed {
        job,
        workers,
        script,
        worker_files,
        blocker,
        failed_call: failure.as_ref().map(FailedCall::from),
        failed_events: None,
        missing_fields: ctx.missing_fields.borrow().clone(),
        running_jobs,
        live,
    };
    Observation {
        test,
        observed,
        failure,
        _large_test: large_test,
    }
}

/// The whole test, of which the store has only a part. None if it no longer exists.
async fn read_whole(ctx: &Context, test: &LoadTest) -> Result<Option<LoadTest>, Error> {
    let api: Api<LoadTest> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let found = with_timeout(api.get_opt(&test.name_any()))
        .await
        .map_err(Error::new("read the LoadTest"))?;
    Ok(found.filter(|found| found.uid() == test.uid()))
}
