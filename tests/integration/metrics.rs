//! The metrics endpoint: its content, its authorization, and its protection against idle clients.

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use http::{Method, Request};
use http_body_util::BodyExt;
use k8s_openapi::api::authentication::v1::TokenRequest;
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding};
use kube::api::{Api, DeleteParams, PostParams};
use kube::client::Body;
use kube::{Client, Config};
use loadtest_api::v1alpha1::LoadTest;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::holding_proxy::HoldingProxy;
use crate::support::{TestEnv, control_plane, http_get};

/// Sends an HTTPS request like Prometheus, without verifying the certificate. Returns status and
/// body.
async fn https_request(
    port: u16,
    method: Method,
    path: &str,
    token: Option<&str>,
) -> (u16, String) {
    let mut config = Config::new(format!("https://127.0.0.1:{port}").parse().unwrap());
    config.accept_invalid_certs = true;
    config.default_retry = false;
    config.auth_info.token = token.map(|t| t.to_owned().into());
    let client = Client::try_from(config).unwrap();
    let request = Request::builder()
        .method(method)
        .uri(path)
        .body(Body::empty())
        .unwrap();
    let response = client.send(request).await.unwrap();
    let status = response.status().as_u16();
    let text = response.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

async fn scrape(port: u16, token: Option<&str>) -> u16 {
    https_request(port, Method::GET, "/metrics", token).await.0
}

/// Creates a service account and returns a token for it.
async fn service_account_token(env: &TestEnv, name: &str) -> String {
    env.create::<ServiceAccount>(json!({"metadata": {"name": name}}))
        .await;
    let accounts: Api<ServiceAccount> = env.api();
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}})).unwrap();
    let response = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .unwrap();
    response.status.unwrap().token
}

/// The permission of a service account to read metrics. It is cluster-scoped, so deleting the
/// namespace does not remove it.
struct MetricsPermission {
    client: Client,
    name: String,
}

