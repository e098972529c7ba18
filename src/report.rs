//! Says what a plan has to say: events, each once, and the status.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use k8s_openapi::api::core::v1::{Event, EventSource};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use k8s_openapi::jiff::Timestamp;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use serde_json::json;

use crate::api::v1alpha1::{LoadTest, LoadTestStatus, Phase};
use crate::context::Context;
use crate::decide::{Say, is_over};
use crate::error::{Error, within_deadline};
use crate::index::{Key, give_back, key};

/// Who the events are from, as the original operator named it.
const EVENT_SOURCE: &str = "loadtest-controller";

/// What this process has said and written of the tests that have not ended. That of another test, which had the same name
/// before, does no harm: neither identities of events nor versions are ever used again.
#[derive(Debug, Default)]
pub struct Memory(Mutex<HashMap<Key, Remembered>>);

#[derive(Debug, Default)]
struct Remembered {
    said: Vec<u64>,
    /// The test as it was written last, and the versions that it replaced: while the watch still shows one of these,
    /// it lags behind.
    written: Option<(Arc<LoadTest>, Vec<String>)>,
}

impl Memory {
    fn with<T>(&self, key: Key, f: impl FnOnce(&mut Remembered) -> T) -> T {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        f(memory.entry(key).or_default())
    }

    /// The newest of what the watch shows of a test and what was written of it. Once the watch itself shows that nothing
    /// is to be done any more, the test is forgotten; not before, or an older view that is still shown would be acted on.
    pub fn newest(&self, key: &Key, seen: &Arc<LoadTest>) -> Arc<LoadTest> {
        if is_over(seen) {
            self.forget(key);
            return seen.clone();
        }
        self.with(key.clone(), |remembered| match &remembered.written {
            Some((written, replaced))
                if replaced
                    .iter()
                    .any(|v| Some(v) == seen.metadata.resource_version.as_ref()) =>
            {
                written.clone()
            }
            _ => {
                remembered.written = None;
                seen.clone()
            }
        })
    }

    /// Forgets a test that has ended or is gone.
    pub fn forget(&self, key: &Key) {
        let mut memory = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        memory.remove(key);
        give_back(&mut memory);
    }

    fn wrote(&self, before: &LoadTest, after: LoadTest) -> Arc<LoadTest> {
        let after = Arc::new(after);
        self.with(key(&before.metadata), |remembered| {
            let mut replaced = remembered
                .written
                .take()
                .map(|(_, replaced)| replaced)
                .unwrap_or_default();
            replaced.extend(before.resource_version());
            remembered.written = Some((after.clone(), replaced));
        });
        after
    }
}

/// Says the events that have not been said. What makes an event one of a kind is in its name, so the API server refuses
/// to say it twice, whichever process tries.
///
/// # Errors
/// [`Error::Report`]; what could not be said is said the next time.
pub async fn say(
    ctx: &Context,
    test: &LoadTest,
    events: &[Say],
    now: Timestamp,
) -> Result<(), Error> {
    let api: Api<Event> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    let key = key(&test.metadata);
    for say in events {
        let id = identity(test, say);
        if ctx
            .memory
            .with(key.clone(), |remembered| remembered.said.contains(&id))
        {
            continue;
        }
        let event = event(test, say, id, now);
        match within_deadline(api.create(&PostParams::default(), &event)).await {
            Ok(_) => {
                let (namespace, name, reason) =
                    (test.namespace(), test.name_any(), say.reason.as_str());
                tracing::info!(namespace, name, reason, "{}", say.message);
            }
            Err(error) if error.status() == Some(409) => {}
            // The namespace is being deleted, and takes the test with it: there is nobody left to tell.
            Err(error)
                if error.status() == Some(403) && test.metadata.deletion_timestamp.is_some() => {}
            Err(source) => {
                return Err(Error::Report {
                    what: "an event",
                    source,
                });
            }
        }
        ctx.memory
            .with(key.clone(), |remembered| remembered.said.push(id));
    }
    Ok(())
}

/// Writes the status of a test, if the test is still the one that was looked at; gives the test as it is then.
///
/// # Errors
/// [`Error::Report`], for which [`Error::is_conflict`] holds if the test has changed or gone in the meantime.
pub async fn write_status(
    ctx: &Context,
    test: &LoadTest,
    status: &LoadTestStatus,
) -> Result<Arc<LoadTest>, Error> {
    let api: Api<LoadTest> =
        Api::namespaced(ctx.client.clone(), &test.namespace().unwrap_or_default());
    // The version makes the write fail on a test that is newer than what was decided on, or is another of this name.
    let patch = json!({"metadata": {"resourceVersion": test.metadata.resource_version, "uid": test.metadata.uid}, "status": status});
    let mut written = within_deadline(api.patch_status(
        &test.name_any(),
        &PatchParams::default(),
        &Patch::Merge(patch),
    ))
    .await
    .map_err(|source| Error::Report {
        what: "the status",
        source,
    })?;
    strip(&mut written);
    Ok(ctx.memory.wrote(test, written))
}

