//! `report`, and `--report` of the other commands.

use std::path::Path;

use k8s_openapi::jiff::Timestamp;

use crate::cli::{Report as Args, ReportFormat};
use crate::error::{Error, Result};
use crate::outcome::Outcome;
use crate::report::{Report, html, junit, markdown};
use crate::run::serialized;
use crate::session::Session;
use crate::view::View;

/// Prints the report of a test.
///
/// # Errors
/// The test does not exist.
pub async fn run(session: &Session, args: &Args) -> Result<Outcome> {
    let view = View::read(session, &args.name).await?;
    for missing in &view.missing {
        eprintln!("Note: {missing}");
    }
    print!("{}", text(&view, args.output, Timestamp::now())?);
    Ok(Outcome::Passed)
}

/// Writes the report of a test to a file, in the format of its extension.
///
/// # Errors
/// The extension is not one of a report, or the file cannot be written.
pub fn write(view: &View, path: &Path, now: Timestamp) -> Result<()> {
    let text = text(view, format(path)?, now)?;
    let written = std::fs::write(path, text);
    written.map_err(|error| Error::new(format!("Cannot write {}: {error}", path.display())))
}

/// The format of a file name.
///
/// # Errors
/// The extension is not one of a report.
pub fn format(path: &Path) -> Result<ReportFormat> {
    let extension = path
        .extension()
        .map(|one| one.to_string_lossy().to_lowercase());
    match extension.as_deref() {
        Some("html" | "htm") => Ok(ReportFormat::Html),
        Some("md" | "markdown") => Ok(ReportFormat::Markdown),
        Some("json") => Ok(ReportFormat::Json),
        Some("xml") => Ok(ReportFormat::Junit),
        _ => Err(
            Error::new(format!("--report {} has no known format.", path.display()))
                .advice("Use a name that ends with .html, .md, .json or .xml (JUnit)."),
        ),
    }
}

fn text(view: &View, format: ReportFormat, now: Timestamp) -> Result<String> {
    let report = Report::new(view, now, env!("CARGO_PKG_VERSION"));
    Ok(match format {
        ReportFormat::Html => html(&report),
        ReportFormat::Markdown => markdown(&report),
        ReportFormat::Junit => junit(&report),
        ReportFormat::Json => serialized(&report, crate::cli::Output::Json)?,
    })
}
