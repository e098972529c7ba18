//! The events of a `LoadTest`.

use k8s_openapi::api::core::v1::Event;
use kube::ResourceExt;
use kube::api::ListParams;
use loadtest_api::v1alpha1::LoadTest;

use super::env::TestEnv;

impl TestEnv {
    /// The events of a test as `(type, reason, message)`, in the order of their creation.
    pub async fn events(&self, test: &str) -> Vec<(String, String, String)> {
        self.events_where(|e| e.involved_object.name.as_deref() == Some(test))
            .await
    }

    /// The events of this test alone, without those of others that had its name.
    pub async fn events_of(&self, test: &LoadTest) -> Vec<(String, String, String)> {
        self.events_where(|e| e.involved_object.uid == test.uid())
            .await
    }

    async fn events_where(&self, about: impl Fn(&Event) -> bool) -> Vec<(String, String, String)> {
        let mut events = self
            .api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items;
        events.retain(|e| e.involved_object.kind.as_deref() == Some("LoadTest") && about(e));
        events.sort_by_key(|e| {
            e.metadata
                .resource_version
                .as_ref()
                .map(|v| v.parse::<u64>().unwrap())
        });
        for event in &events {
            assert_eq!(
                event.source.as_ref().unwrap().component.as_deref(),
                Some("loadtest-controller")
            );
            assert_eq!(event.count, Some(1));
        }
        events
            .into_iter()
            .map(|e| (e.type_.unwrap(), e.reason.unwrap(), e.message.unwrap()))
            .collect()
    }

    pub async fn event_reasons(&self, test: &str) -> Vec<String> {
        self.events(test)
            .await
            .into_iter()
            .map(|(_, reason, _)| reason)
            .collect()
    }
}
