//! What is printed when a test fails.

use std::fmt::{Debug, Write as _};

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::api::ListParams;
use kube::{Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;

use super::env::TestEnv;

impl TestEnv {
    /// The objects, the events and the operators' logs.
    pub async fn dump(&self) -> String {
        let mut text = String::new();
        for test in self.list::<LoadTest>().await {
            let status = serde_json::to_string_pretty(&test.status).unwrap();
            writeln!(text, "--- LoadTest {}: {status}", test.name_any()).unwrap();
        }
        for job in self.list::<Job>().await {
            let status = serde_json::to_string(&job.status).unwrap();
            writeln!(text, "--- Job {}: {status}", job.name_any()).unwrap();
        }
        for pod in self.list::<Pod>().await {
            let status = serde_json::to_string(&pod.status).unwrap();
            writeln!(text, "--- Pod {}: {status}", pod.name_any()).unwrap();
        }
        for event in self.list::<Event>().await {
            let object = event.involved_object.name.unwrap_or_default();
            let (reason, message) = (event.reason, event.message);
            writeln!(text, "--- Event {object}: {reason:?} {message:?}").unwrap();
        }
        for operator in &self.operators {
            writeln!(text, "--- the operator's log:\n{}", operator.log()).unwrap();
        }
        text
    }

    /// The objects of a kind. Empty if they cannot be listed.
    async fn list<K>(&self) -> Vec<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + Debug
            + DeserializeOwned,
    {
        let listed = self.api::<K>().list(&ListParams::default()).await;
        listed.map(|list| list.items).unwrap_or_default()
    }
}
