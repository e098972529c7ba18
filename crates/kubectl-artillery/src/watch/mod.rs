//! `watch`: follows a test until it ends, on a screen or as lines.

use std::io::IsTerminal;
use std::time::Duration;

use futures::StreamExt;
use loadtest_api::v1alpha1::LoadTest;

mod feed;
mod lines;
mod model;
mod screen;
#[cfg(test)]
mod tests;

use crate::cli::{Follow, Output};
use crate::error::{Error, Result};
use crate::session::Session;

pub use model::{Model, Source, Update};

/// Why following a test ended.
#[derive(Debug)]
pub enum End {
    /// The test has ended.
    Finished(Box<LoadTest>),
    /// The timeout is over, or the user has left. The test keeps running.
    Left(&'static str),
    /// The user asked to stop the test.
    Stop,
}

/// Follows a test. `owns_test` is whether the user started it with this command, and is asked about stopping it when they leave.
///
/// # Errors
/// The test does not exist, is deleted, or cannot be read.
pub async fn follow(
    session: &Session,
    name: &str,
    options: &Follow,
    owns_test: bool,
) -> Result<End> {
    let model = Model::new(&session.namespace, name);
    let deadline = async {
        match options.timeout {
            Some(timeout) => tokio::time::sleep(timeout).await,
            None => std::future::pending().await,
        }
    };
    let updates = feed::updates(session, name).boxed_local();
    let on_screen = std::io::stdout().is_terminal()
        && std::io::stdin().is_terminal()
        && !options.plain
        && options.output == Output::Text;
    let follow = async {
        if on_screen {
            screen::follow(model, updates, owns_test).await
        } else {
            // Standard output belongs to the object that is printed at the end.
            let to_stderr = options.output != Output::Text;
            lines::follow(model, updates, owns_test, to_stderr).await
        }
    };
    tokio::select! {
        end = follow => end,
        () = deadline => Ok(End::Left("The timeout is over")),
    }
}

/// How often a line is printed while nothing else changes.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// The error of a test that no longer exists.
fn deleted(model: &Model) -> Error {
    let (namespace, name) = (&model.namespace, &model.name);
    if model.test.is_some() {
        Error::new(format!(
            "LoadTest {namespace}/{name} was deleted before it had ended."
        ))
    } else {
        Error::new(format!("LoadTest {namespace}/{name} does not exist.")).advice(format!(
            "List the tests of the namespace: kubectl artillery list -n {namespace}"
        ))
    }
}
