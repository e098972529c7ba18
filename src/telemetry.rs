//! The log. Nothing is ever sent anywhere.

use tracing_subscriber::EnvFilter;

use crate::settings::LogFormat;

/// Starts the log, on standard error. Its detail is set by `RUST_LOG`; default `info`.
pub fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr())).init(),
        LogFormat::Json => log.json().flatten_event(true).init(),
    }
}
