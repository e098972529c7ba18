//! The API server's audit log: what one user asked for.

use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// One request.
pub struct Request {
    verb: String,
    resource: String,
    pub namespace: String,
    pub code: u16,
    pub received: SystemTime,
    /// Seconds within the API server; none of a watch, which lasts.
    pub took: Option<f64>,
}

impl Request {
    /// Such as `patch loadtests/status`.
    pub fn kind(&self) -> String {
        format!("{} {}", self.verb, self.resource)
    }

    pub fn is_lease(&self) -> bool {
        self.resource == "leases"
    }

    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// Whether it is made for the sake of one test, as far as the log can tell: not a lease, a watch, a list, or a look at
    /// the server itself.
    pub fn is_counted(&self) -> bool {
        !self.is_lease()
            && !self.namespace.is_empty()
            && !matches!(self.verb.as_str(), "list" | "watch")
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    stage: String,
    verb: String,
    user: User,
    object_ref: Option<Object>,
    response_status: Option<Response>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
struct Object {
    #[serde(default)]
    resource: String,
    subresource: Option<String>,
    #[serde(default)]
    namespace: String,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    code: u16,
}

/// How long the log is now.
pub fn length(log: &Path) -> u64 {
    std::fs::metadata(log)
        .unwrap_or_else(|e| panic!("no audit log {}: {e}", log.display()))
        .len()
}

/// The requests of a user since the log had this length. A watch is one from when it begins.
pub fn requests(log: &Path, since: u64, user: &str) -> Vec<Request> {
    // Others write most of the log: their lines are not worth parsing.
    let marked = format!("\"username\":\"{user}\"");
    requests_in(
        log,
        since,
        |line| line.contains(&marked),
        |entry| entry.user.username == user,
    )
}

/// When what simulates the nodes wrote the status of a pod.
pub fn pod_statuses(log: &Path, since: u64) -> Vec<SystemTime> {
    let marked = r#""subresource":"status""#;
    let requests = requests_in(log, since, |line| line.contains(marked), |_| true);
    requests
        .into_iter()
        .filter(|r| r.kind() == "patch pods/status" && r.code == 200)
        .map(|r| r.received)
        .collect()
}

fn requests_in(
    log: &Path,
    since: u64,
    may_count: impl Fn(&str) -> bool,
    counts: impl Fn(&Entry) -> bool,
) -> Vec<Request> {
    let mut file = File::open(log).expect("the audit log can be read");
    file.seek(SeekFrom::Start(since))
        .expect("the audit log is a file");
    let lines = BufReader::new(file).lines().map_while(Result::ok);
    // A last line may be half written.
    let entries = lines
        .filter(|line| may_count(line))
        .filter_map(|line| serde_json::from_str::<Entry>(&line).ok());
    entries
        .filter(|e| counts(e) && (e.stage == "ResponseStarted") == (e.verb == "watch"))
        .map(|e| {
            let object = e.object_ref.unwrap_or_default();
            let subresource = object
                .subresource
                .map(|s| format!("/{s}"))
                .unwrap_or_default();
            let took = e
                .stage_timestamp
                .duration_since(e.request_received_timestamp)
                .as_secs_f64();
            Request {
                resource: if object.resource.is_empty() {
                    "-".into()
                } else {
                    object.resource + &subresource
                },
                namespace: object.namespace,
                code: e.response_status.map_or(0, |r| r.code),
                received: e.request_received_timestamp.into(),
                took: (e.verb != "watch").then_some(took),
                verb: e.verb,
            }
        })
        .collect()
}
