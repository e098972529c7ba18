//! The connections to the API server: one for each request that is under way, by HTTP/1.1, and one by HTTP/2 that all tellings
//! of workers share, of which there may be a thousand at once.
//!
//! Connections of fifty tellings held more memory than all that is kept of a thousand workers. But to share one is no good
//! where somebody waits: an API server that is busy gives each connection its turn. With one for all, the first request for a
//! test, of a thousand that came at once, reached it after 4.4 s instead of 0.6, and watches fell so far behind that it ended them.

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
use crate::runtime::request_metrics::request_info;

/// After this many seconds a watch ends and restarts, so that a dead connection is noticed.
pub const WATCH_TIMEOUT: u32 = 60;

/// An answer that stops in its middle would be waited for for ever. Longer than a watch may be silent.
const READ_TIMEOUT: Duration = Duration::from_secs(WATCH_TIMEOUT as u64 + 15);

/// So long a connection is kept that nothing is asked for.
const IDLE_TIMEOUT: Duration = Duration::from_secs(10);

/// A shared connection that says nothing for so long is asked whether it is there, and given up if it does not answer: all
/// workers wait for it. client-go waits 30 and 15 s (`ReadIdleTimeout` and `PingTimeout` in apimachinery's `pkg/util/net`).
const HTTP2_PING_INTERVAL: Duration = Duration::from_secs(5);
const HTTP2_PING_TIMEOUT: Duration = Duration::from_secs(10);

/// A client of the API server of this configuration. It repeats nothing by itself.
///
/// # Errors
/// Credentials or certificates that cannot be used, or a proxy, which is not supported.
pub fn build_client(config: &Config) -> Result<Client, Box<dyn Error>> {
    if let Some(proxy) = &config.proxy_url {
        return Err(format!(
            "proxies to the API server are not supported, and the configuration has {proxy}"
        )
        .into());
    }
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
        .map_response(|answer: Response<Incoming>| {
            answer.map(|body| TimeoutBody::new(READ_TIMEOUT, body))
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

/// Creates a Job. Only `T` is parsed of the answer, which is many times as long as what is needed of it.
///
/// # Errors
/// Those of the request.
pub async fn create_job<T: DeserializeOwned>(
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
