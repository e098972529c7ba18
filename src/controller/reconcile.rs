//! One reconcile of one LoadTest.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures::FutureExt;
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use loadtest_api::v1alpha1::LoadTest;

use super::backoff::{Backoff, Revision};
use super::crash_record::CrashRecord;
use super::suspects::Standing;
use crate::apply::{Applied, apply};
use crate::cache::{ObjectRef, object_ref};
use crate::context::Context;
use crate::decide::{Action, EventRecord, Plan, SetAsideCause, decide, set_aside};
use crate::error::Error;
use crate::observe::observe;
use crate::report::{record_events, record_status};
use crate::runtime::api_error::ErrorClass;
use crate::state::abridged::restore;
use crate::state::{FailedCall, ScriptState, WorkerFiles};
use crate::watch::dependencies::DependencyWatches;

/// The delay after a conflict. The watch delivers the newer test before that; this covers the case that it does not.
const CONFLICT_REQUEUE_DELAY: Duration = Duration::from_secs(1);

/// When a test is reconciled again whose events could not be recorded, at the latest.
const EVENT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Reconciles LoadTests.
pub(super) struct Reconciler {
    pub(super) ctx: Arc<Context>,
    pub(super) dependencies: DependencyWatches,
    pub(super) backoff: Backoff,
    pub(super) crashes: Arc<CrashRecord>,
}

/// What became of a reconcile.
struct Outcome {
    requeue: Requeue,
    /// The call that failed, if one did.
    failure: Option<Error>,
}

/// When to reconcile a test again, if nothing happens before.
#[derive(Clone, Copy, Debug)]
struct Requeue {
    after: Option<Duration>,
    /// Repeat with a growing delay, `after` at the latest.
    back_off: bool,
}

impl Requeue {
    fn of(plan: &Plan, misses_events: bool) -> Self {
        let now = Timestamp::now();
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        let after = plan.requeue_at.map(until);
        let retry = misses_events.then_some(EVENT_RETRY_DELAY);
        Self {
            after: after.into_iter().chain(retry).min(),
            back_off: plan.back_off,
        }
    }
}

impl Reconciler {
    /// Reads, decides, reports, and then makes at most one change.
    ///
    /// This is the one place that handles failed calls: each becomes part of what is observed, and the next decision reports it,
    /// with every deadline and `spec.stop` in effect. It makes no further change.
    async fn reconcile(&self, test: &Arc<LoadTest>) -> Outcome {
        let ctx = &self.ctx;
        let now = Timestamp::now();
        let mut observation = observe(ctx, test, now).await; // client: reads only, dry run included
        let (observed, failure) = (&mut observation.observed, &mut observation.failure);
        if let ScriptState::ConfigMapMissing { similar, .. } = &mut observed.script {
            *similar = self.dependencies.similar_name(&object_ref(&test.metadata));
        }
        let (mut test, mut may_act) = (observation.test.clone(), true);
        loop {
            let plan = decide(&test, observed, &ctx.config, now); // pure
            let requeue = Requeue::of(&plan, observed.failed_events.is_some());
            self.dependencies
                .watch(&object_ref(&test.metadata), plan.watch.clone());
            let recorded = record_events(ctx, &test, &plan.events, now).await; // client
            if let (Err(error), None) = (recorded, &observed.failed_events) {
                observed.failed_events = Some(error);
                continue; // the status reports it
            }
            let action = plan.action.as_ref().filter(|_| may_act);
            test = match record_status(ctx, &test, &plan, now).await {
                Ok(written) => restore(written, &test), // client: one write
                Err(error) => return self.without_status(&test, &plan, error, now).await,
            };
            match apply(ctx, &test, action).await {
                Ok(Applied::BlockedByJob(job)) if observed.job != *job => observed.job = *job,
                Ok(Applied::BlockedByFiles) if observed.worker_files != WorkerFiles::Foreign => {
                    observed.worker_files = WorkerFiles::Foreign;
                }
                Ok(_) => {
                    // client: one write
                    if test.is_finished() && action.is_none() && plan.events.is_empty() {
                        ctx.store().evict_workers(&object_ref(&test.metadata));
                        ctx.live.forget(&object_ref(&test.metadata));
                    }
                    return Outcome {
                        requeue,
                        failure: observation.failure,
                    };
                }
                Err(error) => {
                    observed.failed_call = Some(FailedCall::from(&error));
                    (*failure, may_act) = (Some(error), false);
                }
            }
        }
    }

