//! What is seen of a test: from the [`Index`](crate::index::Index), which watches keep, and by live reads where the
//! index cannot know: the script, a Job that it misses, and whether a Job was there before the operator looked.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Event};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, ListParams, WatchEvent, WatchParams};

use crate::api::v1alpha1::{LoadTest, TEST_SCRIPT_KEY};
use crate::context::{Context, ScriptMap, SeenMap, Told};
use crate::decide::{
    MissingJob, Observed, Script, SeenJob, ends_or_waits, missing_job, object_in_doubt, was_refused,
};
use crate::error::{CallError, Error, within_deadline};
use crate::index;
use crate::progress::{Obstacle, TestJob, WorkerJob};
use crate::script::{self, Found, Read};
use crate::worker;

/// Looks at what there is of a test. An ended test is not looked at.
///
/// # Errors
/// [`Error::Observe`], where the API server does not say what is there.
pub async fn observe(ctx: &Context, test: &LoadTest, now: Timestamp) -> Result<Observed, Error> {
    let key = index::key(&test.metadata);
    let uid = test.uid().unwrap_or_default();
    let phase = test.status.as_ref().and_then(|s| s.phase);
    let indexed = ctx.index().job(&key, &uid);
    let job = match indexed {
        Some(job) => job,
        // A Job of others of this name is found by the next attempt.
        None if phase.is_some_and(|p| !p.is_terminal()) && !was_refused(test) => {
            look_for_job(ctx, test)
                .await
                .map_err(|source| cannot_read("the Job", source))?
        }
        None => SeenJob::None,
    };
    let workers = match &job {
        SeenJob::Ours(job) | SeenJob::Gone(Some(job)) => ctx.index().workers(&job.uid),
        _ => Vec::new(),
    };
    let wants_script = job == SeenJob::None && !ends_or_waits(test);
    let script = if wants_script {
        look_at_script(ctx, test)
            .await
            .map_err(|source| cannot_read("the ConfigMap of the test script", source))?
    } else {
        Script::Unknown
    };
    let obstacle = match object_in_doubt(test, &job, &workers, now) {
        Some(object) => look_at_events(ctx, &key.0, &object)
            .await
            .map_err(|source| cannot_read("events", source))?,
        None => None,
    };
    Ok(Observed {
        job,
        workers,
        script,
        obstacle,
        refresh: ctx.refresh_every(Instant::now()),
    })
}

/// What the cluster's own controllers say in events about a Job or pod that does not come forward. A namespace's are asked for
/// all of its tests together, and now and then only: the API server reads all of them for one as well.
async fn look_at_events(
    ctx: &Context,
    namespace: &str,
    uid: &str,
) -> Result<Option<Obstacle>, CallError> {
    let asked = ctx.events_of(namespace, Instant::now());
    let mut told = asked.lock().await;
    if !told
        .as_ref()
        .is_some_and(|told| told.is_fresh(uid, Instant::now()))
    {
        let events: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
        let mut warnings =
            within_deadline(events.list(&ListParams::default().fields("type=Warning")))
                .await?
                .items;
        warnings.sort_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0));
        let obstacle = |e: Event| {
            Some((
                e.involved_object.uid?,
                Obstacle::from_event(&e.reason?, &e.message?)?,
            ))
        };
        *told = Some(Told {
            obstacles: warnings.into_iter().filter_map(obstacle).collect(),
            at: Instant::now(),
        });
    }
    Ok(told
        .as_ref()
        .and_then(|told| told.obstacles.get(uid).cloned()))
}

fn cannot_read(what: &str, source: CallError) -> Error {
    Error::Observe {
        what: what.into(),
        source,
    }
}

/// Looks for the Job of a test that the index misses: by a live read, and then in the history of the API server.
async fn look_for_job(ctx: &Context, test: &LoadTest) -> Result<SeenJob, CallError> {
    if let Some(job) = read_job(ctx, test).await? {
        return Ok(job);
    }
    match missing_job(test) {
        MissingJob::WasThere => Ok(SeenJob::Gone(None)),
        MissingJob::AskHistory if job_has_been(ctx, test).await? => Ok(SeenJob::Gone(None)),
        MissingJob::AskHistory | MissingJob::NeverWas => Ok(SeenJob::None),
    }
}

/// Reads what has the name of a test's Job now.
///
/// # Errors
/// Those of the call.
pub async fn read_job(ctx: &Context, test: &LoadTest) -> Result<Option<SeenJob>, CallError> {
    let jobs: Api<WorkerJob> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let Some(job) = within_deadline(jobs.get_opt(&test.name_any())).await? else {
        return Ok(None);
    };
    let job = TestJob::from_job(&job);
    Ok(Some(
        if job.owner_uid.is_some() && job.owner_uid == test.uid() {
            SeenJob::Ours(job)
        } else {
            SeenJob::Foreign
        },
    ))
}

