//! Calls of the operator that fail for good: a test reports them, and its deadline and `spec.stop` stay in effect.

use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
};
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Pod};
use kube::api::{Api, DeleteParams, Patch, PatchParams, PostParams};
use kube::{Resource, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::support::{TestEnv, condition, condition_reason, control_plane, http_get};

/// Creates an object that holds for the whole cluster; its own selectors limit it to the namespace of the test.
async fn create_global<K>(env: &TestEnv, object: Value) -> Api<K>
where
    K: Resource<DynamicType = ()> + DeserializeOwned + serde::Serialize + Clone + std::fmt::Debug,
{
    let api: Api<K> = Api::all(env.client.clone());
    let object: K = serde_json::from_value(object).unwrap();
    api.create(&PostParams::default(), &object).await.unwrap();
    api
}

/// A webhook for a resource of the test's namespace whose service does not exist: the API server answers with status 500.
async fn break_webhook(env: &TestEnv, group: &str, resource: &str, verb: &str) -> String {
    let name = format!("{}-{resource}.example.com", env.namespace);
    create_global::<ValidatingWebhookConfiguration>(
        env,
        json!({"metadata": {"name": name}, "webhooks": [{
            "name": name, "admissionReviewVersions": ["v1"], "sideEffects": "None",
            "clientConfig": {"service": {"namespace": env.namespace, "name": "gone", "path": "/"}},
            "rules": [{"apiGroups": [group], "apiVersions": ["*"], "operations": [verb], "resources": [resource]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.namespace}},
        }]}),
    )
    .await;
    name
}

/// Waits until the API server applies a webhook or policy, which its caches show only after a moment.
async fn until_denied<T>(env: &TestEnv, attempt: impl AsyncFn() -> kube::Result<T>) {
    env.until("the request is denied", async || {
        attempt().await.err().map(drop)
    })
    .await;
}

async fn until_creation_is_denied<K>(env: &TestEnv, object: Value)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + serde::Serialize
        + Clone
        + std::fmt::Debug,
{
    let (api, params) = (
        env.api::<K>(),
        PostParams {
            dry_run: true,
            ..PostParams::default()
        },
    );
    let object: K = serde_json::from_value(object).unwrap();
    until_denied(env, async || api.create(&params, &object).await).await;
}

fn some_job() -> Value {
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    json!({"metadata": {"name": "probe"}, "spec": {"template": {"spec": pod}}})
}

async fn until_change_is_denied<K>(env: &TestEnv, name: &str)
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let api = env.api::<K>();
    let params = PatchParams {
        dry_run: true,
        ..PatchParams::default()
    };
    let patch = Patch::Merge(json!({"metadata": {"annotations": {"probe": "1"}}}));
    until_denied(env, async || api.patch(name, &params, &patch).await).await;
}

async fn mend_webhook(env: &TestEnv, name: &str) {
    let api: Api<ValidatingWebhookConfiguration> = Api::all(env.client.clone());
    api.delete(name, &DeleteParams::default()).await.unwrap();
}

