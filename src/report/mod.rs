//! Reports a plan: its events, and its status.

mod events;
mod status;

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::LoadTest;

use crate::context::Context;
use crate::decide::{Action, Plan};
use crate::error::Error;

pub(crate) use events::record_events;

/// Writes the status of a plan. Returns the test as it is recorded now.
///
/// # Errors
/// The failed call.
pub(crate) async fn record_status(
    ctx: &Context,
    test: &Arc<LoadTest>,
    plan: &Plan,
    now: Timestamp,
) -> Result<Arc<LoadTest>, Error> {
    match &plan.status {
        Some(status) => {
            let starts = matches!(plan.action, Some(Action::CreateJob(_)));
            status::write_status(ctx, test, status, starts, now).await
        }
        None => Ok(test.clone()),
    }
}
