//! The controller: watches, and the whole of a reconcile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::stream::{self, BoxStream, FuturesUnordered};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, Resource, ResourceExt};

use crate::api::v1alpha1::{LoadTest, Phase, Reason};
use crate::context::{Context, Synced};
use crate::decide::{Change, Observed, Plan, SeenJob, decide, is_over};
use crate::error::Error;
use crate::index::{Index, Key, key};
use crate::job::{COMPONENT_LABEL, JOB_COMPONENT, WORKER_COMPONENT};
use crate::metrics::Metrics;
use crate::progress::{Unreadable, WatchedTest};
use crate::queue::{Lane, Queue};
use crate::server::Health;
use crate::settings::WorkerSettings;
use crate::waiting::Waiting;
use crate::{apply, observe, report};

/// After this many seconds a watch is begun anew: a connection that died without a word is noticed by then.
pub const WATCH_SECONDS: u32 = 60;

/// So many objects are asked for at a time when a watch begins with a list. Such a part is held several times over while it
/// is read: with 500 pods it was 11 MiB, more than all that is kept of a thousand tests.
const PAGE: u32 = 200;

/// The most tests at a time that are started: each takes three calls, one after the other.
const STARTS: usize = 48;
/// The most at a time that are reported on. Each holds a connection; one whose calls hang takes one lane, not all.
const REPORTS: usize = 32;

/// After a conflict the newer test is on its way by the watch; this is for the case that it is not.
const AFTER_A_CONFLICT: Duration = Duration::from_secs(1);

/// The whole of a reconcile: look, decide, say, record, and only then act. Gives when to look again, if nothing happens before.
async fn reconcile(key: &Key, ctx: &Context) -> Option<Instant> {
    let test = ctx.index().test(key)?;
    let (uid, begun) = (test.uid().unwrap_or_default(), Instant::now());
    if let Some(rest) = ctx.back_off.rest(&uid, begun) {
        return begun.checked_add(rest);
    }
    ctx.metrics.reconciling();
    let test = ctx.memory.newest(key, &test);
    let result = carry_on(ctx, &test).await;
    ctx.metrics
        .reconciled(begun.elapsed(), result.as_ref().err().map(Error::class));
    let (namespace, name, now) = (&key.0, &key.1, Instant::now());
    let delay = match result {
        Ok(delay) => {
            ctx.back_off.recovered(&uid);
            delay?
        }
        Err(error) if error.is_conflict() => {
            tracing::debug!(namespace, name, "the test has changed in the meantime");
            AFTER_A_CONFLICT
        }
        Err(error) => {
            let delay = ctx.back_off.failed(&uid, now);
            tracing::warn!(namespace, name, %error, retry_in = ?delay, "reconcile failed");
            delay
        }
    };
    now.checked_add(delay)
}

/// Brings a test one step on. Gives how long to wait then, if nothing happens before.
async fn carry_on(ctx: &Context, test: &Arc<LoadTest>) -> Result<Option<Duration>, Error> {
    if test.metadata.deletion_timestamp.is_some() {
        ctx.waiting.stop(&key(&test.metadata));
        return Ok(None);
    }
    let now = Timestamp::now();
    let seen = observe::observe(ctx, test, now).await?;
    if seen
        .obstacle
        .as_ref()
        .is_some_and(|o| o.reason == Reason::VolumeNotMounted)
    {
        // Somebody may have deleted what is the operator's own of the volumes.
        apply::create_worker_files(ctx, test).await?;
    }
    let plan = decide(test, &seen, &ctx.settings, now);
    if is_over(test) && plan.change.is_none() {
        ctx.index().settle(&key(&test.metadata));
    }
    if let Some(Change::CreateJob(job)) = &plan.change
        && let Some(obstacle) = apply::try_job(ctx, test, job).await?
    {
        return cannot_start(
            ctx,
            test,
            Observed {
                job: obstacle,
                ..seen
            },
            now,
        )
        .await;
    }
    let test = write(ctx, test, &plan, now).await?;
    match &plan.change {
        None => Ok(next(&plan, now)),
        Some(Change::SteerJob(steer)) => apply::steer_job(ctx, &test, steer)
            .await
            .map(|()| next(&plan, now)),
        // What they were told is known already: no watch comes to tell of it.
        Some(Change::StartWorkers(start)) => apply::start_workers(ctx, &test, start)
            .await
            .map(|()| Some(Duration::ZERO)),
        Some(Change::DeleteTest) => apply::delete_test(ctx, &test).await.map(|()| None),
        Some(Change::CreateJob(job)) => {
            match apply::create_job(ctx, &test, job, age(&test, now)).await? {
                // The watch tells of it next.
                SeenJob::Ours(job) => {
                    ctx.index().note_job(key(&test.metadata), job);
                    Ok(None)
                }
                obstacle => {
                    cannot_start(
                        ctx,
                        &test,
                        Observed {
                            job: obstacle,
                            ..seen
                        },
                        now,
                    )
                    .await
                }
            }
        }
    }
}

