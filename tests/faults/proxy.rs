//! A proxy between an operator and the API server that counts the requests, and injects one fault.

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use artillery_operator::runtime::request_metrics::request_info;
use http::{HeaderValue, Method, Request, Response, Uri, header};
use http_body_util::BodyExt;
use hyper::body::Bytes;
use kube::Client;
use kube::client::Body;
use tokio::sync::watch;

use crate::plan::{Fault, Point, RequestFault, Times, WatchFault};
use crate::supervisor::{self, Killer};
use crate::support::proxy::{self, Answer, Proxy, ResponseBody, full};
use crate::third_party;
use crate::watch_faults;

/// Marks the requests of operators in the audit log.
pub const USER_AGENT: &str = "operator-by-proxy";

/// Longer than the operator's timeout of a request, 15 s.
const PAST_THE_TIMEOUT: Duration = Duration::from_secs(17);

/// After this time a second operator has acquired the lease: it checks the lease every 2 s, and takes one that was not renewed
/// for 15 s.
const PAST_THE_LEASE: Duration = Duration::from_secs(20);

/// A request that reached the API server.
#[derive(Clone, Debug)]
pub struct Sent {
    pub point: Point,
    pub at: Instant,
    /// 0 without a response.
    pub code: u16,
}

/// The progress of the fault.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Progress {
    Pending,
    Active,
    Over,
}

pub struct FaultProxy {
    proxy: Proxy,
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    fault: Fault,
    /// How long temporary faults last.
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
    /// When a call failed first whose requests fail for good.
    failed: Option<Instant>,
    forbidden: bool,
    /// Requests for the lease are held back.
    without_lease: bool,
    freed: Vec<String>,
    /// The first list of each resource.
    first_lists: HashMap<String, Bytes>,
    /// The resources whose next list is answered with the first one, and those whose next watch is delayed.
    stale_lists: HashSet<String>,
    stale_watches: HashSet<String>,
}

impl FaultProxy {
    pub async fn start(client: Client, fault: Fault, heal: Duration, killer: Killer) -> Self {
        let (progress, arrived) = (watch::Sender::new(Progress::Pending), watch::Sender::new(0));
        let shared = Arc::new(Shared {
            client,
            fault,
            heal,
            killer,
            state: Mutex::default(),
            progress,
            arrived,
        });
        let for_hook = shared.clone();
        let proxy = Proxy::start(move |mut request| {
            let shared = for_hook.clone();
            let user_agent = HeaderValue::from_static(USER_AGENT);
            request.headers_mut().insert(header::USER_AGENT, user_agent);
            let point = shared.count(request.method(), request.uri());
            async move { shared.answer(&point, &request).await }
        })
        .await;
        Self { proxy, shared }
    }

