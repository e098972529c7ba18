//! A test on a terminal, drawn again whenever something changes.

use std::io::stdout;
use std::time::Duration;

use futures::{Stream, StreamExt};
use k8s_openapi::jiff::Timestamp;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyModifiers};
use ratatui::crossterm::terminal;
use tokio::signal::unix::{SignalKind, signal};

use super::{End, Model, Update, deleted};
use crate::error::{Error, Result};

mod draw;

pub(super) use draw::draw;
#[cfg(test)]
pub(super) use draw::nice_top;

/// How often the screen is drawn while nothing changes: the times on it go on.
const REDRAW: Duration = Duration::from_secs(1);

/// At most so many updates are applied before the screen is drawn: a list of pods comes as one update for each.
const MAX_BATCH: usize = 5000;

/// What the user looks at.
#[derive(Debug, Default)]
pub(super) struct Focus {
    /// The first worker that is shown.
    pub(super) first_worker: usize,
    /// Whether the user is asked about stopping the test.
    pub(super) asks_to_stop: bool,
    /// Whether the user started the test with this command.
    pub(super) owns_test: bool,
}

/// Follows a test.
pub(super) async fn follow(
    mut model: Model,
    mut updates: impl Stream<Item = Update> + Unpin,
    owns_test: bool,
) -> Result<End> {
    let broken = |error: std::io::Error| {
        Error::new(format!("Cannot draw on the terminal: {error}"))
            .advice("Use --plain for lines instead of a screen.")
    };
    let Ok(mut terminate) = signal(SignalKind::terminate()) else {
        return Err(Error::new("Cannot handle signals."));
    };
    let mut terminal = ratatui::try_init().map_err(broken)?;
    let _restore = Restore;
    let mut keys = keys();
    let mut tick = tokio::time::interval(REDRAW);
    let mut focus = Focus {
        owns_test,
        ..Focus::default()
    };
    loop {
        terminal
            .draw(|frame| draw(frame, &model, &focus, Timestamp::now()))
            .map_err(broken)?;
        tokio::select! {
            update = updates.next() => {
                let Some(update) = update else { return Err(deleted(&model)) };
                model.apply(update)?;
                let mut more = std::pin::pin!(updates.by_ref().take(MAX_BATCH));
                while let Some(update) = futures::FutureExt::now_or_never(more.next()).flatten() {
                    model.apply(update)?;
                }
            }
            key = keys.recv() => match key {
                Some(key) => if let Some(end) = focus.handle(&key, &model) { return Ok(end) },
                None => return Ok(End::Left("The terminal was closed")),
            },
            _ = tick.tick() => {}
            _ = terminate.recv() => return Ok(End::Left("Terminated")),
        }
        if model.is_deleted {
            return Err(deleted(&model));
        }
        if let Some(test) = model.finished() {
            return Ok(End::Finished(Box::new(test.clone())));
        }
    }
}

/// Restores the terminal, whatever ends the screen.
struct Restore;

impl Drop for Restore {
    fn drop(&mut self) {
        ratatui::restore();
        let _ = terminal::disable_raw_mode();
        let _ = std::io::Write::flush(&mut stdout());
    }
}

/// The keys and the changes of the size. A thread reads them, because reading blocks.
fn keys() -> tokio::sync::mpsc::UnboundedReceiver<Event> {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.send(event).is_err() {
                break;
            }
        }
    });
    receiver
}

impl Focus {
    /// Handles a key.
    fn handle(&mut self, event: &Event, model: &Model) -> Option<End> {
        let Event::Key(key) = event else {
            return None;
        };
        let interrupts = key.code == KeyCode::Char('c') && key.modifiers == KeyModifiers::CONTROL;
        if self.asks_to_stop {
            self.asks_to_stop = false;
            return match key.code {
                KeyCode::Char('y' | 'Y') => Some(End::Stop),
                KeyCode::Char('d' | 'D' | 'q') => Some(End::Left("Detached")),
                _ if interrupts => Some(End::Left("Detached")),
                _ => None,
            };
        }
        let last = model.workers.len().saturating_sub(1);
        let first = self.first_worker;
        match key.code {
            KeyCode::Char('c') if interrupts && self.owns_test => self.asks_to_stop = true,
            KeyCode::Char('c') if interrupts => return Some(End::Left("Left")),
            KeyCode::Char('q') | KeyCode::Esc => return Some(End::Left("Left")),
            KeyCode::Char('s') => self.asks_to_stop = true,
            KeyCode::Down | KeyCode::Char('j') => self.first_worker = (first + 1).min(last),
            KeyCode::Up | KeyCode::Char('k') => self.first_worker = first.saturating_sub(1),
            KeyCode::PageDown => self.first_worker = (first + 10).min(last),
            KeyCode::PageUp => self.first_worker = first.saturating_sub(10),
            KeyCode::Home => self.first_worker = 0,
            KeyCode::End => self.first_worker = last,
            _ => {}
        }
        None
    }
}