/// Tells what keeps the Job of a test from being created. Gives how long to wait then; a refusal is tried again.
async fn cannot_start(
    ctx: &Context,
    test: &Arc<LoadTest>,
    seen: Observed,
    now: Timestamp,
) -> Result<Option<Duration>, Error> {
    let plan = decide(test, &seen, &ctx.settings, now);
    let test = write(ctx, test, &plan, now).await?;
    if matches!(seen.job, SeenJob::Refused(_)) && !is_over(&test) {
        Err(Error::Refused)
    } else {
        Ok(next(&plan, now))
    }
}

/// Says and records what a plan has to say, and begins to wait for what it waits for.
async fn write(
    ctx: &Context,
    test: &Arc<LoadTest>,
    plan: &Plan,
    now: Timestamp,
) -> Result<Arc<LoadTest>, Error> {
    match plan.wait_for.clone() {
        Some(object) => ctx.waiting.start(&key(&test.metadata), object),
        None => ctx.waiting.stop(&key(&test.metadata)),
    }
    report::say(ctx, test, &plan.events, now).await?;
    match &plan.status {
        Some(status) => {
            let written = report::write_status(ctx, test, status).await?;
            ctx.metrics.phase_written(
                test.status.as_ref().and_then(|s| s.phase),
                status.phase,
                age(test, now),
            );
            Ok(written)
        }
        None => Ok(test.clone()),
    }
}

/// How long ago a test was created.
fn age(test: &LoadTest, now: Timestamp) -> Duration {
    let created = test.metadata.creation_timestamp.as_ref();
    created
        .and_then(|c| Duration::try_from(now.duration_since(c.0)).ok())
        .unwrap_or_default()
}

fn next(plan: &Plan, now: Timestamp) -> Option<Duration> {
    plan.look_again
        .map(|at| Duration::try_from(at.duration_since(now)).unwrap_or_default())
}

/// Where the controller says how it fares.
#[derive(Clone)]
pub struct Reports {
    /// To Prometheus.
    pub metrics: Arc<Metrics>,
    /// To the probes.
    pub health: Arc<Health>,
}

/// Which tests the controller takes.
#[derive(Clone, Debug, Default)]
pub struct Scope {
    /// Those in this namespace, or in all.
    pub namespace: Option<String>,
    /// Those whose labels match, or all.
    pub selector: Option<String>,
}

/// Runs the controller until `shutdown` is done. Returns when no reconcile runs any more.
pub async fn run(
    client: Client,
    scope: Scope,
    settings: WorkerSettings,
    reports: Reports,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (waiting, woken) = Waiting::new(client.clone());
    let ctx = Arc::new(Context::new(
        client.clone(),
        settings,
        waiting,
        reports.metrics.clone(),
    ));
    let Scope {
        namespace,
        selector,
    } = scope;
    let scope = namespace.as_deref();
    let shown = Arc::downgrade(&ctx);
    reports.metrics.show_tests(move || {
        shown
            .upgrade()
            .map(|ctx| ctx.index().tests())
            .unwrap_or_default()
    });
    let labelled =
        |component: &str| watch_config().labels(&format!("{COMPONENT_LABEL}={component}"));
    let jobs = events(
        watcher(api(&client, scope), labelled(JOB_COMPONENT)),
        "jobs",
        reports.clone(),
    );
    let jobs = indexed(jobs, ctx.clone(), Index::job_event, |s| s.jobs = true);
    // Which tests have a Job is known then: the others can be started at once.
    let tests = after(
        &ctx,
        |s| s.jobs,
        tests(api(&client, scope), selector.as_deref(), &reports),
    );
    let tests = indexed(tests, ctx.clone(), Index::test_event, |s| s.tests = true);
    // Of tests that have ended no worker is kept, not even while the rest is read: what the workers of ten thousand tests left
    // is 25 MB.
    let pods = events(
        watcher(api(&client, scope), labelled(WORKER_COMPONENT)),
        "pods",
        reports,
    );
    let pods = after(&ctx, |s| s.tests, pods);
    let pods = indexed(
        pods,
        ctx.clone(),
        |index, event| index.pod_event(event, Timestamp::now()),
        |s| s.pods = true,
    );
    let woken = woken.map(|key| vec![key]);
    look_at_all(
        stream::select_all([tests.boxed(), jobs.boxed(), pods.boxed(), woken.boxed()]),
        &ctx,
        shutdown,
    )
    .await;
}

/// Reconciles the tests that something happens to, or whose time has come, until `shutdown` is done.
async fn look_at_all(
    mut concerned: impl Stream<Item = Vec<Key>> + Unpin,
    ctx: &Context,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (mut queue, mut looks) = (Queue::default(), FuturesUnordered::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let synced = ctx.synced();
        while let Some(key) = queue.take(|lane| lanes(lane, synced)) {
            looks.push(async move {
                let look_again = reconcile(&key, ctx).await;
                (key, look_again)
            });
        }
        let next_due = queue.next_due();
        tokio::select! {
            () = &mut shutdown => break,
            Some(keys) = concerned.next() => keys.into_iter().for_each(|key| add(&mut queue, key, ctx)),
            Some((key, look_again)) = looks.next() => queue.done(key, look_again),
            () = until(next_due) => while let Some(key) = queue.due(Instant::now()) {
                add(&mut queue, key, ctx);
            },
            else => break,
        }
    }
    while looks.next().await.is_some() {}
}

