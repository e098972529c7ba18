//! `kubectl artillery` against the API server: lost connections, missing permissions, and the check that it shares with the operator.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{Role, RoleBinding};
use kube::api::PostParams;
use kube::config::Kubeconfig;
use loadtest_api::v1alpha1::{LoadTest, LoadTestStatus};
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::Command;
use tokio::sync::watch;

use crate::support::process::{LogFile, Operator, plugin};
use crate::support::{DEADLINE, TestEnv, control_plane};

/// Starts `kubectl artillery`. Its output is the log of the process.
fn artillery(kubeconfig: &Path, env: &TestEnv, args: &[&str]) -> Operator {
    let mut command = Command::new(plugin());
    command
        .env("KUBECONFIG", kubeconfig)
        .args(args)
        .args(["-n", &env.namespace]);
    Operator::spawn(command, LogFile::new())
}

/// The kubeconfig of the control plane, changed and written to a file.
fn kubeconfig(env: &TestEnv, change: impl FnOnce(&mut Value)) -> PathBuf {
    let config = Kubeconfig::read_from(control_plane()).unwrap();
    let mut config = serde_json::to_value(config).unwrap();
    change(&mut config);
    let file = std::env::temp_dir().join(format!("command-line-{}.kubeconfig", env.namespace));
    std::fs::write(&file, config.to_string()).unwrap();
    file
}

/// An API server that can be stopped and started: connections are closed while it is stopped.
async fn interruptible(address: String) -> (u16, watch::Sender<bool>) {
    let (sender, receiver) = watch::channel(true);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let address = Arc::new(address);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let (mut runs, address) = (receiver.clone(), address.clone());
            tokio::spawn(async move {
                if !*runs.borrow() {
                    return;
                }
                let mut server = TcpStream::connect(&*address).await.unwrap();
                tokio::select! {
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                    _ = runs.wait_for(|runs| !runs) => {}
                }
            });
        }
    });
    (port, sender)
}

async fn until_printed(env: &TestEnv, process: &Operator, text: &str) {
    let is_printed = async || process.log().contains(text).then_some(());
    let printed = tokio::time::timeout(DEADLINE, env.until(text, is_printed)).await;
    assert!(printed.is_ok(), "{text} is not printed:\n{}", process.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_survives_a_restart_of_the_api_server_and_reports_it() {
    let env = TestEnv::with_operator(control_plane()).await;
    let config = Kubeconfig::read_from(control_plane()).unwrap();
    let cluster = config.clusters[0].cluster.as_ref().unwrap();
    let address = cluster
        .server
        .as_deref()
        .unwrap()
        .trim_start_matches("https://");
    let (port, server) = interruptible(address.to_owned()).await;
    let file = kubeconfig(&env, |config| {
        config["clusters"][0]["cluster"]["server"] = json!(format!("https://127.0.0.1:{port}"));
    });
    env.load_test("followed", 1).await;
    let pods = env.pods("followed", 1).await;
    env.set_running(&pods[0]).await;
    let mut watching = artillery(&file, &env, &["watch", "followed"]);
    until_printed(&env, &watching, "  Running ").await;
    server.send(false).unwrap();
    until_printed(&env, &watching, "Connection to the API server lost").await;
    server.send(true).unwrap();
    until_printed(&env, &watching, "Connection to the API server restored.").await;
    env.set_exited(&pods[0], 0, "").await;
    assert_eq!(watching.wait().await.code(), Some(0), "{}", watching.log());
    assert!(watching.log().contains("\nPassed: "), "{}", watching.log());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn watch_without_permission_for_pods_names_what_is_missing_and_goes_on() {
    let env = TestEnv::with_operator(control_plane()).await;
    let user = json!({"metadata": {"name": "reader"}});
    env.create::<ServiceAccount>(user).await;
    env.create::<Role>(json!({"metadata": {"name": "reader"}, "rules": [
        {"apiGroups": ["loadtest.artillery.io"], "resources": ["loadtests"], "verbs": ["get", "list", "watch"]}]}))
        .await;
    env.create::<RoleBinding>(json!({"metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "name": "reader", "namespace": env.namespace}]}))
        .await;
    let request = TokenRequest {
        spec: TokenRequestSpec {
            expiration_seconds: Some(3600),
            ..TokenRequestSpec::default()
        },
        ..TokenRequest::default()
    };
    let accounts = env.api::<ServiceAccount>();
    let token = accounts
        .create_token_request("reader", &PostParams::default(), &request)
        .await
        .unwrap();
    let token = token.status.unwrap().token;
    let file = kubeconfig(&env, |config| {
        for user in config["users"].as_array_mut().unwrap() {
            user["user"] = json!({"token": token});
        }
    });
    env.load_test("read", 1).await;
    let pods = env.pods("read", 1).await;
    env.set_running(&pods[0]).await;
    env.until_phase("read", "Running").await;
    let mut watching = artillery(&file, &env, &["watch", "read"]);
    let note = format!("Note: Cannot watch pods in namespace {}", env.namespace);
    until_printed(&env, &watching, &note).await;
    env.set_exited(&pods[0], 0, "").await;
    assert_eq!(watching.wait().await.code(), Some(0), "{}", watching.log());
}

/// What `validate` reports of a script is what the operator reports of the test.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn validate_reports_what_the_operator_reports() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&[]).await;
    let scripts = [
        (
            "key",
            "config: {target: 'http://t', phazes: []}\nscenarios: [{flow: [{get: {url: /}}]}]\n",
        ),
        ("syntax", "config:\n  target: [\n"),
        ("empty", "# nothing\n"),
        (
            "nothing-to-run",
            "config: {target: 'http://t'}\nscenarios: []\n",
        ),
        (
            "environment",
            "config: {target: 'http://t', environments: {dev: {}}}\nscenarios: [{flow: [{get: {url: /}}]}]\n",
        ),
    ];
    for (name, script) in scripts {
        let spec = json!({"environment": "prod", "testScript": {"inline": script}});
        let object = json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": name}, "spec": spec});
        let file = std::env::temp_dir().join(format!("{}-{name}.json", env.namespace));
        std::fs::write(&file, object.to_string()).unwrap();
        let mut checking = artillery(
            control_plane(),
            &env,
            &["validate", "-o", "json", file.to_str().unwrap()],
        );
        assert_eq!(checking.wait().await.code(), Some(1), "{}", checking.log());
        let findings: Value = serde_json::from_str(&checking.log()).unwrap();
        let message = findings[0]["message"].as_str().unwrap().to_owned();
        env.load_test_with(name, 1, spec).await;
        let progressing = |test: &LoadTest| {
            test.status
                .as_ref()
                .and_then(LoadTestStatus::progressing)
                .cloned()
        };
        let is_invalid = |test: &LoadTest| {
            progressing(test).is_some_and(|one| one.reason == "InvalidTestScript")
        };
        let test = env
            .until_test(name, "the script is reported", is_invalid)
            .await;
        let reported = progressing(&test).unwrap().message;
        assert!(reported.contains(&message), "{reported}\n{message}");
    }
}
