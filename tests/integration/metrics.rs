//! The metrics: what they tell, to whom, and what a client can do against it.

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

use crate::proxy::Proxy;
use crate::support::{Bed, control_plane, http_get};

/// Asks for something by HTTPS, as Prometheus does: without a look at the certificate.
async fn ask(port: u16, method: Method, path: &str, token: Option<&str>) -> (u16, String) {
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
    let answer = client.send(request).await.unwrap();
    let status = answer.status().as_u16();
    let text = answer.into_body().collect().await.unwrap().to_bytes();
    (status, String::from_utf8(text.to_vec()).unwrap())
}

async fn scrape(port: u16, token: Option<&str>) -> u16 {
    ask(port, Method::GET, "/metrics", token).await.0
}

/// A token of a new service account.
async fn token(bed: &Bed, name: &str) -> String {
    bed.create::<ServiceAccount>(json!({"metadata": {"name": name}}))
        .await;
    let accounts: Api<ServiceAccount> = bed.api();
    let request: TokenRequest = serde_json::from_value(json!({"spec": {"audiences": []}})).unwrap();
    let made = accounts
        .create_token_request(name, &PostParams::default(), &request)
        .await
        .unwrap();
    made.status.unwrap().token
}

/// A right of a service account to read metrics. It is of the whole cluster, so it has to be taken back.
struct Right {
    client: Client,
    name: String,
}

impl Right {
    async fn give(bed: &Bed, account: &str) -> Self {
        let name = format!("{}-{account}", bed.namespace);
        let right = Self {
            client: bed.client.clone(),
            name,
        };
        let role: ClusterRole = serde_json::from_value(json!({"metadata": {"name": right.name},
            "rules": [{"nonResourceURLs": ["/metrics"], "verbs": ["get"]}]}))
        .unwrap();
        let binding: ClusterRoleBinding = serde_json::from_value(json!({"metadata": {"name": right.name},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": right.name},
            "subjects": [{"kind": "ServiceAccount", "name": account, "namespace": bed.namespace}]}))
        .unwrap();
        Api::<ClusterRole>::all(bed.client.clone())
            .create(&PostParams::default(), &role)
            .await
            .unwrap();
        Api::<ClusterRoleBinding>::all(bed.client.clone())
            .create(&PostParams::default(), &binding)
            .await
            .unwrap();
        right
    }

