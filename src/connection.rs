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
use kube::client::{Body, ClientBuilder, ConfigExt};
use kube::{Client, Config};
use tokio_rustls::rustls::ClientConfig;
use tower::{BoxError, ServiceBuilder};
use tower_http::timeout::TimeoutBody;

use crate::controller::WATCH_SECONDS;
use crate::requests::classify;

/// An answer that stops in its middle would be waited for for ever. Longer than a watch may be silent.
const SILENCE: Duration = Duration::from_secs(WATCH_SECONDS as u64 + 15);

/// So long a connection is kept that nothing is asked for.
const KEPT: Duration = Duration::from_secs(10);

/// A shared connection that says nothing for so long is asked whether it is there, and given up if it does not answer: all
/// workers wait for it. client-go waits 30 and 15 s (`ReadIdleTimeout` and `PingTimeout` in apimachinery's `pkg/util/net`).
const ASKED_AFTER: Duration = Duration::from_secs(5);
const GIVEN_UP_AFTER: Duration = Duration::from_secs(10);

/// A client of the API server of this configuration. It repeats nothing by itself.
///
/// # Errors
/// Credentials or certificates that cannot be used, or a proxy, which is not supported.
pub fn connect(config: &Config) -> Result<Client, Box<dyn Error>> {
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
        .pool_idle_timeout(KEPT);
    let each: legacy::Client<_, Body> = builder.build(connector(config, tls.clone(), false)?);
    let shared: legacy::Client<_, Body> = builder
        .http2_keep_alive_interval(ASKED_AFTER)
        .http2_keep_alive_timeout(GIVEN_UP_AFTER)
        .build(connector(config, tls, true)?);
    let http = tower::service_fn(move |request: Request<Body>| {
        match classify(request.method(), request.uri()) {
            ("patch", resource) if resource == "pods" => shared.request(request),
            _ => each.request(request),
        }
    });
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_response(|answer: Response<Incoming>| {
            answer.map(|body| TimeoutBody::new(SILENCE, body))
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
