//! One reconcile of one LoadTest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use loadtest_api::v1alpha1::LoadTest;

use super::backoff::{Backoff, Revision};
use crate::apply::{Applied, apply};
use crate::cache::{ObjectRef, object_ref};
use crate::context::Context;
use crate::decide::{Action, EventRecord, Plan, decide};
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
        let test = ctx.store().test(key)?;
        let (uid, begin) = (test.uid().unwrap_or_default(), Instant::now());
        let revision = Revision {
            uid: &uid,
            generation: test.metadata.generation,
        };
        if let Some(remaining) = self.backoff.remaining(revision, begin) {
            return begin.checked_add(remaining);
        }
        ctx.metrics.reconcile_started();
        let test = ctx.own_writes.latest(key, &test);
        let Outcome { requeue, failure } = self.reconcile(&test).await;
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
                self.backoff.forget(&uid);
                requeue.after?
            }
        };
        now.checked_add(delay)
    }

    /// Forgets a test that no longer exists.
    pub(super) fn forget(&self, key: &ObjectRef) {
        self.ctx.store().forget_test(key);
        self.ctx.own_writes.forget(key);
        self.ctx.live.forget(key);
        self.dependencies.unwatch(key);
    }
}
