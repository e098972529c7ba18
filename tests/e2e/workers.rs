//! The examples of what can be chosen of workers and their files, each applied as a reader would, in a namespace that
//! enforces `restricted`.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolume, Pod};
use kube::api::{DeleteParams, LogParams, PostParams};
use kube::{Api, ResourceExt};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::{Value, json};

use crate::support::{Bed, condition, phase_of};
use crate::{apply_with_target, cluster, kubectl, load, requests_answered, script};

/// A namespace with an operator, to which an example has been applied.
async fn apply(example: &str) -> Bed {
    let mut bed = Bed::new(&cluster()).await;
    bed.start_operator(&[]).await;
    apply_with_target(&bed, example).await;
    bed
}

/// What the target in the test's own namespace has answered, by path.
fn answered(bed: &Bed) -> BTreeMap<String, u32> {
    let path = format!(
        "/api/v1/namespaces/{}/services/target/proxy/requests",
        bed.namespace
    );
    serde_json::from_str(&kubectl(&["get", "--raw", &path])).unwrap()
}

async fn log(bed: &Bed, pod: &Pod, container: Option<&str>) -> String {
    let params = LogParams {
        container: container.map(str::to_owned),
        ..LogParams::default()
    };
    bed.api::<Pod>()
        .logs(&pod.name_any(), &params)
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_whole_test_in_one_file() {
    let bed = apply("inline").await;
    bed.until_phase("inline", "Completed").await;
    assert_eq!(answered(&bed), BTreeMap::from([("/inline".into(), 10)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payloads_and_processors_from_several_config_maps() {
    let bed = apply("files").await;
    bed.until_phase("files", "Completed").await;
    assert_eq!(
        answered(&bed),
        BTreeMap::from([("/hello/ada".into(), 3), ("/hello/grace".into(), 3)])
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_processor_in_typescript() {
    let bed = apply("typescript").await;
    bed.until_phase("typescript", "Completed").await;
    assert_eq!(answered(&bed), BTreeMap::from([("/typescript".into(), 3)]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_share_one_load() {
    let bed = apply("divided").await;
    bed.until_phase("divided", "Completed").await;
    let (answered, pods) = (answered(&bed), bed.pods("divided", 3).await);
    // One worker would go from 1 to 4 a second in four seconds, and then send five a second.
    let rows: Vec<_> = (1..=30)
        .map(|row| (format!("/divided/account-{row:02}"), 1))
        .collect();
    assert_eq!(
        answered,
        rows.into_iter().collect(),
        "each row of those that one worker would have used, once"
    );
    for pod in &pods {
        let log = log(&bed, pod, None).await;
        assert!(
            log.contains("http.requests: ") && log.contains(" 10\n"),
            "{log}"
        );
    }
}

/// What the target in `default` has answered below a path, by the rest of the path.
fn answered_below(path: &str) -> BTreeMap<String, u64> {
    let all = requests_answered();
    let below = all.as_object().unwrap().iter();
    below
        .filter_map(|(p, count)| Some((p.strip_prefix(path)?.to_owned(), count.as_u64()?)))
        .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn however_many_workers_share_a_load_it_is_that_of_one() {
    let mut bed = Bed::new(&cluster()).await;
    crate::target(&bed).await;
    let yaml = "config:\n  target: http://target.default\n  variables: {below: nowhere}\n  \
        payload: {path: rows.csv, fields: [row], order: sequence}\n  phases:\n  \
        - {duration: 2, arrivalRate: 5}\n  - {duration: 2s, arrivalRate: 0, rampTo: 4}\n  \
        - {duration: 1, arrivalCount: 4, maxVusers: 4}\n  - {duration: 2, arrivalRate: 3, rampTo: 0}\n\
        scenarios: [{flow: [{get: {url: '/{{ below }}/{{ row }}'}}]}]\n";
    let rows = (0..8)
        .map(|row| format!("row-{row}\n"))
        .collect::<Vec<_>>()
        .concat();
    script(&bed, json!({"test-script.yaml": yaml, "rows.csv": rows})).await;
    bed.start_operator(&[]).await;
    let mut made = Vec::new();
    for (name, count, load) in [
        ("alone", 1, "Multiply"),
        ("of-1", 1, "Divide"),
        ("of-2", 2, "Divide"),
        ("of-7", 7, "Divide"),
        ("of-16", 16, "Divide"),
    ] {
        let below = format!("{}-{name}", bed.namespace);
        let small = json!({"resources": {"requests": {"cpu": "10m", "memory": "64Mi"}}});
        let fields = json!({"environment": null, "load": load, "variables": {"below": below}, "worker": small});
        bed.load_test_with(name, count, fields).await;
        bed.until_within(
            Duration::from_secs(240),
            &format!("{name} has completed"),
            async || {
                let test = bed.api::<LoadTest>().get(name).await.unwrap();
                assert_ne!(phase_of(&test), "Failed", "{:?}", test.status);
                (phase_of(&test) == "Completed").then_some(())
            },
        )
        .await;
        made.push((name, answered_below(&format!("/{below}/"))));
    }
    // 10, 4, 4 and 3 virtual users, who have the rows from the first on, and then anew.
    let expected: BTreeMap<_, _> = (0..8)
        .map(|row| (format!("row-{row}"), if row < 5 { 3 } else { 2 }))
        .collect();
    for (name, made) in made {
        assert_eq!(made, expected, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn everything_that_can_be_chosen_of_a_worker() {
    let bed = apply("worker").await;
    bed.until_phase("worker", "Completed").await;
    assert_eq!(
        answered(&bed),
        BTreeMap::from([("/worker/secret-token".into(), 8)])
    );
    let pods = bed.pods("worker", 2).await;
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
    bed.until(
        "the sidecar, which has run, has ended after the worker",
        async || {
            let pod = bed.api::<Pod>().get(&pods[0].name_any()).await.unwrap();
            let sidecar = pod.status?.init_container_statuses?.remove(0);
            sidecar.state?.terminated?.started_at.map(drop)
        },
    )
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sidecar_that_a_mesh_puts_into_the_pods_does_not_keep_the_job_from_ending() {
    let mut bed = Bed::new(&cluster()).await;
    crate::target(&bed).await;
    let name = format!("{}-mesh", bed.namespace);
    // It has no `restartPolicy`, so it is no native sidecar, and does not end by itself.
    let container = "Object.spec.containers{name: 'proxy', image: 'artilleryio/artillery:latest', imagePullPolicy: 'IfNotPresent', \
        command: ['node', '-e', 'setInterval(() => {}, 1000)'], securityContext: Object.spec.containers.securityContext{\
        allowPrivilegeEscalation: false, capabilities: Object.spec.containers.securityContext.capabilities{drop: ['ALL']}}}";
    let policy = json!({"apiVersion": GROUP, "kind": "MutatingAdmissionPolicy", "metadata": {"name": name}, "spec": {
        "matchConstraints": {
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": bed.namespace}},
            "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}]},
        "reinvocationPolicy": "Never",
        "mutations": [{"patchType": "JSONPatch", "jsonPatch": {
            "expression": format!("[JSONPatch{{op: 'add', path: '/spec/containers/-', value: {container}}}]")}}]}});
    let binding = json!({"apiVersion": GROUP, "kind": "MutatingAdmissionPolicyBinding", "metadata": {"name": name}, "spec": {"policyName": name}});
    for object in [&policy, &binding] {
        apply_object(object);
    }
    script(&bed, load("/mesh", 3)).await;
    bed.until("pods get a container more", async || {
        let pod = json!({"metadata": {"name": "probe"}, "spec": {"containers": [{"name": "c", "image": "x"}]}});
        let dry = PostParams { dry_run: true, ..PostParams::default() };
        let shown = bed.api::<Pod>().create(&dry, &serde_json::from_value(restricted(pod)).unwrap()).await.unwrap();
        (shown.spec?.containers.len() == 2).then_some(())
    })
    .await;
    bed.start_operator(&[]).await;
    bed.load_test_with("mesh", 2, json!({})).await;
    bed.until_phase("mesh", "Completed").await;
    assert_eq!(
        bed.pods("mesh", 2).await[0]
            .spec
            .as_ref()
            .unwrap()
            .containers
            .len(),
        2
    );
    bed.until_none::<Pod>("artillery.io/test-name=mesh").await;
    assert_eq!(
        bed.event_reasons("mesh").await,
        ["Created", "Running", "Running", "Completed"]
    );
    kubectl(&[
        "delete",
        "mutatingadmissionpolicies,mutatingadmissionpolicybindings",
        &name,
    ]);
}

const GROUP: &str = "admissionregistration.k8s.io/v1beta1";

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

/// A pod as Pod Security `restricted` wants it.
fn restricted(mut pod: Value) -> Value {
    pod["spec"]["securityContext"] =
        json!({"runAsNonRoot": true, "runAsUser": 1, "seccompProfile": {"type": "RuntimeDefault"}});
    pod["spec"]["containers"][0]["securityContext"] =
        json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    pod
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_script_code_and_npm_modules_in_a_claim() {
    let mut bed = Bed::new(&cluster()).await;
    crate::target(&bed).await;
    bed.start_operator(&[]).await;
    let folder = std::env::temp_dir().join(&bed.namespace);
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
        "throw new Error('of another time');\n",
    );
    let volumes: Api<PersistentVolume> = Api::all(bed.client.clone());
    let volume = json!({"metadata": {"name": bed.namespace}, "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadOnlyMany"],
        "storageClassName": "", "hostPath": {"path": folder}, "claimRef": {"namespace": bed.namespace, "name": "load-test-files"}}});
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
        &bed.namespace,
        "-k",
        "hack/examples/claim-loadtest",
    ]);
    bed.until_phase("claim", "Completed").await;
    assert_eq!(answered("/claim/by-a-module") - before, 4);

    let text = "config: {target: 'http://target.default', phases: [{duration: 1, arrivalCount: 2}], processor: ./scripts/processor.ts}\n\
        scenarios: [{flow: [{function: choose}, {get: {url: '/claim/{{ path }}'}}]}]\n";
    script(
        &bed,
        json!({"test-script.yaml": text, "word.ts": "export const word = 'by-a-config-map';\n"}),
    )
    .await;
    let with_claim = |config_map: &str| {
        json!({"environment": null, "testScript": {"config": {"configMap": config_map},
            "external": {"persistentVolumeClaim": {"claimName": "load-test-files"}}}})
    };
    let before = answered("/claim/by-a-module-and-by-a-config-map");
    bed.load_test_with("typescript", 1, with_claim("test-script"))
        .await;
    bed.until_phase("typescript", "Completed").await;
    assert_eq!(
        answered("/claim/by-a-module-and-by-a-config-map") - before,
        2
    );

    let clashing = json!({"test-script.yaml": text, "processor.js": ""});
    bed.create::<ConfigMap>(json!({"metadata": {"name": "clash"}, "data": clashing}))
        .await;
    bed.load_test_with("clash", 1, with_claim("clash")).await;
    let failed = bed.until_phase("clash", "Failed").await;
    let message = condition(&failed, "Failed").2;
    let clash = "File processor.js exists in both /sources/config-maps and /sources/persistent-volume-claim";
    assert!(message.contains(clash), "{message}");
    volumes
        .delete(&bed.namespace, &DeleteParams::default())
        .await
        .unwrap();
    std::fs::remove_dir_all(folder).unwrap();
}

fn write(file: &Path, text: &str) {
    std::fs::create_dir_all(file.parent().unwrap()).unwrap();
    std::fs::write(file, text).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn files_in_an_image_where_the_cluster_has_no_image_volumes() {
    let bed = apply("image").await;
    let told = bed
        .until_test("image", "it is told", |t| {
            t.status
                .as_ref()
                .is_some_and(|s| s.conditions.iter().any(|c| c.reason == "JobRejected"))
        })
        .await;
    assert!(
        condition(&told, "Progressing")
            .2
            .contains("image volumes are not enabled in this cluster")
    );
    assert!(
        bed.api::<LoadTest>()
            .get("image")
            .await
            .unwrap()
            .status
            .unwrap()
            .start_time
            .is_none()
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_worker_has_as_many_threads_as_its_cpus() {
    let mut bed = Bed::new(&cluster()).await;
    bed.start_operator(&[]).await;
    let text = "config: {target: 'http://localhost', phases: [{duration: 1, arrivalCount: 1}], processor: ./count.js}\nscenarios: [{flow: [{function: count}]}]\n";
    let count = "module.exports.count = (c, e, done) => { console.log('CPUs ' + require('os').cpus().length); done(); };\n";
    script(&bed, json!({"test-script.yaml": text, "count.js": count})).await;
    for (name, resources, cpus) in [
        ("limit", json!({"limits": {"cpu": "1500m"}}), "CPUs 3"),
        ("request", json!({"requests": {"cpu": "1"}}), "CPUs 2"),
        ("neither", json!({}), "CPUs 2"),
    ] {
        bed.load_test_with(
            name,
            1,
            json!({"environment": null, "worker": {"resources": resources}}),
        )
        .await;
        bed.until_phase(name, "Completed").await;
        let log = log(&bed, &bed.pods(name, 1).await[0], None).await;
        // One more than there are threads, as Artillery leaves one CPU to itself.
        assert!(log.contains(cpus), "{name}: {log}");
    }
}
