//! Results of running workers. The workers are HTTP servers on addresses of the loopback interface, which are those of their pods.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Patch, PatchParams};
use loadtest_api::labels::PROBE_PORT;
use loadtest_api::v1alpha1::{LoadTest, Results};
use loadtest_results::testing::message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::support::{TestEnv, condition, control_plane};

/// How a worker responds.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Behavior {
    Normal,
    /// Accepts connections and never responds.
    Silent,
    /// One byte per second.
    Slow,
    /// A response without end.
    Endless,
    Garbage,
    /// The response of another pod.
    OtherPod,
    Redirect,
    ManyMetrics,
}

/// A worker that sends 10 requests per second and reports as much.
struct Worker {
    requests: Arc<AtomicU32>,
    /// Milliseconds of each response.
    latency: Arc<AtomicU32>,
    asked: Arc<AtomicUsize>,
    server: JoinHandle<()>,
    counter: JoinHandle<()>,
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.server.abort();
        self.counter.abort();
    }
}

/// Addresses that no other test uses.
fn address() -> Ipv4Addr {
    static NEXT: AtomicU8 = AtomicU8::new(1);
    let process = std::process::id() % 200;
    Ipv4Addr::new(
        127,
        u8::try_from(process).unwrap() + 20,
        1,
        NEXT.fetch_add(1, Ordering::Relaxed),
    )
}

impl Worker {
    /// Serves the results of a pod, and gives the pod its address.
    async fn start(env: &TestEnv, pod: &Pod, behavior: Behavior) -> Self {
        let (address, name) = (address(), pod.name_any());
        let listener = TcpListener::bind((address, PROBE_PORT)).await.unwrap();
        let (requests, latency, asked) = (
            Arc::<AtomicU32>::default(),
            Arc::new(AtomicU32::new(20)),
            Arc::<AtomicUsize>::default(),
        );
        let sent = requests.clone();
        let counter = tokio::spawn(async move {
            loop {
                tokio::time::sleep(Duration::from_millis(100)).await;
                sent.fetch_add(1, Ordering::Relaxed);
            }
        });
        let (sent, ms, connections) = (requests.clone(), latency.clone(), asked.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (sent, ms) = (sent.load(Ordering::Relaxed), ms.load(Ordering::Relaxed));
                tokio::spawn(respond(stream, name.clone(), behavior, sent, ms));
            }
        });
        env.set_running(pod).await;
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
        env.api::<Pod>()
            .patch_status(
                &pod.name_any(),
                &PatchParams::default(),
                &Patch::Merge(status),
            )
            .await
            .unwrap();
        Self {
            requests,
            latency,
            asked,
            server,
            counter,
        }
    }

    fn sent(&self) -> i64 {
        self.requests.load(Ordering::Relaxed).into()
    }
}

/// A snapshot with so many requests, all of which took `ms`.
fn snapshot(requests: u32, ms: u32, more: &str) -> String {
    let key = (f64::from(ms).ln() / (1.01_f64 / 0.99).ln()).ceil();
    message(&format!(
        r#"{{"start":1000,"first":1000,"last":9000,"counters":{{"vusers.created":{requests},"http.requests":{requests},"http.responses":{requests}{more}}},
        "histograms":{{"http.response_time":[0,{ms},{ms},{},0,[{key},{requests}],[]]}}}}"#,
        u64::from(requests) * u64::from(ms)
    ))
}

