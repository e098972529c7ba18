//! The event recorder: each event once, whichever process records it.

use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, PostParams};
use kube::{Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;

use crate::cache::object_ref;
use crate::context::Context;
use crate::decide::EventRecord;
use crate::runtime::api_error::within;
use crate::runtime::hash::fnv1a;

/// The component that events come from, as the original operator named it.
const EVENT_SOURCE: &str = "loadtest-controller";

/// How many characters the API server accepts in an event's message (`pkg/apis/core/validation/events.go`).
const MAX_MESSAGE: usize = 1024;

/// The timeout of one event. Events are best effort: a test must not wait for them.
const EVENT_TIMEOUT: Duration = Duration::from_secs(3);

/// Records the events that do not exist yet. An event's name contains its identity, so the API server rejects a duplicate.
///
/// # Errors
/// The first call that failed, now or so recently that it is not repeated yet. The status records that events are missing, so
/// that a later reconcile records them.
pub(crate) async fn record_events(
    ctx: &Context,
    test: &LoadTest,
    events: &[EventRecord],
    now: Timestamp,
) -> Result<(), String> {
    let api: Api<Event> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let key = object_ref(&test.metadata);
    for record in events {
        let id = event_id(test, record);
        if ctx.own_writes.has_recorded(&key, id) {
            continue;
        }
        ctx.own_writes.check_events(&key, Instant::now())?;
        let event = event(test, record, id, now);
        match within(EVENT_TIMEOUT, api.create(&PostParams::default(), &event)).await {
            Ok(_) => {
                let (namespace, name) = (&key.namespace, &key.name);
                let reason = record.reason.as_str();
                tracing::info!(namespace, name, reason, "{}", record.message);
            }
            Err(error) if error.status() == Some(409) => {}
            // The namespace is being deleted, and the test with it.
            Err(error)
                if error.status() == Some(403) && test.metadata.deletion_timestamp.is_some() => {}
            Err(error) => {
                let message = error.message();
                ctx.own_writes
                    .record_failed_event(&key, &message, Instant::now());
                let (namespace, name) = (&key.namespace, &key.name);
                tracing::warn!(namespace, name, error = message, "cannot record events");
                return Err(message);
            }
        }
        ctx.own_writes.record_event(&key, id);
    }
    Ok(())
}

fn event(test: &LoadTest, record: &EventRecord, id: u64, now: Timestamp) -> Event {
    let type_ = if record.warning { "Warning" } else { "Normal" };
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{id:016x}", test.name_any())),
            namespace: test.namespace(),
            ..ObjectMeta::default()
        },
        involved_object: test.object_ref(&()),
        type_: Some(type_.into()),
        reason: Some(record.reason.as_str().into()),
        message: Some(record.message.chars().take(MAX_MESSAGE).collect()),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        source: Some(EventSource {
            component: Some(EVENT_SOURCE.into()),
            host: None,
        }),
        reporting_component: Some(EVENT_SOURCE.into()),
        ..Event::default()
    }
}

/// The identity of an event: the test, the reason, and what the event is about.
fn event_id(test: &LoadTest, record: &EventRecord) -> u64 {
    let uid = test.uid().unwrap_or_default();
    let parts = [uid.as_str(), record.reason.as_str(), &record.dedup_key];
    fnv1a(parts.join("\0").bytes())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use loadtest_api::v1alpha1::Reason;

    use super::*;
    use crate::fixtures::load_test;

    fn running(dedup_key: &str) -> EventRecord {
        EventRecord {
            warning: false,
            reason: Reason::Running,
            message: "m".into(),
            dedup_key: dedup_key.into(),
        }
    }

    #[test]
    fn an_event_has_the_same_name_in_every_process_and_version() {
        let test = load_test().build();
        let mut other = test.clone();
        other.metadata.uid = Some("v".into());
        assert_eq!(event_id(&test, &running("p")), 0x714d_cd74_d04f_f6b7);
        assert_ne!(
            event_id(&test, &running("p")),
            event_id(&test, &running("q"))
        );
        assert_ne!(
            event_id(&test, &running("p")),
            event_id(&other, &running("p"))
        );
    }

    #[test]
    fn long_messages_are_cut_to_what_the_api_server_accepts() {
        let record = EventRecord {
            message: "é".repeat(2000),
            ..running("p")
        };
        let event = event(&load_test().build(), &record, 1, Timestamp::UNIX_EPOCH);
        assert_eq!(event.message.unwrap().chars().count(), 1024);
    }
}
