//! The HTTP servers of probes and metrics. Any client can connect to them, so they limit the number of connections, the
//! duration of a connection, and the requests per connection (one).

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, Instant};

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ACCEPT, ALLOW, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::AbortHandle;
use tokio::time::timeout;

use crate::runtime::health::Health;
use crate::runtime::metrics::{Format, Metrics};
use crate::runtime::metrics_auth::{Access, Authorizer, METRICS_PATH};
use crate::runtime::tls::Tls;

/// Binds a server's address. If the host has no IPv6, the unspecified address falls back to IPv4.
///
/// # Errors
/// Fails if the address cannot be bound, for example because it is in use.
pub async fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    match TcpListener::bind(address).await {
        Err(error) if address.ip().is_unspecified() && error.kind() != io::ErrorKind::AddrInUse => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    }
}

/// Serves `/healthz` and `/readyz`. Never returns.
pub async fn serve_probes(listener: TcpListener, health: Arc<Health>) {
    serve(listener, move |stream| {
        let health = health.clone();
        serve_one_request(stream, move |request| {
            let health = health.clone();
            async move { probe(&health, request.uri().path()) }
        })
    })
    .await;
}

fn probe(health: &Health, path: &str) -> HttpResponse {
    match path {
        "/healthz" if health.is_stale(Instant::now()) => text_response(
            StatusCode::SERVICE_UNAVAILABLE,
            "stale: watches of the API server keep failing (see the log)",
        ),
        "/healthz" => text_response(StatusCode::OK, "ok"),
        "/readyz" if health.is_ready() => text_response(StatusCode::OK, "ok"),
        "/readyz" => text_response(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the API server has not been reached yet",
        ),
        _ => text_response(StatusCode::NOT_FOUND, "not found: use /healthz or /readyz"),
    }
}

/// Encryption and access control of the metrics.
pub struct MetricsAuth {
    /// The server certificate.
    pub tls: Tls,
    /// Decides which clients may read the metrics.
    pub authorizer: Authorizer,
}

/// Serves `/metrics`: to authorized clients over HTTPS if `auth` is set, otherwise to everybody over HTTP. Never
/// returns.
pub async fn serve_metrics(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    auth: Option<MetricsAuth>,
) {
    let auth = auth.map(Arc::new);
    serve(listener, move |stream| {
        let (metrics, auth) = (metrics.clone(), auth.clone());
        async move {
            let respond = {
                let auth = auth.clone();
                move |request: Request<Incoming>| {
                    let (metrics, auth) = (metrics.clone(), auth.clone());
                    async move { scrape(&metrics, auth.as_deref(), &request).await }
                }
            };
            let Some(auth) = auth else {
                return serve_one_request(stream, respond).await;
            };
            match timeout(
                HANDSHAKE_TIMEOUT,
                auth.tls.acceptor(Instant::now()).accept(stream),
            )
            .await
            {
                Ok(Ok(stream)) => serve_one_request(stream, respond).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "TLS handshake of a metrics client failed");
                }
                Err(_) => tracing::debug!("TLS handshake of a metrics client timed out"),
            }
        }
    })
    .await;
}

async fn scrape(
    metrics: &Metrics,
    auth: Option<&MetricsAuth>,
    request: &Request<Incoming>,
) -> HttpResponse {
    if request.uri().path() != METRICS_PATH {
        return text_response(StatusCode::NOT_FOUND, "not found: use /metrics");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return with_header(
            text_response(
                StatusCode::METHOD_NOT_ALLOWED,
                "method not allowed: use GET",
            ),
            ALLOW,
            "GET, HEAD",
        );
    }
    if let Some(auth) = auth {
        match auth.authorizer.access(request.headers()).await {
            Ok(Access::Allowed) => {}
            Ok(Access::Unauthenticated) => {
                let text = "unauthorized: send a valid token (Authorization: Bearer TOKEN)";
                return with_header(
                    text_response(StatusCode::UNAUTHORIZED, text),
                    WWW_AUTHENTICATE,
                    "Bearer",
                );
            }
            Ok(Access::Forbidden) => {
                return text_response(
                    StatusCode::FORBIDDEN,
                    "forbidden: not allowed to get nonResourceURL /metrics",
                );
            }
            Err(_) => {
                return text_response(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "cannot authorize: the API server did not review the token (see the log)",
                );
            }
        }
    }
    let accept: Vec<&str> = request
        .headers()
        .get_all(ACCEPT)
        .iter()
        .filter_map(|v| v.to_str().ok())
        .collect();
    let format = Format::accepted(&accept.join(","));
    with_header(
        text_response(StatusCode::OK, metrics.render(format)),
        CONTENT_TYPE,
        format.content_type(),
    )
}

/// The timeout of the TLS handshake, and of reading the request head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// The maximum duration of a connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The maximum size of a request head. It leaves ample room for a service account token.
const MAX_HEAD_SIZE: usize = 16 * 1024;

/// The maximum number of connections to one server.
const MAX_CONNECTIONS: usize = 64;

/// The maximum number of connections from one address.
const MAX_CONNECTIONS_PER_PEER: usize = 16;

/// The open connections of a server, oldest first.
#[derive(Default)]
struct ConnectionLimiter(VecDeque<(IpAddr, AbortHandle)>);

impl ConnectionLimiter {
    /// Returns whether a connection from `peer` is accepted. At the limit, the oldest connection is closed. A
    /// well-behaved client has finished by then, and a client that holds connections open cannot lock out others.
    fn admit(&mut self, peer: IpAddr) -> bool {
        self.0.retain(|(_, connection)| !connection.is_finished());
        if self.0.iter().filter(|(other, _)| *other == peer).count() >= MAX_CONNECTIONS_PER_PEER {
            return false;
        }
        while self.0.len() >= MAX_CONNECTIONS {
            let Some((_, oldest)) = self.0.pop_front() else {
                break;
            };
            oldest.abort();
        }
        true
    }
}

async fn serve<F>(listener: TcpListener, serve_one_request: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut limiter = ConnectionLimiter::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                // Errors such as too many open files persist, so an immediate retry would spin.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if limiter.admit(peer) {
            let connection = tokio::spawn(timeout(CONNECTION_TIMEOUT, serve_one_request(stream)));
            limiter.0.push_back((peer, connection.abort_handle()));
        }
    }
}

/// Serves one request and closes the connection.
async fn serve_one_request<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    respond: impl Fn(Request<Incoming>) -> F + Send,
) where
    F: Future<Output = HttpResponse> + Send,
{
    let service = service_fn(|request| {
        let response = respond(request);
        async { Ok::<_, Infallible>(response.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .max_buf_size(MAX_HEAD_SIZE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "connection failed");
    }
}

type HttpResponse = Response<Full<Bytes>>;

fn text_response(status: StatusCode, text: impl Into<Bytes>) -> HttpResponse {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    with_header(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with_header(
    mut response: HttpResponse,
    name: hyper::header::HeaderName,
    value: &'static str,
) -> HttpResponse {
    response
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_stale_only_while_watches_keep_failing() {
        let (health, start) = (Health::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert!(!health.is_stale(at(0)));
        for second in (0..=150).step_by(30) {
            health.watch_failed(at(second));
            assert!(!health.is_stale(at(second)));
        }
        health.watch_failed(at(180));
        assert!(health.is_stale(at(190)));
        assert!(!health.is_stale(at(241)), "no failure for FAILURE_WINDOW");
        health.watch_failed(at(300));
        assert!(!health.is_stale(at(301)), "a new series of failures");
    }
}
