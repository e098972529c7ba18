//! An API server that is slow, or refuses: how much is asked of it then, whether the others go on, and whether all comes
//! right afterwards.

use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Client;
use kube::api::{Api, PostParams};
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::process::Operator;
use crate::seen::Seen;
use crate::standing::{count, kinds};
use crate::table::{Line, print, quantile};
use crate::{FLOOR, NAMESPACE, Plan, START, audit, connect_as, create_all_in, load, until};

/// What the API server does.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Mood {
    Kind,
    /// Refuses everything for now.
    Throttles,
    /// Answers after two seconds.
    Slow,
}

/// How long the API server is out of temper.
const ANGER: Duration = Duration::from_secs(60);

/// A proxy between the operator and the API server that has moods.
struct Proxy {
    mood: watch::Sender<Mood>,
    refused: Arc<AtomicUsize>,
    kubeconfig: PathBuf,
    server: tokio::task::JoinHandle<()>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        let _ = std::fs::remove_file(&self.kubeconfig);
    }
}

impl Proxy {
    async fn start(client: Client) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a port is free");
        let port = listener
            .local_addr()
            .expect("a listener has an address")
            .port();
        let (mood, refused) = (
            watch::Sender::new(Mood::Kind),
            Arc::<AtomicUsize>::default(),
        );
        let (is, counted) = (mood.subscribe(), refused.clone());
        let server = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (client, is, counted) = (client.clone(), is.clone(), counted.clone());
                let service = service_fn(move |request| {
                    let (client, mood, counted) = (client.clone(), *is.borrow(), counted.clone());
                    async move { Ok::<_, Infallible>(answer(client, request, mood, &counted).await) }
                });
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        let kubeconfig = std::env::temp_dir().join(format!(
            "bench-proxy-{}-{port}.kubeconfig",
            std::process::id()
        ));
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "p",
            "contexts": [{"name": "p", "context": {"cluster": "p", "user": "p"}}], "users": [{"name": "p", "user": {}}],
            "clusters": [{"name": "p", "cluster": {"server": format!("http://127.0.0.1:{port}")}}]});
        std::fs::write(&kubeconfig, text.to_string()).expect("a kubeconfig can be written");
        Self {
            mood,
            refused,
            kubeconfig,
            server,
        }
    }
}

async fn answer(
    client: Client,
    request: Request<Incoming>,
    mood: Mood,
    refused: &AtomicUsize,
) -> Response<Body> {
    // The lease is renewed all the while: what becomes of a leader is asked elsewhere.
    if !request.uri().path().contains("/leases") {
        match mood {
            Mood::Kind => {}
            Mood::Slow => tokio::time::sleep(Duration::from_secs(2)).await,
            Mood::Throttles => {
                refused.fetch_add(1, Ordering::Relaxed);
                let status = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 429,
                    "reason": "TooManyRequests", "message": "too many requests, please try again later"});
                let response = Response::builder()
                    .status(StatusCode::TOO_MANY_REQUESTS)
                    .header("retry-after", "1");
                return response
                    .header("content-type", "application/json")
                    .body(Body::from(status.to_string().into_bytes()))
                    .expect("an answer");
            }
        }
    }
    let (mut parts, body) = request.into_parts();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes)
        .unwrap_or_default();
    // The client adds the address and the credentials of its own.
    parts.headers.remove("host");
    parts.headers.remove("connection");
    parts.version = http::Version::HTTP_11;
    if parts.method == Method::GET {
        parts.headers.remove("content-length");
    }
    client
        .send(Request::from_parts(parts, Body::from(body.to_vec())))
        .await
        .unwrap_or_else(|error| {
            let mut response = Response::new(Body::from(error.to_string().into_bytes()));
            *response.status_mut() = StatusCode::BAD_GATEWAY;
            response
        })
}

pub async fn measure(client: &Client, plan: &Plan) {
    let proxy = Proxy::start(connect_as(&plan.operator_kubeconfig).await).await;
    let operator = Operator::start(&plan.command, &proxy.kubeconfig);
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut lines = Vec::new();
    throttled(client, plan, &proxy, &mut lines).await;
    slow(client, plan, &proxy, &mut lines).await;
    full(client, plan, operator, &mut lines).await;
    print(
        &format!("an angry API server, {} LoadTests", plan.tests),
        &lines,
    );
}

