//! An API server that rejects requests or is slow: the number of requests meanwhile, the effect on other tests, and the
//! recovery.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use kube::Client;
use tokio::sync::watch;

use crate::existing_load::{count, kinds};
use crate::plan::Plan;
use crate::support::audit;
use crate::support::cluster::{client_without_retries, forbid_by_quota};
use crate::support::process::Operator;
use crate::support::proxy::{Proxy, forward, rejection};
use crate::table::{Line, print, quantile};
use crate::watch_recorder::WatchRecorder;
use crate::{BASELINE, NAMESPACE, START, create_all_in, load_average, until};

/// How the API server behaves.
#[derive(Clone, Copy, Debug, PartialEq)]
enum ApiServerMode {
    Healthy,
    /// Rejects every request with 429.
    Throttling,
    /// Delays every request by [`DELAY`].
    Slow,
}

/// How long the API server rejects requests.
const FAULT_DURATION: Duration = Duration::from_secs(60);

/// The delay of each request to a slow API server.
const DELAY: Duration = Duration::from_secs(2);

/// How many tests the operator starts concurrently.
const CONCURRENT_STARTS: usize = 48;

/// A proxy between the operator and the API server.
struct DegradingProxy {
    proxy: Proxy,
    mode: watch::Sender<ApiServerMode>,
    rejected: Arc<AtomicUsize>,
}

impl DegradingProxy {
    async fn start(client: Client) -> Self {
        let mode = watch::Sender::new(ApiServerMode::Healthy);
        let rejected = Arc::<AtomicUsize>::default();
        let (current, counter) = (mode.subscribe(), rejected.clone());
        let proxy = Proxy::start(move |request| {
            let (client, mode, counter) = (client.clone(), *current.borrow(), counter.clone());
            async move {
                // The lease is always renewed. Lost leases are tested elsewhere.
                let is_lease = request.uri().path().contains("/leases");
                match mode {
                    ApiServerMode::Slow if !is_lease => tokio::time::sleep(DELAY).await,
                    ApiServerMode::Throttling if !is_lease => {
                        counter.fetch_add(1, Ordering::Relaxed);
                        let message = "too many requests, please try again later";
                        return Ok(rejection(429, "TooManyRequests", message, Some(1)));
                    }
                    _ => {}
                }
                forward(&client, request).await
            }
        })
        .await;
        Self {
            proxy,
            mode,
            rejected,
        }
    }

    fn kubeconfig(&self) -> PathBuf {
        self.proxy.kubeconfig()
    }
}

pub async fn measure(client: &Client, plan: &Plan) {
    let as_operator = client_without_retries(&plan.operator_kubeconfig).await;
    let proxy = DegradingProxy::start(as_operator).await;
    let operator = plan.start_operator_with(&proxy.kubeconfig());
    tokio::time::sleep(Duration::from_secs(3)).await;
    let mut lines = Vec::new();
    throttling(client, plan, &proxy, &mut lines).await;
    slow(client, plan, &proxy, &mut lines).await;
    quota(client, plan, operator, &mut lines).await;
    print(
        &format!("a degraded API server, {} LoadTests", plan.tests),
        &lines,
    );
}

