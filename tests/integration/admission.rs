//! What the API server takes and refuses, and what it shows.

use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::{Bed, control_plane, load_test};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_work_is_refused_with_a_reason() {
    let bed = Bed::new(control_plane()).await;
    let changed = |path: &str, value: Value| {
        let mut test = load_test("ok", 1);
        test["spec"]["variables"] = json!({});
        *test.pointer_mut(path).unwrap() = value;
        test
    };
    let worker = |worker: Value| {
        let mut test = load_test("worker", 1);
        test["spec"]["worker"] = worker;
        test
    };
    let named = |name: &str, path: &str, value: Value| {
        let mut test = changed(path, value);
        test["metadata"]["name"] = json!(name);
        test
    };
    let from_field = |name: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let longest = "a".repeat(61);
    for (test, why) in [
        (
            changed("/metadata/name", json!("my.test")),
            "use only a-z, 0-9 and '-' (no dots)",
        ),
        (
            changed("/metadata/name", json!("a".repeat(62))),
            "metadata.name is too long",
        ),
        (changed("/metadata/name", json!(longest)), ""),
        (load_test(&longest, 10), "already exists"),
        (load_test(&longest, 11), "metadata.name is too long"),
        (load_test("zero", 0), "greater than or equal to 1"),
        (
            changed("/spec/testScript", json!({"config": {"configMap": ""}})),
            "should be at least 1 chars long",
        ),
        (
            changed("/spec/testScript", json!({})),
            "needs either config (a reference to the script) or inline",
        ),
        (
            changed("/spec/testScript", json!({"config": {"key": "a.yaml"}})),
            "must name a ConfigMap, unless",
        ),
        (
            changed(
                "/spec/testScript",
                json!({"config": {"configMap": "s", "key": "../etc/a"}}),
            ),
            "must be a file name, or a path within",
        ),
        (
            changed(
                "/spec/testScript",
                json!({"config": {"configMap": "s", "key": "a/../b.yaml"}}),
            ),
            "or a path within",
        ),
        (
            changed(
                "/spec/testScript",
                json!({"config": {"configMap": "s", "key": "load.txt"}}),
            ),
            "must end in .yaml, .yml, .json",
        ),
        (
            named(
                "dots",
                "/spec/testScript",
                json!({"config": {"configMap": "s", "key": "a..b.YML"}}),
            ),
            "",
        ),
        (
            changed("/spec/variables", json!({"n": 0.5})),
            "spec.variables.n: Invalid value",
        ),
        (
            changed("/spec/variables", json!({"n": true})),
            "spec.variables.n: Invalid value",
        ),
        (
            named(
                "variables",
                "/spec/variables",
                json!({"n": 5_000_000_000_i64, "f": 3.0, "s": "0.5"}),
            ),
            "",
        ),
        (
            worker(json!({"env": [{"name": "LOADTEST_WORKERS", "value": "1"}]})),
            "names that begin with LOADTEST_ are reserved for the operator",
        ),
        (
            worker(json!({"env": [{"name": "JOB_COMPLETION_INDEX", "value": "0"}]})),
            "names that begin with LOADTEST_ are reserved for the operator",
        ),
        (
            worker(json!({"env": [from_field("NODE_OPTIONS")]})),
            "so they need value; valueFrom is not supported",
        ),
        (
            worker(json!({"env": [from_field("ARTILLERY_PLUGIN_PATH")]})),
            "so they need value; valueFrom is not supported",
        ),
        (
            worker(json!({"volumes": [{"name": "data", "emptyDir": {}}]})),
            "the volume names data, ",
        ),
        (
            worker(json!({"podSecurityContext": {"runAsUser": 0}})),
            "should be greater than or equal to 1",
        ),
        (
            worker(json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}})),
            "Unsupported value",
        ),
        (
            worker(json!({"podSecurityContext": {"runAsNonRoot": false}})),
            "Unsupported value",
        ),
        (
            worker(json!({"imagePullPolicy": "Sometimes"})),
            "supported values: \"Always\"",
        ),
        (
            worker(
                json!({"volumes": [{"name": "v"}], "volumeMounts": [{"name": "v", "mountPath": "/data/more"}]}),
            ),
            "the paths /data, ",
        ),
        (
            worker(json!({"terminationGracePeriodSeconds": -1})),
            "should be greater than or equal to 0",
        ),
        (
            worker(json!({"resources": {"limits": {"cpu": "many"}}})),
            "spec.worker.resources.limits.cpu",
        ),
    ] {
        let refused = bed
            .try_create::<LoadTest>(test.clone())
            .await
            .map_or_else(|e| e.to_string(), |_| String::new());
        assert!(
            refused.contains(why) && refused.is_empty() == why.is_empty(),
            "{test}: {why:?} is not in {refused:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_manifests_of_the_original_are_taken_unchanged() {
    let bed = Bed::new(control_plane()).await;
    let minimal: LoadTest = bed
        .create(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": "minimal"},
            "spec": {"testScript": {"config": {"configMap": "s"}}}}))
        .await;
    assert_eq!(minimal.spec.count, 1, "the default");
    let mut full = load_test("test-378dbbbd-03eb-4d0e-8a66-39033a76d0f3", 4);
    full["spec"]["testScript"]["external"] = json!({"payload": {"configMaps": ["a", "b"]},
        "processor": {"main": {"configMap": "c"}, "related": {"configMaps": ["d"]}}});
    let taken: LoadTest = bed.create(full).await;
    assert_eq!(
        taken
            .spec
            .test_script
            .external
            .unwrap()
            .payload
            .unwrap()
            .config_maps,
        ["a", "b"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_spec_can_be_changed_only_before_the_start() {
    let mut bed = Bed::new(control_plane()).await;
    bed.create_script("test-script").await;
    bed.start_operator(&[]).await;
    let mut waits = load_test("change", 1);
    waits["spec"]["testScript"]["config"]["configMap"] = json!("nowhere");
    bed.create::<LoadTest>(waits).await;
    bed.until_phase("change", "Pending").await;
    let tests = bed.api::<LoadTest>();
    let change = async |spec: Value| {
        tests
            .patch(
                "change",
                &PatchParams::default(),
                &Patch::Merge(json!({"spec": spec})),
            )
            .await
            .map_err(|e| e.to_string())
    };
    change(json!({"testScript": {"config": {"configMap": "test-script"}}}))
        .await
        .expect("it has not started");
    bed.pods("change", 1).await;
    let refused = change(json!({"count": 5})).await.unwrap_err();
    assert!(
        refused.contains("the test has started: only spec.stop, startDeadlineSeconds"),
        "{refused}"
    );
    let refused = change(json!({"suspend": true})).await.unwrap_err();
    assert!(
        refused.contains("the test has started and cannot be suspended"),
        "{refused}"
    );
    change(json!({"activeDeadlineSeconds": 900, "startDeadlineSeconds": 60, "ttlSecondsAfterFinished": 9})).await.unwrap();
    change(json!({"stop": true})).await.unwrap();
    let refused = change(json!({"stop": false})).await.unwrap_err();
    assert!(refused.contains("spec.stop cannot be unset"), "{refused}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_get_shows_the_columns_of_the_original() {
    let bed = Bed::with_operator(control_plane()).await;
    bed.load_test("table", 2).await;
    bed.pods("table", 2).await;
    bed.until_phase("table", "Starting").await;
    let path = format!(
        "/apis/loadtest.artillery.io/v1alpha1/namespaces/{}/loadtests/table",
        bed.namespace
    );
    let request = http::Request::get(path)
        .header("accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(vec![])
        .unwrap();
    let table: Value = bed.client.request(request).await.unwrap();
    let columns: Vec<_> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .map(|c| (&c["name"], &c["priority"]))
        .collect();
    let shown = [
        "Name",
        "Status",
        "Completions",
        "Duration",
        "Age",
        "Environment",
        "Verdict",
        "P95",
        "Errors",
    ]
    .map(|c| json!([c, 0]));
    let wide = ["RPS", "P99", "Image"].map(|c| json!([c, 10]));
    assert_eq!(json!(columns), json!([&shown[..], &wide[..]].concat()));
    let cells = &table["rows"][0]["cells"];
    assert_eq!(
        (&cells[0], &cells[1], &cells[2]),
        (&json!("table"), &json!("Starting"), &json!("0/2"))
    );
    assert_eq!(
        (&cells[5], &cells[11]),
        (&json!("dev"), &json!("artilleryio/artillery:latest"))
    );
}
