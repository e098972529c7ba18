//! LoadTests that the API server accepts or rejects, and the columns that it prints.

use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::objects::current_wording;
use crate::support::{TestEnv, control_plane, load_test};

/// Creates tests, each of which is rejected with its reason, or accepted if the reason is empty.
async fn assert_rejected(env: &TestEnv, cases: impl IntoIterator<Item = (Value, &str)>) {
    for (test, why) in cases {
        let error = env
            .try_create::<LoadTest>(test.clone())
            .await
            .map_or_else(|e| current_wording(&e.to_string()), |_| String::new());
        assert!(
            error.contains(why) && error.is_empty() == why.is_empty(),
            "{test}: expected {why:?} in {error:?}"
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_load_tests_are_rejected_with_a_reason() {
    let env = TestEnv::new(control_plane()).await;
    let changed = |path: &str, value: Value| {
        let mut test = load_test("ok", 1);
        test["spec"]["variables"] = json!({});
        *test.pointer_mut(path).unwrap() = value;
        test
    };
    let named = |name: &str, path: &str, value: Value| {
        let mut test = changed(path, value);
        test["metadata"]["name"] = json!(name);
        test
    };
    let longest = "a".repeat(61);
    let tolerant = |tolerance: Value| {
        let mut test = load_test("tolerant", 1);
        test["spec"]["loadTolerance"] = tolerance;
        test
    };
    let cases = [
        (
            tolerant(json!({"usersPercent": -1})),
            "should be greater than or equal to 0",
        ),
        (
            tolerant(json!({"skippedPercent": 101})),
            "should be less than or equal to 100",
        ),
        (
            tolerant(json!({"usersPercent": 0, "timePercent": 100, "skippedPercent": 100})),
            "",
        ),
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
            changed("/spec/variables", json!({"n": 3.0})),
            "to be either a string or integer",
        ),
        (
            named(
                "variables",
                "/spec/variables",
                json!({"n": 5_000_000_000_i64, "s": "0.5"}),
            ),
            "",
        ),
    ];
    assert_rejected(&env, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_worker_templates_are_rejected_with_a_reason() {
    let env = TestEnv::new(control_plane()).await;
    let worker = |worker: Value| {
        let mut test = load_test("worker", 1);
        test["spec"]["worker"] = worker;
        test
    };
    let from_field = |name: &str| json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}});
    let cases = [
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
            worker(
                json!({"podSecurityContext": {"sysctls": [{"name": "net.core.somaxconn", "value": "1024"}]}}),
            ),
            "supported values: \"kernel.shm_rmid_forced\"",
        ),
        (
            worker(
                json!({"volumes": [{"name": "v"}], "volumeMounts": [{"name": "v", "mountPath": "/opt/loadtest-start"}]}),
            ),
            "the paths /data, ",
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
    ];
    assert_rejected(&env, cases).await;
    for name in [
        "artillery.io/component",
        "loadtest.artillery.io/start-at",
        "container.apparmor.security.beta.kubernetes.io/worker",
        "seccomp.security.alpha.kubernetes.io/pod",
        "container.seccomp.security.alpha.kubernetes.io/worker",
    ] {
        for field in ["labels", "annotations"] {
            let reserved = worker(json!({field: {name: "unconfined"}}));
            assert_rejected(&env, [(reserved, "names below artillery.io, ")]).await;
        }
    }
    let mount = |path: &str| worker(json!({"volumeMounts": [{"name": "v", "mountPath": path}]}));
    for path in [
        "/",
        "//opt/loadtest",
        "/opt//loadtest",
        "/opt/./loadtest",
        "/opt/x/../loadtest",
        "/opt/..",
        "opt/loadtest",
        "/certs//",
    ] {
        assert_rejected(&env, [(mount(path), "a mount path must be absolute")]).await;
    }
    let allowed = json!({"labels": {"my-artillery.io/a": "b"}, "annotations": {"artillery.io.example/a": "b"},
        "volumes": [{"name": "v"}], "volumeMounts": [{"name": "v", "mountPath": "/..certs/.a/"}]});
    assert_rejected(&env, [(worker(allowed), "")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn spec_beyond_the_limits_is_rejected_with_a_reason() {
    let env = TestEnv::new(control_plane()).await;
    let with = |field: &str, value: Value| {
        let mut test = load_test("large", 1);
        test["spec"][field] = value;
        test
    };
    let text = |n: usize| "x".repeat(n);
    let env_of =
        |n: usize| json!([{"name": "A", "value": text(n)}, {"name": "B", "value": text(n)}]);
    let sidecar = |n: usize| json!({"name": "s", "image": "i", "args": [text(n)], "command": [text(n)], "env": [{"name": "A", "value": text(n)}]});
    let cases = [
        (
            with("variables", json!({"a": text(32_769)})),
            "may not be more than 32768",
        ),
        (
            with("variables", json!({"a": text(32_768), "b": text(32_768)})),
            "spec.variables: the texts must not be longer than 65536 characters together",
        ),
        (
            with("worker", json!({"env": env_of(32_768)})),
            "spec.worker.env: the texts must not be longer",
        ),
        (
            with("worker", json!({"args": [text(32_768), text(32_768), "x"]})),
            "spec.worker.args: the texts must not be longer",
        ),
        (
            with(
                "worker",
                json!({"annotations": {"a": text(16_384), "b": text(16_384), "c": text(16_384), "d": text(16_384)}}),
            ),
            "spec.worker.annotations: the texts must not be longer",
        ),
        (
            with("worker", json!({"labels": {text(9000): "a"}})),
            "spec.worker.labels: the texts must not be longer",
        ),
        (
            with("worker", json!({"sidecars": [sidecar(11_000)]})),
            "command, args and env of a sidecar: the texts must not be longer",
        ),
        (
            with("worker", json!({"sidecars": vec![sidecar(1); 9]})),
            "must have at most 8 items",
        ),
        (
            with("worker", json!({"nodeSelector": {"a": text(64)}})),
            "may not be more than 63",
        ),
        (
            with(
                "worker",
                json!({"env": env_of(32_000), "args": [text(32_768), text(32_000)], "sidecars": vec![sidecar(10_000); 8]}),
            ),
            "",
        ),
    ];
    assert_rejected(&env, cases).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn manifests_of_the_go_operator_are_accepted_unchanged() {
    let env = TestEnv::new(control_plane()).await;
    let minimal: LoadTest = env
        .create(json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": "minimal"},
            "spec": {"testScript": {"config": {"configMap": "s"}}}}))
        .await;
    assert_eq!(minimal.spec.count, 1, "count defaults to 1");
    let mut full = load_test("test-378dbbbd-03eb-4d0e-8a66-39033a76d0f3", 4);
    full["spec"]["testScript"]["external"] = json!({"payload": {"configMaps": ["a", "b"]},
        "processor": {"main": {"configMap": "c"}, "related": {"configMaps": ["d"]}}});
    let accepted: LoadTest = env.create(full).await;
    assert_eq!(
        accepted
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
async fn started_test_accepts_only_mutable_spec_fields() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    env.start_operator(&[]).await;
    let mut blocked = load_test("change", 1);
    blocked["spec"]["testScript"]["config"]["configMap"] = json!("nowhere");
    env.create::<LoadTest>(blocked).await;
    env.until_phase("change", "Pending").await;
    let tests = env.api::<LoadTest>();
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
        .expect("a test that has not started can be changed");
    env.pods("change", 1).await;
    let error = change(json!({"count": 5})).await.unwrap_err();
    assert!(
        error.contains("the test has a Job: only spec.stop, startDeadlineSeconds"),
        "{error}"
    );
    let error = change(json!({"loadTolerance": {"timePercent": 50}}))
        .await
        .unwrap_err();
    assert!(error.contains("the test has a Job"), "{error}");
    let error = change(json!({"suspend": true})).await.unwrap_err();
    assert!(
        error.contains("the test has a Job and cannot be suspended"),
        "{error}"
    );
    change(json!({"activeDeadlineSeconds": 900, "startDeadlineSeconds": 60, "ttlSecondsAfterFinished": 9})).await.unwrap();
    change(json!({"stop": true})).await.unwrap();
    let error = change(json!({"stop": false})).await.unwrap_err();
    assert!(error.contains("spec.stop cannot be unset"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kubectl_get_shows_the_printer_columns() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("table", 2).await;
    env.pods("table", 2).await;
    env.until_phase("table", "Starting").await;
    let table = env.table("table").await;
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
    let wide = ["RPS", "P99", "Sent", "Image"].map(|c| json!([c, 10]));
    assert_eq!(json!(columns), json!([&shown[..], &wide[..]].concat()));
    let cells = &table["rows"][0]["cells"];
    assert_eq!(
        (&cells[0], &cells[1], &cells[2]),
        (&json!("table"), &json!("Starting"), &json!("0/2"))
    );
    assert_eq!(
        (&cells[5], &cells[12]),
        (&json!("dev"), &json!("artilleryio/artillery:latest"))
    );
}
