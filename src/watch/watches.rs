//! The watches of LoadTests, Jobs and pods, and how their events reach the store.

use std::sync::Arc;
use std::time::Instant;

use futures::stream::{self, BoxStream};
use futures::{FutureExt, Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use kube::api::Api;
use kube::core::NamespaceResourceScope;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Config, Event, watcher};
use kube::{Client, Resource};
use loadtest_api::labels::{COMPONENT_LABEL, JOB_COMPONENT, WORKER_COMPONENT};
use loadtest_api::v1alpha1::LoadTest;

use super::load_test::{InvalidObject, ParsedLoadTest};
use crate::cache::store::Store;
use crate::cache::{ObjectRef, prune};
use crate::context::{Context, HasSynced};
use crate::runtime::client::WATCH_TIMEOUT;
use crate::runtime::health::Health;
use crate::runtime::metrics::Metrics;

/// How many objects a page of a list has. A page is held several times over while it is parsed.
const LIST_PAGE_SIZE: u32 = 200;

/// Where the controller reports how it is.
#[derive(Clone)]
pub struct Telemetry {
    /// For Prometheus.
    pub metrics: Arc<Metrics>,
    /// For the probes.
    pub health: Arc<Health>,
}

/// Which LoadTests the controller reconciles.
#[derive(Clone, Debug, Default)]
pub struct WatchScope {
    /// Those of this namespace, or of all.
    pub namespace: Option<String>,
    /// Those whose labels match, or all.
    pub selector: Option<String>,
}

/// Watches LoadTests, Jobs and pods. Yields the tests to reconcile.
///
/// The lists follow one another. After the Jobs it is known which tests have one, so the others can start at once. After the
/// LoadTests it is known which have finished, so their workers are never kept.
pub(crate) fn watch_all(
    ctx: &Arc<Context>,
    scope: &WatchScope,
    telemetry: &Telemetry,
) -> impl Stream<Item = Vec<ObjectRef>> + Unpin + use<> {
    let client = &ctx.client;
    let namespace = scope.namespace.as_deref();
    let of_component =
        |component: &str| watch_config().labels(&format!("{COMPONENT_LABEL}={component}"));
    let jobs = watcher(api(client, namespace), of_component(JOB_COMPONENT));
    let jobs = apply_to_store(
        with_backoff(jobs, "jobs", telemetry.clone()),
        ctx.clone(),
        Store::apply_job_event,
        |synced| synced.jobs = true,
    );
    let selector = scope.selector.as_deref();
    let tests = watch_load_tests(api(client, namespace), selector, telemetry);
    let tests = apply_to_store(
        start_after_sync(ctx, |synced| synced.jobs, tests),
        ctx.clone(),
        Store::apply_load_test_event,
        |synced| synced.tests = true,
    );
    let pods = watcher(api(client, namespace), of_component(WORKER_COMPONENT));
    let pods = with_backoff(pods, "pods", telemetry.clone());
    let pods = apply_to_store(
        start_after_sync(ctx, |synced| synced.tests, pods),
        ctx.clone(),
        |store, event| store.apply_pod_event(event, Timestamp::now()),
        |synced| synced.pods = true,
    );
    stream::select_all([tests.boxed(), jobs.boxed(), pods.boxed()])
}

/// Starts a watch when others have delivered their first complete list.
fn start_after_sync<K: Send + 'static>(
    ctx: &Arc<Context>,
    enough: fn(&HasSynced) -> bool,
    watch: BoxStream<'static, Event<K>>,
) -> BoxStream<'static, Event<K>> {
    let ctx = ctx.clone();
    async move { ctx.wait_for_sync(enough).await }
        .map(|()| watch)
        .flatten_stream()
        .boxed()
}

/// Applies the events of a watch to the store. Yields the tests to reconcile.
fn apply_to_store<K: Send + 'static>(
    events: BoxStream<'static, Event<K>>,
    ctx: Arc<Context>,
    apply: fn(&mut Store, Event<K>) -> Vec<ObjectRef>,
    mark: fn(&mut HasSynced),
) -> impl Stream<Item = Vec<ObjectRef>> {
    events.map(move |event| {
        let is_end_of_list = matches!(event, Event::InitDone);
        let changed = apply(&mut ctx.store(), event);
        if is_end_of_list {
            ctx.mark_synced(mark);
        }
        changed
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
    Config::default()
        .timeout(WATCH_TIMEOUT)
        .page_size(LIST_PAGE_SIZE)
}

/// The events of a watch. Its errors are counted and logged, and the watch restarts after a delay.
fn with_backoff<K: Send + 'static>(
    watch: impl Stream<Item = watcher::Result<Event<K>>> + Send + 'static,
    resource: &'static str,
    telemetry: Telemetry,
) -> BoxStream<'static, Event<K>> {
    watch
        .default_backoff()
        .filter_map(move |event| {
            let event = event
                .inspect_err(|error| {
                    telemetry.metrics.watch_failed(resource);
                    telemetry.health.watch_failed(Instant::now());
                    tracing::warn!(resource, %error, "watch failed, restarting");
                })
                .ok();
            futures::future::ready(event)
        })
        .boxed()
}

/// The LoadTests, pruned. One that cannot be parsed is logged and skipped, and does not stop the others.
fn watch_load_tests(
    api: Api<ParsedLoadTest>,
    selector: Option<&str>,
    telemetry: &Telemetry,
) -> BoxStream<'static, Event<LoadTest>> {
    let metrics = telemetry.metrics.clone();
    let config = selector.map_or_else(watch_config, |selector| watch_config().labels(selector));
    let events = with_backoff(watcher(api, config), "loadtests", telemetry.clone());
    let valid = events.filter_map(move |event| {
        let parse = |object: ParsedLoadTest| match object.into_load_test() {
            Ok(mut test) => {
                prune(&mut test);
                Some(test)
            }
            Err(InvalidObject {
                namespace,
                name,
                error,
            }) => {
                metrics.load_test_invalid();
                tracing::error!(
                    ?namespace,
                    ?name,
                    error,
                    "skipping LoadTest that cannot be parsed"
                );
                None
            }
        };
        futures::future::ready(match event {
            Event::Init => Some(Event::Init),
            Event::InitDone => Some(Event::InitDone),
            Event::InitApply(test) => parse(test).map(Event::InitApply),
            Event::Apply(test) => parse(test).map(Event::Apply),
            Event::Delete(test) => parse(test).map(Event::Delete),
        })
    });
    valid.boxed()
}
