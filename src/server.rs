//! The HTTP servers of probes and metrics.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::CONTENT_TYPE;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What the probes tell.
#[derive(Debug, Default)]
pub struct Health {
    ready: AtomicBool,
}

impl Health {
    /// Notes that this replica can do its part: to work, or to stand by.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }
}

/// Opens the port of a server. Where the machine has no IPv6, "all addresses" are those of IPv4.
///
/// # Errors
/// Those of the operating system, such as an address in use.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

/// Serves `/healthz` and `/readyz`, for ever.
pub async fn serve_probes(listener: TcpListener, health: Arc<Health>) {
    serve(listener, move |path| match path {
        "/healthz" => answer(StatusCode::OK, "ok"),
        "/readyz" if health.ready.load(Ordering::Relaxed) => answer(StatusCode::OK, "ok"),
        "/readyz" => answer(StatusCode::SERVICE_UNAVAILABLE, "not ready: the API server has not been reached yet"),
        _ => answer(StatusCode::NOT_FOUND, "only /healthz and /readyz are here"),
    })
    .await;
}

/// Serves `/metrics`, for ever.
pub async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>) {
    serve(listener, move |path| match path {
        "/metrics" => {
            let mut response = answer(StatusCode::OK, metrics.text());
            let open_metrics =
                hyper::header::HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
            response.headers_mut().insert(CONTENT_TYPE, open_metrics);
            response
        }
        _ => answer(StatusCode::NOT_FOUND, "only /metrics is here"),
    })
    .await;
}

async fn serve(listener: TcpListener, respond: impl Fn(&str) -> Response<Full<Bytes>> + Clone + Send + 'static) {
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let respond = respond.clone();
        tokio::spawn(async move {
            let service = service_fn(move |request: Request<Incoming>| {
                std::future::ready(Ok::<_, Infallible>(respond(request.uri().path())))
            });
            let connection = hyper::server::conn::http1::Builder::new()
                .timer(TokioTimer::new())
                .serve_connection(TokioIo::new(stream), service);
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection of a probe or of Prometheus broke off");
            }
        });
    }
}

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response
}