/// A policy that denies a request for a resource of the test's namespace.
async fn deny(env: &TestEnv, group: &str, resource: &str, verb: &str, message: &str) -> String {
    let name = format!("{}-{}", env.namespace, resource.replace('/', "-"));
    create_global::<ValidatingAdmissionPolicy>(
        env,
        json!({"metadata": {"name": name}, "spec": {
            "matchConstraints": {"resourceRules": [{
                "apiGroups": [group], "apiVersions": ["*"], "operations": [verb], "resources": [resource]}]},
            "validations": [{"expression": "false", "message": message}]}}),
    )
    .await;
    create_global::<ValidatingAdmissionPolicyBinding>(
        env,
        json!({"metadata": {"name": name}, "spec": {"policyName": name, "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.namespace}}}}}),
    )
    .await;
    name
}

async fn allow(env: &TestEnv, name: &str) {
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(env.client.clone());
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(env.client.clone());
    let params = DeleteParams::default();
    bindings.delete(name, &params).await.unwrap();
    policies.delete(name, &params).await.unwrap();
}

async fn stop(env: &TestEnv, test: &str) {
    let patch = Patch::Merge(json!({"spec": {"stop": true}}));
    let api = env.api::<LoadTest>();
    api.patch(test, &PatchParams::default(), &patch)
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_blocks_the_job_is_reported_and_the_deadline_fails_the_test() {
    let env = TestEnv::with_operator(control_plane()).await;
    let webhook = break_webhook(&env, "batch", "jobs", "CREATE").await;
    until_creation_is_denied::<Job>(&env, some_job()).await;
    env.load_test_with("blocked", 2, json!({"startDeadlineSeconds": 5}))
        .await;
    let blocked = env.until_test("blocked", "reports", |t| {
        condition_reason(t) == "RequestFailed"
    });
    let (status, _, message) = condition(&blocked.await, "Progressing");
    assert_eq!(status, "False");
    assert!(message.starts_with("Cannot create the Job: "), "{message}");
    assert!(message.contains(&webhook), "{message}");
    let failed = env.until_phase("blocked", "Failed").await;
    let (_, reason, message) = condition(&failed, "Failed");
    assert_eq!(reason, "RequestFailed");
    assert!(message.contains("within 5s"), "{message}");
    assert!(message.contains(&webhook), "{message}");
    assert_eq!(
        env.event_reasons("blocked").await,
        ["RequestFailed", "Failed"]
    );
    mend_webhook(&env, &webhook).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_webhook_that_recovers_late_leaves_the_workers_their_whole_deadline() {
    let env = TestEnv::with_operator(control_plane()).await;
    let webhook = break_webhook(&env, "batch", "jobs", "CREATE").await;
    until_creation_is_denied::<Job>(&env, some_job()).await;
    env.load_test_with("late", 1, json!({"startDeadlineSeconds": 600}))
        .await;
    env.until_test("late", "reports", |t| {
        condition_reason(t) == "RequestFailed"
    })
    .await;
    mend_webhook(&env, &webhook).await;
    let pods = env.pods("late", 1).await;
    env.until_test("late", "has recovered", |t| {
        condition_reason(t) == "Starting"
    })
    .await;
    env.set_exited(&pods[0], 0, "").await;
    env.until_phase("late", "Completed").await;
    assert_eq!(
        env.event_reasons("late").await,
        ["RequestFailed", "Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stop_takes_effect_at_once_while_the_job_cannot_be_created() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    let webhook = break_webhook(&env, "batch", "jobs", "CREATE").await;
    until_creation_is_denied::<Job>(&env, some_job()).await;
    env.load_test("stopped", 1).await;
    let port = env.operator(0).metrics;
    let attempts =
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"jobs\",code=\"500\"} ";
    env.until("the back-off takes four seconds", async || {
        let text = http_get(port, "/metrics").await?.1;
        let count = text.lines().find_map(|line| line.strip_prefix(attempts))?;
        (count.parse::<f64>().unwrap() >= 4.0).then_some(())
    })
    .await;
    let begun = std::time::Instant::now();
    stop(&env, "stopped").await;
    env.until_phase("stopped", "Stopped").await;
    assert!(begun.elapsed().as_secs_f64() < 2.0, "{:?}", begun.elapsed());
    mend_webhook(&env, &webhook).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_runs_and_ends_although_its_events_are_denied() {
    let env = TestEnv::with_operator(control_plane()).await;
    let policy = deny(&env, "", "events", "CREATE", "no events here").await;
    let object =
        json!({"metadata": {"name": "probe"}, "involvedObject": {"namespace": env.namespace}});
    until_creation_is_denied::<Event>(&env, object).await;
    env.load_test("silent", 1).await;
    let pods = env.pods("silent", 1).await;
    env.set_running(&pods[0]).await;
    let running = env.until_phase("silent", "Running").await;
    let (status, reason, message) = condition(&running, "EventsRecorded");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "RequestFailed")
    );
    assert!(message.contains("no events here"), "{message}");
    env.set_exited(&pods[0], 0, "").await;
    env.until_phase("silent", "Completed").await;
    assert!(env.event_reasons("silent").await.is_empty());

    // Once they are allowed again, those of the finished test follow.
    allow(&env, &policy).await;
    env.until_test("silent", "has its events", |t| {
        t.status
            .as_ref()
            .is_some_and(|s| s.conditions.iter().all(|c| c.type_ != "EventsRecorded"))
    })
    .await;
    assert_eq!(
        env.event_reasons("silent").await,
        ["Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_that_is_denied_is_reported_until_it_succeeds() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("kept", 1).await;
    let pods = env.pods("kept", 1).await;
    env.set_running(&pods[0]).await;
    env.until_phase("kept", "Running").await;
    let policy = deny(&env, "batch", "jobs", "UPDATE", "jobs are frozen").await;
    until_change_is_denied::<Job>(&env, "kept").await;
    stop(&env, "kept").await;
    let kept = env.until_test("kept", "reports", |t| {
        condition_reason(t) == "RequestFailed"
    });
    let kept = kept.await;
    assert!(
        condition(&kept, "Progressing")
            .2
            .contains("jobs are frozen")
    );
    assert_eq!(crate::support::phase_of(&kept), "Stopping");
    allow(&env, &policy).await;
    env.until("the Job is ended", async || {
        let job = env.api::<Job>().get("kept").await.unwrap();
        (job.spec?.active_deadline_seconds == Some(1)).then_some(())
    })
    .await;
    env.until_test("kept", "stops", |t| condition_reason(t) == "Stopping")
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_start_that_is_denied_is_reported_and_the_deadline_names_the_cause() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("unsent", 2, json!({"startDeadlineSeconds": 8}))
        .await;
    let pods = env.pods("unsent", 2).await;
    deny(&env, "", "pods", "UPDATE", "pods are frozen").await;
    until_change_is_denied::<Pod>(&env, &pods[0].name_any()).await;
    for pod in &pods {
        env.set_running_with_probes(pod, [true, false]).await;
    }
    let unsent = env.until_test("unsent", "reports", |t| {
        condition_reason(t) == "RequestFailed"
    });
    let (_, _, message) = condition(&unsent.await, "Progressing");
    assert!(message.contains("start time"), "{message}");
    assert!(message.contains("pods are frozen"), "{message}");
    let ending = env.until_phase("unsent", "Stopping").await;
    let (_, reason, message) = condition(&ending, "Progressing");
    assert_eq!(reason, "RequestFailed");
    assert!(message.contains("pods are frozen"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_files_that_are_denied_are_reported_until_they_are_created() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let policy = deny(&env, "", "configmaps", "CREATE", "no files here").await;
    until_creation_is_denied::<ConfigMap>(&env, json!({"metadata": {"name": "probe"}})).await;
    env.start_operator(&[]).await;
    env.load_test("unfiled", 1).await;
    let blocked = env.until_test("unfiled", "reports", |t| {
        condition_reason(t) == "RequestFailed"
    });
    let (_, _, message) = condition(&blocked.await, "Progressing");
    assert!(message.contains("worker files"), "{message}");
    assert!(message.contains("no files here"), "{message}");
    allow(&env, &policy).await;
    env.set_exited(&env.pods("unfiled", 1).await[0], 0, "")
        .await;
    env.until_phase("unfiled", "Completed").await;
}
