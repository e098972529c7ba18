//! The target of a script.

use crate::yaml::{Node, Value};

/// The target that a script names.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Target {
    /// Whether Artillery does not run the script unless a target is given otherwise.
    is_missing: bool,
    /// The target, if it is a text.
    url: Option<String>,
    /// Whether HTTP requests go to paths of the target.
    requests_paths: bool,
}

impl Target {
    /// Reads the target of a `config`, into which the selected environment has been merged.
    pub(crate) fn new(config: &Node, requests_paths: bool) -> Self {
        let target = config.get("target");
        let url = target.and_then(|target| target.text());
        Self {
            is_missing: config.is_map()
                && target.is_none_or(|target| matches!(target.value, Value::Null))
                || url == Some(""),
            url: url.map(str::to_owned),
            requests_paths,
        }
    }

    /// A warning about the target with which the script runs. `given` is a target that replaces the
    /// script's own, as `spec.target` does.
    #[must_use]
    pub fn warning(&self, given: Option<&str>) -> Option<String> {
        if given.is_none() && self.is_missing {
            return Some("no target: set config.target in the script, or spec.target".into());
        }
        let url = given.or(self.url.as_deref())?;
        (self.requests_paths && lacks_scheme(url)).then(|| {
            let url = crate::shorten(url);
            format!(
                "target {url} has no scheme; use http://{}",
                url.trim_start_matches('/')
            )
        })
    }
}

/// Whether Artillery cannot send HTTP requests to a target because it has no scheme.
///
/// Source: Artillery, `lib/core/engine_http.ts`: a URL must start with `http`, and be one that `new
/// URL` accepts.
fn lacks_scheme(url: &str) -> bool {
    let is_known = url.contains("{{")
        || url.contains("://")
        || ["http:", "https:"]
            .iter()
            .any(|scheme| url.to_ascii_lowercase().starts_with(scheme));
    !is_known
}
