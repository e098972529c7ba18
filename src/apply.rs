//! Makes the changes that a plan asks for.

use std::time::{Duration, Instant};

use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use kube::core::Request;
use kube::{Resource, ResourceExt};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use crate::api::v1alpha1::LoadTest;
use crate::context::Context;
use crate::decide::{SeenJob, Setting, StartWorkers, Steer, was_refused};
use crate::error::{CallError, Error, within_deadline};
use crate::index;
use crate::observe::read_job;
use crate::progress::{TestJob, WorkerJob};
use crate::worker;

/// So many of a test's workers are told at a time when to begin. With fifty, a thousand were not told sooner, and each that is
/// under way holds some 20 KiB.
const TOLD_AT_ONCE: usize = 20;

/// Creates the files that workers in a test's namespace need, if they are not there; gives what keeps them from being there.
///
/// # Errors
/// [`Error::Apply`].
pub async fn create_worker_files(ctx: &Context, test: &LoadTest) -> Result<Option<SeenJob>, Error> {
    let namespace = test.namespace().unwrap_or_default();
    if ctx.has_worker_files(&namespace, Instant::now()) {
        return Ok(None);
    }
    let config_maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &namespace);
    match within_deadline(
        config_maps.create(&PostParams::default(), &worker::config_map(&namespace)),
    )
    .await
    {
        Ok(_) => {}
        Err(error) if error.status() == Some(409) => {}
        Err(error) if matches!(error.status(), Some(400 | 403 | 422)) => {
            return Ok(Some(refused(error)));
        }
        Err(source) => {
            return Err(Error::Apply {
                what: "create the workers' files",
                source,
            });
        }
    }
    ctx.note_worker_files(&namespace, Instant::now());
    Ok(None)
}

fn has_image_volume(job: &Job) -> bool {
    let pod = job.spec.as_ref().and_then(|s| s.template.spec.as_ref());
    pod.and_then(|p| p.volumes.as_ref())
        .is_some_and(|volumes| volumes.iter().any(|v| v.image.is_some()))
}

fn lacks_image_volume(job: &Value) -> bool {
    let volumes = job
        .pointer("/spec/template/spec/volumes")
        .and_then(Value::as_array);
    !volumes.is_some_and(|volumes| volumes.iter().any(|v| v.get("image").is_some()))
}

/// Sends the Job, and reads of the answer only what is asked for: it is ten times as long as what is kept of it.
async fn send_job<T: DeserializeOwned>(
    ctx: &Context,
    test: &LoadTest,
    job: &Job,
    params: &PostParams,
) -> Result<T, CallError> {
    let jobs = Request::new(Job::url_path(&(), test.namespace().as_deref()));
    within_deadline(async {
        let job = serde_json::to_vec(job).map_err(kube::Error::SerdeError)?;
        ctx.client
            .request(
                jobs.create(params, job)
                    .map_err(kube::Error::BuildRequest)?,
            )
            .await
    })
    .await
}

fn refused(error: CallError) -> SeenJob {
    SeenJob::Refused(match error {
        CallError::Client(kube::Error::Api(status)) => status.message,
        other => other.to_string(),
    })
}

/// What keeps the Job of a test from being created, as far as the API server tells by a dry run. Asked where the last attempt
/// was refused, so that the next one costs a single request, and no record of it; and where the Job has an image volume.
///
/// # Errors
/// [`Error::Apply`].
pub async fn try_job(ctx: &Context, test: &LoadTest, job: &Job) -> Result<Option<SeenJob>, Error> {
    let image_volume = has_image_volume(job);
    if !image_volume && !was_refused(test) {
        return Ok(None);
    }
    if let Some(obstacle) = create_worker_files(ctx, test).await? {
        return Ok(Some(obstacle));
    }
    let tried = send_job(
        ctx,
        test,
        job,
        &PostParams {
            dry_run: true,
            ..PostParams::default()
        },
    )
    .await;
    Ok(match tried {
        // A cluster without image volumes drops them, with their mounts, and says nothing: the worker would lack its files.
        Ok(taken) if image_volume && lacks_image_volume(&taken) => Some(SeenJob::Refused(
            "this cluster has no image volumes (its feature gate ImageVolume is off): a claim can hold the files instead".into(),
        )),
        // 400 is also what a webhook causes that takes no dry runs.
        Err(error) if matches!(error.status(), Some(403 | 422)) => Some(refused(error)),
        // Another error is one of the creation too, and told then.
        _ => None,
    })
}

