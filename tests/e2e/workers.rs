//! The examples of the worker template and of test files. Each is applied with kubectl, in a
//! namespace that enforces Pod Security `restricted`.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Pod};
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::{TestEnv, condition, phase_of};
use crate::{
    apply_with_target, cluster, create_script, kubectl, requests_answered,
    script_with_constant_rate, until_completed_as_planned,
};

/// Starts an operator in a new namespace, and applies an example and its target.
async fn apply_example(example: &str) -> TestEnv {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    apply_with_target(&env, example).await;
    env
}

/// Returns the number of requests that the target in the test's namespace has answered, by path.
fn answered(env: &TestEnv) -> BTreeMap<String, u32> {
    let path = format!(
        "/api/v1/namespaces/{}/services/target/proxy/requests",
        env.namespace
    );
    serde_json::from_str(&kubectl(&["get", "--raw", &path])).unwrap()
}

async fn log(env: &TestEnv, pod: &Pod, container: Option<&str>) -> String {
    let params = LogParams {
        container: container.map(str::to_owned),
        ..LogParams::default()
    };
    env.api::<Pod>()
        .logs(&pod.name_any(), &params)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn inline_script_runs() {
    let env = apply_example("inline").await;
    until_completed_as_planned(&env, "inline").await;
    assert_eq!(answered(&env), BTreeMap::from([("/inline".into(), 10)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_and_processors_of_several_config_maps_are_used() {
    let env = apply_example("files").await;
    until_completed_as_planned(&env, "files").await;
    assert_eq!(
        answered(&env),
        BTreeMap::from([("/hello/ada".into(), 3), ("/hello/grace".into(), 3)])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn typescript_processor_runs() {
    let env = apply_example("typescript").await;
    until_completed_as_planned(&env, "typescript").await;
    assert_eq!(answered(&env), BTreeMap::from([("/typescript".into(), 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn divided_load_uses_each_payload_row_once() {
    let env = apply_example("divided").await;
    until_completed_as_planned(&env, "divided").await;
    let (answered, pods) = (answered(&env), env.pods("divided", 3).await);
    // A single worker ramps from 1 to 4 per second for four seconds, and then sends five per
    // second.
    let rows: Vec<_> = (1..=30)
        .map(|row| (format!("/divided/account-{row:02}"), 1))
        .collect();
    assert_eq!(
        answered,
        rows.into_iter().collect(),
        "the workers use each row of a single worker once"
    );
    for pod in &pods {
        let log = log(&env, pod, None).await;
        assert!(
            log.contains("http.requests: ") && log.contains(" 10\n"),
            "{log}"
        );
    }
}

/// Returns the number of requests below a path that the target in `default` has answered, by the
/// rest of the path.
fn answered_below(path: &str) -> BTreeMap<String, u64> {
    let all = requests_answered();
    let below = all.as_object().unwrap().iter();
    below
        .filter_map(|(p, count)| Some((p.strip_prefix(path)?.to_owned(), count.as_u64()?)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn divided_load_equals_the_load_of_one_worker() {
    let mut env = TestEnv::new(&cluster()).await;
    crate::deploy_target(&env).await;
    let yaml = "config:\n  target: http://target.default\n  variables: {below: nowhere}\n  \
        payload: {path: rows.csv, fields: [row], order: sequence}\n  phases:\n  \
        - {duration: 2, arrivalRate: 5}\n  - {duration: 2s, arrivalRate: 0, rampTo: 4}\n  \
        - {duration: 1, arrivalCount: 4, maxVusers: 4}\n  - {duration: 2, arrivalRate: 3, rampTo: 0}\n\
        scenarios: [{flow: [{get: {url: '/{{ below }}/{{ row }}'}}]}]\n";
    let rows = (0..8)
        .map(|row| format!("row-{row}\n"))
        .collect::<Vec<_>>()
        .concat();
    create_script(&env, json!({"test-script.yaml": yaml, "rows.csv": rows})).await;
    env.start_operator(&[]).await;
    let mut counts = Vec::new();
    for (name, count, load) in [
        ("alone", 1, "Multiply"),
        ("of-1", 1, "Divide"),
        ("of-2", 2, "Divide"),
        ("of-7", 7, "Divide"),
        ("of-16", 16, "Divide"),
    ] {
        let below = format!("{}-{name}", env.namespace);
        let small = json!({"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}});
        let fields = json!({"environment": null, "load": load, "variables": {"below": below}, "worker": small});
        env.load_test_with(name, count, fields).await;
        env.until_within(
            Duration::from_secs(240),
            &format!("{name} has completed"),
            async || {
                let test = env.api::<LoadTest>().get(name).await.unwrap();
                assert_ne!(phase_of(&test), "Failed", "{:?}", test.status);
                (phase_of(&test) == "Completed").then_some(())
            },
        )
        .await;
        counts.push((name, answered_below(&format!("/{below}/"))));
    }
    // The phases have 10, 4, 4 and 3 virtual users, which read the 8 rows in order and repeatedly.
    let expected: BTreeMap<_, _> = (0..8)
        .map(|row| (format!("row-{row}"), if row < 5 { 3 } else { 2 }))
        .collect();
    for (name, count) in counts {
        assert_eq!(count, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_template_example_takes_effect() {
    let env = apply_example("worker").await;
    until_completed_as_planned(&env, "worker").await;
    assert_eq!(
        answered(&env),
        BTreeMap::from([("/worker/secret-token".into(), 8)])
    );
    let pods = env.pods("worker", 2).await;
    let container = &pods[0].spec.as_ref().unwrap().containers[0];
    assert!(
        container
            .volume_mounts
            .as_ref()
            .unwrap()
            .iter()
            .any(|m| m.mount_path == "/certificates")
    );
    let spec = pods[0].spec.as_ref().unwrap();
    assert_eq!(
        (spec.priority, spec.runtime_class_name.as_deref()),
        (Some(-10), Some("runc"))
    );
    env.until("the sidecar has run and ended", async || {
        let pod = env.api::<Pod>().get(&pods[0].name_any()).await.unwrap();
        let sidecar = pod.status?.init_container_statuses?.remove(0);
        sidecar.state?.terminated?.started_at.map(drop)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn injected_mesh_sidecar_does_not_block_completion() {
    let mut env = TestEnv::new(&cluster()).await;
    crate::deploy_target(&env).await;
    let name = format!("{}-mesh", env.namespace);
    // The container has no `restartPolicy`, so it is not a native sidecar and never exits.
    let container = "Object.spec.containers{name: 'proxy', image: 'artilleryio/artillery:latest', imagePullPolicy: 'IfNotPresent', \
        command: ['node', '-e', 'setInterval(() => {}, 1000)'], securityContext: Object.spec.containers.securityContext{\
        allowPrivilegeEscalation: false, capabilities: Object.spec.containers.securityContext.capabilities{drop: ['ALL']}}}";
    let policy = json!({"apiVersion": GROUP, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": env.namespace}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
            "expression": format!("[JSONPatch{{op: 'add', path: '/spec/containers/-', value: {container}}}]")}}]}});
    let binding = json!({"apiVersion": GROUP, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": {"policyName": name}});
    for object in [&policy, &binding] {
        apply_object(object);
    }
    create_script(&env, script_with_constant_rate("/mesh", 3)).await;
    env.until("the policy adds a container to pods", async || {
        let pod = json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let shown = env.api::<Pod>().create(&dry, &serde_json::from_value(restricted(pod)).unwrap()).await.unwrap();
        (shown.spec?.containers.len() == 2).then_some(())
    })
    .await;
    env.start_operator(&[]).await;
    env.load_test_with("mesh", 2, json!({})).await;
    env.until_phase("mesh", "Completed").await;
    assert_eq!(
        env.pods("mesh", 2).await[0]
            .spec
            .as_ref()
            .unwrap()
            .containers
            .len(),
        2
    );
    env.until_none::<Pod>("artillery.io/test-name=mesh").await;
    assert_eq!(
        env.event_reasons("mesh").await,
        ["Created", "Running", "Running", "Completed"]
    );
    kubectl(&[
        "delete",
        "mutatingadmissionpolicies,mutatingadmissionpolicybindings",
        &name,
    ]);
}

const GROUP: &str = "admissionregistration.k8s.io/v1";

fn apply_object(object: &Value) {
    let file = std::env::temp_dir().join(format!(
        "{}-{}.json",
        object["metadata"]["name"].as_str().unwrap(),
        object["kind"].as_str().unwrap()
    ));
    std::fs::write(&file, object.to_string()).unwrap();
    kubectl(&["apply", "-f", file.to_str().unwrap()]);
    std::fs::remove_file(file).unwrap();
}

/// Adds the security context that Pod Security `restricted` requires.
fn restricted(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}});
    pod["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn persistent_volume_claim_provides_scripts_code_and_npm_modules() {
    let mut env = TestEnv::new(&cluster()).await;
    crate::deploy_target(&env).await;
    env.start_operator(&[]).await;
    let folder = std::env::temp_dir().join(&env.namespace);
    write(
        &folder.join("load.yaml"),
        "config: {target: 'http://target.default', phases: [{duration: 1, arrivalCount: 2}], processor: ./processor.js}\n\
        scenarios: [{flow: [{function: choose}, {get: {url: '/claim/{{ path }}'}}]}]\n",
    );
    write(
        &folder.join("processor.js"),
        "module.exports.choose = (c, e, done) => { c.vars.path = require('chosen'); done(); };\n",
    );
    write(
        &folder.join("node_modules/chosen/index.js"),
        "module.exports = 'by-a-module';\n",
    );
    write(
        &folder.join("scripts/processor.ts"),
        "import chosen from 'chosen';\nimport { word } from '../word';\n\
        export function choose(c: any, e: unknown, done: () => void) { c.vars.path = `${chosen}-and-${word}`; done(); }\n",
    );
    write(
        &folder.join("scripts/dist/processor.js"),
        "throw new Error('stale build');\n",
    );
    let volumes: Api<PersistentVolume> = Api::all(env.client.clone());
    let volume = json!({"metadata": {"name": env.namespace}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
        "storageClassName": "", "hostPath": {"path": folder}, "claimRef": {"namespace": env.namespace, "name": "load-test-files"}}});
    volumes
        .create(
            &PostParams::default(),
            &serde_json::from_value(volume).unwrap(),
        )
        .await
        .unwrap();
    let answered = |path: &str| requests_answered()[path].as_u64().unwrap_or(0);
    let before = answered("/claim/by-a-module");
    kubectl(&[
        "apply",
        "-n",
        &env.namespace,
        "-k",
        "hack/examples/claim-loadtest",
    ]);
    until_completed_as_planned(&env, "claim").await;
    assert_eq!(answered("/claim/by-a-module") - before, 4);

    let text = "config: {target: 'http://target.default', phases: [{duration: 1, arrivalCount: 2}], processor: ./scripts/processor.ts}\n\
        scenarios: [{flow: [{function: choose}, {get: {url: '/claim/{{ path }}'}}]}]\n";
    create_script(
        &env,
        json!({"test-script.yaml": text, "word.ts": "export const word = 'by-a-config-map';\n"}),
    )
    .await;
    let with_claim = |config_map: &str| {
        json!({"environment": null, "testScript": {"config": {"configMap": config_map},
            "external": {"persistentVolumeClaim": {"claimName": "load-test-files"}}}})
    };
    let before = answered("/claim/by-a-module-and-by-a-config-map");
    env.load_test_with("typescript", 1, with_claim("test-script"))
        .await;
    env.until_phase("typescript", "Completed").await;
    assert_eq!(
        answered("/claim/by-a-module-and-by-a-config-map") - before,
        2
    );

    let clashing = json!({"test-script.yaml": text, "processor.js": ""});
    env.create::<ConfigMap>(json!({"metadata": {"name": "clash"}, "data": clashing}))
        .await;
    env.load_test_with("clash", 1, with_claim("clash")).await;
    let failed = env.until_phase("clash", "Failed").await;
    let message = condition(&failed, "Failed").2;
    let clash = "File processor.js exists in both /sources/config-maps and /sources/persistent-volume-claim";
    assert!(message.contains(clash), "{message}");
    volumes
        .delete(&env.namespace, &DeleteParams::default())
        .await
        .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

fn write(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn image_volume_provides_scripts_code_and_npm_modules() {
    let mut env = TestEnv::new(&cluster()).await;
    crate::deploy_target(&env).await;
    env.start_operator(&[]).await;
    let script = "config: {target: 'http://target.default', phases: [{duration: 1, arrivalCount: 2}], processor: ./processor.ts}\n\
        scenarios: [{flow: [{function: choose}, {get: {url: '/image/{{ path }}'}}]}]\n";
    let processor = "import chosen from 'chosen';\n\
        export function choose(c: any, e: unknown, done: () => void) { c.vars.path = chosen; done(); }\n";
    push_image_of_files(
        "ghcr.io/example/load-test-files:v1",
        &[
            ("load.yaml", script),
            ("processor.ts", processor),
            (
                "node_modules/chosen/index.js",
                "module.exports = 'by-a-module';\n",
            ),
        ],
    );
    let answered = || {
        requests_answered()["/image/by-a-module"]
            .as_u64()
            .unwrap_or(0)
    };
    let before = answered();
    kubectl(&[
        "apply",
        "-n",
        &env.namespace,
        "-k",
        "hack/examples/image-loadtest",
    ]);
    until_completed_as_planned(&env, "image").await;
    assert_eq!(answered() - before, 2);
}

/// Pushes an image that contains only these files to the registry of the cluster.
fn push_image_of_files(reference: &str, files: &[(&str, &str)]) {
    let folder = std::env::temp_dir().join(format!("files-of-an-image-{}", std::process::id()));
    for (path, text) in files {
        write(&folder.join("files").join(path), text);
    }
    let script = r#"
        . "$2/lib.sh"
        image_archive "$0/image.tar" "$1" '{}' "$0/files" .
        "$2/local-cluster/cluster.sh" push "docker-archive:$0/image.tar" "$1"
    "#;
    let status = Command::new("bash")
        .args(["-euc", script])
        .arg(&folder)
        .arg(reference)
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/hack"))
        .status()
        .unwrap();
    assert!(status.success(), "cannot push {reference}: {status}");
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn worker_has_as_many_threads_as_cpus() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    let text = "config: {target: 'http://localhost', phases: [{duration: 1, arrivalCount: 1}], processor: ./count.js}\nscenarios: [{flow: [{function: count}]}]\n";
    let count = "module.exports.count = (c, e, done) => { console.log('CPUs ' + require('os').cpus().length); done(); };\n";
    create_script(&env, json!({"test-script.yaml": text, "count.js": count})).await;
    for (name, resources, cpus) in [
        ("limit", json!({"limits": {"cpu": "1500m"}}), "CPUs 3"),
        ("request", json!({"requests": {"cpu": "1"}}), "CPUs 2"),
        ("neither", json!({}), "CPUs 2"),
    ] {
        env.load_test_with(
            name,
            1,
            json!({"environment": null, "worker": {"resources": resources}}),
        )
        .await;
        env.until_phase(name, "Completed").await;
        let log = log(&env, &env.pods(name, 1).await[0], None).await;
        // `os.cpus()` has one entry more than there are threads, because Artillery reserves one
        // CPU.
        assert!(log.contains(cpus), "{name}: {log}");
    }
}