/// All requests are rejected with 429 while tests run and others are created.
async fn throttling(client: &Client, plan: &Plan, proxy: &DegradingProxy, lines: &mut Vec<Line>) {
    let few = Plan {
        tests: (plan.tests / 10).max(10),
        ..plan.clone()
    };
    let recorder = WatchRecorder::follow(client, START).await;
    create_all_in(client, &few, &recorder, START, "before").await;
    until("Jobs", few.limit, async || recorder.jobs() >= few.tests / 2).await;
    proxy.mode.send_replace(ApiServerMode::Throttling);
    create_all_in(client, &few, &recorder, START, "during").await;
    tokio::time::sleep(FAULT_DURATION).await;
    proxy.mode.send_replace(ApiServerMode::Healthy);
    let (begun, rejected) = (Instant::now(), proxy.rejected.load(Ordering::Relaxed));
    until("the end of all tests after 429", few.limit, async || {
        recorder.finished() == 2 * few.tests
    })
    .await;
    let (took, per) = (
        begun.elapsed().as_secs_f64(),
        count(rejected) / count(2 * few.tests),
    );
    println!(
        "429 for {} s: {rejected} requests; load average {}",
        FAULT_DURATION.as_secs(),
        load_average()
    );
    // The first request, and those after a backoff that doubles from 0.5 s: at 0.5, 1.5, 3.5, ... 63.5 s.
    lines.push(Line::at_most(
        "429 for a minute: requests per LoadTest",
        per,
        1,
        9.0,
    ));
    lines.push(Line::at_most(
        "  until all have ended correctly after it, s",
        took,
        0,
        60.0 + few.run.as_secs_f64() + 30.0,
    ));
}

/// Each request takes two seconds more.
async fn slow(client: &Client, plan: &Plan, proxy: &DegradingProxy, lines: &mut Vec<Line>) {
    let few = Plan {
        tests: (plan.tests / 10).max(10),
        ..plan.clone()
    };
    proxy.mode.send_replace(ApiServerMode::Slow);
    let recorder = WatchRecorder::follow(client, BASELINE).await;
    create_all_in(client, &few, &recorder, BASELINE, "slow").await;
    until(
        "the end of all tests of a slow API server",
        few.limit,
        async || recorder.finished() == few.tests,
    )
    .await;
    proxy.mode.send_replace(ApiServerMode::Healthy);
    let p95 = quantile(&recorder.create_to_job(), 0.95);
    // A start takes three requests: the script, the status and the Job. Before, the first tests of a namespace take two more:
    // the script, and the creation of the worker files, after which they are queued again. The delay is as long as a script is
    // cached, so none of the three requests is saved. Queued tests wait for CONCURRENT_STARTS others.
    let requests = 2.0 + 3.0 * count(few.tests.div_ceil(CONCURRENT_STARTS));
    lines.push(Line::at_most(
        "each request takes 2 s more: LoadTest -> Job, p95 s",
        p95,
        1,
        DELAY.as_secs_f64() * requests + 2.0,
    ));
}

/// A namespace whose quota forbids Jobs, with many tests, while others are created elsewhere.
async fn quota(client: &Client, plan: &Plan, mut operator: Operator, lines: &mut Vec<Line>) {
    let few = Plan {
        tests: 100,
        ..plan.clone()
    };
    forbid_by_quota(client, START, "count/jobs.batch").await;
    let of_rejected = WatchRecorder::follow(client, START).await;
    let offset = audit::length(&plan.audit_log);
    let begun = Instant::now();
    create_all_in(client, plan, &of_rejected, START, "rejected").await;
    let recorder = WatchRecorder::follow(client, NAMESPACE).await;
    create_all_in(client, &few, &recorder, NAMESPACE, "beside").await;
    until("the Jobs in the other namespace", few.limit, async || {
        recorder.jobs() == few.tests
    })
    .await;
    let p95 = quantile(&recorder.create_to_job(), 0.95);
    tokio::time::sleep(FAULT_DURATION.saturating_sub(begun.elapsed())).await;
    let requests = audit::requests_of(&plan.audit_log, offset, &plan.operator_user);
    let for_rejected: Vec<_> = requests
        .into_iter()
        .filter(|r| r.namespace == START)
        .collect();
    println!(
        "requests for the rejected in {:.0} s: {:?}; load average {}",
        begun.elapsed().as_secs_f64(),
        kinds(&for_rejected),
        load_average()
    );
    lines.push(Line::at_most(
        "a namespace whose quota forbids Jobs: LoadTest -> Job of 100 others, p95 s",
        p95,
        2,
        2.0,
    ));
    lines.push(Line::at_most(
        "  requests per rejected LoadTest in a minute",
        count(for_rejected.len()) / count(plan.tests),
        1,
        30.0,
    ));
    operator.terminate().await;
}
