//! `list`: the tests of a namespace.

use std::fmt::Write;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use kube::api::{Api, ListParams};
use loadtest_api::duration;
use loadtest_api::v1alpha1::LoadTest;

use crate::cli::{List, Output};
use crate::error::Result;
use crate::outcome::Outcome;
use crate::run::serialized;
use crate::session::Session;
use crate::text;

/// Prints the tests, the newest last.
///
/// # Errors
/// The user may not list them.
pub async fn run(session: &Session, args: &List) -> Result<Outcome> {
    let (tests, place) = if args.all_namespaces {
        (
            Api::all(session.client.clone()),
            "all namespaces".to_owned(),
        )
    } else {
        (session.tests(), format!("namespace {}", session.namespace))
    };
    let listed = tests.list(&ListParams::default()).await;
    let action = format!("list LoadTests in {place}");
    let mut list = listed.map_err(|error| session.error(&action, &error))?;
    list.items
        .sort_by_key(|test| test.creation_timestamp().map(|time| time.0));
    if args.output != Output::Text {
        print!("{}", serialized(&list, args.output)?);
    } else if list.items.is_empty() {
        eprintln!("No LoadTests in {place}. Create one: kubectl artillery init DIR");
    } else {
        print!(
            "{}",
            table(&list.items, args.all_namespaces, Timestamp::now())
        );
    }
    Ok(Outcome::Passed)
}

/// The tests as a table, and why those that wait do so.
fn table(tests: &[LoadTest], with_namespace: bool, now: Timestamp) -> String {
    let mut head = vec![
        "NAME", "STATUS", "WORKERS", "DURATION", "AGE", "VERDICT", "P95", "ERRORS", "SENT",
    ];
    if with_namespace {
        head.insert(0, "NAMESPACE");
    }
    let mut rows: Vec<Vec<String>> = vec![head.into_iter().map(str::to_owned).collect()];
    let mut notes = String::new();
    for test in tests {
        let status = test.status.clone().unwrap_or_default();
        let results = status.results.unwrap_or_default();
        let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
        let age = SignedDuration::try_from(test.age(now)).unwrap_or_default();
        let mut row = vec![
            test.name_any(),
            text::phase(test).as_str().to_owned(),
            or_dash(status.completions),
            or_dash(status.duration),
            duration::format(age),
            or_dash(status.verdict.map(|verdict| verdict.as_str().to_owned())),
            or_dash(results.p95.clone()),
            if results.workers_reporting.is_empty() {
                "-".into()
            } else {
                results.errors.to_string()
            },
            or_dash(results.load.and_then(|load| load.sent)),
        ];
        if with_namespace {
            row.insert(0, test.namespace().unwrap_or_default());
        }
        rows.push(row);
        let (reason, message) = text::explanation(test);
        if !text::phase(test).has_started() && !message.is_empty() {
            let _ = writeln!(notes, "{}: {reason}: {message}", test.name_any());
        }
    }
    let mut text = text::table(&rows);
    if !notes.is_empty() {
        let _ = write!(text, "\n{notes}");
    }
    text
}
