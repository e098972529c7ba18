//! `kubectl artillery` in pipelines: exit codes, the examples that run it in the cluster, and the role that they need.

use std::path::{Path, PathBuf};
use std::process::Command;

use k8s_openapi::api::batch::v1::{CronJob, Job};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::RoleBinding;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{ListParams, Patch, PatchParams};
use kube::config::Kubeconfig;
use kube::runtime::wait::{await_condition, conditions};
use kube::{Api, ResourceExt};
use loadtest_api::v1alpha1::{LoadTest, Verdict};
use serde_json::{Value, json};

use crate::fake_kubectl::{Output, run};
use crate::operator_identity::{apply, manifests, until_allowed};
use crate::support::process::plugin;
use crate::support::{TestEnv, condition};
use crate::{apply_target, cluster, deploy_target, kubectl, script_with_requests};

/// The role of pipelines.
pub const RUNNER_ROLE: &str = "artillery-operator-loadtest-runner";

/// The service account that runs every command with this role, whose requests `rbac_audit` reads.
pub const RUNNER: &str = "pipeline-runner";

/// Runs `kubectl artillery` in the namespace of the test.
pub fn artillery(env: &TestEnv, args: &[&str]) -> Output {
    run(command(args).args(["-n", &env.namespace]))
}

/// The same, as another user.
fn artillery_as(kubeconfig: &Path, env: &TestEnv, args: &[&str]) -> Output {
    let command = &mut command(args);
    run(command
        .args(["-n", &env.namespace])
        .env("KUBECONFIG", kubeconfig))
}

fn command(args: &[&str]) -> Command {
    let mut command = Command::new(plugin());
    command.args(args);
    command
}