    async fn take_back(self) {
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
async fn only_who_may_reads_the_metrics() {
    let mut bed = Bed::new(control_plane()).await;
    bed.start_operator(&["--metrics-secure"]).await;
    let port = bed.operator(0).metrics;
    let (stranger, reader) = (token(&bed, "stranger").await, token(&bed, "reader").await);
    let right = Right::give(&bed, "reader").await;

    assert_eq!(scrape(port, None).await, 401);
    assert_eq!(scrape(port, Some("nonsense")).await, 401);
    let (head, tail) = reader.split_at(reader.len() - 10);
    assert_eq!(
        scrape(port, Some(&format!("{head}AAAAAAAAAA"))).await,
        401,
        "a bad signature instead of {tail}"
    );
    assert_eq!(scrape(port, Some(&stranger)).await, 403);
    // Given a moment ago, a right is seen by the API server a moment later, and a refusal is remembered for 10 s.
    bed.until("the right is seen", async || {
        (scrape(port, Some(&reader)).await == 200).then_some(())
    })
    .await;

    let begun = Instant::now();
    let (status, text) = ask(port, Method::GET, "/metrics", Some(&reader)).await;
    assert_eq!(status, 200);
    assert!(text.contains("artillery_operator_leader 1"), "{text}");
    assert!(begun.elapsed() < Duration::from_secs(2));
    let asked = value(
        &text,
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"tokenreviews\",code=\"201\"}",
    );
    let text = ask(port, Method::GET, "/metrics", Some(&reader)).await.1;
    let then = value(
        &text,
        "artillery_operator_api_requests_total{verb=\"create\",resource=\"tokenreviews\",code=\"201\"}",
    );
    assert!(
        (asked - then).abs() < 0.1,
        "the answer of the API server is remembered"
    );

    assert_eq!(ask(port, Method::GET, "/", None).await.0, 404);
    assert_eq!(
        ask(port, Method::POST, "/metrics", Some(&reader)).await.0,
        405
    );
    assert_eq!(
        ask(port, Method::HEAD, "/metrics", Some(&reader)).await,
        (200, String::new())
    );
    assert!(
        http_get(port, "/metrics").await.is_none(),
        "not without TLS"
    );
    right.take_back().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_the_api_server_does_not_answer_nobody_reads_them() {
    let direct = Bed::new(control_plane()).await;
    let reader = token(&direct, "reader").await;
    let right = Right::give(&direct, "reader").await;
    let proxy = Proxy::start(direct.client.clone(), |_, path| {
        path.ends_with("/tokenreviews")
    })
    .await;
    let mut bed = Bed::adopt(&proxy.kubeconfig(), &direct.namespace).await;
    bed.start_operator(&["--metrics-secure"]).await;
    let port = bed.operator(0).metrics;
    let begun = Instant::now();
    assert_eq!(scrape(port, Some(&reader)).await, 503);
    assert!(
        begun.elapsed() < Duration::from_secs(9),
        "Prometheus itself would give up after 10 s: {:?}",
        begun.elapsed()
    );
    let again = Instant::now();
    assert_eq!(scrape(port, Some(&reader)).await, 503);
    assert!(
        again.elapsed() < Duration::from_millis(900),
        "the API server is left alone for a moment"
    );
    assert_eq!(
        scrape(port, None).await,
        401,
        "for which nobody has to be asked"
    );
    proxy.release().await;
    bed.until("it is served again", async || {
        (scrape(port, Some(&reader)).await == 200).then_some(())
    })
    .await;
    right.take_back().await;
}

/// The value of a series.
fn value(text: &str, series: &str) -> f64 {
    let line = text
        .lines()
        .find_map(|l| l.strip_prefix(series)?.strip_prefix(' '));
    line.unwrap_or_else(|| panic!("no {series} in:\n{text}"))
        .parse()
        .unwrap()
}

#[track_caller]
fn has(text: &str, lines: &[&str]) {
    for line in lines {
        assert!(text.lines().any(|l| l == *line), "{line} in:\n{text}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn they_tell_what_happened_to_a_test() {
    let mut bed = Bed::with_operator(control_plane()).await;
    let port = bed.operator(0).metrics;
    bed.load_test("counted", 2).await;
    let pods = bed.pods("counted", 2).await;
    for pod in &pods {
        bed.set_running(pod).await;
    }
    bed.until_phase("counted", "Running").await;
    for pod in &pods {
        bed.set_exited(pod, 0, "").await;
    }
    bed.until_phase("counted", "Completed").await;
    let text = bed
        .until("the last reconcile is counted", async || {
            let text = http_get(port, "/metrics").await?.1;
            // The watch may show the end before the operator has the answer to its write of it.
            let is_quiet = text.contains("artillery_operator_reconciles_in_flight 0\n");
            (is_quiet && text.contains("artillery_operator_loadtests{phase=\"Completed\"} 1"))
                .then_some(text)
        })
        .await;
    has(
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
        // Somebody else may change the test in between, which is no fault.
        assert!(line.ends_with(" 0") || line.contains("conflict"), "{line}");
    }
    assert!((0.0..60.0).contains(&value(
        &text,
        "artillery_operator_time_to_running_seconds_sum"
    )));
    assert!((1e6..1e9).contains(&value(&text, "process_resident_memory_bytes")));
    assert!((3.0..100.0).contains(&value(&text, "process_open_fds")));
    assert!(value(&text, "process_cpu_seconds_total") < 60.0);
    check_by_promtool(&text).await;

    bed.delete::<LoadTest>("counted").await;
    bed.until("the test is not counted any more", async || {
        http_get(port, "/metrics")
            .await?
            .1
            .contains("artillery_operator_loadtests{phase=\"Completed\"} 0")
            .then_some(())
    })
    .await;
}

/// Prometheus' own checker of names, types and help, where it is installed.
async fn check_by_promtool(text: &str) {
    let mut command = Command::new("promtool");
    command
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let Ok(mut child) = tokio::process::Command::from(command).spawn() else {
        eprintln!(
            "promtool is not installed (Debian: prometheus), so the metrics were not checked by it"
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
    let said = String::from_utf8_lossy(&output.stderr).into_owned()
        + &String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.trim().is_empty(),
        "promtool says:\n{said}\nof:\n{text}"
    );
}

/// A connection from one of the loopback's addresses.
async fn connect(from: u8, port: u16) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket
        .bind(SocketAddr::from(([127, 0, 0, from], 0)))
        .unwrap();
    socket
        .connect(SocketAddr::from(([127, 0, 0, 1], port)))
        .await
        .unwrap()
}

/// Whether the other side hangs up within a time.
async fn ends(stream: &mut TcpStream, within: Duration) -> bool {
    let mut rest = Vec::new();
    tokio::time::timeout(within, stream.read_to_end(&mut rest))
        .await
        .is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_hold_on_to_connections_keep_nobody_out() {
    let mut bed = Bed::new(control_plane()).await;
    bed.start_operator(&["--metrics-secure"]).await;
    let (probes, metrics) = (bed.operator(0).probes, bed.operator(0).metrics);
    for port in [probes, metrics] {
        let begun = Instant::now();
        let mut idle = Vec::new();
        for from in 10..18 {
            for _ in 0..20 {
                idle.push(connect(from, port).await);
            }
        }
        if port == probes {
            assert_eq!(http_get(port, "/healthz").await.unwrap().0, 200);
        } else {
            assert_eq!(scrape(port, None).await, 401);
        }
        assert!(
            begun.elapsed() < Duration::from_secs(4),
            "{:?}",
            begun.elapsed()
        );
        for mut stream in idle {
            assert!(
                ends(&mut stream, Duration::from_secs(8)).await,
                "an idle connection stays open"
            );
        }
    }
    // Bytes that trickle in do not keep one open either, nor does a head without an end.
    let mut slow = connect(3, probes).await;
    let begun = Instant::now();
    while slow.write_all(b"G").await.is_ok() && begun.elapsed() < Duration::from_secs(10) {
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert!(
        begun.elapsed() < Duration::from_secs(8),
        "{:?}",
        begun.elapsed()
    );
    let mut long = connect(3, probes).await;
    let _ = long
        .write_all(format!("GET / HTTP/1.1\r\na: {}", "x".repeat(64 * 1024)).as_bytes())
        .await;
    assert!(ends(&mut long, Duration::from_secs(4)).await);
    assert_eq!(http_get(probes, "/healthz").await.unwrap().0, 200);
}
