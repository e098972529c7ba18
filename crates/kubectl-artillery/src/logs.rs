//! `logs`: the logs of all workers, each line with the index of its worker.

use std::io::Write;

use futures::io::AsyncBufReadExt;
use futures::{StreamExt, TryStreamExt, stream};
use k8s_openapi::api::core::v1::Pod;
use kube::api::LogParams;

use crate::cli::Logs;
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::session::Session;
use crate::view::{Worker, read_workers};

/// Prints the logs.
///
/// # Errors
/// The test has no pods, or the user may not read their logs.
pub async fn run(session: &Session, args: &Logs) -> Result<Outcome> {
    let (namespace, name) = (&session.namespace, &args.name);
    session.test(name).await?;
    let mut workers = read_workers(session, name).await?;
    workers.retain(|worker| {
        args.worker.is_empty()
            || worker
                .index
                .is_some_and(|index| args.worker.contains(&index))
    });
    if workers.is_empty() {
        return Err(Error::new(format!(
            "LoadTest {namespace}/{name} has no such worker pods."
        ))
        .advice(format!(
            "They may be deleted or not created yet: kubectl artillery watch {name} -n {namespace}"
        )));
    }
    // All logs are followed at the same time; logs that have ended are printed one after the other.
    let at_a_time = if args.follow { workers.len() } else { 1 };
    let workers = stream::iter(workers).map(|worker| print(session, args, worker));
    let failed: Vec<_> = workers
        .buffered(at_a_time)
        .filter_map(|result| std::future::ready(result.err()))
        .collect()
        .await;
    for error in &failed {
        eprintln!("{error}");
    }
    Ok(if failed.is_empty() {
        Outcome::Passed
    } else {
        Outcome::Unfinished
    })
}

async fn print(session: &Session, args: &Logs, worker: Worker) -> Result<()> {
    let prefix = worker
        .index
        .map_or_else(|| worker.pod.clone(), |index| index.to_string());
    let params = LogParams {
        container: Some(args.name.clone()),
        follow: args.follow,
        tail_lines: args.tail,
        ..LogParams::default()
    };
    let action = format!("read the log of pod {}/{}", session.namespace, worker.pod);
    let pods = session.api::<Pod>();
    let log = pods.log_stream(&worker.pod, &params).await;
    let mut lines = log.map_err(|error| session.error(&action, &error))?.lines();
    while let Some(line) = lines
        .try_next()
        .await
        .map_err(|error| Error::new(format!("Cannot {action}: {error}")))?
    {
        // A closed pipe, such as that of head, ends the output.
        if writeln!(std::io::stdout(), "{prefix}: {line}").is_err() {
            break;
        }
    }
    Ok(())
}
