//! Tests of the pod template.

#![allow(clippy::unwrap_used)]
use super::*;
use loadtest_script::FilesHash;
use serde_json::Value;

/// Builds the pod template of a test with these fields.
fn template(spec: &Value, defaults: &Value, script: &ScriptInfo) -> Value {
    let mut test = json!({
        "apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest",
        "metadata": {"name": "t", "namespace": "default"},
        "spec": {"testScript": {"config": {"configMap": "s"}}},
    });
    for (name, value) in spec.as_object().unwrap() {
        test["spec"][name] = value.clone();
    }
    let config = WorkerConfig {
        defaults: serde_json::from_value(defaults.clone()).unwrap(),
        ..WorkerConfig::default()
    };
    let test = serde_json::from_value(test).unwrap();
    serde_json::to_value(build_pod_template(&test, &config, script)).unwrap()
}

fn annotations(spec: &Value, defaults: &Value) -> Value {
    template(spec, defaults, &ScriptInfo::default())["metadata"]["annotations"].clone()
}

fn variable(template: &Value, name: &str) -> Value {
    template["spec"]["containers"][0]["env"]
        .as_array()
        .unwrap()
        .iter()
        .find(|v| v["name"] == name)
        .map_or(Value::Null, |v| v["value"].clone())
}

const EVICT: &str = "cluster-autoscaler.kubernetes.io/safe-to-evict";
const DISRUPT: &str = "karpenter.sh/do-not-disrupt";

const ISTIO: &str = "traffic.sidecar.istio.io/excludeInboundPorts";
const LINKERD: &str = "config.linkerd.io/skip-inbound-ports";

#[test]
fn default_annotations_protect_workers_from_autoscalers_and_exclude_their_port_from_meshes() {
    for count in [1, 2] {
        assert_eq!(
            annotations(&json!({"count": count}), &json!({})),
            json!({EVICT: "false", DISRUPT: "true", ISTIO: "8899", LINKERD: "8899"})
        );
    }
}

#[test]
fn workers_declare_their_port_and_serve_live_results() {
    let pod = template(&json!({}), &json!({}), &ScriptInfo::default());
    assert_eq!(
        pod["spec"]["containers"][0]["ports"],
        json!([{"name": "metrics", "containerPort": 8899}])
    );
    assert_eq!(variable(&pod, "LOADTEST_LIVE"), "true");
    assert_eq!(variable(&pod, "LOADTEST_PORT"), "8899");
    assert_eq!(variable(&pod, "LOADTEST_NAME"), "t");
}

#[test]
fn reserved_labels_and_annotations_of_a_spec_are_ignored() {
    let names = json!({"artillery.io/component": "mine", "loadtest.artillery.io/start-at": "1",
        "container.apparmor.security.beta.kubernetes.io/worker": "unconfined", "team": "a"});
    let spec = json!({"worker": {"labels": names, "annotations": names}});
    let metadata = &template(&spec, &json!({}), &ScriptInfo::default())["metadata"];
    assert_eq!(
        metadata["labels"]["artillery.io/component"],
        "loadtest-worker"
    );
    assert_eq!(
        metadata["annotations"],
        json!({EVICT: "false", DISRUPT: "true", ISTIO: "8899", LINKERD: "8899", "team": "a"})
    );
    let labels = metadata["labels"].as_object().unwrap();
    assert_eq!(labels.len(), 4, "{labels:?}");
}

#[test]
fn annotations_override_defaults_by_name_and_an_empty_value_omits_one() {
    let defaults = json!({"annotations": {EVICT: "", "team": "a", "ticket": "1"}});
    assert_eq!(
        annotations(&json!({}), &defaults),
        json!({DISRUPT: "true", ISTIO: "8899", LINKERD: "8899", "team": "a", "ticket": "1"})
    );
    let own = json!({"worker": {"annotations":
        {EVICT: "true", DISRUPT: "", ISTIO: "", LINKERD: "1", "team": "", "marker": ""}}});
    assert_eq!(
        annotations(&own, &defaults),
        json!({EVICT: "true", LINKERD: "1", "ticket": "1", "marker": ""}),
        "an annotation that is no default can be empty"
    );
}

