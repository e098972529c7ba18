//! Checks that the CRD in the cluster has all fields that the operator reads and writes. The API server drops others silently,
//! and what the operator does not remember it would do again.
//!
//! The check reads the API server's `OpenAPI` documents, which every authenticated user may do.

use std::sync::Arc;
use std::time::Duration;

use kube::{Client, Resource};
use loadtest_api::crd::APPLY_COMMAND;
use loadtest_api::schema::{MissingFields, missing_fields};
use loadtest_api::v1alpha1::LoadTest;
use serde::Deserialize;
use tokio::sync::watch;

use crate::context::MissingStatusFields;
use crate::runtime::api_error::{ApiError, ErrorClass, with_timeout};
use crate::runtime::metrics::Metrics;

/// How often the index of the documents is read. The document itself is read only when its hash changes.
const CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// The same, while the CRD or fields of it are missing.
const RECHECK_INTERVAL: Duration = Duration::from_secs(5);

/// The operator starts without the result of the first check after this long.
const FIRST_CHECK_TIMEOUT: Duration = Duration::from_secs(5);

/// The CRD is reported as missing after this many checks: the API server serves the document of a new CRD a moment later.
const CHECKS_UNTIL_ABSENT: u32 = 2;

/// The index of the `OpenAPI` documents, with a path for each group and version.
const INDEX: &str = "/openapi/v3";

/// Checks the CRD, and then again and again while somebody holds the returned receiver. It has the missing fields of the status.
pub async fn watch_crd(
    client: Client,
    metrics: Arc<Metrics>,
) -> watch::Receiver<MissingStatusFields> {
    let mut check = CrdCheck {
        client,
        metrics,
        hash: None,
        missing: MissingFields::default(),
        checks_without_crd: 0,
        is_readable: true,
        status: watch::Sender::new(Arc::default()),
    };
    if tokio::time::timeout(FIRST_CHECK_TIMEOUT, check.run())
        .await
        .is_err()
    {
        tracing::warn!(
            "the API server does not serve its OpenAPI documents in time: starting without a check of the CRD"
        );
    }
    let status = check.status.subscribe();
    tokio::spawn(async move {
        loop {
            tokio::select! {
                () = tokio::time::sleep(check.interval()) => check.run().await,
                () = check.status.closed() => return,
            }
        }
    });
    status
}

struct CrdCheck {
    client: Client,
    metrics: Arc<Metrics>,
    /// The hash of the document that was read last.
    hash: Option<String>,
    missing: MissingFields,
    checks_without_crd: u32,
    is_readable: bool,
    status: watch::Sender<MissingStatusFields>,
}

/// The index of the documents.
#[derive(Deserialize)]
struct Index {
    paths: Paths,
}

/// The document of LoadTests. Those of other groups are skipped.
#[derive(Deserialize)]
struct Paths {
    #[serde(rename = "apis/loadtest.artillery.io/v1alpha1")]
    load_tests: Option<Path>,
}

/// Where a document is. The path contains a hash of it.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Path {
    #[serde(rename = "serverRelativeURL")]
    url: String,
}

impl CrdCheck {
    fn interval(&self) -> Duration {
        if self.checks_without_crd == 0 && self.missing == MissingFields::default() {
            CHECK_INTERVAL
        } else {
            RECHECK_INTERVAL
        }
    }

    /// Checks once. Only changes are logged.
    async fn run(&mut self) {
        match self.read().await {
            Ok(()) => self.is_readable = true,
            Err(error) => {
                if std::mem::replace(&mut self.is_readable, false) {
                    tracing::warn!(
                        error = error.message(),
                        "cannot check the CRD: its OpenAPI document cannot be read"
                    );
                }
                // An outage changes nothing about the CRD. A lasting refusal must not block tests.
                if matches!(
                    error.class(),
                    ErrorClass::Forbidden | ErrorClass::NotFound | ErrorClass::Rejected
                ) {
                    self.hash = None;
                    self.record(MissingFields::default());
                }
            }
        }
    }

    async fn read(&mut self) -> Result<(), ApiError> {
        let index: Index = parse(&self.get(INDEX).await?)?;
        let hash = index.paths.load_tests.map(|path| path.url);
        if hash.is_some() && hash == self.hash {
            return Ok(());
        }
        let missing = match &hash {
            // Without the hash in the path: the API server redirects requests for an older document.
            Some(_) => {
                let (group, version) = (LoadTest::group(&()), LoadTest::version(&()));
                let document = self.get(&format!("{INDEX}/apis/{group}/{version}")).await?;
                missing_fields(&document).map_err(kube::Error::SerdeError)?
            }
            None => None,
        };
        self.hash = hash;
        let Some(missing) = missing else {
            self.checks_without_crd = self.checks_without_crd.saturating_add(1);
            if self.checks_without_crd == CHECKS_UNTIL_ABSENT {
                tracing::error!(
                    "the CRD of LoadTest is not installed; install it: {APPLY_COMMAND}"
                );
            }
            return Ok(());
        };
        self.checks_without_crd = 0;
        self.record(missing);
        Ok(())
    }

    async fn get(&self, path: &str) -> Result<String, ApiError> {
        let request = http::Request::get(path)
            .header(http::header::ACCEPT, "application/json")
            .body(Vec::new())
            .map_err(kube::Error::HttpError)?;
        with_timeout(self.client.request_text(request)).await
    }

    fn record(&mut self, missing: MissingFields) {
        if self.missing == missing {
            return;
        }
        let all: Vec<_> = missing.iter().collect();
        let fields = all.join(", ");
        self.metrics.record_missing_fields(all.len());
        if !missing.status.is_empty() {
            tracing::error!(
                fields,
                "the installed CRD is outdated, no test starts; apply the CRD of this version: {APPLY_COMMAND}"
            );
        } else if !missing.spec.is_empty() {
            tracing::warn!(
                fields,
                "the installed CRD is outdated, fields of tests have no effect; apply the CRD of this version: {APPLY_COMMAND}"
            );
        } else {
            tracing::info!("the installed CRD has all fields again");
        }
        self.status.send_if_modified(|status| {
            let is_changed = **status != *missing.status;
            *status = missing.status.as_slice().into();
            is_changed
        });
        self.missing = missing;
    }
}

fn parse(text: &str) -> Result<Index, ApiError> {
    Ok(serde_json::from_str(text).map_err(kube::Error::SerdeError)?)
}
