//! Reports a plan: records its events, then writes its status.

mod events;
mod status;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::LoadTest;

use crate::context::Context;
use crate::decide::Plan;
use crate::error::Error;

/// Records the events of a plan, then writes its status. Returns the test as it is recorded now.
///
/// Events come first: the status records that they exist, so a restart between the two repeats the events, which changes nothing.
///
/// # Errors
/// [`Error::Report`]; what could not be reported is reported by the next reconcile.
pub async fn report(
    ctx: &Context,
    test: &Arc<LoadTest>,
    plan: &Plan,
    now: Timestamp,
) -> Result<Arc<LoadTest>, Error> {
    events::record_events(ctx, test, &plan.events, now).await?;
    match &plan.status {
        Some(status) => status::write_status(ctx, test, status, now).await,
        None => Ok(test.clone()),
    }
}