#[test]
fn node_selector_is_linux_unless_overridden_by_name() {
    let selector = |spec: &Value, defaults: &Value| {
        template(spec, defaults, &ScriptInfo::default())["spec"]["nodeSelector"].clone()
    };
    let os = "kubernetes.io/os";
    assert_eq!(selector(&json!({}), &json!({})), json!({os: "linux"}));
    let defaults = json!({"nodeSelector": {"pool": "load", "zone": "a"}});
    assert_eq!(
        selector(&json!({}), &defaults),
        json!({os: "linux", "pool": "load", "zone": "a"})
    );
    let own = json!({"worker": {"nodeSelector": {os: "other", "zone": "b"}}});
    assert_eq!(
        selector(&own, &defaults),
        json!({os: "other", "pool": "load", "zone": "b"})
    );
}

#[test]
fn probes_wait_for_the_answer_of_a_worker_with_a_synchronized_start() {
    let pod = template(
        &json!({"count": 2, "startDeadlineSeconds": 600}),
        &json!({}),
        &ScriptInfo::default(),
    );
    let container = &pod["spec"]["containers"][0];
    assert_eq!(
        container["startupProbe"],
        json!({"httpGet": {"path": "/ready", "port": 8899}, "periodSeconds": 1, "timeoutSeconds": 5,
            "initialDelaySeconds": 2, "failureThreshold": i32::MAX})
    );
    assert_eq!(
        container["readinessProbe"],
        json!({"httpGet": {"path": "/started", "port": 8899}, "periodSeconds": 30, "timeoutSeconds": 3600,
            "failureThreshold": 1})
    );
    assert_eq!(variable(&pod, "LOADTEST_PORT"), "8899");
    assert_eq!(variable(&pod, "LOADTEST_START_TIMEOUT"), "660");

    let alone = template(&json!({}), &json!({}), &ScriptInfo::default());
    let container = &alone["spec"]["containers"][0];
    assert!(container["startupProbe"].is_null() && container["readinessProbe"].is_null());
}

#[test]
fn start_file_and_code_are_in_separate_volumes() {
    let pod = template(&json!({"count": 2}), &json!({}), &ScriptInfo::default());
    let volume = |pod: &Value, name: &str| {
        let volumes = pod["spec"]["volumes"].as_array().unwrap();
        volumes.iter().find(|v| v["name"] == name).cloned()
    };
    let code = volume(&pod, "loadtest").unwrap();
    assert_eq!(code["configMap"]["name"], worker_files::config_map_name());
    assert_eq!(
        volume(&pod, "loadtest-start").unwrap()["downwardAPI"]["items"],
        json!([{"path": "start-at",
            "fieldRef": {"fieldPath": "metadata.annotations['loadtest.artillery.io/start-at']"}}])
    );
    let mounts = pod["spec"]["containers"][0]["volumeMounts"]
        .as_array()
        .unwrap();
    let mount = mounts.iter().find(|m| m["name"] == "loadtest-start");
    assert_eq!(
        mount.unwrap(),
        &json!({"name": "loadtest-start", "mountPath": "/opt/loadtest-start", "readOnly": true})
    );
    assert_eq!(
        variable(&pod, "LOADTEST_START_FILE"),
        "/opt/loadtest-start/start-at"
    );
    let alone = template(&json!({}), &json!({}), &ScriptInfo::default());
    assert_eq!(volume(&alone, "loadtest-start"), None);
}

