//! The status patch.

use std::sync::Arc;

use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams, ValidationDirective};
use loadtest_api::v1alpha1::{LoadTest, LoadTestStatus};
use serde_json::json;

use crate::cache::prune;
use crate::context::Context;
use crate::error::{Error, WRITE_STATUS};
use crate::runtime::api_error::with_timeout;

/// Writes the status of a test, if the test has not changed since it was observed. Returns the test as written.
///
/// A status with which the test starts is rejected as a whole if the API server would drop a part of it.
///
/// # Errors
/// The failed call; [`Error::is_conflict`] holds if the test has changed or was deleted.
pub(super) async fn write_status(
    ctx: &Context,
    test: &LoadTest,
    status: &LoadTestStatus,
    starts: bool,
    now: Timestamp,
) -> Result<Arc<LoadTest>, Error> {
    let api: Api<LoadTest> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    // The version makes the write fail on a test that is newer than the decision, or another test of this name.
    let metadata = json!({
        "resourceVersion": test.metadata.resource_version,
        "uid": test.metadata.uid,
    });
    let mut patch = json!({"metadata": metadata, "status": status});
    match &status.results {
        Some(results) if results.is_placeholder() => {
            if let Some(status) = patch["status"].as_object_mut() {
                status.remove("results");
            }
        }
        Some(results) => patch["status"]["results"] = results.merge_patch(),
        None => {}
    }
    let patch = Patch::Merge(patch);
    let params = PatchParams {
        field_validation: starts.then_some(ValidationDirective::Strict),
        ..PatchParams::default()
    };
    let mut written = with_timeout(api.patch_status(&test.name_any(), &params, &patch))
        .await
        .map_err(Error::new(WRITE_STATUS))?;
    prune(&mut written);
    ctx.metrics
        .record_phase(test.phase(), status.phase, test.age(now));
    Ok(ctx.own_writes.record_write(test, written))
}
