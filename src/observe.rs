//! What is seen of a test: from the [`Index`](crate::index::Index), which watches keep, and by live reads where the
//! index cannot know: the script, a Job that it misses, and whether a Job was there before the operator looked.

use std::time::Instant;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt;
use kube::api::{Api, WatchEvent, WatchParams};

use crate::api::v1alpha1::{LoadTest, Phase, TEST_SCRIPT_KEY};
use crate::context::Context;
use crate::decide::{Observed, Script, SeenJob};
use crate::error::{CallError, Error, within_deadline};
use crate::progress::{TestJob, WorkerJob};

/// Looks at what there is of a test. An ended test is not looked at.
///
/// # Errors
/// [`Error::Observe`], where the API server does not say what is there.
pub async fn observe(ctx: &Context, test: &LoadTest) -> Result<Observed, Error> {
    let key = (test.namespace().unwrap_or_default(), test.name_any());
    let uid = test.uid().unwrap_or_default();
    let phase = test.status.as_ref().and_then(|s| s.phase);
    let indexed = ctx.index().job(&key, &uid);
    let job = match indexed {
        Some(job) => job,
        None if phase.is_some() => look_for_job(ctx, test).await.map_err(|source| cannot_read("the Job", source))?,
        None => SeenJob::None,
    };
    let workers = match &job {
        SeenJob::Ours(job) | SeenJob::Gone(Some(job)) => ctx.index().workers(&job.uid),
        _ => Vec::new(),
    };
    let script = if job == SeenJob::None {
        look_at_script(ctx, test).await.map_err(|source| cannot_read("the ConfigMap of the test script", source))?
    } else {
        Script::Unknown
    };
    Ok(Observed { job, workers, script })
}

fn cannot_read(what: &str, source: CallError) -> Error {
    Error::Observe { what: what.into(), source }
}

/// Looks for the Job of a test that the index misses: by a live read, and then in the history of the API server.
async fn look_for_job(ctx: &Context, test: &LoadTest) -> Result<SeenJob, CallError> {
    let status = test.status.as_ref();
    if let Some(job) = read_job(ctx, test).await? {
        return Ok(job);
    }
    match status.and_then(|s| s.phase) {
        Some(Phase::Running) => Ok(SeenJob::Gone(None)),
        Some(Phase::Starting) if status.is_some_and(|s| s.start_time.is_some()) => Ok(SeenJob::Gone(None)),
        Some(Phase::Starting) if job_has_been(ctx, test).await? => Ok(SeenJob::Gone(None)),
        _ => Ok(SeenJob::None),
    }
}

/// Reads what has the name of a test's Job now.
///
/// # Errors
/// Those of the call.
pub async fn read_job(ctx: &Context, test: &LoadTest) -> Result<Option<SeenJob>, CallError> {
    let jobs: Api<WorkerJob> = Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let Some(job) = within_deadline(jobs.get_opt(&test.name_any())).await? else { return Ok(None) };
    let job = TestJob::from_job(&job);
    Ok(Some(if job.owner_uid.is_some() && job.owner_uid == test.uid() { SeenJob::Ours(job) } else { SeenJob::Foreign }))
}

/// Whether a Job of this name has been in the cluster since the test's status was last written. The operator may have
/// been ended between the record that a Job is to be created and its creation, or after the creation, and the Job be
/// deleted before it came back: only history tells these apart. Where the API server no longer has it, the answer is
/// yes: a test that has to be created anew does less harm than a load sent twice.
async fn job_has_been(ctx: &Context, test: &LoadTest) -> Result<bool, CallError> {
    let jobs: Api<WorkerJob> = Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let since = test.resource_version().unwrap_or_default();
    let history = WatchParams { send_initial_events: false, ..WatchParams::default() }
        .fields(&format!("metadata.name={}", test.name_any()))
        .timeout(1);
    let seen = within_deadline(async {
        let events = jobs.watch(&history, &since).await?;
        futures::pin_mut!(events);
        while let Some(event) = events.try_next().await? {
            match event {
                WatchEvent::Bookmark(_) => {}
                WatchEvent::Error(status) if status.code != 410 => return Err(kube::Error::Api(status)),
                _ => return Ok(true),
            }
        }
        Ok(false)
    })
    .await;
    match seen {
        Err(error) if error.status() == Some(410) => Ok(true),
        other => other,
    }
}

async fn look_at_script(ctx: &Context, test: &LoadTest) -> Result<Script, CallError> {
    let key = (test.namespace().unwrap_or_default(), test.spec.test_script.config.config_map.clone());
    if ctx.has_just_seen_script(&key, Instant::now()) {
        return Ok(Script::Found);
    }
    let config_maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &key.0);
    let Some(found) = within_deadline(config_maps.get_opt(&key.1)).await? else {
        return Ok(Script::NoConfigMap);
    };
    let keys: Vec<String> =
        found.data.unwrap_or_default().into_keys().chain(found.binary_data.unwrap_or_default().into_keys()).collect();
    if !keys.iter().any(|k| k == TEST_SCRIPT_KEY) {
        return Ok(Script::NoKey(keys));
    }
    ctx.note_script(key, Instant::now());
    Ok(Script::Found)
}
