//! Warnings of the cluster's own controllers.

use std::time::Instant;

use k8s_openapi::api::core::v1::Event;
use kube::api::{Api, ListParams};

use crate::cache::warnings::NamespaceWarnings;
use crate::context::Context;
use crate::error::Error;
use crate::runtime::api_error::with_timeout;
use crate::state::StartBlocker;

/// What the cluster's controllers report about a Job or pod that does not start. The warnings of a namespace are listed for all
/// of its tests together, and rarely: the API server reads all of them to find one.
pub(super) async fn warning_about(
    ctx: &Context,
    namespace: &str,
    uid: &str,
) -> Result<Option<StartBlocker>, Error> {
    let slot = ctx.warnings.warnings_in(namespace, Instant::now());
    let mut warnings = slot.lock().await;
    if let Some(fresh) = warnings
        .as_ref()
        .filter(|w| w.is_fresh(uid, Instant::now()))
    {
        return Ok(fresh.blockers.get(uid).cloned());
    }
    let api: Api<Event> = Api::namespaced(ctx.client.clone(), namespace);
    let only_warnings = ListParams::default().fields("type=Warning");
    let mut events = with_timeout(api.list(&only_warnings))
        .await
        .map_err(Error::new("list the events of the namespace"))?
        .items;
    events.sort_by_key(|e| e.last_timestamp.as_ref().map(|t| t.0));
    let blocker = |event: Event| {
        let blocker = StartBlocker::from_event(&event.reason?, &event.message?)?;
        Some((event.involved_object.uid?, blocker))
    };
    let listed = warnings.insert(NamespaceWarnings {
        blockers: events.into_iter().filter_map(blocker).collect(),
        listed_at: Instant::now(),
    });
    Ok(listed.blockers.get(uid).cloned())
}