/// Creates the Job of a test, and gives what has its name then. By POST and nothing else: an apply would create a
/// finished Job anew.
///
/// # Errors
/// [`Error::Apply`] where it is not known whether the Job is there, or could be later: to be tried again.
pub async fn create_job(
    ctx: &Context,
    test: &LoadTest,
    job: &Job,
    age: Duration,
) -> Result<SeenJob, Error> {
    if let Some(obstacle) = create_worker_files(ctx, test).await? {
        return Ok(obstacle);
    }
    match send_job::<WorkerJob>(ctx, test, job, &PostParams::default()).await {
        Ok(job) => {
            ctx.metrics.job_created(age);
            Ok(SeenJob::Ours(TestJob::from_job(&job)))
        }
        Err(error) => match error.status() {
            Some(409) => match read_job(ctx, test).await {
                Ok(Some(seen)) => Ok(seen),
                Ok(None) => Err(Error::Apply {
                    what: "create the Job",
                    source: error,
                }),
                Err(read) => Err(Error::Observe {
                    what: format!("the Job {}", test.name_any()),
                    source: read,
                }),
            },
            Some(400 | 403 | 422) => Ok(refused(error)),
            _ => Err(Error::Apply {
                what: "create the Job",
                source: error,
            }),
        },
    }
}

/// Sets what of the Job of a test is to be other than it is. The UID is asked for, so that no other Job of its name is
/// touched.
///
/// # Errors
/// [`Error::Apply`].
pub async fn steer_job(ctx: &Context, test: &LoadTest, steer: &Steer) -> Result<(), Error> {
    let jobs: Api<WorkerJob> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let spec = match steer.to {
        Setting::Deadline(seconds) => json!({"activeDeadlineSeconds": seconds}),
        Setting::Ttl(seconds) => json!({"ttlSecondsAfterFinished": seconds}),
    };
    let patch = json!({"metadata": {"uid": steer.uid}, "spec": spec});
    match within_deadline(jobs.patch(
        &test.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    ))
    .await
    {
        Ok(_) => Ok(()),
        // It is gone, or another has its name: the watch tells.
        Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
        Err(error) => Err(Error::Apply {
            what: "change the Job",
            source: error,
        }),
    }
}

/// Tells workers when their load begins, by an annotation of their pods that each finds in a file.
///
/// # Errors
/// [`Error::Apply`]; some may have been told then.
pub async fn start_workers(
    ctx: &Context,
    test: &LoadTest,
    start: &StartWorkers,
) -> Result<(), Error> {
    let pods = &Request::new(Pod::url_path(&(), test.namespace().as_deref()));
    let tell = |(name, uid): &(String, String)| {
        let patch = json!({"metadata": {"uid": uid, "annotations": {worker::START_ANNOTATION: worker::instant(start.at, start.times)}}});
        let (name, key) = (name.clone(), index::key(&test.metadata));
        async move {
            let request = pods.patch_metadata(&name, &PatchParams::default(), &Patch::Merge(patch));
            let request = request.map_err(kube::Error::BuildRequest);
            // Nothing of the answer is wanted: with what manages the fields it would become a thousand small values.
            let told = async { ctx.client.request::<IgnoredAny>(request?).await };
            match within_deadline(told).await {
                Ok(_) => {
                    ctx.index()
                        .note_told(&key, &name, start.at, start.times, Timestamp::now());
                    Ok(())
                }
                // It has gone: its end is seen by the watch.
                Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
                Err(source) => Err(Error::Apply {
                    what: "tell a worker when to begin",
                    source,
                }),
            }
        }
    };
    stream::iter(start.pods.iter().map(tell))
        .buffer_unordered(TOLD_AT_ONCE)
        .try_collect()
        .await
}

/// Deletes a test whose time after its end is over, if it is still the one that was looked at.
///
/// # Errors
/// [`Error::Apply`].
pub async fn delete_test(ctx: &Context, test: &LoadTest) -> Result<(), Error> {
    let tests: Api<LoadTest> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let only = Preconditions {
        uid: test.uid(),
        resource_version: test.resource_version(),
    };
    let params = DeleteParams {
        preconditions: Some(only),
        ..DeleteParams::background()
    };
    match within_deadline(tests.delete(&test.name_any(), &params)).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
        Err(error) => Err(Error::Apply {
            what: "delete the test",
            source: error,
        }),
    }
}
