//! Makes the changes that a plan asks for.

use std::time::Duration;

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams, Preconditions};
use serde_json::json;

use crate::api::v1alpha1::LoadTest;
use crate::context::Context;
use crate::decide::{SeenJob, Setting, Steer};
use crate::error::{Error, within_deadline};
use crate::observe::read_job;
use crate::progress::TestJob;

/// Creates the Job of a test, and gives what has its name then. By POST and nothing else: an apply would create a
/// finished Job anew.
///
/// # Errors
/// [`Error::Apply`] where it is not known whether the Job is there, or could be later: to be tried again.
pub async fn create_job(ctx: &Context, test: &LoadTest, job: &Job, age: Duration) -> Result<SeenJob, Error> {
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    match within_deadline(jobs.create(&PostParams::default(), job)).await {
        Ok(job) => {
            ctx.metrics.job_created(age);
            Ok(SeenJob::Ours(TestJob::from_job(&job.into())))
        }
        Err(error) => match error.status() {
            Some(409) => match read_job(ctx, test).await {
                Ok(Some(seen)) => Ok(seen),
                Ok(None) => Err(Error::Apply { what: "create the Job", source: error }),
                Err(read) => Err(Error::Observe { what: format!("the Job {}", test.name_any()), source: read }),
            },
            Some(400 | 403 | 422) => Ok(SeenJob::Refused(match error {
                crate::error::CallError::Client(kube::Error::Api(status)) => status.message,
                other => other.to_string(),
            })),
            _ => Err(Error::Apply { what: "create the Job", source: error }),
        },
    }
}

/// Sets what of the Job of a test is to be other than it is. The UID is asked for, so that no other Job of its name is
/// touched.
///
/// # Errors
/// [`Error::Apply`].
pub async fn steer_job(ctx: &Context, test: &LoadTest, steer: &Steer) -> Result<(), Error> {
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let spec = match steer.to {
        Setting::Deadline(seconds) => json!({"activeDeadlineSeconds": seconds}),
        Setting::Ttl(seconds) => json!({"ttlSecondsAfterFinished": seconds}),
    };
    let patch = json!({"metadata": {"uid": steer.uid}, "spec": spec});
    match within_deadline(jobs.patch(&test.name_any(), &PatchParams::default(), &Patch::Merge(patch))).await {
        Ok(_) => Ok(()),
        // It is gone, or another has its name: the watch tells.
        Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
        Err(error) => Err(Error::Apply { what: "change the Job", source: error }),
    }
}

/// Deletes a test whose time after its end is over, if it is still the one that was looked at.
///
/// # Errors
/// [`Error::Apply`].
pub async fn delete_test(ctx: &Context, test: &LoadTest) -> Result<(), Error> {
    let tests: Api<LoadTest> = Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let only = Preconditions { uid: test.uid(), resource_version: test.resource_version() };
    let params = DeleteParams { preconditions: Some(only), ..DeleteParams::background() };
    match within_deadline(tests.delete(&test.name_any(), &params)).await {
        Ok(_) => Ok(()),
        Err(error) if matches!(error.status(), Some(404 | 409)) => Ok(()),
        Err(error) => Err(Error::Apply { what: "delete the test", source: error }),
    }
}