/// Has a test looked at, if there is one of this key, and forgets it otherwise: a Job and its pods may outlive theirs.
fn add(queue: &mut Queue, key: Key, ctx: &Context) {
    let Some(test) = ctx.index().test(&key) else {
        if ctx.synced().tests {
            ctx.forget(&key);
        }
        return queue.forget(&key);
    };
    let has_started = test
        .status
        .as_ref()
        .and_then(|s| s.phase)
        .is_some_and(Phase::has_started)
        || ctx.index().has_job(&key);
    queue.add(
        key,
        if has_started {
            Lane::Report
        } else {
            Lane::Start
        },
    );
}

/// How many tests may be looked at at a time. A Job or worker that is not listed yet would look as if it were not there: so none
/// is looked at before the Jobs are listed, and none that has started before its workers are.
fn lanes(lane: Lane, synced: Synced) -> usize {
    match lane {
        Lane::Start if synced.jobs && synced.tests => STARTS,
        Lane::Report if synced.jobs && synced.tests && synced.pods => REPORTS,
        Lane::Start | Lane::Report => 0,
    }
}

/// Never, where there is no time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

/// Begins a watch when certain others have given their first complete list.
fn after<K: Send + 'static>(
    ctx: &Arc<Context>,
    enough: fn(&Synced) -> bool,
    watch: BoxStream<'static, Event<K>>,
) -> BoxStream<'static, Event<K>> {
    let ctx = ctx.clone();
    async move { ctx.until_synced(enough).await }
        .map(|()| watch)
        .flatten_stream()
        .boxed()
}

/// Takes the events of a watch into the index, and gives the tests that they concern.
fn indexed<K: Send + 'static>(
    events: BoxStream<'static, Event<K>>,
    ctx: Arc<Context>,
    take_in: fn(&mut Index, Event<K>) -> Vec<Key>,
    note: fn(&mut Synced),
) -> impl Stream<Item = Vec<Key>> {
    events.map(move |event| {
        let done = matches!(event, Event::InitDone);
        let concerned = take_in(&mut ctx.index(), event);
        if done {
            ctx.note_synced(note);
        }
        concerned
    })
}

fn api<K>(client: &Client, namespace: Option<&str>) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    match namespace {
        Some(namespace) => Api::namespaced(client.clone(), namespace),
        None => Api::all(client.clone()),
    }
}

fn watch_config() -> Config {
    Config::default().timeout(WATCH_SECONDS).page_size(PAGE)
}

/// The events of a watch; its errors are counted and told, and the watch goes on after a while.
fn events<K: Send + 'static>(
    watch: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    resource: &'static str,
    reports: Reports,
) -> BoxStream<'static, Event<K>> {
    watch
        .default_backoff()
        .filter_map(move |event| {
            let event = event
                .inspect_err(|error| {
                    reports.metrics.watch_failed(resource);
                    reports.health.watch_failed(Instant::now());
                    tracing::warn!(resource, %error, "the watch failed; it is begun anew");
                })
                .ok();
            futures::future::ready(event)
        })
        .boxed()
}

/// The tests, without what is never read of them. One that cannot be parsed is told of in the log and left out, and
/// does not stop the others.
fn tests(
    api: Api<WatchedTest>,
    selector: Option<&str>,
    reports: &Reports,
) -> BoxStream<'static, Event<LoadTest>> {
    let metrics = reports.metrics.clone();
    let config = selector.map_or_else(watch_config, |selector| watch_config().labels(selector));
    let events = events(watcher(api, config), "loadtests", reports.clone());
    let read = events.filter_map(move |event| {
        let parsed = |test: WatchedTest| {
            let mut test = test.read().inspect_err(
                |Unreadable {
                     namespace,
                     name,
                     why,
                 }| {
                    metrics.unreadable();
                    tracing::error!(
                        ?namespace,
                        ?name,
                        error = why,
                        "a LoadTest cannot be read and is left alone"
                    );
                },
            );
            if let Ok(test) = &mut test {
                report::strip(test);
            }
            test.ok()
        };
        futures::future::ready(match event {
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(test) => parsed(test).map(Event::InitApply),
            Event::Apply(test) => parsed(test).map(Event::Apply),
            Event::Delete(test) => parsed(test).map(Event::Delete),
        })
    });
    read.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_test_is_looked_at_before_what_is_needed_of_it_is_listed() {
        let may = |synced| [Lane::Start, Lane::Report].map(|lane| lanes(lane, synced) > 0);
        let mut synced = Synced::default();
        assert_eq!(may(synced), [false, false]);
        synced.jobs = true;
        assert_eq!(may(synced), [false, false]);
        synced.tests = true;
        assert_eq!(
            may(synced),
            [true, false],
            "one that has no Job needs no workers"
        );
        synced.pods = true;
        assert_eq!(may(synced), [true, true]);
    }
}
