//! Carries out the one action of a plan.

use std::time::Instant;

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Resource, ResourceExt};
use loadtest_api::labels::DEADLINE_ANNOTATION;
use loadtest_api::v1alpha1::LoadTest;
use serde::de::IgnoredAny;
use serde_json::json;
use tokio::time::timeout;

use crate::build;
use crate::cache::object_ref;
use crate::context::Context;
use crate::decide::{Action, JobField, JobPatch, PodRef, SendStartTime, TERMINATE_NOW_SECONDS};
use crate::error::{Error, WRITE_STATUS};
use crate::observe::{find_job, read_worker_files};
use crate::runtime::api_error::{REQUEST_TIMEOUT, with_timeout};
use crate::runtime::client;
use crate::state::start_annotation::encode_start;
use crate::state::{JobState, JobStatus, PartialJob, WorkerFiles};

/// How many pods of a test are patched at a time. Each request in flight holds memory, and more of them are not faster.
const MAX_CONCURRENT_PATCHES: usize = 20;

/// What became of an action.
#[derive(Debug)]
pub(crate) enum Applied {
    /// The action is done, or there was none.
    Done,
    /// The Job could not be created because of this state, which must be reported.
    BlockedByJob(Box<JobState>),
    /// The worker files could not be created: somebody else's have their name, which must be reported.
    BlockedByFiles,
}

/// Carries out an action.
///
/// # Errors
/// The call that failed. The action may be partly or entirely done then, and is repeated.
pub async fn apply(
    ctx: &Context,
    test: &LoadTest,
    action: Option<&Action>,
) -> Result<Applied, Error> {
    match action {
        Some(Action::CreateWorkerFiles) => create_worker_files(ctx, test).await,
        Some(Action::CreateJob(job)) => create_job(ctx, test, job).await,
        Some(Action::PatchJob(patch)) => patch_job(ctx, test, patch).await,
        Some(Action::SendStartTime(start)) => send_start_time(ctx, test, start).await,
        Some(Action::RecordGeneration(generation)) => {
            record_generation(ctx, test, *generation).await
        }
        Some(Action::DeleteTest) => delete_test(ctx, test).await,
        None => Ok(Applied::Done),
    }
}

/// Verifies or creates the worker files of the namespace. Tests of one namespace do so one at a time, so that only the first of
/// many sends the files.
async fn create_worker_files(ctx: &Context, test: &LoadTest) -> Result<Applied, Error> {
    let namespace = test.namespace().unwrap_or_default();
    let api: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &namespace);
    let turn = ctx.worker_files_turns.wait(&namespace);
    // Without a turn after this time, since the others may wait for an API server that does not respond.
    let _turn = timeout(REQUEST_TIMEOUT, turn).await.ok();
    if ctx.worker_files.get(&namespace, Instant::now()).is_some() {
        return Ok(Applied::Done);
    }
    let verified = async || {
        Ok(match read_worker_files(ctx, &namespace).await? {
            WorkerFiles::Foreign => Some(Applied::BlockedByFiles),
            WorkerFiles::Verified => Some(Applied::Done),
            WorkerFiles::Unknown => None,
        })
    };
    if let Some(applied) = verified().await? {
        return Ok(applied);
    }
    let config_map = build::config_map(&namespace);
    match with_timeout(api.create(&PostParams::default(), &config_map)).await {
        Ok(_) => {
            ctx.worker_files.insert(namespace, (), Instant::now());
            Ok(Applied::Done)
        }
        // Somebody else was faster.
        Err(error) if error.status() == Some(409) => Ok(verified().await?.unwrap_or(Applied::Done)),
        Err(error) => Err(Error::new("create the worker files (a ConfigMap)")(error)),
    }
}

/// Creates the Job by POST and nothing else: a server-side apply would create a finished Job again.
async fn create_job(ctx: &Context, test: &LoadTest, job: &Job) -> Result<Applied, Error> {
    let created = client::create_job::<PartialJob>(&ctx.client, job, &PostParams::default()).await;
    let state = match created {
        Ok(job) => {
            ctx.metrics.job_created(test.age(Timestamp::now()));
            JobState::Owned(JobStatus::from_job(&job))
        }
        Err(error) if matches!(error.status(), Some(400 | 403 | 422)) => {
            JobState::Rejected(error.message())
        }
        // The Job may exist all the same. This is looked up before the failure is reported: the report changes the test's
        // version, and with it the history that is searched for the Job.
        Err(error) if error.may_be_done() || error.status() == Some(409) => {
            match find_job(ctx, test).await? {
                JobState::Absent => return Err(Error::new("create the Job")(error)),
                state => state,
            }
        }
        Err(error) => return Err(Error::new("create the Job")(error)),
    };
    match state {
        // The watch delivers it next.
        JobState::Owned(job) => {
            ctx.store().record_own_job(object_ref(&test.metadata), job);
            Ok(Applied::Done)
        }
        blocked => Ok(Applied::BlockedByJob(Box::new(blocked))),
    }
}