/// All is refused with 429 while tests are under way and others come.
async fn throttled(client: &Client, plan: &Plan, proxy: &Proxy, lines: &mut Vec<Line>) {
    let few = Plan {
        tests: (plan.tests / 10).max(10),
        ..plan.clone()
    };
    let seen = Seen::follow(client, START).await;
    create_all_in(client, &few, &seen, START, "before").await;
    until("Jobs", few.limit, async || seen.jobs() >= few.tests / 2).await;
    proxy.mood.send_replace(Mood::Throttles);
    create_all_in(client, &few, &seen, START, "during").await;
    tokio::time::sleep(ANGER).await;
    proxy.mood.send_replace(Mood::Kind);
    let (begun, asked) = (Instant::now(), proxy.refused.load(Ordering::Relaxed));
    until("the end of all tests after 429", few.limit, async || {
        seen.finished() == 2 * few.tests
    })
    .await;
    let (took, per) = (
        begun.elapsed().as_secs_f64(),
        count(asked) / count(2 * few.tests),
    );
    println!(
        "429 for {} s: {asked} requests; load average {}",
        ANGER.as_secs(),
        load()
    );
    // By a back-off that doubles from half a second: at 0.5, 1.5, 3.5, ... 63.5 s, and once before.
    lines.push(Line::at_most(
        "429 for a minute: requests a LoadTest in it",
        per,
        1,
        9.0,
    ));
    lines.push(Line::at_most(
        "  until all have ended rightly after it, s",
        took,
        0,
        60.0 + few.run.as_secs_f64() + 30.0,
    ));
}

/// Each call takes two seconds more.
async fn slow(client: &Client, plan: &Plan, proxy: &Proxy, lines: &mut Vec<Line>) {
    let few = Plan {
        tests: (plan.tests / 10).max(10),
        ..plan.clone()
    };
    proxy.mood.send_replace(Mood::Slow);
    let seen = Seen::follow(client, FLOOR).await;
    create_all_in(client, &few, &seen, FLOOR, "slow").await;
    until(
        "the end of all tests of a slow API server",
        few.limit,
        async || seen.finished() == few.tests,
    )
    .await;
    proxy.mood.send_replace(Mood::Kind);
    let p95 = quantile(&seen.create_to_job(), 0.95);
    // The script, the status and the Job, 32 at a time; before the first of them the workers' files, and the script once more.
    let rounds = count(few.tests.div_ceil(32));
    lines.push(Line::at_most(
        "each call takes 2 s more: LoadTest -> Job, p95 s",
        p95,
        1,
        2.0 * 4.0 * rounds + 2.0,
    ));
}

/// A namespace that takes no pods, and many tests in it, while others come elsewhere.
async fn full(client: &Client, plan: &Plan, mut operator: Operator, lines: &mut Vec<Line>) {
    let few = Plan {
        tests: 100,
        ..plan.clone()
    };
    let quota = |hard: serde_json::Value| -> ResourceQuota {
        crate::from(json!({"metadata": {"name": "none"}, "spec": {"hard": hard}}))
    };
    let quotas: Api<ResourceQuota> = Api::namespaced(client.clone(), START);
    quotas
        .create(
            &PostParams::default(),
            &quota(json!({"count/jobs.batch": "0"})),
        )
        .await
        .expect("a quota is created");
    until("the quota", Duration::from_secs(30), async || {
        quotas
            .get("none")
            .await
            .is_ok_and(|q| q.status.is_some_and(|s| s.hard.is_some()))
    })
    .await;
    let refused = Seen::follow(client, START).await;
    let offset = audit::length(&plan.audit_log);
    let begun = Instant::now();
    create_all_in(client, plan, &refused, START, "refused").await;
    let seen = Seen::follow(client, NAMESPACE).await;
    create_all_in(client, &few, &seen, NAMESPACE, "beside").await;
    until("the Jobs beside", few.limit, async || {
        seen.jobs() == few.tests
    })
    .await;
    let p95 = quantile(&seen.create_to_job(), 0.95);
    tokio::time::sleep(ANGER.saturating_sub(begun.elapsed())).await;
    let requests = audit::requests(&plan.audit_log, offset, &plan.operator_user);
    let there: Vec<_> = requests
        .into_iter()
        .filter(|r| r.namespace == START)
        .collect();
    println!(
        "of the refused, in {:.0} s: {:?}; load average {}",
        begun.elapsed().as_secs_f64(),
        kinds(&there),
        load()
    );
    lines.push(Line::at_most(
        "a namespace without room: LoadTest -> Job of 100 others, p95 s",
        p95,
        2,
        2.0,
    ));
    lines.push(Line::at_most(
        "  requests of a refused LoadTest in a minute",
        count(there.len()) / count(plan.tests),
        1,
        30.0,
    ));
    operator.terminate().await;
}
