//! The API server's audit log.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::Path;
use std::time::SystemTime;

use k8s_openapi::jiff::Timestamp;
use serde::Deserialize;

/// One request.
#[derive(Clone, Debug)]
pub struct Request {
    pub user: String,
    pub verb: String,
    pub group: String,
    /// The resource with its subresource, such as `loadtests/status`. Empty for other paths.
    pub resource: String,
    pub namespace: String,
    pub name: String,
    pub uri: String,
    /// 0 without a response.
    pub code: u16,
    pub received: SystemTime,
    /// Seconds within the API server. None for watches, which last.
    pub took: Option<f64>,
    /// Whether authorization allowed the request. Admission also rejects with 403, which is no missing permission.
    pub is_allowed: bool,
    /// Why authorization decided as it did.
    pub reason: String,
}

impl Request {
    /// The verb and the resource, such as `patch loadtests/status`.
    pub fn kind(&self) -> String {
        let resource = if self.resource.is_empty() {
            "-"
        } else {
            &self.resource
        };
        format!("{} {resource}", self.verb)
    }

    pub fn is_lease(&self) -> bool {
        self.resource == "leases"
    }

    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.code)
    }

    /// The path, without the query.
    pub fn path(&self) -> &str {
        self.uri.split('?').next().unwrap_or_default()
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    #[serde(rename = "auditID")]
    audit_id: String,
    stage: String,
    verb: String,
    #[serde(rename = "requestURI")]
    request_uri: String,
    user: User,
    object_ref: Option<Object>,
    response_status: Option<Response>,
    request_received_timestamp: Timestamp,
    stage_timestamp: Timestamp,
    #[serde(default)]
    annotations: Annotations,
}

#[derive(Deserialize)]
struct User {
    username: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Object {
    api_group: String,
    resource: String,
    subresource: String,
    namespace: String,
    name: String,
}

#[derive(Deserialize)]
struct Response {
    #[serde(default)]
    code: u16,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Annotations {
    #[serde(rename = "authorization.k8s.io/decision")]
    decision: String,
    #[serde(rename = "authorization.k8s.io/reason")]
    reason: String,
}

impl From<Entry> for Request {
    fn from(entry: Entry) -> Self {
        let object = entry.object_ref.unwrap_or_default();
        let took = entry
            .stage_timestamp
            .duration_since(entry.request_received_timestamp);
        Self {
            user: entry.user.username,
            group: object.api_group,
            resource: if object.subresource.is_empty() {
                object.resource
            } else {
                format!("{}/{}", object.resource, object.subresource)
            },
            namespace: object.namespace,
            name: object.name,
            uri: entry.request_uri,
            code: entry.response_status.map_or(0, |r| r.code),
            received: entry.request_received_timestamp.into(),
            took: (entry.verb != "watch").then_some(took.as_secs_f64()),
            verb: entry.verb,
            is_allowed: entry.annotations.decision == "allow",
            reason: entry.annotations.reason,
        }
    }
}

/// The length of a log, from which [`requests`] can continue.
pub fn length(log: &Path) -> u64 {
    std::fs::metadata(log)
        .unwrap_or_else(|e| panic!("no audit log {}: {e}", log.display()))
        .len()
}

/// The requests since a log had this length, in lines that contain `marker`: most lines belong to others and are not parsed.
/// A watch counts from its beginning.
pub fn requests<'a>(
    log: &Path,
    since: u64,
    marker: &'a str,
) -> impl Iterator<Item = Request> + use<'a> {
    let mut file = File::open(log)
        .unwrap_or_else(|e| panic!("the audit log {} cannot be read: {e}", log.display()));
    file.seek(SeekFrom::Start(since))
        .expect("the audit log is a file");
    let mut begun = HashSet::new();
    // The last line may be incomplete.
    let entries = BufReader::new(file)
        .lines()
        .map_while(Result::ok)
        .filter(move |line| line.contains(marker))
        .filter_map(|line| serde_json::from_str::<Entry>(&line).ok());
    entries
        .filter(move |entry| {
            if entry.stage == "ResponseStarted" {
                return begun.insert(entry.audit_id.clone());
            }
            // The end of a watch, whose beginning may be before the part of the log that is read.
            let has_begun_before = entry.verb == "watch" && entry.succeeded();
            !has_begun_before && !begun.contains(&entry.audit_id)
        })
        .map(Request::from)
}

impl Entry {
    fn succeeded(&self) -> bool {
        self.response_status.as_ref().is_some_and(|r| r.code == 200)
    }
}

/// The requests of a user since a log had this length.
pub fn requests_of(log: &Path, since: u64, user: &str) -> Vec<Request> {
    let marker = format!("\"username\":\"{user}\"");
    requests(log, since, &marker)
        .filter(|request| request.user == user)
        .collect()
}
