//! A test as lines, for pipes and logs: one when something changes, and one every 10 s.

use std::io::{IsTerminal, Write};

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use loadtest_api::v1alpha1::Phase;
use tokio::signal::unix::{SignalKind, signal};

use super::{End, LINE_INTERVAL, Model, Update, deleted};
use crate::error::{Error, Result};
use crate::text;

/// Follows a test.
pub(super) async fn follow(
    mut model: Model,
    mut updates: impl Stream<Item = Update> + Unpin,
    owns_test: bool,
    to_stderr: bool,
) -> Result<End> {
    let signals = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    );
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else {
        return Err(Error::new("Cannot handle signals."));
    };
    let mut tick = tokio::time::interval(LINE_INTERVAL);
    tick.tick().await;
    let mut printed = Printed::default();
    loop {
        let is_due = tokio::select! {
            update = updates.next() => {
                let Some(update) = update else { return Err(deleted(&model)) };
                model.apply(update)?;
                false
            }
            _ = tick.tick() => true,
            _ = interrupt.recv() => if owns_test && ask_to_stop().await { return Ok(End::Stop) } else { return Ok(End::Left("Interrupted")) },
            _ = terminate.recv() => return Ok(End::Left("Terminated")),
        };
        for line in printed.next(&model, is_due, Timestamp::now()) {
            // A closed pipe ends the command, not the test.
            let written = if to_stderr {
                writeln!(std::io::stderr(), "{line}")
            } else {
                writeln!(std::io::stdout(), "{line}")
            };
            if written.is_err() {
                return Ok(End::Left("The output was closed"));
            }
        }
        if model.is_deleted {
            return Err(deleted(&model));
        }
        if let Some(test) = model.finished() {
            return Ok(End::Finished(Box::new(test.clone())));
        }
    }
}

/// What was printed already.
#[derive(Default)]
pub(super) struct Printed {
    state: (Option<Phase>, String),
    notes: usize,
    events: std::collections::HashSet<String>,
    connection: Option<String>,
}

impl Printed {
    /// The lines that are due: when the phase or its reason changes, for each warning, and when `is_due`.
    pub(super) fn next(&mut self, model: &Model, is_due: bool, now: Timestamp) -> Vec<String> {
        let mut lines = Vec::new();
        for note in model.notes.iter().skip(self.notes) {
            lines.push(format!("Note: {note}"));
        }
        self.notes = model.notes.len();
        let connection = model.problems.values().next();
        if self.connection.is_some() != connection.is_some() {
            lines.push(match connection {
                Some(problem) => format!(
                    "Connection to the API server lost ({problem}); trying again every second."
                ),
                None => "Connection to the API server restored.".to_owned(),
            });
            self.connection = connection.cloned();
        }
        for (name, event) in &model.events {
            if event.is_warning && self.events.insert(name.clone()) {
                lines.push(format!("Warning {}: {}", event.reason, event.message));
            }
        }
        let Some(test) = &model.test else {
            return lines;
        };
        let state = (test.phase(), text::explanation(test).0);
        if state != self.state || is_due && connection.is_none() {
            lines.push(text::progress_line(test, now));
            self.state = state;
        }
        lines
    }
}

/// Asks on the terminal whether the test is to be stopped too. Without a terminal it is not.
async fn ask_to_stop() -> bool {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return false;
    }
    eprint!("\nStop the test too? Otherwise it keeps running. [y/N] ");
    let answer = tokio::task::spawn_blocking(|| {
        let mut answer = String::new();
        std::io::stdin().read_line(&mut answer).ok().map(|_| answer)
    });
    let answer = answer.await.ok().flatten().unwrap_or_default();
    answer.trim().eq_ignore_ascii_case("y")
}
