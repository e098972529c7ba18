//! Tests that cannot start yet, and say why.

use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, ResourceQuota};
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;

use crate::support::{Bed, condition, condition_reason, control_plane, http_get};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_script_is_told_and_the_test_starts_when_it_comes() {
    let mut bed = Bed::new(control_plane()).await;
    bed.start_operator(&[]).await;
    bed.load_test("early", 1).await;
    let waiting = bed.until_phase("early", "Pending").await;
    let (status, reason, message) = condition(&waiting, "Progressing");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "MissingTestScript")
    );
    assert!(
        message.starts_with(&format!(
            "ConfigMap {}/test-script not found. Create it",
            bed.namespace
        )),
        "{message}"
    );
    let written = bed
        .api::<LoadTest>()
        .get("early")
        .await
        .unwrap()
        .resource_version();

    // The script under a wrong key: told, and still waited for.
    bed.create::<ConfigMap>(
        json!({"metadata": {"name": "test-script"}, "data": {"script.yml": "x"}}),
    )
    .await;
    let no_key = bed
        .until_test("early", "tells of the key", |t| {
            condition(t, "Progressing")
                .2
                .contains("has no key test-script.yaml")
        })
        .await;
    assert!(
        condition(&no_key, "Progressing")
            .2
            .contains("(keys: script.yml)")
    );
    assert_ne!(no_key.resource_version(), written);

    let data =
        json!({"data": {"test-script.yaml": "config: {target: x}\nscenarios: [{flow: []}]"}});
    bed.api::<ConfigMap>()
        .patch("test-script", &PatchParams::default(), &Patch::Merge(data))
        .await
        .unwrap();
    bed.set_exited(&bed.pods("early", 1).await[0], 0, "").await;
    bed.until_phase("early", "Completed").await;
    assert_eq!(
        bed.event_reasons("early").await,
        [
            "MissingTestScript",
            "MissingTestScript",
            "Created",
            "Running",
            "Completed"
        ],
        "one for the ConfigMap, one for the key"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_waiting_test_costs_no_write() {
    let mut bed = Bed::new(control_plane()).await;
    bed.start_operator(&[]).await;
    bed.load_test("waits", 1).await;
    let waiting = bed.until_phase("waits", "Pending").await;
    bed.create::<ConfigMap>(json!({"metadata": {"name": "other"}, "data": {}}))
        .await;
    bed.create_script("other-script").await;
    let mut other = crate::support::load_test("other", 1);
    other["spec"]["testScript"]["config"]["configMap"] = json!("other-script");
    bed.create::<LoadTest>(other).await;
    bed.set_exited(&bed.pods("other", 1).await[0], 0, "").await;
    bed.until_phase("other", "Completed").await;
    let after = bed.api::<LoadTest>().get("waits").await.unwrap();
    assert_eq!(after.resource_version(), waiting.resource_version());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_foreign_job_of_the_name_is_left_alone_and_told() {
    let bed = Bed::with_operator(control_plane()).await;
    let pod = json!({"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]});
    let foreign: Job =
        bed.create(json!({"metadata": {"name": "taken"}, "spec": {"suspend": true, "template": {"spec": pod}}})).await;
    bed.load_test("taken", 1).await;
    let blocked = bed.until_test("taken", "tells", |t| condition_reason(t) == "NameConflict");
    let (status, _, message) = condition(&blocked.await, "Progressing");
    assert_eq!(status, "False");
    assert!(message.contains("kubectl delete job taken"), "{message}");
    let now: Job = bed.until_exists("taken").await;
    assert_eq!(
        (now.uid(), now.metadata.generation),
        (foreign.uid(), foreign.metadata.generation)
    );

    bed.delete::<Job>("taken").await;
    bed.set_exited(&bed.pods("taken", 1).await[0], 0, "").await;
    bed.until_phase("taken", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_whose_job_is_refused_is_tried_again_at_one_request_an_attempt() {
    let mut bed = Bed::with_operator(control_plane()).await;
    bed.allow_none("count/jobs.batch").await;
    bed.load_test("refused", 1).await;
    let told = bed
        .until_test("refused", "tells", |t| condition_reason(t) == "JobRejected")
        .await;
    assert!(
        condition(&told, "Progressing")
            .2
            .contains("exceeded quota: none"),
        "{:?}",
        condition(&told, "Progressing")
    );
    let port = bed.operator(0).metrics;
    let attempts =
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"jobs\",code=\"403\"} ";
    // How many attempts there were, and all other requests but those that come by the clock.
    let asked = async || {
        let text = http_get(port, "/metrics").await.unwrap().1;
        let by_the_clock = ["\"leases\"", "\"watch\"", "\"configmaps\""];
        let is_other = |l: &&str| {
            l.contains("api_requests_total{") && !by_the_clock.iter().any(|w| l.contains(w))
        };
        let (refused, others): (Vec<_>, Vec<_>) = text
            .lines()
            .filter(is_other)
            .partition(|l| l.starts_with(attempts));
        let others: Vec<_> = others.into_iter().map(str::to_owned).collect();
        (refused[0][attempts.len()..].parse::<f64>().unwrap(), others)
    };
    let tried = async |times: f64| {
        bed.until("it is tried again", async || {
            Some(asked().await).filter(|now| now.0 >= times)
        })
        .await
    };
    // The first attempt is recorded; by the second that is counted.
    let (before, after) = (tried(2.0).await, tried(4.0).await);
    assert_eq!(after.1, before.1, "an attempt is one request");

    bed.delete::<ResourceQuota>("none").await;
    bed.set_exited(&bed.pods("refused", 1).await[0], 0, "")
        .await;
    bed.until_phase("refused", "Completed").await;
    assert_eq!(
        bed.event_reasons("refused").await,
        ["JobRejected", "Created", "Running", "Completed"]
    );
}
