//! The Job of a test: read live, looked up in the API server's history, and tried by a dry run.

use futures::TryStreamExt;
use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, PostParams, WatchEvent, WatchParams};
use loadtest_api::v1alpha1::{JobRecord, LoadTest};
use serde_json::Value;

use crate::build::build_job;
use crate::context::Context;
use crate::decide::judge_script;
use crate::error::Error;
use crate::runtime::api_error::{ApiError, with_timeout};
use crate::runtime::client::create_job;
use crate::state::{JobState, JobStatus, PartialJob, ScriptState};

/// The message for a Job whose image volumes the API server drops silently.
const NO_IMAGE_VOLUMES: &str = "image volumes are not enabled in this cluster (feature gate ImageVolume); use a \
                                PersistentVolumeClaim";

/// Finds the Job of a test that the store misses: by a live read, and then in the history of the API server.
///
/// # Errors
/// The read that failed.
pub async fn find_job(ctx: &Context, test: &LoadTest) -> Result<JobState, Error> {
    let find = async {
        if let Some(job) = read_job(ctx, test).await? {
            return Ok(job);
        }
        let existed = match test.recorded_job() {
            JobRecord::Existed => true,
            JobRecord::Unclear => job_existed_since(ctx, test).await?,
            JobRecord::NeverExisted => false,
        };
        Ok(if existed {
            JobState::Deleted(None)
        } else {
            JobState::Absent
        })
    };
    find.await.map_err(Error::new("read the Job"))
}

/// Reads the Job that has a test's name now.
async fn read_job(ctx: &Context, test: &LoadTest) -> Result<Option<JobState>, ApiError> {
    let jobs: Api<PartialJob> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let job = with_timeout(jobs.get_opt(&test.name_any())).await?;
    Ok(job.map(|job| {
        let job = JobStatus::from_job(&job);
        if job.owner_uid.is_some() && job.owner_uid == test.uid() {
            JobState::Owned(job)
        } else {
            JobState::NotOwned
        }
    }))
}

/// Whether a Job of this name existed since the test's status was last written.
///
/// The operator may have ended between the record of the start and the creation of the Job, or after the creation, with the
/// Job deleted before the operator returned: only history distinguishes these. Where the API server no longer has it, the answer
/// is yes: a test that must be created again does less harm than a load that is sent twice.
async fn job_existed_since(ctx: &Context, test: &LoadTest) -> Result<bool, ApiError> {
    let jobs: Api<PartialJob> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let since = test.resource_version().unwrap_or_default();
    let history = WatchParams {
        send_initial_events: false,
        ..WatchParams::default()
    }
    .fields(&format!("metadata.name={}", test.name_any()))
    .timeout(1);
    let existed = with_timeout(async {
        let events = jobs.watch(&history, &since).await?;
        futures::pin_mut!(events);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) if status.code != 410 => {
                    return Err(kube::Error::Api(status));
                }
                _ => return Ok(true),
            }
        }
        Ok(false)
    })
    .await;
    match existed {
        Err(error) if error.status() == Some(410) => Ok(true),
        other => other,
    }
}

/// Tries the creation of the Job by a dry run, where it may be rejected: after a rejection, so that the next attempt costs one
/// request and no write; and with image volumes, which a cluster may not support.
pub(super) async fn dry_run_job(ctx: &Context, test: &LoadTest, script: &ScriptState) -> JobState {
    let has_image_volume = test.spec.test_script.has_image();
    if !has_image_volume && !test.last_create_was_rejected() {
        return JobState::Absent;
    }
    let Ok(script) = judge_script(test, &ctx.config, script) else {
        return JobState::Absent;
    };
    let job: Job = build_job(test, &ctx.config, &script);
    let dry_run = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    match create_job::<Value>(&ctx.client, &job, &dry_run).await {
        // A cluster without image volumes drops them silently, and workers would miss their files.
        Ok(accepted) if has_image_volume && !has_image_volumes(&accepted) => {
            JobState::Rejected(NO_IMAGE_VOLUMES.into())
        }
        // 400 is also the answer of a webhook that does not support dry runs.
        Err(error) if matches!(error.status(), Some(403 | 422)) => {
            JobState::Rejected(error.message())
        }
        // The creation itself will report any other error.
        _ => JobState::Absent,
    }
}

fn has_image_volumes(job: &Value) -> bool {
    job.pointer("/spec/template/spec/volumes")
        .and_then(Value::as_array)
        .is_some_and(|volumes| volumes.iter().any(|v| v.get("image").is_some()))
}
