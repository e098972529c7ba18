//! Logging to standard error.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{Layer, fmt};

/// The format of the log lines.
#[derive(clap::ValueEnum, Clone, Copy, Debug, PartialEq)]
pub enum LogFormat {
    /// Human-readable lines.
    Text,
    /// One JSON object per line.
    Json,
}

/// Initializes logging. `RUST_LOG` sets the level, or a comma-separated list of targets with levels. The level is
/// `info` if the variable is unset or invalid.
pub fn init(format: LogFormat) {
    let filter: Option<Targets> = std::env::var("RUST_LOG")
        .ok()
        .filter(|text| !text.is_empty())
        .and_then(|t| t.parse().ok());
    // `Targets` rather than `EnvFilter`, which makes the binary noticeably larger.
    let filter = filter.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
    let lines = fmt::layer().with_writer(stderr);
    let lines = match format {
        LogFormat::Text => lines.with_ansi(stderr().is_terminal()).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .init();
}