/// Follows a test to its end. Returns the exit code, and the sentence with the verdict.
pub fn verdict(env: &TestEnv, name: &str) -> (i32, String) {
    let output = artillery(env, &["watch", name, "--timeout", "150s"]);
    let verdicts = ["Passed: ", "Failed: ", "Inconclusive: "];
    let mut lines = output.stdout.lines();
    let sentence = lines.find(|line| verdicts.iter().any(|one| line.starts_with(one)));
    let sentence = sentence.unwrap_or_else(|| panic!("no verdict: {output:?}"));
    (output.code, sentence.to_owned())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn timeout_reports_why_the_test_has_not_ended() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    let script = json!({"testScript": {"config": {"configMap": "nowhere"}}});
    env.load_test_with("late", 1, script).await;
    env.until_phase("late", "Pending").await;
    let output = artillery(&env, &["watch", "late", "--timeout", "1s"]);
    assert_eq!(output.code, 2, "{output:?}");
    let reason = format!("ConfigMap {}/nowhere not found", env.namespace);
    assert!(output.stdout.contains(&reason), "{output:?}");
    let left = format!("LoadTest {}/late keeps running.", env.namespace);
    assert!(output.stderr.contains(&left), "{output:?}");

    let output = artillery(&env, &["run", "late", "--count", "3"]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(output.stderr.contains("has not ended"), "{output:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn errors_name_the_object_and_what_to_do() {
    let env = TestEnv::new(&cluster()).await;
    let namespace = &env.namespace;
    let broken = Path::new(env!("CARGO_TARGET_TMPDIR")).join("unreachable.kubeconfig");
    let mut config: Value =
        serde_json::to_value(Kubeconfig::read_from(cluster()).unwrap()).unwrap();
    for cluster in config["clusters"].as_array_mut().unwrap() {
        cluster["cluster"]["server"] = json!("https://127.0.0.1:1");
    }
    std::fs::write(&broken, config.to_string()).unwrap();
    let nobody = service_account(&env, "nobody").await;
    for (kubeconfig, args, message, advice) in [
        (
            cluster(),
            &["watch", "missing"][..],
            format!("LoadTest {namespace}/missing does not exist."),
            "kubectl artillery list",
        ),
        (
            broken,
            &["list"],
            "Cannot list LoadTests".to_owned(),
            "kubectl cluster-info",
        ),
        (
            "/nowhere".into(),
            &["list"],
            "Cannot find a cluster".to_owned(),
            "kubectl config get-contexts",
        ),
        (
            nobody,
            &["list"],
            "is forbidden".to_owned(),
            "--clusterrole=artillery-operator-loadtest-runner",
        ),
    ] {
        let output = artillery_as(&kubeconfig, &env, args);
        assert_eq!((output.code, &*output.stdout), (2, ""), "{output:?}");
        assert!(output.stderr.contains(&message), "{args:?}: {output:?}");
        assert!(output.stderr.contains(advice), "{args:?}: {output:?}");
    }
}

/// The kubeconfig of a service account of the namespace.
async fn service_account(env: &TestEnv, name: &str) -> PathBuf {
    if env
        .api::<ServiceAccount>()
        .get_opt(name)
        .await
        .unwrap()
        .is_none()
    {
        env.create::<ServiceAccount>(json!({"metadata": {"name": name}}))
            .await;
    }
    let token = kubectl(&["create", "token", name, "-n", &env.namespace]);
    let mut config = serde_json::to_value(Kubeconfig::read_from(cluster()).unwrap()).unwrap();
    for user in config["users"].as_array_mut().unwrap() {
        user["user"] = json!({"token": token.trim()});
    }
    let file =
        Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{}-{name}.kubeconfig", env.namespace));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn runner_role_suffices_for_every_command() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    env.start_operator(&[]).await;
    let runner = service_account(&env, RUNNER).await;
    env.create::<RoleBinding>(json!({"metadata": {"name": RUNNER},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": RUNNER_ROLE},
        "subjects": [{"kind": "ServiceAccount", "name": RUNNER, "namespace": env.namespace}]}))
        .await;
    let user = format!("--as=system:serviceaccount:{}:{RUNNER}", env.namespace);
    until_allowed(&["create", "pods", "-n", &env.namespace, &user]);

    // A manifest with the script beside the test, and a report with everything in it.
    let manifest = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runner.yaml");
    let script = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "script"},
        "data": script_with_requests("/runner", 3)});
    let test = json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": "checkout"},
        "spec": {"thresholds": ["http.codes.200 > 0"], "testScript": {"config": {"configMap": "script"}}}});
    std::fs::write(&manifest, format!("{script}\n---\n{test}\n")).unwrap();
    let manifest = manifest.to_str().unwrap();
    let report = Path::new(env!("CARGO_TARGET_TMPDIR")).join("runner.html");
    let args = [
        "run",
        "-f",
        manifest,
        "--report",
        report.to_str().unwrap(),
        "--timeout",
        "150s",
    ];
    let output = artillery_as(&runner, &env, &args);
    println!("{}{}", output.stderr, output.stdout);
    assert_eq!(output.code, 0, "{output:?}");
    assert!(!output.stdout.contains("Note:"), "{output:?}");
    let html = std::fs::read_to_string(&report).unwrap();
    assert!(html.contains("checkout") && !html.contains("forbidden"));

    let output = artillery_as(
        &runner,
        &env,
        &["rerun", "checkout", "--keep", "0", "--timeout", "150s"],
    );
    assert_eq!(output.code, 0, "{output:?}");
    assert!(output.stderr.contains("checkout-2 deleted"), "{output:?}");
    let suspended = json!({"suspend": true, "testScript": {"config": {"configMap": "script"}}});
    env.load_test_with("suspended", 1, suspended).await;
    let run = ["run", "suspended", "--detach", "-o", "json"];
    let output = artillery_as(&runner, &env, &run);
    assert_eq!(output.code, 0, "{output:?}");
    let started: LoadTest = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(started.spec.suspend, Some(false));
    for (args, shown) in [
        (&["list"][..], "checkout"),
        (&["logs", "checkout"], "0: "),
        (&["compare", "checkout", "checkout"], "The specs are equal."),
        (&["report", "checkout"], "checkout"),
        (&["stop", "checkout"], "has already ended"),
    ] {
        let output = artillery_as(&runner, &env, args);
        assert_eq!(output.code, 0, "{args:?}: {output:?}");
        assert!(output.stdout.contains(shown), "{args:?}: {output:?}");
        assert!(!output.stdout.contains("forbidden"), "{args:?}: {output:?}");
    }
}