/// Drops what is never read of a test, and would be most of what is kept. Of one that has ended only when it ended is
/// read, and when it is to be deleted.
pub fn strip(test: &mut LoadTest) {
    test.metadata.managed_fields = None;
    test.metadata.annotations = None;
    if !test
        .status
        .as_ref()
        .and_then(|s| s.phase)
        .is_some_and(Phase::is_terminal)
    {
        return;
    }
    test.metadata.labels = None;
    test.metadata.owner_references = None;
    test.metadata.finalizers = None;
    test.spec.test_script.inline = None;
    test.spec.variables = BTreeMap::new();
    test.spec.worker = None;
    test.status = test.status.take().map(|status| LoadTestStatus {
        phase: status.phase,
        completion_time: status.completion_time,
        verdict: status.verdict,
        results: status.results.map(|results| Box::new(results.numbers())),
        ..LoadTestStatus::default()
    });
}

fn event(test: &LoadTest, say: &Say, id: u64, now: Timestamp) -> Event {
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{}.{id:016x}", test.name_any())),
            namespace: test.namespace(),
            ..ObjectMeta::default()
        },
        involved_object: test.object_ref(&()),
        type_: Some(if say.warning { "Warning" } else { "Normal" }.into()),
        reason: Some(say.reason.as_str().into()),
        message: Some(say.message.chars().take(MOST_MESSAGE).collect()),
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

/// The API server takes no longer message in an event (`pkg/apis/core/validation/events.go`).
const MOST_MESSAGE: usize = 1024;

/// What makes an event one of a kind: the test, the reason, and what it is about.
fn identity(test: &LoadTest, say: &Say) -> u64 {
    let uid = test.uid().unwrap_or_default();
    let parts = [uid.as_str(), say.reason.as_str(), say.about.as_str()];
    fnv1a(parts.join("\0").bytes())
}

/// FNV-1a, which is the same in every version of this program, as the standard library's hashes need not be.
#[must_use]
pub fn fnv1a(bytes: impl Iterator<Item = u8>) -> u64 {
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    })
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::api::v1alpha1::Reason;

    fn test(uid: &str, version: &str) -> LoadTest {
        serde_json::from_value(
            json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
            "metadata": {"name": "t", "namespace": "n", "uid": uid, "resourceVersion": version},
            "spec": {"testScript": {"config": {"configMap": "s"}}}}),
        )
        .unwrap()
    }

    fn running(about: &str) -> Say {
        Say {
            warning: false,
            reason: Reason::Running,
            message: "m".into(),
            about: about.into(),
        }
    }

    #[test]
    fn an_event_has_the_same_name_in_every_process_and_version() {
        assert_eq!(
            identity(&test("u", "1"), &running("p")),
            0x714d_cd74_d04f_f6b7
        );
        assert_ne!(
            identity(&test("u", "1"), &running("p")),
            identity(&test("u", "1"), &running("q"))
        );
        assert_ne!(
            identity(&test("u", "1"), &running("p")),
            identity(&test("v", "1"), &running("p"))
        );
    }

    #[test]
    fn a_lagging_watch_does_not_hide_what_was_written() {
        let memory = Memory::default();
        let [first, second, third] = ["1", "2", "3"].map(|v| Arc::new(test("u", v)));
        memory.wrote(&first, (*second).clone());
        memory.wrote(&second, (*third).clone());
        for lagging in [&first, &second] {
            assert_eq!(
                memory
                    .newest(&key(&lagging.metadata), lagging)
                    .resource_version()
                    .unwrap(),
                "3"
            );
        }
        let newer = Arc::new(test("u", "9"));
        assert_eq!(
            memory
                .newest(&key(&newer.metadata), &newer)
                .resource_version()
                .unwrap(),
            "9"
        );
    }

    #[test]
    fn an_end_that_was_written_is_remembered_until_the_watch_shows_it() {
        let memory = Memory::default();
        let mut ended = test("u", "2");
        ended.status = Some(LoadTestStatus {
            phase: Some(crate::api::v1alpha1::Phase::Completed),
            ..LoadTestStatus::default()
        });
        let (lagging, shown) = (Arc::new(test("u", "1")), Arc::new(ended.clone()));
        memory.wrote(&lagging, ended);
        for _ in 0..2 {
            assert!(is_over(&memory.newest(&key(&lagging.metadata), &lagging)));
        }
        assert!(is_over(&memory.newest(&key(&shown.metadata), &shown)));
        assert!(memory.0.lock().unwrap().is_empty(), "and forgotten then");
    }

    #[test]
    fn long_messages_are_cut_to_what_the_api_server_takes() {
        let say = Say {
            message: "é".repeat(2000),
            ..running("p")
        };
        assert_eq!(
            event(&test("u", "1"), &say, 1, Timestamp::UNIX_EPOCH)
                .message
                .unwrap()
                .chars()
                .count(),
            1024
        );
    }
}
