//! What others than the operator do to the objects that it works with.

use http::Uri;
use hyper::body::Bytes;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use kube::Client;
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::runtime::wait::await_condition;
use serde_json::{Value, json};

use loadtest_api::v1alpha1::LoadTest;

use crate::plan::Point;

/// A Job that is nobody's.
pub struct ForeignJob {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Writes the object that a request is about. Gives the Job that has taken the name of the operator's, if one has.
pub async fn write_first(
    client: &Client,
    point: &Point,
    uri: &Uri,
    body: &Bytes,
) -> Option<ForeignJob> {
    let path: Vec<&str> = uri.path().split('/').collect();
    let at = path.iter().position(|part| *part == "namespaces")?;
    let namespace = path.get(at + 1)?;
    let change =
        Patch::Merge(json!({"metadata": {"annotations": {"written-by": "somebody else"}}}));
    let params = PatchParams::default();
    match (point.resource.as_str(), path.get(at + 3)) {
        ("loadtests/status", Some(name)) => {
            let _ = Api::<LoadTest>::namespaced(client.clone(), namespace)
                .patch(name, &params, &change)
                .await;
        }
        ("configmaps", Some(name)) => {
            let _ = Api::<ConfigMap>::namespaced(client.clone(), namespace)
                .patch(name, &params, &change)
                .await;
        }
        ("jobs", Some(name)) => {
            let _ = Api::<Job>::namespaced(client.clone(), namespace)
                .patch(name, &params, &change)
                .await;
        }
        ("jobs", None) => {
            let sent: Value = serde_json::from_slice(body).ok()?;
            return Some(foreign_job(client, namespace, sent["metadata"]["name"].as_str()?).await);
        }
        _ => {}
    }
    None
}

/// Creates a Job that is nobody's, and has no pods.
pub async fn foreign_job(client: &Client, namespace: &str, name: &str) -> ForeignJob {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let job: Job = serde_json::from_value(
        json!({"metadata": {"name": name, "labels": {"foreign": "true"}},
        "spec": {"suspend": true, "template": {"spec": pod}}}),
    )
    .unwrap();
    let created = Api::namespaced(client.clone(), namespace)
        .create(&PostParams::default(), &job)
        .await
        .unwrap();
    let uid = created.metadata.uid.unwrap_or_default();
    ForeignJob {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        uid,
    }
}

pub async fn delete(client: &Client, job: &ForeignJob) {
    let jobs: Api<Job> = Api::namespaced(client.clone(), &job.namespace);
    let _ = jobs.delete(&job.name, &DeleteParams::background()).await;
}

/// Allows none of something in a namespace. Done when it holds.
pub async fn allow_none(client: &Client, namespace: &str, of: &str) {
    let quota: ResourceQuota =
        serde_json::from_value(json!({"metadata": {"name": "none"}, "spec": {"hard": {of: "0"}}}))
            .unwrap();
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    quotas.create(&PostParams::default(), &quota).await.unwrap();
    let holds = |q: Option<&ResourceQuota>| {
        q.is_some_and(|q| q.status.as_ref().is_some_and(|s| s.hard.is_some()))
    };
    await_condition(quotas, "none", holds).await.unwrap();
}

pub async fn allow_again(client: &Client, namespace: &str) {
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    quotas
        .delete("none", &DeleteParams::default())
        .await
        .unwrap();
}