    /// A kubeconfig that leads through the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.proxy.kubeconfig()
    }

    /// Waits until these requests have arrived, for `limit` at most: a fault may prevent them.
    pub async fn until_requested(&self, points: &[(&str, &str)], limit: Duration) {
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

    /// Whether the fault was injected.
    pub fn was_reached(&self) -> bool {
        *self.shared.progress.borrow() != Progress::Pending
    }

    /// Waits until a fault that has begun is over, for `limit` at most.
    pub async fn until_over(&self, limit: Duration) {
        let _ = tokio::time::timeout(
            limit,
            self.shared
                .progress
                .subscribe()
                .wait_for(|p| *p != Progress::Active),
        )
        .await;
    }

    /// Starts or stops to forbid all requests.
    pub fn forbid(&self, forbidden: bool) {
        self.shared.state().forbidden = forbidden;
    }

    /// Answers the next list of these resources with the first one. The next watch is delayed, and then delivers all events
    /// since that list.
    pub fn serve_stale_lists(&self, resources: &[&str]) {
        let mut state = self.shared.state();
        let resources: HashSet<String> = resources.iter().map(ToString::to_string).collect();
        (state.stale_lists, state.stale_watches) = (resources.clone(), resources);
    }

    /// Waits until the watches after stale lists have begun, for `limit` at most.
    pub async fn until_caught_up(&self, limit: Duration) {
        let mut arrived = self.shared.arrived.subscribe();
        let all = arrived.wait_for(|_| self.shared.state().stale_watches.is_empty());
        let _ = tokio::time::timeout(limit, all).await;
    }

    pub fn points(&self) -> Vec<Point> {
        self.shared.state().points.clone()
    }

    pub fn sent(&self) -> Vec<Sent> {
        self.shared.state().sent.clone()
    }

    /// When a call failed first whose requests fail for good.
    pub fn failed(&self) -> Option<Instant> {
        self.shared.state().failed
    }

    /// The foreign Jobs that were created for a fault, and deleted again.
    pub fn freed(&self) -> Vec<String> {
        self.shared.state().freed.clone()
    }
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

    async fn answer(self: &Arc<Self>, point: &Point, request: &Request<Bytes>) -> Answer {
        if self.state().forbidden {
            return Ok(rejection(403, None, point));
        }
        if point.resource == "leases" && self.state().without_lease {
            self.progress
                .subscribe()
                .wait_for(|p| *p == Progress::Over)
                .await
                .map_err(io::Error::other)?;
            return Err(closed());
        }
        let Some(fault) = self.fault_at(point) else {
            return self.forward(point, request).await;
        };
        self.progress
            .send_if_modified(|p| std::mem::replace(p, Progress::Active) != Progress::Active);
        let answer = match fault {
            Fault::Request(_, fault) => self.inject(fault, point, request).await,
            Fault::Watch(_, fault) => self.forward_watch(fault, point, request).await,
            Fault::None | Fault::Cluster(..) | Fault::Port(_) => {
                unreachable!("these are no faults of a request")
            }
        };
        self.progress.send_replace(Progress::Over);
        answer
    }

    /// The fault, if it concerns this request.
    fn fault_at(&self, point: &Point) -> Option<Fault> {
        let (Fault::Request(at, _) | Fault::Watch(at, _)) = &self.fault else {
            return None;
        };
        if !point.is(&at.verb, &at.resource) || point.occurrence < at.occurrence {
            return None;
        }
        let until = match self.fault {
            Fault::Request(_, RequestFault::Rejected(_, _, Times::Thrice)) => at.occurrence + 3,
            Fault::Request(_, RequestFault::Rejected(_, _, Times::UntilHealed)) => {
                let begun = *self.state().begun.get_or_insert_with(Instant::now);
                if begun.elapsed() < self.heal {
                    usize::MAX
                } else {
                    0
                }
            }
            Fault::Request(_, RequestFault::Permanent(..)) => usize::MAX,
            _ => at.occurrence + 1,
        };
        (point.occurrence < until).then(|| self.fault.clone())
    }

    async fn inject(
        self: &Arc<Self>,
        fault: RequestFault,
        point: &Point,
        request: &Request<Bytes>,
    ) -> Answer {
        match fault {
            RequestFault::KilledBefore => {
                supervisor::kill(&self.killer).await;
                Err(closed())
            }
            RequestFault::KilledAfter => {
                let _ = self.forward(point, request).await;
                supervisor::kill(&self.killer).await;
                Err(closed())
            }
            RequestFault::ResponseLost => {
                let _ = self.forward(point, request).await;
                Err(closed())
            }
            RequestFault::Dropped => Err(closed()),
            RequestFault::SentTwice => {
                let _ = self.forward(point, request).await;
                self.forward(point, request).await
            }
            RequestFault::Delayed => {
                tokio::time::sleep(PAST_THE_TIMEOUT).await;
                self.forward(point, request).await
            }
            RequestFault::LeaseLost => {
                self.state().without_lease = true;
                tokio::time::sleep(PAST_THE_LEASE).await;
                let answer = self.forward(point, request).await;
                self.state().without_lease = false;
                answer
            }
            RequestFault::BlackHoled => {
                self.progress.send_replace(Progress::Over);
                std::future::pending().await
            }
            RequestFault::Conflict => {
                if let Some(job) = third_party::write_first(&self.client, point, request).await {
                    let shared = self.clone();
                    tokio::spawn(async move {
                        tokio::time::sleep(shared.heal).await;
                        shared.state().freed.push(job.uid.clone());
                        third_party::delete(&shared.client, &job).await;
                    });
                }
                self.forward(point, request).await
            }
            RequestFault::Permanent(cause, _) => {
                let failed = Instant::now() + cause.fails_after(point);
                self.state().failed.get_or_insert(failed);
                let Some((code, reason, message)) = cause.answer(point) else {
                    self.progress.send_replace(Progress::Over);
                    return std::future::pending().await;
                };
                Ok(proxy::rejection(code, reason, &message, None))
            }
            RequestFault::Rejected(code, retry_after, _) => Ok(rejection(code, retry_after, point)),
        }
    }

    /// Sends the request in a task of its own: hyper drops the future of a request whose client closes the connection, but the
    /// API server carries out what it has received.
    async fn send(
        self: &Arc<Self>,
        point: &Point,
        request: &Request<Bytes>,
    ) -> io::Result<Response<Body>> {
        let (shared, point, request) = (self.clone(), point.clone(), request.clone());
        let sent = tokio::spawn(async move {
            let at = Instant::now();
            let response = proxy::send(&shared.client, request).await;
            let code = response.as_ref().map_or(0, |r| r.status().as_u16());
            shared.state().sent.push(Sent { point, at, code });
            response
        });
        sent.await.map_err(io::Error::other)?
    }

    async fn forward(self: &Arc<Self>, point: &Point, request: &Request<Bytes>) -> Answer {
        let (mut head, body) = self.send(point, request).await?.into_parts();
        if point.is_watch() {
            let is_stale = self.state().stale_watches.remove(&point.resource);
            self.arrived.send_modify(|_| {});
            return Ok(Response::from_parts(
                head,
                watch_faults::forward(body, is_stale.then_some(WatchFault::Stalled), self.heal),
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
            if state.stale_lists.remove(&point.resource) {
                head.headers.remove(header::CONTENT_LENGTH);
                body = first;
            }
        }
        Ok(Response::from_parts(head, full(body)))
    }

    async fn forward_watch(
        self: &Arc<Self>,
        fault: WatchFault,
        point: &Point,
        request: &Request<Bytes>,
    ) -> Answer {
        let (head, body) = self.send(point, request).await?.into_parts();
        Ok(Response::from_parts(
            head,
            watch_faults::forward(body, Some(fault), self.heal),
        ))
    }
}

fn closed() -> io::Error {
    io::ErrorKind::ConnectionReset.into()
}

fn rejection(code: u16, retry_after: Option<u32>, point: &Point) -> Response<ResponseBody> {
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
    let message = format!("{point} was rejected by the fault proxy");
    proxy::rejection(code, reason, &message, retry_after)
}
