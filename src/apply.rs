//! Makes the changes that a plan asks for.

use k8s_openapi::api::batch::v1::Job;
use kube::ResourceExt;
use kube::api::{Api, PostParams};

use crate::api::v1alpha1::LoadTest;
use crate::context::Context;
use crate::decide::SeenJob;
use crate::error::{Error, within_deadline};
use crate::observe::read_job;
use crate::progress::{TestJob, WorkerJob};

/// Creates the Job of a test, and gives what has its name then. By POST and nothing else: an apply would create a
/// finished Job anew.
///
/// # Errors
/// [`Error::Apply`] where it is not known whether the Job is there, or could be later: to be tried again.
pub async fn create_job(ctx: &Context, test: &LoadTest, job: &Job) -> Result<SeenJob, Error> {
    let jobs: Api<Job> = Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    match within_deadline(jobs.create(&PostParams::default(), job)).await {
        Ok(job) => {
            ctx.metrics.job_created(crate::controller::age(test));
            let job = WorkerJob { metadata: job.metadata, status: job.status.unwrap_or_default() };
            Ok(SeenJob::Ours(TestJob::from_job(&job)))
        }
        Err(error) => match error.status() {
            Some(409) => match read_job(ctx, test).await {
                Ok(Some(seen)) => Ok(seen),
                Ok(None) => Err(Error::Apply(error)),
                Err(read) => Err(Error::Observe { what: format!("the Job {}", test.name_any()), source: read }),
            },
            Some(400 | 403 | 422) => Ok(SeenJob::Refused(match error {
                crate::error::CallError::Client(kube::Error::Api(status)) => status.message,
                other => other.to_string(),
            })),
            _ => Err(Error::Apply(error)),
        },
    }
}
