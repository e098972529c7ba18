//! From watches, through the workqueue, to reconciles.

use std::sync::Arc;
use std::time::Instant;

use futures::channel::mpsc::unbounded;
use futures::stream::{self, FuturesUnordered};
use futures::{Stream, StreamExt};
use kube::Client;
use loadtest_api::v1alpha1::Phase;
use tokio::sync::watch;

use super::backoff::Backoff;
use super::crash_record::CrashRecord;
use super::reconcile::Reconciler;
use super::workqueue::{MAX_CONCURRENT_STARTS, Priority, Workqueue};
use crate::cache::ObjectRef;
use crate::config::WorkerConfig;
use crate::context::{Context, HasSynced, MissingStatusFields};
use crate::runtime::metrics::TestsAtScrape;
use crate::watch::dependencies::DependencyWatches;
use crate::watch::live::read_workers;
use crate::watch::watches::{self, Telemetry, WatchScope};

/// How many started tests are reconciled at a time. Each holds a connection; one whose requests hang takes one place, not all.
const MAX_CONCURRENT_UPDATES: usize = 32;

/// How many suspects are reconciled at a time, so that it is clear which one ends the process.
const MAX_CONCURRENT_SUSPECTS: usize = 1;

/// Runs the controller until `shutdown` completes. Returns when no reconcile is in flight.
pub async fn run(
    client: Client,
    scope: WatchScope,
    config: WorkerConfig,
    telemetry: Telemetry,
    missing_fields: watch::Receiver<MissingStatusFields>,
    crashes: Arc<CrashRecord>,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (triggers, triggered) = unbounded();
    let dependencies = DependencyWatches::new(client.clone(), triggers.clone());
    let metrics = telemetry.metrics.clone();
    let ctx = Arc::new(Context::new(client, config, metrics, missing_fields));
    let source = Arc::downgrade(&ctx);
    telemetry.metrics.add_source(move || {
        source
            .upgrade()
            .map(|ctx| {
                let store = ctx.store();
                TestsAtScrape {
                    phases: store.phases().map(|(_, phase)| phase).collect(),
                    started: store.started_tests().cloned().collect(),
                }
            })
            .unwrap_or_default()
    });
    let changed = watches::watch_all(&ctx, &scope, &telemetry);
    let cached = ctx.clone();
    let triggered = triggered.map(move |key| {
        // An object that a test waits for has changed.
        cached
            .scripts
            .remove_if(|script| script.namespace == key.namespace);
        vec![key]
    });
    let triggered = stream::select(triggered, unstarted_tests(&ctx));
    let reading = tokio::spawn(read_workers(ctx.clone(), triggers));
    let reconciler = Reconciler {
        ctx,
        dependencies,
        backoff: Backoff::default(),
        crashes,
    };
    let to_reconcile = stream::select(changed, triggered);
    process_workqueue(to_reconcile, &reconciler, shutdown).await;
    reading.abort();
}

/// The tests that have not started, whenever other fields of the CRD are missing than before.
fn unstarted_tests(ctx: &Arc<Context>) -> impl Stream<Item = Vec<ObjectRef>> + Unpin + use<> {
    let begin = (ctx.clone(), ctx.missing_fields.clone());
    let tests = stream::unfold(begin, |(ctx, mut missing)| async move {
        missing.changed().await.ok()?;
        let store = ctx.store();
        let unstarted = store
            .phases()
            .filter(|(_, phase)| !phase.is_some_and(Phase::has_started));
        let keys = unstarted.map(|(key, _)| key.clone()).collect();
        drop(store);
        Some((keys, (ctx, missing)))
    });
    tests.boxed()
}

/// Reconciles the tests that change, or whose requeue time has come, until `shutdown` completes.
async fn process_workqueue(
    mut to_reconcile: impl Stream<Item = Vec<ObjectRef>> + Unpin,
    reconciler: &Reconciler,
    shutdown: impl Future<Output = ()> + Send,
) {
    let (mut queue, mut in_flight) = (Workqueue::default(), FuturesUnordered::new());
    let mut shutdown = std::pin::pin!(shutdown);
    loop {
        let synced = reconciler.ctx.has_synced();
        while let Some(key) = queue.get(|priority| max_concurrent_reconciles(priority, synced)) {
            in_flight.push(async move {
                let requeue_at = reconciler.process_item(&key).await;
                (key, requeue_at)
            });
        }
        let next_requeue = queue.next_requeue();
        tokio::select! {
            () = &mut shutdown => break,
            Some(keys) = to_reconcile.next() => {
                for key in keys {
                    enqueue(&mut queue, key, reconciler);
                }
            }
            Some((key, requeue_at)) = in_flight.next() => {
                let has_started = reconciler.ctx.store().has_job(&key);
                queue.done(key, requeue_at, has_started);
            }
            () = sleep_until(next_requeue) => {
                while let Some(key) = queue.pop_due(Instant::now()) {
                    enqueue(&mut queue, key, reconciler);
                }
            }
            else => break,
        }
    }
    while in_flight.next().await.is_some() {}
}

/// Queues a test. Forgets it if it no longer exists; its Job and pods may outlive it.
fn enqueue(queue: &mut Workqueue, key: ObjectRef, reconciler: &Reconciler) {
    let ctx = &reconciler.ctx;
    let has_started = ctx.store().has_started(&key);
    let Some(has_started) = has_started else {
        if ctx.has_synced().tests {
            reconciler.forget(&key);
        }
        return queue.forget(&key);
    };
    let is_suspect = reconciler.is_suspect(&key);
    let priority = if is_suspect {
        Priority::Suspect
    } else if has_started || ctx.store().has_job(&key) {
        Priority::Update
    } else {
        Priority::Start
    };
    queue.add(key, priority);
}

/// How many tests are reconciled at a time. A Job or worker that is not listed yet would look as if it did not exist: no test is
/// reconciled before the Jobs are listed, and no started test before its workers are.
fn max_concurrent_reconciles(priority: Priority, synced: HasSynced) -> usize {
    let has_synced = match priority {
        Priority::Start => synced.jobs && synced.tests,
        Priority::Update | Priority::Suspect => synced.jobs && synced.tests && synced.pods,
    };
    match priority {
        _ if !has_synced => 0,
        Priority::Start => MAX_CONCURRENT_STARTS,
        Priority::Update => MAX_CONCURRENT_UPDATES,
        Priority::Suspect => MAX_CONCURRENT_SUSPECTS,
    }
}

/// Never completes without a time.
async fn sleep_until(time: Option<Instant>) {
    match time {
        Some(time) => tokio::time::sleep_until(time.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tests_are_reconciled_only_after_what_they_need_is_listed() {
        let allowed = |synced| {
            [Priority::Start, Priority::Update]
                .map(|priority| max_concurrent_reconciles(priority, synced) > 0)
        };
        let mut synced = HasSynced::default();
        assert_eq!(allowed(synced), [false, false]);
        synced.jobs = true;
        assert_eq!(allowed(synced), [false, false]);
        synced.tests = true;
        assert_eq!(allowed(synced), [true, false], "a start needs no workers");
        synced.pods = true;
        assert_eq!(allowed(synced), [true, true]);
    }
}
