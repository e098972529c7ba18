//! Reads the results of running workers, over HTTP from their pods. Nothing depends on it: where workers cannot be reached, tests run
//! and end as they do without.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::channel::mpsc::UnboundedSender;
use futures::stream::{self, FuturesUnordered};
use http::{Request, StatusCode};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use loadtest_api::labels::{POD_HEADER, PROBE_PORT, SNAPSHOT_PATH};
use loadtest_api::v1alpha1::Series;
use loadtest_results::Snapshot;
use tokio::sync::Semaphore;

use crate::cache::ObjectRef;
use crate::cache::live::{Round, Target, TargetWorker, WorkerSnapshots};
use crate::context::Context;
use crate::observe::recorded_results;
use crate::runtime::api_error::innermost_cause;

/// How often tests are looked for whose workers are due.
const TICK: Duration = Duration::from_secs(1);

/// How long a worker may take to respond.
const TIMEOUT: Duration = Duration::from_secs(2);

/// The longest response: more than any honest worker has to send.
const MAX_RESPONSE_BYTES: usize = 128 << 10;

/// How many workers are read at a time, in all tests and in one.
const MAX_REQUESTS: usize = 64;
const MAX_REQUESTS_PER_TEST: usize = 16;

/// How many tests of one namespace are read at a time: workers that do not respond hold their places, and those of one tenant must not
/// hold all.
const MAX_ROUNDS_PER_NAMESPACE: usize = 3;

/// How long a test runs before another process may have recorded something about it.
const NEW_TEST: SignedDuration = SignedDuration::from_secs(15);

/// How many snapshots are decoded without a turn for anything else.
const DECODED_AT_ONCE: usize = 32;

type HttpClient = Client<HttpConnector, Empty<Bytes>>;

/// Reads the workers of all running tests, until it is dropped. A test that may have to be aborted is triggered.
pub(crate) async fn read_workers(ctx: Arc<Context>, triggers: UnboundedSender<ObjectRef>) {
    let mut connector = HttpConnector::new();
    connector.set_connect_timeout(Some(TIMEOUT));
    // No connection is kept: a test may have thousands of workers.
    let client: HttpClient = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(0)
        .build(connector);
    let permits = Semaphore::new(MAX_REQUESTS);
    let mut rounds = FuturesUnordered::new();
    let mut rounds_by_namespace: HashMap<String, usize> = HashMap::new();
    let mut ticks = tokio::time::interval(TICK);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                for target in ctx.targets_due(Timestamp::now()) {
                    let in_flight = rounds_by_namespace.entry(target.key.namespace.clone()).or_default();
                    if *in_flight >= MAX_ROUNDS_PER_NAMESPACE {
                        continue;
                    }
                    let Some(snapshots) = ctx.live.begin_round(&target, Timestamp::now()) else {
                        continue;
                    };
                    *in_flight += 1;
                    rounds.push(read_all(&ctx, &client, &permits, target, snapshots));
                }
            }
            Some((target, snapshots, round)) = rounds.next() => {
                if let Some(in_flight) = rounds_by_namespace.get_mut(&target.key.namespace) {
                    *in_flight -= 1;
                }
                rounds_by_namespace.retain(|_, in_flight| *in_flight > 0);
                if ctx.live.end_round(&target, snapshots, round, Timestamp::now()) {
                    // Fails only when the controller has ended, and the process is about to.
                    let _ = triggers.unbounded_send(target.key);
                }
            }
        }
    }
}

/// Reads all workers of a test, and merges what they have measured.
async fn read_all(
    ctx: &Context,
    client: &HttpClient,
    permits: &Semaphore,
    target: Target,
    mut snapshots: WorkerSnapshots,
) -> (Target, WorkerSnapshots, Round) {
    let mut round = Round {
        recorded: recorded_series(ctx, &target).await,
        ..Round::default()
    };
    let responses = stream::iter(target.workers.clone()).map(|worker| async move {
        let _permit = permits.acquire().await;
        let response = tokio::time::timeout(TIMEOUT, read(client, &worker)).await;
        let timeout = || Err(format!("no response within {}s", TIMEOUT.as_secs()));
        (worker, response.unwrap_or_else(|_| timeout()))
    });
    let mut responses = responses.buffer_unordered(MAX_REQUESTS_PER_TEST);
    while let Some((worker, response)) = responses.next().await {
        match response {
            Ok(snapshot) => {
                round.responses += 1;
                let snapshot = snapshot.map(|snapshot| (worker.index, snapshot));
                snapshots.extend(snapshot.map(|snapshot| (worker.pod, snapshot)));
            }
            Err(error) => {
                round.error.get_or_insert(error);
            }
        }
    }
    drop(responses);
    for (i, (index, snapshot)) in snapshots.values().enumerate() {
        // What a manipulated worker sends costs only its own contribution.
        if let Ok(measured) = snapshot.decode() {
            round.measured.merge(&measured);
            round.loads.push((*index, measured.load_only()));
        }
        if i % DECODED_AT_ONCE == DECODED_AT_ONCE - 1 {
            tokio::task::yield_now().await;
        }
    }
    (target, snapshots, round)
}

/// The course that an earlier process recorded of a test whose workers this process has not read yet.
async fn recorded_series(ctx: &Context, target: &Target) -> Option<Series> {
    let is_new = Timestamp::now().duration_since(target.started) < NEW_TEST;
    if is_new || ctx.live.latest(&target.key, &target.job_uid).is_some() {
        return None;
    }
    recorded_results(ctx, &target.key).await?.series
}

/// Reads the snapshot of one worker. None if it has measured nothing yet. Redirects are not followed.
///
/// # Errors
/// Why the worker could not be read.
async fn read(client: &HttpClient, worker: &TargetWorker) -> Result<Option<Snapshot>, String> {
    let host = match worker.ip {
        IpAddr::V4(ip) => ip.to_string(),
        IpAddr::V6(ip) => format!("[{ip}]"),
    };
    let request = Request::get(format!("http://{host}:{PROBE_PORT}{SNAPSHOT_PATH}"))
        .body(Empty::new())
        .map_err(|error| error.to_string())?;
    let response = client
        .request(request)
        .await
        .map_err(|error| innermost_cause(&error))?;
    // The address may belong to another pod by now.
    let pod = response.headers().get(POD_HEADER);
    if pod.is_none_or(|pod| pod.as_bytes() != worker.pod.as_bytes()) {
        return Err(format!(
            "status {}, and not from the worker: its files are older, or something between responds",
            response.status()
        ));
    }
    match response.status() {
        StatusCode::NO_CONTENT => return Ok(None),
        StatusCode::OK => {}
        status => return Err(format!("status {status}")),
    }
    let body = Limited::new(response.into_body(), MAX_RESPONSE_BYTES);
    let bytes = body
        .collect()
        .await
        .map_err(|error| error.to_string())?
        .to_bytes();
    let text = std::str::from_utf8(&bytes).map_err(|error| error.to_string())?;
    let snapshot = Snapshot::from_message(text);
    snapshot
        .map(Some)
        .ok_or_else(|| "a response without results".to_owned())
}