/// Patches the Job. The UID in the patch protects any other Job of the name.
async fn patch_job(ctx: &Context, test: &LoadTest, patch: &JobPatch) -> Result<Applied, Error> {
    let jobs: Api<PartialJob> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let (spec, deadline) = match patch.field {
        JobField::ActiveDeadline(seconds) => {
            (json!({"activeDeadlineSeconds": seconds}), Some(seconds))
        }
        JobField::EndWithoutPods => (
            json!({"activeDeadlineSeconds": TERMINATE_NOW_SECONDS, "parallelism": 0}),
            Some(TERMINATE_NOW_SECONDS),
        ),
        JobField::Ttl(seconds) => (json!({"ttlSecondsAfterFinished": seconds}), None),
    };
    let mut metadata = json!({"uid": patch.uid});
    if let Some(seconds) = deadline {
        metadata["annotations"] = json!({DEADLINE_ANNOTATION: seconds.to_string()});
    }
    let patch = Patch::Merge(json!({"metadata": metadata, "spec": spec}));
    match with_timeout(jobs.patch(&test.name_any(), &PatchParams::default(), &patch)).await {
        // The Job was deleted or replaced; the watch reports it.
        Err(error) if !matches!(error.status(), Some(404 | 409)) => {
            Err(Error::new("change the Job")(error))
        }
        _ => Ok(Applied::Done),
    }
}

/// Sends workers their start instant, by annotations of their pods that each worker reads from a file.
async fn send_start_time(
    ctx: &Context,
    test: &LoadTest,
    start: &SendStartTime,
) -> Result<Applied, Error> {
    let pods = &Request::new(Pod::url_path(&(), test.namespace().as_deref()));
    let key = &object_ref(&test.metadata);
    let send = |PodRef { name, uid }: &PodRef| {
        let annotations = encode_start(start.at, start.attempt);
        let patch = json!({"metadata": {"uid": uid, "annotations": annotations}});
        let name = name.clone();
        async move {
            let request = pods
                .patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch))
                .map_err(kube::Error::BuildRequest);
            // The answer is skipped: parsing its managed fields would cost more than everything else.
            let sent = with_timeout(async { ctx.client.request::<IgnoredAny>(request?).await });
            match sent.await {
                Ok(_) => {
                    let now = Timestamp::now();
                    ctx.store()
                        .record_start_sent(key, &name, start.at, start.attempt, now);
                    Ok(())
                }
                // The pod was deleted; the watch reports it.
                Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
                Err(error) => Err(Error::new("send the start time to the workers' pods")(
                    error,
                )),
            }
        }
    };
    stream::iter(start.pods.iter().map(send))
        .buffer_unordered(MAX_CONCURRENT_PATCHES)
        .try_collect::<()>()
        .await?;
    Ok(Applied::Done)
}

/// Records the generation of a test's spec. What is kept of a finished test is not its whole status, so nothing else is written.
async fn record_generation(
    ctx: &Context,
    test: &LoadTest,
    generation: i64,
) -> Result<Applied, Error> {
    let tests: Api<LoadTest> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let patch = Patch::Merge(json!({
        "metadata": {"uid": test.uid(), "resourceVersion": test.resource_version()},
        "status": {"observedGeneration": generation},
    }));
    match with_timeout(tests.patch_status(&test.name_any(), &PatchParams::default(), &patch)).await
    {
        Err(error) if !matches!(error.status(), Some(404 | 409)) => {
            Err(Error::new(WRITE_STATUS)(error))
        }
        _ => Ok(Applied::Done),
    }
}

/// Deletes a test whose time to live is over, unless it has changed since it was observed.
async fn delete_test(ctx: &Context, test: &LoadTest) -> Result<Applied, Error> {
    let tests: Api<LoadTest> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let params = DeleteParams {
        preconditions: Some(Preconditions {
            uid: test.uid(),
            resource_version: test.resource_version(),
        }),
        ..DeleteParams::background()
    };
    match with_timeout(tests.delete(&test.name_any(), &params)).await {
        Err(error) if !matches!(error.status(), Some(404 | 409)) => {
            Err(Error::new("delete the LoadTest")(error))
        }
        _ => Ok(Applied::Done),
    }
}
