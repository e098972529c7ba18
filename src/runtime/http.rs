//! The HTTP servers of probes and metrics. They are open to all who reach them, so no client may hold much or for long:
//! each connection has one request and an end, and there are only so many.

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
    serve(listener, move |stream| {
        let health = health.clone();
        serve_one_request(stream, move |request| {
            let health = health.clone();
            async move { probe(&health, request.uri().path()) }
        })
    })
    .await;
}

fn probe(health: &Health, path: &str) -> Answer {
    match path {
        "/healthz" if health.is_stale(Instant::now()) => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "stale: the API server cannot be watched; the log says why",
        ),
        "/healthz" => answer(StatusCode::OK, "ok"),
        "/readyz" if health.is_ready() => answer(StatusCode::OK, "ok"),
        "/readyz" => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the API server has not been reached yet",
        ),
        _ => answer(StatusCode::NOT_FOUND, "only /healthz and /readyz are here"),
    }
}

/// What keeps the metrics from those who may not read them.
pub struct MetricsAuth {
    /// Keeps what is read from listeners.
    pub tls: Tls,
    /// Knows who may read.
    pub authorizer: Authorizer,
}

/// Serves `/metrics`, for ever: to those whom the auth lets in, or, without one, to all.
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
                    tracing::debug!(%error, "a client of the metrics does not speak TLS");
                }
                Err(_) => tracing::debug!("a client of the metrics is too slow"),
            }
        }
    })
    .await;
}

async fn scrape(
    metrics: &Metrics,
    auth: Option<&MetricsAuth>,
    request: &Request<Incoming>,
) -> Answer {
    if request.uri().path() != METRICS_PATH {
        return answer(StatusCode::NOT_FOUND, "only /metrics is here");
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return with(
            answer(StatusCode::METHOD_NOT_ALLOWED, "only GET"),
            ALLOW,
            "GET, HEAD",
        );
    }
    if let Some(auth) = auth {
        match auth.authorizer.verdict(request.headers()).await {
            Ok(Access::Allowed) => {}
            Ok(Access::Unauthenticated) => {
                let text = "a valid token is needed: Authorization: Bearer TOKEN";
                return with(
                    answer(StatusCode::UNAUTHORIZED, text),
                    WWW_AUTHENTICATE,
                    "Bearer",
                );
            }
            Ok(Access::Forbidden) => {
                return answer(
                    StatusCode::FORBIDDEN,
                    "the token's owner may not get the nonResourceURL /metrics",
                );
            }
            Err(_) => {
                return answer(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "the API server does not say who may read; the log says why",
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
    with(
        answer(StatusCode::OK, metrics.render(format)),
        CONTENT_TYPE,
        format.content_type(),
    )
}

/// How long a client may take to shake hands, and to send its request's head.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(5);

/// How long a connection may last.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(15);

/// The longest head of a request. The tokens of service accounts have a thousand characters or so.
const MAX_HEAD_SIZE: usize = 16 * 1024;

/// The most connections to one server.
const MAX_CONNECTIONS: usize = 64;

/// The most connections from one address.
const MAX_CONNECTIONS_PER_PEER: usize = 16;

/// The connections to a server. They are few enough to be counted anew each time.
#[derive(Default)]
struct ConnectionLimiter(VecDeque<(IpAddr, AbortHandle)>);

impl ConnectionLimiter {
    /// Whether one more from this address may come in. If all places are taken, the one that came first has to go: an
    /// honest client's work is done by then, and one that holds its place for as long as it can keeps nobody out.
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
    let mut door = ConnectionLimiter::default();
    loop {
        let (stream, peer) = match listener.accept().await {
            Ok((stream, peer)) => (stream, peer.ip().to_canonical()),
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection of a probe or of Prometheus");
                // Such as too many open files, which would be told again at once.
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        if door.admit(peer) {
            let connection = tokio::spawn(timeout(CONNECTION_TIMEOUT, serve_one_request(stream)));
            door.0.push_back((peer, connection.abort_handle()));
        }
    }
}

/// Reads one request, answers it, and hangs up.
async fn serve_one_request<F>(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    respond: impl Fn(Request<Incoming>) -> F + Send,
) where
    F: Future<Output = Answer> + Send,
{
    let service = service_fn(|request| {
        let answered = respond(request);
        async { Ok::<_, Infallible>(answered.await) }
    });
    let connection = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HANDSHAKE_TIMEOUT)
        .max_buf_size(MAX_HEAD_SIZE)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    if let Err(error) = connection.await {
        tracing::debug!(%error, "a connection of a probe or of Prometheus broke off");
    }
}

type Answer = Response<Full<Bytes>>;

fn answer(status: StatusCode, text: impl Into<Bytes>) -> Answer {
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    with(response, CONTENT_TYPE, "text/plain; charset=utf-8")
}

fn with(mut answer: Answer, name: hyper::header::HeaderName, value: &'static str) -> Answer {
    answer
        .headers_mut()
        .insert(name, HeaderValue::from_static(value));
    answer
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
        assert!(
            !health.is_stale(at(241)),
            "no failure for a minute: it works again"
        );
        health.watch_failed(at(300));
        assert!(!health.is_stale(at(301)), "a new row begins");
    }
}
