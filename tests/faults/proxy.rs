//! A proxy between an operator and the API server that counts the requests, and lets one fault befall them.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use artillery_operator::runtime::request_metrics::request_info;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kube::Client;
use kube::client::Body;
use serde_json::json;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot, watch};

use crate::others;
use crate::plan::{Deed, Fault, Point, Times, WatchDeed};
use crate::stream;

/// By this the audit log tells the operator's requests from others.
pub const USER_AGENT: &str = "operator-by-proxy";

/// The operator gives a call up after 15 s: by then what is held back for so long has no sender any more.
const LONG: Duration = Duration::from_secs(17);

/// After this, another operator has the lease: it takes one that is not renewed for 15 s, and looks every 2 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(20);

/// Whoever kills and restarts the operator; it says when the process is gone.
pub type Killer = mpsc::UnboundedSender<oneshot::Sender<()>>;

/// An answer, or the end of the connection without one.
pub type Answer = io::Result<Response<BoxBody<Bytes, io::Error>>>;

/// A request that reached the API server.
#[derive(Clone, Debug)]
pub struct Sent {
    pub point: Point,
    pub at: Instant,
    /// 0 where there was no answer.
    pub code: u16,
}

/// How far the fault is.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Progress {
    Ahead,
    UnderWay,
    Over,
}

pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    server: tokio::task::JoinHandle<()>,
}

struct Shared {
    client: Client,
    fault: Fault,
    /// How long what heals takes to heal.
    heal: Duration,
    killer: Killer,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    arrived: watch::Sender<usize>,
}

#[derive(Default)]
struct State {
    counts: HashMap<(String, String), usize>,
    points: Vec<Point>,
    sent: Vec<Sent>,
    begun: Option<Instant>,
    forbidden: bool,
    /// The operator does not reach its lease.
    without_lease: bool,
    freed: Vec<String>,
    /// The first list of each resource, as it was given to the first operator.
    first_lists: HashMap<String, Bytes>,
    /// The resources whose next list is to be the first one again, and whose next watch goes on from there after a while.
    past_lists: HashSet<String>,
    past_watches: HashSet<String>,
}