async fn respond(mut stream: TcpStream, pod: String, behavior: Behavior, requests: u32, ms: u32) {
    let mut request = [0; 1024];
    let _ = stream.read(&mut request).await;
    let pod = if behavior == Behavior::OtherPod {
        "other"
    } else {
        &pod
    };
    let body = match behavior {
        Behavior::Garbage => "loadtest.v1 %%%".to_owned(),
        Behavior::ManyMetrics => {
            let many = (0..100_000).fold(String::new(), |many, i| many + &format!(",\"m{i}\":1"));
            snapshot(requests, ms, &many)
        }
        _ => snapshot(requests, ms, ""),
    };
    let length = if behavior == Behavior::Endless {
        1 << 30
    } else {
        body.len()
    };
    let status = if behavior == Behavior::Redirect {
        "302 Found\r\nlocation: http://127.0.0.1:1/"
    } else {
        "200 OK"
    };
    let head = format!(
        "HTTP/1.1 {status}\r\nloadtest-pod: {pod}\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n"
    );
    match behavior {
        Behavior::Silent => tokio::time::sleep(Duration::from_secs(600)).await,
        Behavior::Slow => {
            for byte in format!("{head}{body}").bytes() {
                if stream.write_all(&[byte]).await.is_err() {
                    return;
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Behavior::Endless => {
            let _ = stream.write_all(head.as_bytes()).await;
            while stream.write_all(&[b'x'; 8192]).await.is_ok() {}
        }
        _ => {
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    }
}

fn results(test: &LoadTest) -> Option<&Results> {
    test.status.as_ref()?.results.as_deref()
}

async fn until_live(
    env: &TestEnv,
    name: &str,
    what: &str,
    check: impl Fn(&Results) -> bool,
) -> LoadTest {
    env.until_test(name, what, |test| results(test).is_some_and(&check))
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn results_of_running_workers_are_shown_and_add_up_to_the_final_ones() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("live", 2, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("live", 2).await;
    let workers = [
        Worker::start(&env, &pods[0], Behavior::Normal).await,
        Worker::start(&env, &pods[1], Behavior::Normal).await,
    ];
    let first = until_live(&env, "live", "live results", |r| r.live && r.requests > 0).await;
    let shown = results(&first).unwrap();
    assert_eq!(shown.workers_reporting, "2 of 2");
    assert!(shown.as_of.is_some() && shown.p95.is_some());
    assert!(first.status.as_ref().unwrap().verdict.is_none());
    let requests = shown.requests;
    until_live(&env, "live", "newer results", |r| r.requests > requests).await;

    // Another process continues the series.
    env.operator(0).terminate().await;
    env.start_operator(&[]).await;
    let before = results(&env.api::<LoadTest>().get("live").await.unwrap())
        .unwrap()
        .clone();
    let later = until_live(&env, "live", "results after a restart", |r| {
        r.as_of > before.as_of
    })
    .await;
    let series = results(&later).unwrap().series.clone().unwrap();
    let recorded = before.series.unwrap();
    assert!(
        series.requests.starts_with(&recorded.requests),
        "{series:?} {recorded:?}"
    );

    let sent = [workers[0].sent(), workers[1].sent()].map(|sent| u32::try_from(sent).unwrap());
    for (pod, sent) in pods.iter().zip(sent) {
        env.set_exited(
            pod,
            0,
            &snapshot(sent, 20, "").replace("{\"start\"", "{\"final\":true,\"start\""),
        )
        .await;
    }
    let ended = env.until_phase("live", "Completed").await;
    let ended = results(&ended).unwrap();
    assert!(!ended.live && ended.as_of.is_none());
    let series = ended.series.clone().unwrap();
    assert_eq!(ended.requests, i64::from(sent[0] + sent[1]));
    assert_eq!(series.requests.iter().sum::<i64>(), ended.requests);
    assert_eq!(
        series.vusers_created.iter().sum::<i64>(),
        ended.vusers_created
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_workers_affect_only_their_own_contribution() {
    let env = TestEnv::with_operator(control_plane()).await;
    let behaviors = [
        Behavior::Normal,
        Behavior::Silent,
        Behavior::Slow,
        Behavior::Endless,
        Behavior::Garbage,
        Behavior::OtherPod,
        Behavior::Redirect,
        Behavior::ManyMetrics,
    ];
    let count = i32::try_from(behaviors.len()).unwrap();
    env.load_test_with("hostile", count, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("hostile", behaviors.len()).await;
    let mut workers = Vec::new();
    for (pod, behavior) in pods.iter().zip(behaviors) {
        workers.push(Worker::start(&env, pod, behavior).await);
    }
    let shown = until_live(&env, "hostile", "live results", |r| r.requests > 0).await;
    let shown = results(&shown).unwrap();
    assert_eq!(shown.workers_reporting, "1 of 8");
    assert!(shown.requests <= workers[0].sent(), "{}", shown.requests);
    for worker in &workers {
        assert!(worker.asked.load(Ordering::Relaxed) >= 1);
    }
    for pod in &pods {
        env.set_exited(pod, 0, "").await;
    }
    env.until_phase("hostile", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn workers_that_cannot_be_read_are_reported_and_run_to_their_end() {
    let env = TestEnv::with_operator(control_plane()).await;
    env.load_test_with("closed", 1, json!({"start": "Immediate"}))
        .await;
    let pods = env.pods("closed", 1).await;
    let worker = Worker::start(&env, &pods[0], Behavior::Normal).await;
    drop(worker);
    let reported = env
        .until_test("closed", "that the worker cannot be read", |test| {
            let conditions = test.status.iter().flat_map(|s| &s.conditions);
            conditions
                .into_iter()
                .any(|c| c.type_ == "LiveResultsAvailable")
        })
        .await;
    let (status, reason, message) = condition(&reported, "LiveResultsAvailable");
    assert_eq!(
        (status.as_str(), reason.as_str()),
        ("False", "WorkersUnreachable")
    );
    assert!(
        message.contains("port 8899: Connection refused"),
        "{message}"
    );
    env.set_exited(&pods[0], 0, "").await;
    let ended = env.until_phase("closed", "Completed").await;
    let conditions = &ended.status.as_ref().unwrap().conditions;
    assert!(conditions.iter().all(|c| c.type_ != "LiveResultsAvailable"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_test_whose_abort_condition_holds_is_ended_with_the_value() {
    let env = TestEnv::with_operator(control_plane()).await;
    let abort = json!([{"when": "http.response_time.p99 > 500"}]);
    env.load_test_with("slow", 1, json!({"start": "Immediate", "abort": abort}))
        .await;
    let pods = env.pods("slow", 1).await;
    let worker = Worker::start(&env, &pods[0], Behavior::Normal).await;
    until_live(&env, "slow", "live results", |r| r.live).await;
    worker.latency.store(2000, Ordering::Relaxed);
    let stopping = env.until_phase("slow", "Stopping").await;
    let (_, reason, message) = condition(&stopping, "Progressing");
    assert_eq!(reason, "AbortConditionMet");
    assert!(
        message.contains("http.response_time.p99 > 500") && message.contains("p99 is 2"),
        "{message}"
    );
    let ended = env.until_phase("slow", "Failed").await;
    assert_eq!(condition(&ended, "Failed").1, "AbortConditionMet");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_condition_without_live_results_keeps_the_test_from_starting() {
    let env = TestEnv::with_operator(control_plane()).await;
    for (name, spec, problem) in [
        (
            "off",
            json!({"liveResults": false, "abort": [{"when": "http.requests > 1"}]}),
            "needs live results",
        ),
        (
            "invalid",
            json!({"abort": [{"when": "p95 > 1"}]}),
            "did you mean http.response_time.p95?",
        ),
    ] {
        env.load_test_with(name, 1, spec).await;
        let pending = env.until_phase(name, "Pending").await;
        let (_, reason, message) = condition(&pending, "Progressing");
        assert_eq!(reason, "InvalidThreshold");
        assert!(message.contains(problem), "{message}");
    }
}