impl MetricsPermission {
    async fn grant(env: &TestEnv, account: &str) -> Self {
        let name = format!("{}-{account}", env.namespace);
        let permission = Self {
            client: env.client.clone(),
            name,
        };
        let role: ClusterRole =
            serde_json::from_value(json!({"metadata": {"name": permission.name},
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}))
            .unwrap();
        let binding: ClusterRoleBinding = serde_json::from_value(json!({"metadata": {"name": permission.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": permission.name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": env.namespace}]}))
        .unwrap();
        Api::<ClusterRole>::all(env.client.clone())
            .create(&PostParams::default(), &role)
            .await
            .unwrap();
        Api::<ClusterRoleBinding>::all(env.client.clone())
            .create(&PostParams::default(), &binding)
            .await
            .unwrap();
        permission
    }

    async fn revoke(self) {
        let params = DeleteParams::default();
        Api::<ClusterRoleBinding>::all(self.client.clone())
            .delete(&self.name, &params)
            .await
            .unwrap();
        Api::<ClusterRole>::all(self.client)
            .delete(&self.name, &params)
            .await
            .unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_require_an_authorized_token() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&["--metrics-secure"]).await;
    let port = env.operator(0).metrics;
    let unauthorized = service_account_token(&env, "unauthorized").await;
    let reader = service_account_token(&env, "reader").await;
    let permission = MetricsPermission::grant(&env, "reader").await;

    assert_eq!(scrape(port, None).await, 401);
    assert_eq!(scrape(port, Some("nonsense")).await, 401);
    let (head, tail) = reader.split_at(reader.len() - 10);
    assert_eq!(
        scrape(port, Some(&format!("{head}AAAAAAAAAA"))).await,
        401,
        "invalid signature in place of {tail}"
    );
    assert_eq!(scrape(port, Some(&unauthorized)).await, 403);
    // The API server's authorizer sees the new binding after a moment, and the operator caches a
    // denial for 10 s.
    env.until("the permission is effective", async || {
        (scrape(port, Some(&reader)).await == 200).then_some(())
    })
    .await;

    let start = Instant::now();
    let (status, text) = https_request(port, Method::GET, "/metrics", Some(&reader)).await;
    assert_eq!(status, 200);
    assert!(text.contains("artillery_operator_leader 1"), "{text}");
    assert!(start.elapsed() < Duration::from_secs(2));
    let first = sample(
        &text,
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"tokenreviews\",code=\"201\"}",
    );
    let text = https_request(port, Method::GET, "/metrics", Some(&reader))
        .await
        .1;
    let second = sample(
        &text,
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"tokenreviews\",code=\"201\"}",
    );
    assert!(
        (first - second).abs() < 0.1,
        "the review of the token is cached"
    );

    assert_eq!(https_request(port, Method::GET, "/", None).await.0, 404);
    assert_eq!(
        https_request(port, Method::POST, "/metrics", Some(&reader))
            .await
            .0,
        405
    );
    assert_eq!(
        https_request(port, Method::HEAD, "/metrics", Some(&reader)).await,
        (200, String::new())
    );
    assert!(
        http_get(port, "/metrics").await.is_none(),
        "plain HTTP is not served"
    );
    permission.revoke().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_are_unavailable_while_tokens_cannot_be_reviewed() {
    let direct = TestEnv::new(control_plane()).await;
    let reader = service_account_token(&direct, "reader").await;
    let permission = MetricsPermission::grant(&direct, "reader").await;
    let proxy = HoldingProxy::start(direct.client.clone(), |_, path| {
        path.ends_with("/tokenreviews")
    })
    .await;
    let mut env = TestEnv::adopt(&proxy.kubeconfig(), &direct.namespace).await;
    env.start_operator(&["--metrics-secure"]).await;
    let port = env.operator(0).metrics;
    let start = Instant::now();
    assert_eq!(scrape(port, Some(&reader)).await, 503);
    assert!(
        start.elapsed() < Duration::from_secs(9),
        "the response precedes Prometheus' timeout of 10 s: {:?}",
        start.elapsed()
    );
    let start = Instant::now();
    assert_eq!(scrape(port, Some(&reader)).await, 503);
    assert!(
        start.elapsed() < Duration::from_millis(900),
        "a failed review delays the next one"
    );
    assert_eq!(
        scrape(port, None).await,
        401,
        "a request without a token needs no review"
    );
    proxy.release().await;
    env.until("the metrics are served again", async || {
        (scrape(port, Some(&reader)).await == 200).then_some(())
    })
    .await;
    permission.revoke().await;
}

/// Returns the value of a series.
fn sample(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}"))
        .parse()
        .unwrap()
}

#[track_caller]
fn assert_lines(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "no {line} in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metrics_count_the_phases_and_requests_of_a_test() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    let port = env.operator(0).metrics;
    env.load_test("counted", 2).await;
    let pods = env.pods("counted", 2).await;
    for pod in &pods {
        env.set_running(pod).await;
    }
    env.until_phase("counted", "Running").await;
    for pod in &pods {
        env.set_exited(pod, 0, "").await;
    }
    env.until_phase("counted", "Completed").await;
    let text = env
        .until("the last reconcile has finished", async || {
            let text = http_get(port, "/metrics").await?.1;
            // The watch may show the final status before the operator has received the response to
            // its write.
            let is_idle = text.contains("artillery_operator_reconciles_in_flight 0\n");
            (is_idle && text.contains("artillery_operator_loadtests{phase=\"Completed\"} 1"))
                .then_some(text)
        })
        .await;
    assert_lines(
        &text,
        &[
            "artillery_operator_loadtests{phase=\"New\"} 0",
            "artillery_operator_loadtests{phase=\"Running\"} 0",
            "artillery_operator_phase_changes_total{phase=\"Pending\"} 0",
            "artillery_operator_phase_changes_total{phase=\"Starting\"} 1",
            "artillery_operator_phase_changes_total{phase=\"Running\"} 1",
            "artillery_operator_phase_changes_total{phase=\"Completed\"} 1",
            "artillery_operator_phase_changes_total{phase=\"Failed\"} 0",
            "artillery_operator_time_to_job_seconds_count 1",
            "artillery_operator_time_to_running_seconds_count 1",
            "artillery_operator_api_requests_total{verb=\"create\",resource=\"jobs\",code=\"201\"} 1",
            "artillery_operator_api_requests_total{verb=\"create\",resource=\"events\",code=\"201\"} 4",
            "artillery_operator_unreadable_loadtests_total 0",
            "artillery_operator_leader 1",
        ],
    );
    for line in text
        .lines()
        .filter(|l| l.starts_with("artillery_operator_reconcile_errors_total{class="))
    {
        // A concurrent change of the test is not an error.
        assert!(line.ends_with(" 0") || line.contains("conflict"), "{line}");
    }
    assert!((0.0..60.0).contains(&sample(
        &text,
        "artillery_operator_time_to_running_seconds_sum"
    )));
    assert!((1e6..1e9).contains(&sample(&text, "process_resident_memory_bytes")));
    assert!((3.0..100.0).contains(&sample(&text, "process_open_fds")));
    assert!(sample(&text, "process_cpu_seconds_total") < 60.0);
    check_with_promtool(&text).await;

    env.delete::<LoadTest>("counted").await;
    env.until("the deleted test is no longer counted", async || {
        http_get(port, "/metrics")
            .await?
            .1
            .contains("artillery_operator_loadtests{phase=\"Completed\"} 0")
            .then_some(())
    })
    .await;
}

