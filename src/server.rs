//! The HTTP servers of probes and metrics. They are open to all who reach them, so no client may hold much or for long:
//! each connection has one request and an end, and there are only so many.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
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

use crate::authorize::{Authorizer, METRICS_PATH, Verdict};
use crate::metrics::{Format, Metrics};
use crate::tls::Tls;

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
        let mut failures = self
            .watch_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let first = failures
            .filter(|f| now.duration_since(f.last) < PAUSE)
            .map_or(now, |f| f.first);
        *failures = Some(Failures { first, last: now });
    }

    /// Whether watches have failed again and again, and still do.
    fn is_stale(&self, now: Instant) -> bool {
        let failures = self
            .watch_failures
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failures.is_some_and(|f| {
            f.last.duration_since(f.first) >= STALE && now.duration_since(f.last) < PAUSE
        })
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
    serve(listener, move |stream| {
        let health = health.clone();
        converse(stream, move |request| {
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
        "/readyz" if health.ready.load(Ordering::Relaxed) => answer(StatusCode::OK, "ok"),
        "/readyz" => answer(
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: the API server has not been reached yet",
        ),
        _ => answer(StatusCode::NOT_FOUND, "only /healthz and /readyz are here"),
    }
}

/// What keeps the metrics from those who may not read them.
pub struct Guard {
    /// Keeps what is read from listeners.
    pub tls: Tls,
    /// Knows who may read.
    pub authorizer: Authorizer,
}

/// Serves `/metrics`, for ever: to those whom the guard lets in, or, without one, to all.
pub async fn serve_metrics(listener: TcpListener, metrics: Arc<Metrics>, guard: Option<Guard>) {
    let guard = guard.map(Arc::new);
    serve(listener, move |stream| {
        let (metrics, guard) = (metrics.clone(), guard.clone());
        async move {
            let respond = {
                let guard = guard.clone();
                move |request: Request<Incoming>| {
                    let (metrics, guard) = (metrics.clone(), guard.clone());
                    async move { scrape(&metrics, guard.as_deref(), &request).await }
                }
            };
            let Some(guard) = guard else {
                return converse(stream, respond).await;
            };
            match timeout(BEGINNING, guard.tls.acceptor(Instant::now()).accept(stream)).await {
                Ok(Ok(stream)) => converse(stream, respond).await,
                Ok(Err(error)) => {
                    tracing::debug!(%error, "a client of the metrics does not speak TLS")
                }
                Err(_) => tracing::debug!("a client of the metrics is too slow"),
            }
        }
    })
    .await;
}

async fn scrape(metrics: &Metrics, guard: Option<&Guard>, request: &Request<Incoming>) -> Answer {
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
    if let Some(guard) = guard {
        match guard.authorizer.verdict(request.headers()).await {
            Ok(Verdict::Allowed) => {}
            Ok(Verdict::Unknown) => {
                let text = "a valid token is needed: Authorization: Bearer TOKEN";
                return with(
                    answer(StatusCode::UNAUTHORIZED, text),
                    WWW_AUTHENTICATE,
                    "Bearer",
                );
            }
            Ok(Verdict::Forbidden) => {
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
        answer(StatusCode::OK, metrics.text(format)),
        CONTENT_TYPE,
        format.content_type(),
    )
}

/// How long a client may take to shake hands, and to send its request's head.
const BEGINNING: Duration = Duration::from_secs(5);

/// How long a connection may last.
const CONNECTION: Duration = Duration::from_secs(15);

/// The longest head of a request. The tokens of service accounts have a thousand characters or so.
const MOST_HEAD: usize = 16 * 1024;

/// The most connections to one server.
const MOST_CONNECTIONS: usize = 64;

/// The most connections from one address.
const MOST_FROM_ONE: usize = 16;

/// The connections to a server. They are few enough to be counted anew each time.
#[derive(Default)]
struct Door(VecDeque<(IpAddr, AbortHandle)>);

impl Door {
    /// Whether one more from this address may come in. If all places are taken, the one that came first has to go: an
    /// honest client's work is done by then, and one that holds its place for as long as it can keeps nobody out.
    fn lets_in(&mut self, peer: IpAddr) -> bool {
        self.0.retain(|(_, connection)| !connection.is_finished());
        if self.0.iter().filter(|(other, _)| *other == peer).count() >= MOST_FROM_ONE {
            return false;
        }
        while self.0.len() >= MOST_CONNECTIONS {
            let Some((_, oldest)) = self.0.pop_front() else {
                break;
            };
            oldest.abort();
        }
        true
    }
}

async fn serve<F>(listener: TcpListener, converse: impl Fn(TcpStream) -> F)
where
    F: Future<Output = ()> + Send + 'static,
{
    let mut door = Door::default();
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
        if door.lets_in(peer) {
            let connection = tokio::spawn(timeout(CONNECTION, converse(stream)));
            door.0.push_back((peer, connection.abort_handle()));
        }
    }
}

/// Reads one request, answers it, and hangs up.
async fn converse<F>(
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
        .header_read_timeout(BEGINNING)
        .max_buf_size(MOST_HEAD)
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