    /// The status cannot be written. Without a record nothing is started; but load is ended, and an event reports the failure.
    async fn without_status(
        &self,
        test: &LoadTest,
        plan: &Plan,
        error: Error,
        now: Timestamp,
    ) -> Outcome {
        let (ctx, requeue) = (&self.ctx, Requeue::of(plan, false));
        if error.is_conflict() {
            let failure = Some(error);
            return Outcome { requeue, failure };
        }
        let events = [EventRecord::of_failed_call(&FailedCall::from(&error))];
        let _ = record_events(ctx, test, &events, now).await; // its own failure is logged
        let ends_load = |action: &&Action| action.ends_load();
        let ended = apply(ctx, test, plan.action.as_ref().filter(ends_load)).await;
        Outcome {
            requeue,
            failure: Some(ended.err().unwrap_or(error)),
        }
    }

    /// Reconciles the test of this reference. Returns when to do so again, if nothing happens before.
    pub(super) async fn process_item(&self, key: &ObjectRef) -> Option<Instant> {
        let ctx = &self.ctx;
        let stored = ctx.store().test(key)?;
        let (revision, begin) = (Revision::of(&stored), Instant::now());
        if let Some(remaining) = self.backoff.remaining(revision, begin) {
            return begin.checked_add(remaining);
        }
        let test = ctx.own_writes.latest(key, &stored);
        let standing = self.crashes.standing(revision);
        let is_deleted = test.metadata.deletion_timestamp.is_some();
        if test.is_set_aside() && !is_deleted {
            self.crashes.is_reported(revision.uid);
            return None;
        }
        if standing == Standing::SetAside && !is_deleted {
            let cause = SetAsideCause::UnexpectedEnds(self.crashes.ends(revision));
            return self.set_aside(&test, revision, cause).await;
        }
        let _turn = match standing {
            Standing::Normal => None,
            Standing::Suspect | Standing::SetAside => Some(self.crashes.turn().await),
        };
        self.crashes.begin(revision);
        ctx.metrics.reconcile_started();
        let begin = Instant::now();
        let reconciled = AssertUnwindSafe(self.reconcile(&test)).catch_unwind().await;
        self.crashes.end(revision.uid);
        let Ok(Outcome { requeue, failure }) = reconciled else {
            // The hook of the standard library has reported the panic itself.
            ctx.metrics.reconcile_finished(begin.elapsed(), None);
            self.crashes.set_aside(revision);
            return self.set_aside(&test, revision, SetAsideCause::Panic).await;
        };
        let class = match &failure {
            Some(error) => Some(error.source.class()),
            None => requeue.back_off.then_some(ErrorClass::Rejected),
        };
        ctx.metrics.reconcile_finished(begin.elapsed(), class);
        let (namespace, name, now) = (&key.namespace, &key.name, Instant::now());
        let delay = match failure {
            Some(error) if error.is_conflict() => {
                tracing::debug!(namespace, name, %error, "the object changed during the reconcile");
                CONFLICT_REQUEUE_DELAY
            }
            Some(error) => {
                let delay = self.backoff.record_failure(revision, now, requeue.after);
                tracing::warn!(namespace, name, %error, retry_in = ?delay, "reconcile failed");
                delay
            }
            None if requeue.back_off => self.backoff.record_failure(revision, now, requeue.after),
            None => {
                self.backoff.forget(revision.uid);
                requeue.after?
            }
        };
        now.checked_add(delay)
    }

