//! Changes that a third party makes to the operator's objects.

use std::fmt::Debug;
use std::time::Duration;

use http::Request;
use hyper::body::Bytes;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ResourceQuota};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Client, Resource};
use loadtest_api::v1alpha1::LoadTest;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::permanent::Cause;
use crate::plan::Point;
use crate::support::cluster::QUOTA;

/// A Job without an owner.
pub struct ForeignJob {
    pub namespace: String,
    pub name: String,
    pub uid: String,
}

/// Writes the object of a request. Returns the Job that has taken the name of the operator's Job, if one was created.
pub async fn write_first(
    client: &Client,
    point: &Point,
    request: &Request<Bytes>,
) -> Option<ForeignJob> {
    let path: Vec<&str> = request.uri().path().split('/').collect();
    let at = path.iter().position(|part| *part == "namespaces")?;
    let namespace = path.get(at + 1)?;
    let change =
        Patch::Merge(json!({"metadata": {"annotations": {"written-by": "a third party"}}}));
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
            let sent: Value = serde_json::from_slice(request.body()).ok()?;
            return Some(foreign_job(client, namespace, sent["metadata"]["name"].as_str()?).await);
        }
        _ => {}
    }
    None
}

/// Creates a Job without an owner and pods.
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

/// Creates what a tenant may create: pods that claim to be workers of a Job, and tests that are large or wait.
pub async fn attack(client: &Client, namespace: &str, job: Option<&Value>) {
    let foreign = |name: &str| json!({"name": name, "labels": {"foreign": "true"}});
    let tests: Api<LoadTest> = Api::namespaced(client.clone(), namespace);
    for i in 0..5 {
        let test = json!({"metadata": foreign(&format!("waiting-{i}")),
            "spec": {"testScript": {"config": {"configMap": format!("none-{i}")}}}});
        create_if_possible(&tests, test).await;
    }
    let script = format!("# {}\nconfig: {{}}\nscenarios: []\n", "x".repeat(60_000));
    let large = json!({"metadata": foreign("large"), "spec": {"suspend": true, "testScript": {"inline": script}}});
    create_if_possible(&tests, large).await;
    let Some(job) = job else { return };
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    for index in 0..2 {
        let mut metadata = foreign(&format!("forged-{index}"));
        metadata["labels"]["artillery.io/component"] = json!("loadtest-worker");
        metadata["annotations"] = json!({"loadtest.artillery.io/start-at": "2026-01-01T00:00:00.000Z",
            "batch.kubernetes.io/job-completion-index": index.to_string()});
        metadata["ownerReferences"] = json!([{"apiVersion": "batch/v1", "kind": "Job", "name": job["name"], "uid": job["uid"],
            "controller": true}]);
        let spec = json!({"nodeSelector": {"no": "node"}, "containers": [{"name": job["name"], "image": "i"}]});
        create_if_possible(&pods, json!({"metadata": metadata, "spec": spec})).await;
    }
}

/// A scenario may begin again, and its namespace may be gone.
async fn create_if_possible<K>(api: &Api<K>, object: Value)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Serialize + Clone + Debug,
{
    let object: K = serde_json::from_value(object).unwrap();
    if let Err(kube::Error::Api(error)) = api.create(&PostParams::default(), &object).await {
        assert!(matches!(error.code, 404 | 409), "{error}");
    }
}

/// Deletes the quota of `forbid_by_quota`.
pub async fn delete_quota(client: &Client, namespace: &str) {
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), namespace);
    quotas
        .delete(QUOTA, &DeleteParams::default())
        .await
        .unwrap();
}

/// Makes the API server reject the pods of a namespace, and waits until it does.
pub async fn reject_pods(client: &Client, namespace: &str, cause: Cause) {
    let in_namespace = json!({"matchLabels": {"kubernetes.io/metadata.name": namespace}});
    let rule = json!({"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]});
    if cause == Cause::WebhookDown {
        let service = json!({"namespace": namespace, "name": "gone"});
        let webhook = json!({"name": format!("{namespace}.example.com"), "admissionReviewVersions": ["v1"],
            "sideEffects": "None", "clientConfig": {"service": service}, "rules": [rule], "namespaceSelector": in_namespace});
        create::<ValidatingWebhookConfiguration>(client, namespace, json!({"webhooks": [webhook]}))
            .await;
    } else {
        let spec = json!({"matchConstraints": {"resourceRules": [rule]}, "validations": [{"expression": "false"}]});
        create::<ValidatingAdmissionPolicy>(client, namespace, json!({"spec": spec})).await;
        let spec = json!({"policyName": namespace, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": in_namespace}});
        create::<ValidatingAdmissionPolicyBinding>(client, namespace, json!({"spec": spec})).await;
    }
    let pod: Pod = serde_json::from_value(
        json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
    )
    .unwrap();
    let (pods, dry_run) = (
        Api::<Pod>::namespaced(client.clone(), namespace),
        PostParams {
            dry_run: true,
            ..PostParams::default()
        },
    );
    while pods.create(&dry_run, &pod).await.is_ok() {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Deletes what `reject_pods` has created.
pub async fn accept_pods(client: &Client, namespace: &str, cause: Cause) {
    let params = DeleteParams::default();
    if cause == Cause::WebhookDown {
        let webhooks: Api<ValidatingWebhookConfiguration> = Api::all(client.clone());
        webhooks.delete(namespace, &params).await.unwrap();
    } else {
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(client.clone());
        bindings.delete(namespace, &params).await.unwrap();
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(client.clone());
        policies.delete(namespace, &params).await.unwrap();
    }
}

/// Creates an object of the cluster with the name of a namespace.
async fn create<K>(client: &Client, namespace: &str, mut object: Value)
where
    K: Resource<DynamicType = ()> + DeserializeOwned + Serialize + Clone + Debug,
{
    object["metadata"] = json!({"name": namespace});
    let object: K = serde_json::from_value(object).unwrap();
    Api::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .unwrap();
}