/// Whether a Job of this name has been in the cluster since the test's status was last written. The operator may have
/// been ended between the record that a Job is to be created and its creation, or after the creation, and the Job be
/// deleted before it came back: only history tells these apart. Where the API server no longer has it, the answer is
/// yes: a test that has to be created anew does less harm than a load sent twice.
async fn job_has_been(ctx: &Context, test: &LoadTest) -> Result<bool, CallError> {
    let jobs: Api<WorkerJob> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let since = test.resource_version().unwrap_or_default();
    let history = WatchParams {
        send_initial_events: false,
        ..WatchParams::default()
    }
    .fields(&format!("metadata.name={}", test.name_any()))
    .timeout(1);
    let seen = within_deadline(async {
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
    match seen {
        Err(error) if error.status() == Some(410) => Ok(true),
        other => other,
    }
}

/// Looks at the script, and at what files are beside it. Those in volumes only the workers see.
async fn look_at_script(ctx: &Context, test: &LoadTest) -> Result<Script, CallError> {
    let worker = test.spec.worker.as_deref();
    if let Some(fault) = worker.and_then(|worker| worker::environment_fault(&worker.env)) {
        return Ok(Script::Faulty {
            fault: format!("spec.worker.env: {fault}"),
            config_map: None,
        });
    }
    let script = &test.spec.test_script;
    let environment = test.spec.environment.as_deref();
    let (mut read, mut place, mut places) = (
        Read::default(),
        "spec.testScript.inline".to_owned(),
        BTreeMap::new(),
    );
    if let Some(text) = &script.inline {
        read = script::read(text, TEST_SCRIPT_KEY, environment);
        places.insert(TEST_SCRIPT_KEY.to_owned(), place.clone());
    }
    for name in script.config_maps() {
        let key = script.file().to_owned();
        let is_script = script.config_map() == Some(name);
        let wanted = is_script.then(|| (key.clone(), test.spec.environment.clone()));
        let Some(seen) = look_at_config_map(ctx, test, name, wanted).await? else {
            return Ok(Script::NoConfigMap(name.to_owned()));
        };
        if is_script {
            if !seen.keys.contains(&key) {
                return Ok(Script::NoKey {
                    config_map: name.to_owned(),
                    keys: seen.keys.clone(),
                });
            }
            read = seen.script.clone();
            place = format!("{key} of the ConfigMap {name}");
        }
        for file in &seen.keys {
            if let Some(other) = places.insert(file.clone(), format!("the ConfigMap {name}")) {
                let fault = format!(
                    "both {other} and the ConfigMap {name} have a file {file}: name them differently"
                );
                return Ok(Script::Faulty {
                    fault,
                    config_map: Some(name.to_owned()),
                });
            }
        }
    }
    let arguments = ctx
        .settings
        .defaults
        .args
        .iter()
        .chain(worker.into_iter().flat_map(|worker| &worker.args));
    let is_all = !script::bring_more(arguments);
    if let Some(fault) = read
        .fault
        .filter(|f| test.spec.validate && (is_all || !f.is_missing))
    {
        let message = fault.message;
        let fault = format!(
            "the test script, {place}: {message}; to start it as it is, set spec.validate to false"
        );
        return Ok(Script::Faulty {
            fault,
            config_map: script.config_map().map(str::to_owned),
        });
    }
    let typescript = |file: &String| Path::new(file).extension().is_some_and(|e| e == "ts");
    Ok(Script::Found(Found {
        expected_duration: read.expected_duration.filter(|_| is_all),
        needs_folder: places.keys().any(typescript),
        ensure: read.ensure.filter(|_| is_all),
    }))
}

/// The keys of a `ConfigMap` of a test, and what there is to know of the script, where one of them is it.
async fn look_at_config_map(
    ctx: &Context,
    test: &LoadTest,
    name: &str,
    script: Option<(String, Option<String>)>,
) -> Result<Option<Arc<SeenMap>>, CallError> {
    let map = ScriptMap {
        namespace: test.namespace().unwrap_or_default(),
        name: name.to_owned(),
        script,
    };
    if let Some(seen) = ctx.script_just_seen(&map, Instant::now()) {
        return Ok(Some(seen));
    }
    let config_maps: Api<ConfigMap> = Api::namespaced(ctx.client.clone(), &map.namespace);
    let Some(found) = within_deadline(config_maps.get_opt(name)).await? else {
        return Ok(None);
    };
    let (texts, binaries) = (
        found.data.unwrap_or_default(),
        found.binary_data.unwrap_or_default(),
    );
    let mut seen = SeenMap {
        keys: texts.keys().chain(binaries.keys()).cloned().collect(),
        ..SeenMap::default()
    };
    if let Some((key, environment)) = &map.script {
        let binary = || {
            binaries
                .get(key)
                .and_then(|b| std::str::from_utf8(&b.0).ok())
        };
        if let Some(text) = texts.get(key).map(String::as_str).or_else(binary) {
            seen.script = script::read(text, key, environment.as_deref());
        }
    }
    let seen = Arc::new(seen);
    ctx.note_script(map, seen.clone(), Instant::now());
    Ok(Some(seen))
}