impl Proxy {
    pub async fn start(client: Client, fault: Fault, heal: Duration, killer: Killer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (progress, arrived) = (watch::Sender::new(Progress::Ahead), watch::Sender::new(0));
        let shared = Arc::new(Shared {
            client,
            fault,
            heal,
            killer,
            state: Mutex::default(),
            progress,
            arrived,
        });
        let for_server = shared.clone();
        let server = tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    continue;
                };
                let shared = for_server.clone();
                let service = service_fn(move |request| answer(shared.clone(), request));
                tokio::spawn(
                    hyper::server::conn::http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service),
                );
            }
        });
        Self {
            port,
            shared,
            server,
        }
    }

    /// Writes a kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        let path = std::env::temp_dir().join(format!(
            "faults-{}-{}.kubeconfig",
            std::process::id(),
            self.port
        ));
        let text = json!({"apiVersion": "v1", "kind": "Config", "current-context": "p",
            "contexts": [{"name": "p", "context": {"cluster": "p", "user": "p"}}], "users": [{"name": "p", "user": {}}],
            "clusters": [{"name": "p", "cluster": {"server": format!("http://127.0.0.1:{}", self.port)}}]});
        std::fs::write(&path, text.to_string()).unwrap();
        path
    }

    /// Waits until these have been asked for, or some time has passed: a fault may keep them from it.
    pub async fn until_asked(&self, points: &[(&str, &str)], limit: Duration) {
        let mut arrived = self.shared.arrived.subscribe();
        let all = arrived.wait_for(|_| {
            let state = self.shared.state();
            points.iter().all(|(verb, resource)| {
                state
                    .counts
                    .contains_key(&((*verb).to_owned(), (*resource).to_owned()))
            })
        });
        let _ = tokio::time::timeout(limit, all).await;
    }

    /// Whether the fault has befallen anything.
    pub fn was_reached(&self) -> bool {
        *self.shared.progress.borrow() != Progress::Ahead
    }

    /// Waits until a fault that has begun is over, or some time has passed.
    pub async fn until_over(&self, limit: Duration) {
        let _ = tokio::time::timeout(
            limit,
            self.shared
                .progress
                .subscribe()
                .wait_for(|p| *p != Progress::UnderWay),
        )
        .await;
    }

    /// From now on all is forbidden, or is no more.
    pub fn forbid(&self, forbidden: bool) {
        self.shared.state().forbidden = forbidden;
    }

    /// From now on these are shown as they were in the beginning, to whoever asks for a list next; a watch from there goes on
    /// after a while, and tells all that has happened since.
    pub fn go_back_in_time(&self, resources: &[&str]) {
        let mut state = self.shared.state();
        let resources: HashSet<String> = resources.iter().map(ToString::to_string).collect();
        (state.past_lists, state.past_watches) = (resources.clone(), resources);
    }

    /// Waits until whoever was shown the past is on its way to the present, or some time has passed.
    pub async fn until_caught_up(&self, limit: Duration) {
        let mut arrived = self.shared.arrived.subscribe();
        let all = arrived.wait_for(|_| self.shared.state().past_watches.is_empty());
        let _ = tokio::time::timeout(limit, all).await;
    }

    pub fn points(&self) -> Vec<Point> {
        self.shared.state().points.clone()
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.shared.state().sent.clone()
    }

    /// The foreign Jobs that were created for a fault, and deleted again.
    pub fn freed(&self) -> Vec<String> {
        self.shared.state().freed.clone()
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.server.abort();
        let path = std::env::temp_dir().join(format!(
            "faults-{}-{}.kubeconfig",
            std::process::id(),
            self.port
        ));
        let _ = std::fs::remove_file(path);
    }
}

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Answer {
    let (mut parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    parts.headers.remove(header::HOST);
    parts.headers.remove(header::CONNECTION);
    parts
        .headers
        .insert(header::USER_AGENT, HeaderValue::from_static(USER_AGENT));
    parts.version = http::Version::HTTP_11;
    let point = shared.count(&parts.method, &parts.uri);
    // A task of its own: what is held back is sent on even when its sender has gone.
    let task = tokio::spawn(async move { shared.befall(&point, &parts, &body).await });
    task.await.map_err(io::Error::other)?
}

impl Shared {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    fn count(&self, method: &Method, uri: &Uri) -> Point {
        let (verb, resource) = request_info(method, uri);
        let verb = verb.to_owned();
        let mut state = self.state();
        let occurrence = state
            .counts
            .entry((verb.clone(), resource.clone()))
            .or_default();
        *occurrence += 1;
        let point = Point {
            verb,
            resource,
            occurrence: *occurrence,
        };
        state.points.push(point.clone());
        drop(state);
        self.arrived.send_modify(|n| *n += 1);
        point
    }

    async fn befall(
        self: &Arc<Self>,
        point: &Point,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Answer {
        if self.state().forbidden {
            return Ok(refusal(403, None, point));
        }
        if point.resource == "leases" && self.state().without_lease {
            self.progress
                .subscribe()
                .wait_for(|p| *p == Progress::Over)
                .await
                .map_err(io::Error::other)?;
            return Err(gone());
        }
        let Some(fault) = self.fault_at(point) else {
            return self.forward(point, parts, body).await;
        };
        self.progress
            .send_if_modified(|p| std::mem::replace(p, Progress::UnderWay) != Progress::UnderWay);
        let answer = match fault {
            Fault::Request(_, deed) => self.perform(deed, point, parts, body).await,
            Fault::Watch(_, deed) => self.forward_watch(deed, point, parts, body).await,
            Fault::None | Fault::World(..) => unreachable!("nothing befalls a request"),
        };
        self.progress.send_replace(Progress::Over);
        answer
    }

    /// The fault, if it befalls this request.
    fn fault_at(&self, point: &Point) -> Option<Fault> {
        let (Fault::Request(at, _) | Fault::Watch(at, _)) = &self.fault else {
            return None;
        };
        if !point.is(&at.verb, &at.resource) || point.occurrence < at.occurrence {
            return None;
        }
        let until = match self.fault {
            Fault::Request(_, Deed::Refused(_, _, Times::Thrice)) => at.occurrence + 3,
            Fault::Request(_, Deed::Refused(_, _, Times::UntilHealed)) => {
                let begun = *self.state().begun.get_or_insert_with(Instant::now);
                if begun.elapsed() < self.heal {
                    usize::MAX
                } else {
                    0
                }
            }
            _ => at.occurrence + 1,
        };
        (point.occurrence < until).then(|| self.fault.clone())
    }

    async fn perform(
        self: &Arc<Self>,
        deed: Deed,
        point: &Point,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Answer {
        match deed {
            Deed::KilledBefore => {
                self.kill().await;
                Err(gone())
            }
            Deed::KilledAfter => {
                let _ = self.forward(point, parts, body).await;
                self.kill().await;
                Err(gone())
            }
            Deed::AnswerLost => {
                let _ = self.forward(point, parts, body).await;
                Err(gone())
            }
            Deed::Dropped => Err(gone()),
            Deed::SentTwice => {
                let _ = self.forward(point, parts, body).await;
                self.forward(point, parts, body).await
            }
            Deed::Delayed => {
                tokio::time::sleep(LONG).await;
                self.forward(point, parts, body).await
            }
            Deed::Deposed => {
                self.state().without_lease = true;
                tokio::time::sleep(PAST_THE_LEASE).await;
                let answer = self.forward(point, parts, body).await;
                self.state().without_lease = false;
                answer
            }
            Deed::BlackHoled => {
                self.progress.send_replace(Progress::Over);
                std::future::pending().await
            }
            Deed::Conflict => {
                if let Some(job) = others::write_first(&self.client, point, &parts.uri, body).await
                {
                    let shared = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(shared.heal).await;
                        shared.state().freed.push(job.uid.clone());
                        others::delete(&shared.client, &job).await;
                    });
                }
                self.forward(point, parts, body).await
            }
            Deed::Refused(code, retry_after, _) => Ok(refusal(code, retry_after, point)),
        }
    }

    async fn kill(&self) {
        let (dead, died) = oneshot::channel();
        if self.killer.send(dead).is_ok() {
            let _ = died.await;
        }
    }

    async fn send(
        &self,
        point: &Point,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> io::Result<Response<Body>> {
        let at = Instant::now();
        let mut request = Request::new(Body::from(body.to_vec()));
        *request.method_mut() = parts.method.clone();
        *request.uri_mut() = parts.uri.clone();
        *request.headers_mut() = parts.headers.clone();
        let answer = self.client.send(request).await.map_err(io::Error::other);
        let code = answer.as_ref().map_or(0, |a| a.status().as_u16());
        self.state().sent.push(Sent {
            point: point.clone(),
            at,
            code,
        });
        answer
    }

    async fn forward(&self, point: &Point, parts: &http::request::Parts, body: &Bytes) -> Answer {
        let (mut head, body) = self.send(point, parts, body).await?.into_parts();
        if point.is_watch() {
            let lags = self.state().past_watches.remove(&point.resource);
            self.arrived.send_modify(|_| {});
            return Ok(Response::from_parts(
                head,
                stream::pass(body, lags.then_some(WatchDeed::Stalled), self.heal),
            ));
        }
        let mut body = body.collect().await.map_err(io::Error::other)?.to_bytes();
        if point.verb == "list" && head.status.is_success() {
            let mut state = self.state();
            let first = state
                .first_lists
                .entry(point.resource.clone())
                .or_insert_with(|| body.clone())
                .clone();
            if state.past_lists.remove(&point.resource) {
                head.headers.remove(header::CONTENT_LENGTH);
                body = first;
            }
        }
        Ok(Response::from_parts(head, whole(body)))
    }

    async fn forward_watch(
        &self,
        deed: WatchDeed,
        point: &Point,
        parts: &http::request::Parts,
        body: &Bytes,
    ) -> Answer {
        let (head, body) = self.send(point, parts, body).await?.into_parts();
        Ok(Response::from_parts(
            head,
            stream::pass(body, Some(deed), self.heal),
        ))
    }
}

fn gone() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn whole(body: Bytes) -> BoxBody<Bytes, io::Error> {
    Full::new(body).map_err(|never| match never {}).boxed()
}

fn refusal(
    code: u16,
    retry_after: Option<u32>,
    point: &Point,
) -> Response<BoxBody<Bytes, io::Error>> {
    let reason = match code {
        403 => "Forbidden",
        404 => "NotFound",
        409 if point.verb == "create" => "AlreadyExists",
        409 => "Conflict",
        410 => "Expired",
        422 => "Invalid",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        504 => "Timeout",
        _ => "InternalError",
    };
    let status = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "code": code,
        "reason": reason, "message": format!("{point} was refused by the fault proxy")});
    let mut answer = Response::new(whole(status.to_string().into()));
    *answer.status_mut() = http::StatusCode::from_u16(code).unwrap();
    answer.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    if let Some(seconds) = retry_after {
        answer
            .headers_mut()
            .insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer
}
