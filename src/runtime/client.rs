//! The client of the API server. Patches of pods share one HTTP/2 connection, and every other request in flight uses
//! its own HTTP/1.1 connection.
//!
//! A synchronized start patches every worker at once, and a connection for each patch would need too much memory. Other
//! requests do not share a connection, because a busy API server serves connections in turn: on a shared connection,
//! urgent requests would be delayed and watches would fall behind.

use std::error::Error;
use std::time::Duration;

use http::{Request, Response};
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use k8s_openapi::api::batch::v1::Job;
use kube::Resource;
use kube::api::PostParams;
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::core::Request as ApiRequest;
use kube::{Client, Config};
use serde::de::DeserializeOwned;
use tokio_rustls::rustls::ClientConfig;
use tower::{BoxError, ServiceBuilder};
use tower_http::timeout::TimeoutBody;

use crate::runtime::api_error::{ApiError, with_timeout};
use crate::runtime::proxy::reject_proxy;
use crate::runtime::request_metrics::request_info;

/// The API server ends a watch after this many seconds. The watch then restarts, so that a dead connection is noticed.
pub(crate) const WATCH_TIMEOUT: u32 = 60;

/// A response body that stalls for this long fails. It is longer than a watch can be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_TIMEOUT as u64 + 15);

/// An idle connection is closed after this long.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// The shared connection is pinged at this interval and closed if no response arrives in time. The values are lower
/// than client-go's `ReadIdleTimeout` and `PingTimeout` (apimachinery, `pkg/util/net`), because all workers wait for
/// this connection.
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(5);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// Builds a client that does not retry requests.
///
/// # Errors
/// Fails if credentials or certificates are unusable, or if a proxy is configured for the API server, which is not supported.
pub fn build_client(config: &Config) -> Result<Client, Box<dyn Error>> {
    reject_proxy(config)?;
    let tls = config.rustls_client_config()?;
    let mut builder = legacy::Client::builder(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT);
    let http1: legacy::Client<_, Body> = builder.build(connector(config, tls.clone(), false)?);
    let http2: legacy::Client<_, Body> = builder
        .http2_keep_alive_interval(HTTP2_PING_INTERVAL)
        .http2_keep_alive_timeout(HTTP2_PING_TIMEOUT)
        .build(connector(config, tls, true)?);
    let http = tower::service_fn(move |request: Request<Body>| {
        match request_info(request.method(), request.uri()) {
            ("patch", resource) if resource == "pods" => http2.request(request),
            _ => http1.request(request),
        }
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_response(|response: Response<Incoming>| {
            response.map(|body| TimeoutBody::new(READ_TIMEOUT, body))
        })
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).build())
}

fn connector(
    config: &Config,
    tls: ClientConfig,
    http2: bool,
) -> Result<HttpsConnector<HttpConnector>, Box<dyn Error>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(config.connect_timeout);
    let mut tls = HttpsConnectorBuilder::new()
        .with_tls_config(tls)
        .https_or_http();
    if let Some(name) = &config.tls_server_name {
        tls = tls.with_server_name_resolver(FixedServerNameResolver::new(name.clone().try_into()?));
    }
    let tls = tls.enable_http1();
    Ok(if http2 {
        tls.enable_http2().wrap_connector(tcp)
    } else {
        tls.wrap_connector(tcp)
    })
}

/// Creates a Job. Only the fields of `T` are parsed from the response, which is much larger than what callers need.
///
/// # Errors
/// Fails if the request fails.
pub(crate) async fn create_job<T: DeserializeOwned>(
    client: &Client,
    job: &Job,
    params: &PostParams,
) -> Result<T, ApiError> {
    let jobs = ApiRequest::new(Job::url_path(&(), job.metadata.namespace.as_deref()));
    with_timeout(async {
        let body = serde_json::to_vec(job).map_err(kube::Error::SerdeError)?;
        let request = jobs
            .create(params, body)
            .map_err(kube::Error::BuildRequest)?;
        client.request(request).await
    })
    .await
}
