//! The worker template and the files of workers, as far as they need no node. All namespaces
//! enforce Pod Security `restricted`.

use artillery_operator::build::config_map_name;
use futures::future::join_all;
use k8s_openapi::api::batch::v1::Job;
use k8s_openapi::api::core::v1::{ConfigMap, Pod, ServiceAccount};
use kube::api::{Patch, PatchParams};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::{TestEnv, audit, condition, control_plane};

/// A worker template that sets every field.
fn full_template() -> Value {
    json!({
        "image": "example/artillery:v1", "imagePullPolicy": "IfNotPresent", "imagePullSecrets": [{"name": "registry"}],
        "resources": {"requests": {"cpu": "500m", "memory": "256Mi"}, "limits": {"cpu": 1}},
        "env": [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "tokens", "key": "one"}}}, {"name": "NODE_OPTIONS", "value": "--max-old-space-size=99"}],
        "envFrom": [{"configMapRef": {"name": "settings"}}], "args": ["--overrides", "{\"config\": {}}"],
        "nodeSelector": {"pool": "load"},
        "affinity": {"podAntiAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 1, "podAffinityTerm": {
            "topologyKey": "kubernetes.io/hostname", "labelSelector": {"matchLabels": {"artillery.io/test-name": "all"}}}}]}},
        "tolerations": [{"key": "load", "operator": "Exists"}],
        "topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}],
        "priorityClassName": "system-node-critical", "schedulerName": "mine", "serviceAccountName": "loader",
        "podSecurityContext": {"runAsUser": 2000, "fsGroup": 3000, "sysctls": [{"name": "net.ipv4.ip_local_port_range", "value": "1024 65535"}]}, "securityContext": {"readOnlyRootFilesystem": false},
        "labels": {"team": "a"}, "annotations": {"note": "b"}, "terminationGracePeriodSeconds": 7,
        "hostAliases": [{"ip": "10.1.2.3", "hostnames": ["target.example"]}], "dnsConfig": {"options": [{"name": "ndots", "value": "1"}]},
        "volumes": [{"name": "certs", "secret": {"secretName": "certs"}},
                    {"name": "all", "projected": {"sources": [{"configMap": {"name": "c"}}, {"secret": {"name": "s"}}]}}],
        "volumeMounts": [{"name": "certs", "mountPath": "/certs", "readOnly": true}],
        "sidecars": [{"name": "proxy", "image": "example/proxy", "args": ["--quiet"], "ports": [{"containerPort": 8080}]}],
    })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_template_is_applied_to_the_pod() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.create::<ServiceAccount>(json!({"metadata": {"name": "loader"}}))
        .await;
    let spec = json!({"worker": full_template(), "variables": {"user": "a $(HOME) a$$b $$(HOME)", "n": 5_000_000_000_i64}, "target": "http://other"});
    env.load_test_with("all", 1, spec).await;
    let job: Job = env.until_exists("all").await;
    let template = serde_json::to_value(job.spec.unwrap().template).unwrap();
    let (pod, container) = (&template["spec"], &template["spec"]["containers"][0]);
    let expected = full_template();
    for (object, field) in [
        (container, "image"),
        (container, "imagePullPolicy"),
        (container, "envFrom"),
        (pod, "imagePullSecrets"),
        (pod, "affinity"),
        (pod, "tolerations"),
        (pod, "topologySpreadConstraints"),
        (pod, "priorityClassName"),
        (pod, "schedulerName"),
        (pod, "serviceAccountName"),
        (pod, "terminationGracePeriodSeconds"),
        (pod, "hostAliases"),
        (pod, "dnsConfig"),
    ] {
        assert_eq!(object[field], expected[field], "{field}");
    }
    assert_eq!(
        pod["nodeSelector"],
        json!({"kubernetes.io/os": "linux", "pool": "load"})
    );
    assert_eq!(
        container["resources"]["limits"]["cpu"], "1",
        "a numeric quantity is accepted"
    );
    let args: Vec<_> = container["args"]
        .as_array()
        .unwrap()
        .iter()
        .map(|a| a.as_str().unwrap())
        .collect();
    assert_eq!(
        args,
        [
            "run",
            "/data/test-script.yaml",
            "--environment",
            "dev",
            "--target",
            "http://other",
            "--variables",
            r#"{"n":5000000000,"user":"a $$(HOME) a$$$$b $$$$(HOME)"}"#,
            "--overrides",
            "{\"config\": {}}"
        ]
    );
    assert_eq!(pod["securityContext"]["runAsUser"], 2000);
    assert_eq!(
        (
            &pod["securityContext"]["fsGroup"],
            &pod["securityContext"]["runAsNonRoot"]
        ),
        (&json!(3000), &json!(true))
    );
    assert_eq!(
        pod["securityContext"]["sysctls"],
        expected["podSecurityContext"]["sysctls"]
    );
    assert_eq!(
        container["securityContext"]["readOnlyRootFilesystem"],
        false
    );
    let metadata = &template["metadata"];
    assert_eq!(
        (
            &metadata["labels"]["team"],
            &metadata["annotations"]["note"]
        ),
        (&json!("a"), &json!("b"))
    );
    assert_eq!(
        metadata["labels"]["artillery.io/component"],
        "loadtest-worker"
    );
    let sidecar = &pod["initContainers"][0];
    assert_eq!(
        (&sidecar["name"], &sidecar["restartPolicy"]),
        (&json!("proxy"), &json!("Always"))
    );
    assert_eq!(
        sidecar["securityContext"]["allowPrivilegeEscalation"],
        false
    );
    let volumes = pod["volumes"].as_array().unwrap();
    assert!(
        volumes.iter().any(|v| v["name"] == "certs") && volumes.iter().any(|v| v["name"] == "all")
    );
    let options = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == "NODE_OPTIONS")
        .unwrap();
    assert_eq!(
        options["value"],
        "--require=/opt/loadtest/files-hash.cjs --require=/opt/loadtest/cpus.cjs --require=/opt/loadtest/worker-id.cjs --max-old-space-size=99"
    );
    env.pods("all", 1).await;
    let shown = env
        .until_test("all", "the status contains the image", |t| {
            t.status.as_ref().is_some_and(|s| s.image.is_some())
        })
        .await;
    assert_eq!(
        shown.status.unwrap().image.as_deref(),
        Some("example/artillery:v1")
    );

    let change = Patch::Merge(json!({"spec": {"worker": {"image": "other"}}}));
    let error = env
        .api::<LoadTest>()
        .patch("all", &PatchParams::default(), &change)
        .await
        .unwrap_err()
        .to_string();
    assert!(error.contains("the test has a Job"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn privileged_fields_are_pruned_from_the_worker_template() {
    let env = TestEnv::with_operator(control_plane()).await;
    let worker = json!({"volumes": [{"name": "host", "hostPath": {"path": "/"}}, {"name": "token", "projected": {"sources": [
            {"serviceAccountToken": {"path": "token"}}]}}],
        "securityContext": {"privileged": true, "capabilities": {"add": ["SYS_ADMIN"]}}, "hostNetwork": true,
        "resources": {"claims": [{"name": "c"}]},
        "sidecars": [{"name": "s", "image": "i", "securityContext": {"privileged": true}, "lifecycle": {"postStart": {"exec": {"command": ["x"]}}},
            "startupProbe": {"httpGet": {"port": 1, "host": "10.0.0.1"}}, "resources": {"claims": [{"name": "c"}]}},
            {"name": "t", "image": "i", "startupProbe": {"tcpSocket": {"port": 1, "host": "10.0.0.1"}}}]});
    let accepted = env
        .load_test_with("host", 1, json!({"worker": worker}))
        .await
        .spec
        .worker
        .unwrap();
    assert_eq!(
        serde_json::to_value(accepted).unwrap(),
        json!({"volumes": [{"name": "host"}, {"name": "token", "projected": {"sources": [{}]}}], "securityContext": {},
            "resources": {}, "sidecars": [{"name": "s", "image": "i", "securityContext": {}, "resources": {},
                "startupProbe": {"httpGet": {"port": 1}}},
                {"name": "t", "image": "i", "startupProbe": {"tcpSocket": {"port": 1}}}]})
    );
    // Kubernetes treats a volume without a source as an emptyDir.
    let job: Job = env.until_exists("host").await;
    let pod = serde_json::to_value(job.spec.unwrap().template.spec.unwrap()).unwrap();
    assert_eq!(
        pod["volumes"]
            .as_array()
            .unwrap()
            .iter()
            .find(|v| v["name"] == "host")
            .unwrap()["emptyDir"],
        json!({})
    );
    assert!(
        pod["hostNetwork"].is_null()
            && pod["containers"][0]["securityContext"]["privileged"].is_null()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_defaults_apply_to_unset_fields() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let file = std::env::temp_dir().join(format!("{}-defaults.yaml", env.namespace));
    let defaults = "image: example/default\nresources: {limits: {memory: 1Gi}}\nlabels: {team: all, kind: load}\nargs: [--config, a.yaml]\n";
    std::fs::write(&file, defaults).unwrap();
    env.start_operator(&[&format!("--worker-defaults={}", file.display())])
        .await;
    // The script has no `config`, because the default arguments load it from a file. So a missing
    // `config` is not reported, and the operator does not evaluate `ensure`.
    let spec = json!({"worker": {"labels": {"team": "mine"}}, "testScript": {"inline": "scenarios: [{flow: []}]\n"}});
    env.load_test_with("default", 1, spec).await;
    let job: Job = env.until_exists("default").await;
    let template = serde_json::to_value(job.spec.unwrap().template).unwrap();
    let container = &template["spec"]["containers"][0];
    assert_eq!(
        (
            &container["image"],
            &container["resources"]["limits"]["memory"]
        ),
        (&json!("example/default"), &json!("1Gi"))
    );
    assert!(
        !container["env"]
            .to_string()
            .contains("ARTILLERY_DISABLE_ENSURE"),
        "Artillery evaluates `ensure` itself"
    );
    let labels = &template["metadata"]["labels"];
    assert_eq!(
        (&labels["team"], &labels["kind"]),
        (&json!("mine"), &json!("load"))
    );
    std::fs::remove_file(file).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn config_maps_share_one_directory_and_duplicate_files_are_reported() {
    let env = TestEnv::with_operator(control_plane()).await;
    let script = "config: {target: 'http://x', phases: [{duration: 7, arrivalRate: 1}]}\nscenarios: [{flow: []}]\n";
    env.create::<ConfigMap>(json!({"metadata": {"name": "script"}, "data": {"mine.yaml": script}}))
        .await;
    env.create::<ConfigMap>(json!({"metadata": {"name": "users"}, "data": {"users.csv": "a,b\n"}}))
        .await;
    let spec = json!({"testScript": {"config": {"configMap": "script", "key": "mine.yaml"}, "external": {
        "payload": {"configMaps": ["users"]}, "processor": {"main": {"configMap": "processor"}, "related": {"configMaps": ["users"]}}}}});
    env.load_test_with("files", 1, spec).await;
    let waiting = env.until_phase("files", "Pending").await;
    let (_, reason, message) = condition(&waiting, "Progressing");
    assert!(
        reason == "MissingTestScript"
            && message.contains(&format!("ConfigMap {}/processor not found", env.namespace)),
        "{message}"
    );
    env.create::<ConfigMap>(
        json!({"metadata": {"name": "processor"}, "data": {"users.csv": "duplicate"}}),
    )
    .await;
    let duplicate = env
        .until_test("files", "the duplicate file is reported", |t| {
            condition(t, "Progressing").1 == "InvalidTestScript"
        })
        .await;
    let message = condition(&duplicate, "Progressing").2;
    assert!(
        message.contains("Both ConfigMap processor and ConfigMap users contain a file users.csv"),
        "{message}"
    );
    let fixed = Patch::Merge(json!({"data": {"users.csv": null, "processor.js": "x"}}));
    env.api::<ConfigMap>()
        .patch("processor", &PatchParams::default(), &fixed)
        .await
        .unwrap();
    // The test watches only the ConfigMap that was missing. A change of its own metadata triggers
    // the next reconcile.
    env.api::<LoadTest>()
        .patch(
            "files",
            &PatchParams::default(),
            &Patch::Merge(json!({"metadata": {"labels": {"look": "again"}}})),
        )
        .await
        .unwrap();
    let job: Job = env.until_exists("files").await;
    let pod = serde_json::to_value(job.spec.unwrap().template.spec.unwrap()).unwrap();
    assert_eq!(
        pod["volumes"][0]["projected"]["sources"],
        json!([{"configMap": {"name": "script"}}, {"configMap": {"name": "processor"}}, {"configMap": {"name": "users"}}])
    );
    assert_eq!(pod["containers"][0]["args"][1], "/data/mine.yaml");
    let started = env
        .until_test("files", "the expected duration is known", |t| {
            t.status.as_ref().unwrap().expected_duration.is_some()
        })
        .await;
    assert_eq!(
        started.status.unwrap().expected_duration.as_deref(),
        Some("7s")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn invalid_script_blocks_the_start_until_it_is_fixed() {
    let env = TestEnv::with_operator(control_plane()).await;
    let script = |key: &str| {
        format!(
            "config:\n  target: http://x\n  phases:\n    - {{duration: 1, {key}: 1}}\nscenarios: [{{flow: []}}]\n"
        )
    };
    env.create::<ConfigMap>(
        json!({"metadata": {"name": "faulty"}, "data": {"test-script.yaml": script("arivalRate")}}),
    )
    .await;
    let from = json!({"config": {"configMap": "faulty"}});
    env.load_test_with("faulty", 1, json!({"testScript": from}))
        .await;
    let blocked = env.until_phase("faulty", "Pending").await;
    let (_, reason, message) = condition(&blocked, "Progressing");
    assert_eq!(reason, "InvalidTestScript");
    assert!(
        message.contains("unknown key `arivalRate`; did you mean `arrivalRate`?")
            && message.contains("line 4 column 21"),
        "{message}"
    );
    assert_eq!(env.event_reasons("faulty").await, ["InvalidTestScript"]);
    assert!(env.api::<Job>().get_opt("faulty").await.unwrap().is_none());
    env.load_test_with(
        "as-it-is",
        1,
        json!({"testScript": from, "validate": false}),
    )
    .await;
    env.until_exists::<Job>("as-it-is").await;
    let fixed = Patch::Merge(json!({"data": {"test-script.yaml": script("arrivalRate")}}));
    env.api::<ConfigMap>()
        .patch("faulty", &PatchParams::default(), &fixed)
        .await
        .unwrap();
    env.until_exists::<Job>("faulty").await;

    // A missing section is not reported if arguments load further files.
    let faulty = "config: {target: x, environments: {prod: {}}}\nscenarios: [{flow: []}]\n";
    env.load_test_with("environment", 1, json!({"testScript": {"inline": faulty}}))
        .await;
    let blocked = env.until_phase("environment", "Pending").await;
    assert!(
        condition(&blocked, "Progressing")
            .2
            .contains("unknown environment `dev`"),
        "{:?}",
        condition(&blocked, "Progressing")
    );
    let args =
        json!({"testScript": {"inline": faulty}, "worker": {"args": ["--config=more.yaml"]}});
    env.load_test_with("configured", 1, args).await;
    env.until_exists::<Job>("configured").await;

    env.load_test_with(
        "plugins",
        1,
        json!({"worker": {"env": [{"name": "ARTILLERY_PLUGINS", "value": "{"}]}, "testScript": from}),
    )
    .await;
    let blocked = env.until_phase("plugins", "Pending").await;
    let message = condition(&blocked, "Progressing").2;
    assert!(
        message.starts_with("Invalid spec.worker.env: ARTILLERY_PLUGINS is not a JSON object"),
        "{message}"
    );

    env.load_test_with(
        "inline",
        1,
        json!({"testScript": {"inline": "config: {target: 'x'\n"}}),
    )
    .await;
    let blocked = env.until_phase("inline", "Pending").await;
    assert!(
        condition(&blocked, "Progressing")
            .2
            .contains("Invalid test script (spec.testScript.inline): ")
    );
    let fixed = Patch::Merge(json!({"spec": {"testScript": {"inline": script("arrivalRate")}}}));
    env.api::<LoadTest>()
        .patch("inline", &PatchParams::default(), &fixed)
        .await
        .unwrap();
    let pods = env.pods("inline", 1).await;
    assert_eq!(
        pods[0].metadata.annotations.as_ref().unwrap()["loadtest.artillery.io/test-script"],
        script("arrivalRate")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_volumes_are_reported_as_disabled_before_kubernetes_1_35() {
    let env = TestEnv::with_operator(control_plane()).await;
    let server = env.client.apiserver_version().await.unwrap();
    env.load_test_with(
        "image",
        2,
        json!({"testScript": {"config": {"key": "a.yaml"}, "external": {"image": {"reference": "example/files:v1"}}}}),
    )
    .await;
    if server.minor.parse::<u32>().unwrap() >= 35 {
        let pod = env.pods("image", 2).await.remove(0);
        assert!(
            pod.spec
                .unwrap()
                .volumes
                .unwrap()
                .iter()
                .any(|volume| volume.image.is_some())
        );
        return;
    }
    let blocked = env
        .until_test("image", "the rejection is reported", |t| {
            t.status
                .as_ref()
                .is_some_and(|s| s.conditions.iter().any(|c| c.reason == "JobRejected"))
        })
        .await;
    assert!(
        condition(&blocked, "Progressing")
            .2
            .contains("image volumes are not enabled in this cluster"),
        "{:?}",
        condition(&blocked, "Progressing")
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injected_container_does_not_block_completion() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test("mesh", 1).await;
    let pod = env.pods("mesh", 1).await.remove(0);
    // The worker has exited, but the pod keeps running.
    let terminated = json!({"exitCode": 0, "reason": "Completed", "startedAt": "2026-01-01T00:00:00Z", "finishedAt": "2026-01-01T00:00:09Z"});
    env.set_pod(&pod, "Running", json!({"terminated": terminated}))
        .await;
    env.until_phase("mesh", "Completed").await;
    env.until("the Job has a deadline that ends it", async || {
        let job = env.api::<Job>().get("mesh").await.unwrap();
        (job.spec.unwrap().active_deadline_seconds == Some(1)).then_some(())
    })
    .await;
    env.until_none::<Pod>("artillery.io/test-name=mesh").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_files_config_map_is_created_and_restored() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("one", 1).await;
    env.until_exists::<Job>("one").await;
    let files: ConfigMap = env.until_exists(&config_map_name()).await;
    assert_eq!(files.immutable, Some(true));
    env.operator(0).kill().await;
    env.delete::<ConfigMap>(&config_map_name()).await;
    env.start_operator(&[]).await;
    env.load_test("two", 1).await;
    env.until_exists::<ConfigMap>(&config_map_name()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tests_that_are_created_at_once_send_the_worker_files_once() {
    let log = control_plane().with_file_name("audit.log");
    let since = audit::length(&log);
    let env = TestEnv::with_operator(control_plane()).await;
    let names: Vec<_> = (0..20).map(|i| format!("t{i}")).collect();
    join_all(names.iter().map(|name| env.load_test(name, 1))).await;
    for name in &names {
        env.until_exists::<Job>(name).await;
    }
    let sent = audit::requests(&log, since, &env.namespace)
        .filter(|r| (r.verb.as_str(), r.name.as_str()) == ("create", &config_map_name()))
        .count();
    assert_eq!(sent, 1);
}
