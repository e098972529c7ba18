//! A CRD that is missing, or older than the operator. The control plane's CRD is that of all tests, so a proxy changes what an
//! operator receives about it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http::{Method, Request, header};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use k8s_openapi::api::batch::v1::Job;
use kube::Client;
use serde_json::{Value, json};

use crate::support::proxy::{Answer, Proxy, forward, full, rejection, send};
use crate::support::{TestEnv, condition, condition_reason, control_plane, http_get};

const INDEX: &str = "/openapi/v3";
const GROUP_VERSION: &str = "apis/loadtest.artillery.io/v1alpha1";
const LOAD_TEST: &str = "io.artillery.loadtest.v1alpha1.LoadTest";

/// A proxy that changes answers and requests while the flag is set.
async fn proxy<F>(
    client: &Client,
    answer: impl Fn(Client, Request<Bytes>) -> F + Send + Sync + 'static,
) -> (Proxy, Arc<AtomicBool>)
where
    F: Future<Output = Answer> + Send + 'static,
{
    let (client, active) = (client.clone(), Arc::new(AtomicBool::new(true)));
    let (flag, answer) = (active.clone(), Arc::new(answer));
    let proxy = Proxy::start(move |request| {
        let (client, answer) = (client.clone(), answer.clone());
        let is_active = flag.load(Ordering::SeqCst);
        async move {
            if is_active {
                answer(client, request).await
            } else {
                forward(&client, request).await
            }
        }
    });
    (proxy.await, active)
}

/// Forwards a request, and changes the JSON of the answer.
async fn forward_edited(client: &Client, request: Request<Bytes>, edit: fn(&mut Value)) -> Answer {
    let (mut parts, body) = send(client, request).await?.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let mut value: Value = serde_json::from_slice(&body).unwrap();
    edit(&mut value);
    parts.headers.remove(header::CONTENT_LENGTH);
    Ok(http::Response::from_parts(parts, full(value.to_string())))
}

/// What the API server answers while the CRD has no field `status.job`.
async fn with_outdated_crd(client: Client, request: Request<Bytes>) -> Answer {
    let path = request.uri().path().to_owned();
    if path == INDEX {
        forward_edited(&client, request, |index| {
            let url = &mut index["paths"][GROUP_VERSION]["serverRelativeURL"];
            *url = json!(format!("{}-outdated", url.as_str().unwrap()));
        })
        .await
    } else if path == format!("{INDEX}/{GROUP_VERSION}") {
        forward_edited(&client, request, |document| {
            let status = &mut document["components"]["schemas"][LOAD_TEST]["properties"]["status"];
            let fields = status["properties"].as_object_mut().unwrap();
            fields.remove("job").unwrap();
        })
        .await
    } else {
        forward(&client, request).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn outdated_crd_blocks_new_tests_until_it_is_updated_and_running_tests_continue() {
    let mut env = TestEnv::with_operator(control_plane()).await;
    env.load_test("early", 1).await;
    let early = env.pods("early", 1).await;
    env.set_running(&early[0]).await;
    env.until_phase("early", "Running").await;
    env.operator(0).terminate().await;

    let (proxy, outdated) = proxy(&env.client, with_outdated_crd).await;
    let operator = env.start_operator_by(&proxy.kubeconfig(), &[]).await;
    env.load_test("late", 1).await;
    let blocked = env.until_test("late", "the CRD is reported", |t| {
        condition_reason(t) == "CrdOutdated"
    });
    let blocked = blocked.await;
    assert_eq!(crate::support::phase_of(&blocked), "Pending");
    let (status, _, message) = condition(&blocked, "Progressing");
    assert_eq!(status, "False");
    assert!(message.contains("would drop status.job. "), "{message}");
    let log = env.operator(operator).log();
    assert!(log.contains("the installed CRD is outdated"), "{log}");
    let metrics = http_get(env.operator(operator).metrics, "/metrics").await;
    let metrics = metrics.unwrap().1;
    assert!(metrics.contains("artillery_operator_crd_missing_fields 1"));
    env.set_exited(&early[0], 0, "").await;
    env.until_phase("early", "Completed").await;
    assert!(env.api::<Job>().get_opt("late").await.unwrap().is_none());

    outdated.store(false, Ordering::SeqCst);
    env.set_exited(&env.pods("late", 1).await[0], 0, "").await;
    env.until_phase("late", "Completed").await;
    assert_eq!(
        env.event_reasons("late").await,
        ["CrdOutdated", "Created", "Running", "Completed"]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn test_whose_start_cannot_be_recorded_completely_creates_no_job() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    // The API server drops this field, as it does with one that a changed CRD no longer has.
    let (proxy, unknown_field) = proxy(&env.client, async |client, mut request| {
        if request.method() == Method::PATCH && request.uri().path().ends_with("/status") {
            let mut patch: Value = serde_json::from_slice(request.body()).unwrap();
            patch["status"]["notInTheCrd"] = json!("x");
            request.headers_mut().remove(header::CONTENT_LENGTH);
            *request.body_mut() = patch.to_string().into();
        }
        forward(&client, request).await
    })
    .await;
    env.start_operator_by(&proxy.kubeconfig(), &[]).await;
    env.load_test("forgotten", 1).await;
    env.until("the rejected record is reported", async || {
        let events = env.event_reasons("forgotten").await;
        (events == ["RequestFailed"]).then_some(())
    })
    .await;
    // The log follows the event.
    let error = "strict decoding error: unknown field \"status.notInTheCrd\"";
    env.until_logged(0, error).await;
    let job = env.api::<Job>().get_opt("forgotten").await.unwrap();
    assert!(job.is_none());

    unknown_field.store(false, Ordering::SeqCst);
    let pods = env.pods("forgotten", 1).await;
    env.set_exited(&pods[0], 0, "").await;
    env.until_phase("forgotten", "Completed").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_crd_is_logged_with_the_command_that_installs_it() {
    let mut env = TestEnv::new(control_plane()).await;
    let (proxy, _) = proxy(&env.client, async |client, request| {
        if request.uri().path() != INDEX {
            return forward(&client, request).await;
        }
        forward_edited(&client, request, |index| {
            let paths = index["paths"].as_object_mut().unwrap();
            paths.remove(GROUP_VERSION).unwrap();
        })
        .await
    })
    .await;
    env.start_operator_by(&proxy.kubeconfig(), &[]).await;
    let line = "the CRD of LoadTest is not installed; install it: kubectl apply -k config/crd";
    env.until_logged(0, line).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tests_start_although_the_crd_cannot_be_checked() {
    let mut env = TestEnv::new(control_plane()).await;
    env.create_script("test-script").await;
    let (proxy, _) = proxy(&env.client, async |client, request| {
        if request.uri().path().starts_with(INDEX) {
            return Ok(rejection(403, "Forbidden", "no discovery here", None));
        }
        forward(&client, request).await
    })
    .await;
    env.start_operator_by(&proxy.kubeconfig(), &[]).await;
    env.load_test("unchecked", 1).await;
    let pods = env.pods("unchecked", 1).await;
    env.set_exited(&pods[0], 0, "").await;
    env.until_phase("unchecked", "Completed").await;
    let log = env.operator(0).log();
    assert!(log.contains("cannot check the CRD"), "{log}");
    assert!(log.contains("no discovery here"), "{log}");
}