/// Checks names, types and help texts with promtool, if it is installed.
async fn check_with_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = tokio::process::Command::from(command).spawn() else {
        eprintln!(
            "promtool is not installed (Debian: prometheus), so it did not check the metrics"
        );
        return;
    };
    child
        .stdin
        .take()
        .unwrap()
        .write_all(text.as_bytes())
        .await
        .unwrap();
    let output = child.wait_with_output().await.unwrap();
    let messages = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    // prometheus-client cannot encode summaries, so the quantiles of finished tests are gauges.
    let expected = ["response_time", "arrival_delay"].map(|name| {
        format!("artillery_operator_loadtest_{name}_seconds non-summary metrics should not have \"quantile\" label")
    });
    let others: Vec<_> = messages
        .lines()
        .filter(|line| !expected.iter().any(|e| e == line) && !line.trim().is_empty())
        .collect();
    assert!(
        others.is_empty(),
        "promtool printed:\n{others:#?}\nfor:\n{text}"
    );
}

/// Connects from the loopback address 127.0.0.`from`.
async fn connect_from(from: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, from], 0)))
        .unwrap();
    socket
        .connect(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
        .unwrap()
}

/// Whether the server closes the connection within `within`.
async fn closes(stream: &mut TcpStream, within: Duration) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(within, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn idle_and_slow_connections_do_not_block_other_clients() {
    let mut env = TestEnv::new(control_plane()).await;
    env.start_operator(&["--metrics-secure"]).await;
    let (probes, metrics) = (env.operator(0).probes, env.operator(0).metrics);
    for port in [probes, metrics] {
        let start = Instant::now();
        let mut idle = Vec::new();
        for from in 10..18 {
            for _ in 0..20 {
                idle.push(connect_from(from, port).await);
            }
        }
        if port == probes {
            assert_eq!(http_get(port, "/healthz").await.unwrap().0, 200);
        } else {
            assert_eq!(scrape(port, None).await, 401);
        }
        assert!(
            start.elapsed() < Duration::from_secs(4),
            "{:?}",
            start.elapsed()
        );
        for mut stream in idle {
            assert!(
                closes(&mut stream, Duration::from_secs(8)).await,
                "an idle connection is closed"
            );
        }
    }
    // Neither slow bytes nor an endless request head keep a connection open.
    let mut slow = connect_from(3, probes).await;
    let start = Instant::now();
    while slow.write_all(b"G").await.is_ok() && start.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        start.elapsed() < Duration::from_secs(8),
        "{:?}",
        start.elapsed()
    );
    let mut long = connect_from(3, probes).await;
    let _ = long
        .write_all(format!("GET / HTTP/1.1\r\na: {}", "x".repeat(64 * 1024)).as_bytes())
        .await;
    assert!(closes(&mut long, Duration::from_secs(4)).await);
    assert_eq!(http_get(probes, "/healthz").await.unwrap().0, 200);
}
