//! The port on which a worker serves its results until now. Its address is one of the loopback interface, and that of its pod.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use kube::api::{Api, Patch, PatchParams};
use loadtest_api::labels::PROBE_PORT;
use loadtest_results::testing::message;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

/// How a worker responds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Behavior {
    Normal,
    /// Nobody listens.
    Closed,
    /// Accepts connections and never responds.
    Silent,
    /// One byte per second.
    Slow,
    /// The connection is closed in the middle of the response.
    Cut,
    /// A response without end.
    Endless,
    Garbage,
    /// The response of another pod.
    OtherPod,
    Redirect,
    ManyMetrics,
    /// Counts that are far too high.
    HighCounts,
}

/// A worker that sends 10 requests per second and reports as much.
pub struct Worker {
    requests: Arc<AtomicU32>,
    /// Milliseconds of each response.
    pub latency: Arc<AtomicU32>,
    /// How often it was asked.
    pub asked: Arc<AtomicUsize>,
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
    static NEXT: AtomicU16 = AtomicU16::new(1);
    let process = u8::try_from(std::process::id() % 200).unwrap() + 20;
    let [high, low] = NEXT.fetch_add(1, Ordering::Relaxed).to_be_bytes();
    Ipv4Addr::new(127, process, high, low)
}

impl Worker {
    /// Serves the results of a pod, and gives the pod its address.
    pub async fn start(pods: &Api<Pod>, pod: &Pod, behavior: Behavior) -> Self {
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
            if behavior == Behavior::Closed {
                return;
            }
            while let Ok((stream, _)) = listener.accept().await {
                connections.fetch_add(1, Ordering::Relaxed);
                let (sent, ms) = (sent.load(Ordering::Relaxed), ms.load(Ordering::Relaxed));
                tokio::spawn(respond(stream, name.clone(), behavior, sent, ms));
            }
        });
        let status = json!({"status": {"podIP": address, "podIPs": [{"ip": address}]}});
        pods.patch_status(
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

    pub fn sent(&self) -> i64 {
        self.requests.load(Ordering::Relaxed).into()
    }
}

/// The termination message of a worker that sent so many requests.
pub fn final_message(requests: u32) -> String {
    let json = measurements(requests, 20, "");
    message(&json.replacen('{', "{\"final\":true,", 1))
}

/// A snapshot with so many requests, all of which took `ms`.
fn snapshot(requests: u32, ms: u32, more: &str) -> String {
    message(&measurements(requests, ms, more))
}

fn measurements(requests: u32, ms: u32, more: &str) -> String {
    let key = (f64::from(ms).ln() / (1.01_f64 / 0.99).ln()).ceil();
    format!(
        r#"{{"start":1000,"first":1000,"last":9000,"counters":{{"vusers.created":{requests},"http.requests":{requests},"http.responses":{requests}{more}}},
        "histograms":{{"http.response_time":[0,{ms},{ms},{},0,[{key},{requests}],[]]}}}}"#,
        u64::from(requests) * u64::from(ms)
    )
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
        Behavior::HighCounts => snapshot(u32::MAX, ms, ""),
        _ => snapshot(requests, ms, ""),
    };
    let length = if behavior == Behavior::Endless {
        1 << 30
    } else {
        body.len()
    };
    let sent = if behavior == Behavior::Cut {
        &body[..body.len() / 2]
    } else {
        &body
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
            for byte in format!("{head}{sent}").bytes() {
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
            let _ = stream.write_all(format!("{head}{sent}").as_bytes()).await;
        }
    }
}