/// Applies an example that runs the plugin in the cluster, with the image of this build.
async fn apply_with_image(env: &TestEnv, example: &str) {
    let image = std::env::var("OPERATOR_IMAGE").expect(
        "hack/test.sh and make e2e set OPERATOR_IMAGE to an image that the cluster can pull",
    );
    apply_target(env).await;
    let mut objects = manifests(&format!("hack/examples/{example}-loadtest"));
    for object in &mut objects {
        object["metadata"]["namespace"] = json!(env.namespace);
        for pod in [
            "/spec/template/spec",
            "/spec/jobTemplate/spec/template/spec",
        ] {
            if let Some(container) = object.pointer_mut(&format!("{pod}/containers/0"))
                && container["command"] == json!(["/kubectl-artillery"])
            {
                container["image"] = json!(image);
            }
        }
    }
    // `manifests` stops Deployments, and the target runs already.
    objects.retain(|object| object["kind"] != "Deployment");
    apply(&objects);
}

/// The tests of a namespace with their verdicts, the oldest first.
async fn verdicts(env: &TestEnv) -> Vec<(String, Option<Verdict>)> {
    let mut tests = env
        .api::<LoadTest>()
        .list(&ListParams::default())
        .await
        .unwrap()
        .items;
    tests.sort_by_key(|test| {
        (
            test.creation_timestamp().map(|time| time.0),
            test.name_any(),
        )
    });
    let verdict = |test: &LoadTest| test.status.as_ref().and_then(|status| status.verdict);
    tests
        .iter()
        .map(|test| (test.name_any(), verdict(test)))
        .collect()
}

/// Waits until a Job has succeeded.
async fn until_succeeded(env: &TestEnv, job: &str) {
    let jobs = env.api::<Job>();
    let succeeded = async || {
        let status = jobs.get(job).await.ok()?.status?;
        assert_ne!(
            status.failed,
            Some(1),
            "{}",
            kubectl(&["logs", "-n", &env.namespace, &format!("job/{job}")])
        );
        (status.succeeded == Some(1)).then_some(())
    };
    env.until("the Job has succeeded", succeeded).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nightly_example_runs_its_test_again_and_keeps_the_last_runs() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    apply_with_image(&env, "nightly").await;
    // Two instead of seven are kept, so that three runs suffice.
    let keeps = json!([{"op": "replace", "path": "/spec/jobTemplate/spec/template/spec/containers/0/args/3", "value": "2"}]);
    let patch = Patch::<()>::Json(serde_json::from_value(keeps).unwrap());
    env.api::<CronJob>()
        .patch("nightly-loadtest", &PatchParams::default(), &patch)
        .await
        .unwrap();
    for run in ["first", "second", "third"] {
        kubectl(&[
            "create",
            "job",
            run,
            "--from=cronjob/nightly-loadtest",
            "-n",
            &env.namespace,
        ]);
        until_succeeded(&env, run).await;
        println!(
            "{}",
            kubectl(&["logs", "-n", &env.namespace, &format!("job/{run}")])
        );
    }
    let passed = Some(Verdict::Passed);
    let expected = [
        ("nightly", None),
        ("nightly-2", passed),
        ("nightly-3", passed),
    ];
    let expected = expected.map(|(name, verdict)| (name.to_owned(), verdict));
    assert_eq!(verdicts(&env).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn argocd_example_passes_with_its_test() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    apply_with_image(&env, "argocd").await;
    until_succeeded(&env, "release-loadtest").await;
    let test = env.api::<LoadTest>().get("release-1").await.unwrap();
    assert_eq!(condition(&test, "Passed").0, "True");
    let annotation = test.annotations().get("loadtest.artillery.io/rerun-of");
    assert_eq!(annotation.map(String::as_str), Some("release"));
}

/// Tekton's own CRD validates the Task. It comes from Tekton's Go module.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tekton_task_is_accepted_by_the_crd_of_tekton() {
    let env = TestEnv::new(&cluster()).await;
    let folder = std::env::var("TEKTON")
        .expect("hack/test.sh sets TEKTON to the folder of Tekton's Go module");
    let crd = format!("{folder}/config/300-crds/300-task.yaml");
    kubectl(&["apply", "--server-side", "-f", &crd]);
    let crds: Api<CustomResourceDefinition> = Api::all(env.client.clone());
    await_condition(crds, "tasks.tekton.dev", conditions::is_crd_established())
        .await
        .unwrap();
    kubectl(&[
        "apply",
        "-n",
        &env.namespace,
        "--server-side",
        "--validate=strict",
        "-f",
        "hack/examples/tekton/task.yaml",
    ]);
    kubectl(&["delete", "crd", "tasks.tekton.dev"]);
}