    /// Reports that a test is set aside. Returns when to try again, if that fails.
    async fn set_aside(
        &self,
        test: &Arc<LoadTest>,
        revision: Revision<'_>,
        cause: SetAsideCause,
    ) -> Option<Instant> {
        let (ctx, now) = (&self.ctx, Timestamp::now());
        let (namespace, name) = (test.namespace(), test.name_any());
        tracing::error!(?namespace, name, ?cause, "the LoadTest is set aside");
        let plan = set_aside(test, cause, &ctx.config, now);
        self.dependencies.unwatch(&object_ref(&test.metadata));
        // Its own failure is logged, and the status has the same text.
        let _ = record_events(ctx, test, &plan.events, now).await;
        match record_status(ctx, test, &plan, now).await {
            Ok(_) => {
                self.crashes.is_reported(revision.uid);
                None
            }
            Err(error) => {
                let now = Instant::now();
                let delay = self.backoff.record_failure(revision, now, None);
                tracing::warn!(?namespace, name, %error, retry_in = ?delay, "cannot report that a LoadTest is set aside");
                now.checked_add(delay)
            }
        }
    }

    /// Whether a test is reconciled only while no other suspect is.
    pub(super) fn is_suspect(&self, key: &ObjectRef) -> bool {
        let test = || self.ctx.store().test(key);
        let Some(test) = self.crashes.has_suspects().then(test).flatten() else {
            return false;
        };
        self.crashes.standing(Revision::of(&test)) == Standing::Suspect
    }

    /// Forgets a test that no longer exists.
    pub(super) fn forget(&self, key: &ObjectRef) {
        self.ctx.store().forget_test(key);
        self.ctx.own_writes.forget(key);
        self.ctx.live.forget(key);
        self.dependencies.unwatch(key);
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::panic)]
    use std::convert::Infallible;
    use std::sync::Mutex;

    use http::{Method, Request, Response};
    use kube::Client;
    use kube::client::Body;
    use kube::runtime::watcher::Event;
    use serde_json::json;
    use tokio::sync::watch;

    use super::*;
    use crate::config::WorkerConfig;
    use crate::fixtures::load_test;
    use crate::runtime::lock;

    /// A client whose reads panic, and whose writes succeed and are listed.
    fn panicking_client(requests: Arc<Mutex<Vec<String>>>) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let requests = requests.clone();
            async move {
                let (method, path) = (request.method().clone(), request.uri().path().to_owned());
                let body = request.into_body().collect_bytes().await.unwrap();
                let body = String::from_utf8_lossy(&body);
                lock(&requests).push(format!("{method} {path} {body}"));
                assert!(method != Method::GET, "a fault of the operator");
                let answer = if path.ends_with("/events") {
                    json!({"apiVersion": "v1", "kind": "Event", "metadata": {}, "involvedObject": {}})
                } else {
                    serde_json::to_value(load_test().build()).unwrap()
                };
                Ok::<_, Infallible>(Response::new(Body::from(answer.to_string().into_bytes())))
            }
        });
        Client::new(service, "n")
    }

    #[tokio::test]
    async fn panicked_reconcile_sets_its_test_aside() {
        let requests = Arc::default();
        let client = panicking_client(Arc::clone(&requests));
        let missing_fields = watch::Sender::new(Arc::default()).subscribe();
        let (triggers, _triggered) = futures::channel::mpsc::unbounded();
        let dependencies = DependencyWatches::new(client.clone(), triggers);
        let config = WorkerConfig::default();
        let reconciler = Reconciler {
            ctx: Arc::new(Context::new(client, config, Arc::default(), missing_fields)),
            dependencies,
            backoff: Backoff::default(),
            crashes: Arc::default(),
        };
        let mut test = load_test().build();
        test.metadata.generation = Some(1);
        let key = object_ref(&test.metadata);
        let applied = Event::Apply(test);
        reconciler.ctx.store().apply_load_test_event(applied);
        assert_eq!(reconciler.process_item(&key).await, None);
        {
            let requests = lock(&requests);
            let [read, event, status] = requests.as_slice() else {
                panic!("{requests:?}")
            };
            assert!(read.starts_with("GET "), "{read}");
            assert!(event.contains(r#""reason":"SetAside""#), "{event}");
            assert!(status.contains(r#""reason":"SetAside""#), "{status}");
        }
        reconciler.process_item(&key).await;
        let reads = lock(&requests);
        let reads = reads.iter().filter(|request| request.starts_with("GET "));
        assert_eq!(reads.count(), 1, "it is not reconciled again");
    }
}
