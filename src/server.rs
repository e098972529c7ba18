//! The HTTP servers of probes and metrics.

use std::convert::Infallible;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

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
    watch_failures: Mutex<Option<Failures>>,
}

/// A row of failures of watches with no long pause in between.
#[derive(Clone, Copy, Debug)]
struct Failures {
    first: Instant,
    last: Instant,
}

/// A watch that fails is tried again within half a minute or so: without a failure for this long, it works again.
const PAUSE: Duration = Duration::from_secs(60);

/// After watches have failed for this long, what is known of the cluster is stale.
const STALE: Duration = Duration::from_secs(180);

impl Health {
    /// Notes that this replica can do its part: to work, or to stand by.
    pub fn set_ready(&self) {
        self.ready.store(true, Ordering::Relaxed);
    }

    /// Notes that a watch has failed.
    pub fn watch_failed(&self, now: Instant) {
        let mut failures = self.watch_failures.lock().unwrap_or_else(PoisonError::into_inner);
        let first = failures.filter(|f| now.duration_since(f.last) < PAUSE).map_or(now, |f| f.first);
        *failures = Some(Failures { first, last: now });
    }

    /// Whether watches have failed again and again, and still do.
    fn is_stale(&self, now: Instant) -> bool {
        let failures = self.watch_failures.lock().unwrap_or_else(PoisonError::into_inner);
        failures.is_some_and(|f| f.last.duration_since(f.first) >= STALE && now.duration_since(f.last) < PAUSE)
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
        "/healthz" if health.is_stale(Instant::now()) => {
            answer(StatusCode::SERVICE_UNAVAILABLE, "stale: the API server cannot be watched; the log says why")
        }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_fails_only_while_watches_fail_again_and_again() {
        let (health, begun) = (Health::default(), Instant::now());
        let at = |seconds| begun + Duration::from_secs(seconds);
        assert!(!health.is_stale(at(0)));
        for second in (0..=150).step_by(30) {
            health.watch_failed(at(second));
            assert!(!health.is_stale(at(second)));
        }
        health.watch_failed(at(180));
        assert!(health.is_stale(at(190)));
        assert!(!health.is_stale(at(241)), "no failure for a minute: it works again");
        health.watch_failed(at(300));
        assert!(!health.is_stale(at(301)), "a new row begins");
    }
}