#[test]
fn workers_with_a_browser_have_shared_memory_unless_they_mount_their_own() {
    let shared_memory = |spec: &Value, defaults: &Value, uses_browser: bool| {
        let script = ScriptInfo {
            uses_browser,
            ..ScriptInfo::default()
        };
        let pod = template(spec, defaults, &script);
        let find = |list: &Value, key: &str, value: &str| {
            let mut all = list.as_array().unwrap().iter();
            all.find(|item| item[key] == value).cloned()
        };
        let mounts = &pod["spec"]["containers"][0]["volumeMounts"];
        (
            find(&pod["spec"]["volumes"], "name", "loadtest-shm"),
            find(mounts, "mountPath", "/dev/shm"),
            find(mounts, "mountPath", "/dev/shm/"),
        )
    };
    let none = json!({});
    let volume =
        json!({"name": "loadtest-shm", "emptyDir": {"medium": "Memory", "sizeLimit": "1Gi"}});
    let mount = json!({"name": "loadtest-shm", "mountPath": "/dev/shm"});
    assert_eq!(
        shared_memory(&none, &none, true),
        (Some(volume), Some(mount), None)
    );
    assert_eq!(shared_memory(&none, &none, false), (None, None, None));

    let own = |path: &str| {
        json!({"volumes": [{"name": "own", "emptyDir": {"medium": "Memory"}}],
            "volumeMounts": [{"name": "own", "mountPath": path}]})
    };
    let mount = |path: &str| Some(json!({"name": "own", "mountPath": path}));
    assert_eq!(
        shared_memory(&json!({"worker": own("/dev/shm")}), &none, true),
        (None, mount("/dev/shm"), None)
    );
    assert_eq!(
        shared_memory(&none, &own("/dev/shm/"), true),
        (None, None, mount("/dev/shm/")),
        "a default of the operator"
    );
}

#[test]
fn files_hash_is_compared_with_the_mounted_config_maps() {
    let mut files_hash = FilesHash::default();
    files_hash.add("test-script.yaml", b"config: {}");
    let hash = |spec: &Value, needs_folder: bool| {
        let script = ScriptInfo {
            files_hash: Some(files_hash),
            needs_folder,
            ..ScriptInfo::default()
        };
        let pod = template(spec, &json!({}), &script);
        ["", "_FOLDER", "_SOURCE"].map(|end| variable(&pod, &format!("LOADTEST_FILES_HASH{end}")))
    };
    let expected =
        |folder: &str, source: &str| [&*files_hash.to_string(), folder, source].map(Value::from);
    assert_eq!(hash(&json!({}), false), expected("/data", "ConfigMap s"));
    assert_eq!(
        hash(&json!({}), true),
        expected("/sources/config-maps", "ConfigMap s")
    );
    let several = json!({"testScript": {"config": {"configMap": "s"},
        "external": {"payload": {"configMaps": ["a", "b"]}}}});
    assert_eq!(
        hash(&several, false),
        expected("/data", "ConfigMaps s, a, b")
    );
    let inline = json!({"testScript": {"inline": "config: {}"}});
    assert_eq!(
        hash(&inline, false),
        expected("/data", "spec.testScript.inline")
    );
    let claim = json!({"testScript": {"config": {"key": "a.yaml"},
        "external": {"persistentVolumeClaim": {"claimName": "c"}}}});
    assert_eq!(hash(&claim, true), [Value::Null, Value::Null, Value::Null]);
    let unknown = template(&json!({}), &json!({}), &ScriptInfo::default());
    assert_eq!(variable(&unknown, "LOADTEST_FILES_HASH"), Value::Null);
}

#[test]
fn workers_without_live_results_have_a_port_only_for_probes() {
    for (count, ports) in [(1, json!(null)), (2, json!(1))] {
        let spec = json!({"count": count, "liveResults": false});
        let pod = template(&spec, &json!({}), &ScriptInfo::default());
        let declared = pod["spec"]["containers"][0]["ports"].as_array();
        assert_eq!(json!(declared.map(Vec::len)), ports);
        let env = pod["spec"]["containers"][0]["env"].as_array().unwrap();
        assert!(env.iter().all(|v| v["name"] != "LOADTEST_LIVE"));
    }
}
