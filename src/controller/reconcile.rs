//! One reconcile of one LoadTest.

use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use loadtest_api::v1alpha1::LoadTest;

use super::backoff::Backoff;
use crate::apply::{Applied, apply};
use crate::cache::{ObjectRef, object_ref};
use crate::context::Context;
use crate::decide::{Plan, decide};
use crate::error::Error;
use crate::observe::observe;
use crate::report::report;
use crate::runtime::api_error::ErrorClass;
use crate::watch::dependencies::DependencyWatches;

/// The delay after a conflict. The watch delivers the newer test before that; this covers the case that it does not.
const CONFLICT_REQUEUE_DELAY: Duration = Duration::from_secs(1);

/// Reconciles LoadTests.
pub(super) struct Reconciler {
    pub(super) ctx: Arc<Context>,
    pub(super) dependencies: DependencyWatches,
    pub(super) backoff: Backoff,
}

/// When to reconcile a test again, if nothing happens before.
#[derive(Clone, Copy, Debug)]
struct Requeue {
    after: Option<Duration>,
    /// Repeat with a growing delay, `after` at the latest.
    back_off: bool,
}

impl Requeue {
    const BACK_OFF: Self = Self {
        after: None,
        back_off: true,
    };

    fn of(plan: &Plan) -> Self {
        let now = Timestamp::now();
        let until = |at: Timestamp| Duration::try_from(at.duration_since(now)).unwrap_or_default();
        Self {
            after: plan.requeue_at.map(until),
            back_off: plan.back_off,
        }
    }
}

impl Reconciler {
    /// Reads, decides, reports, and then makes at most one change.
    async fn reconcile(&self, test: &Arc<LoadTest>) -> Result<Requeue, Error> {
        let ctx = &self.ctx;
        let now = Timestamp::now();
        let mut observed = observe(ctx, test, now).await?; // client: reads only, dry run included
        let mut test = test.clone();
        for _ in 0..2 {
            let plan = decide(&test, &observed, &ctx.config, now); // pure
            self.dependencies
                .watch(&object_ref(&test.metadata), plan.watch.clone());
            test = report(ctx, &test, &plan, now).await?; // client: events, then status
            match apply(ctx, &test, plan.action.as_ref()).await? {
                Applied::Done => return Ok(Requeue::of(&plan)), // client: one write
                Applied::Blocked(job) => observed.job = job,    // nothing was changed: report why
            }
        }
        Ok(Requeue::BACK_OFF)
    }

    /// Reconciles the test of this reference. Returns when to do so again, if nothing happens before.
    pub(super) async fn process_item(&self, key: &ObjectRef) -> Option<Instant> {
        let ctx = &self.ctx;
        let test = ctx.store().test(key)?;
        let (uid, begin) = (test.uid().unwrap_or_default(), Instant::now());
        if let Some(remaining) = self.backoff.remaining(&uid, begin) {
            return begin.checked_add(remaining);
        }
        ctx.metrics.reconcile_started();
        let test = ctx.own_writes.latest(key, &test);
        let result = self.reconcile(&test).await;
        let class = match &result {
            Ok(requeue) => requeue.back_off.then_some(ErrorClass::Rejected),
            Err(error) => Some(error.class()),
        };
        ctx.metrics.reconcile_finished(begin.elapsed(), class);
        let (namespace, name, now) = (&key.namespace, &key.name, Instant::now());
        let delay = match result {
            Ok(requeue) if requeue.back_off => {
                self.backoff.record_failure(&uid, now, requeue.after)
            }
            Ok(requeue) => {
                self.backoff.forget(&uid);
                requeue.after?
            }
            Err(error) if error.is_conflict() => {
                tracing::debug!(namespace, name, "the LoadTest changed during its reconcile");
                CONFLICT_REQUEUE_DELAY
            }
            Err(error) => {
                let delay = self.backoff.record_failure(&uid, now, None);
                tracing::warn!(namespace, name, %error, retry_in = ?delay, "reconcile failed");
                delay
            }
        };
        now.checked_add(delay)
    }

    /// Forgets a test that no longer exists.
    pub(super) fn forget(&self, key: &ObjectRef) {
        self.ctx.store().forget_test(key);
        self.ctx.own_writes.forget(key);
        self.dependencies.unwatch(key);
    }
}
