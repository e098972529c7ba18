//! The names that metrics can have, and the names that people write instead.
//!
//! Source: Artillery 2.0.34, the `emit` calls of `lib/core/runner.js`, `lib/core/engine_*.js` and of
//! its plugins and engines in `builtin-packages`. Processors and other engines emit metrics with any
//! name.

use std::iter::once;

use loadtest_api::text::edit_distance;

use crate::Sketch;

/// Artillery's rates, with the counters that they are computed from.
pub(super) const RATES: [(&str, &str); 5] = [
    ("http.request_rate", "http.requests"),
    ("http.response_rate", "http.responses"),
    ("websocket.send_rate", "websocket.messages_sent"),
    ("websocket.receive_rate", "websocket.messages_received"),
    ("socketio.emit_rate", "socketio.emit"),
];

/// The operator's own metrics: virtual users that the script plans, that were created, that `maxVusers` skipped, and the
/// histogram of arrival delays.
pub(super) const LOAD_PLANNED: &str = "load.planned";
pub(super) const LOAD_CREATED: &str = "load.created";
pub(super) const LOAD_SKIPPED: &str = "load.skipped";
pub(super) const ARRIVAL_DELAY: &str = "load.arrival_delay";
const LOAD: [&str; 3] = [LOAD_PLANNED, LOAD_CREATED, LOAD_SKIPPED];

/// Prefixes that only metrics of Artillery or the operator have.
const FAMILIES: [&str; 5] = ["http.", "vusers.", "websocket.", "socketio.", "load."];
const COUNTERS: [&str; 14] = [
    "http.requests",
    "http.responses",
    "http.downloaded_bytes",
    "vusers.created",
    "vusers.completed",
    "vusers.failed",
    "vusers.skipped",
    "websocket.messages_sent",
    "websocket.messages_received",
    "socketio.emit",
    "browser.http_requests",
    "browser.page.domcontentloaded",
    "browser.traces_collected",
    "browser.traces_discarded",
];
const HISTOGRAMS: [&str; 14] = [
    "http.response_time",
    "http.response_time.2xx",
    "http.response_time.3xx",
    "http.response_time.4xx",
    "http.response_time.5xx",
    "http.dns",
    "http.tcp",
    "http.tls",
    "http.total",
    "vusers.session_length",
    "socketio.response_time",
    "browser.page.dominteractive",
    "browser.memory_used_mb",
    ARRIVAL_DELAY,
];
const COMPUTED: [&str; 2] = ["apdex", "maxErrorRate"];

/// Web vitals, which a browser measures for each page.
const WEB_VITALS: [&str; 5] = ["LCP", "FCP", "TTFB", "INP", "CLS"];
const PAGE: &str = "browser.page.";

/// Counters of plugins, which count nothing while the plugin is not enabled. Each group has the
/// prefix of its counters.
const PLUGIN_GROUPS: [&str; 2] = ["plugins.expect.", "apdex."];
const ENDPOINTS: &str = "plugins.metrics-by-endpoint.";

/// Errors of connections. Others exist, so only what is nearly one of these is a misspelling.
const ERROR_CODES: [&str; 8] = [
    "ETIMEDOUT",
    "ESOCKETTIMEDOUT",
    "ECONNREFUSED",
    "ECONNRESET",
    "ECONNABORTED",
    "ENOTFOUND",
    "EHOSTUNREACH",
    "ENETUNREACH",
];

/// What people write, and what they mean.
const ALIASES: [(&str, &str); 33] = [
    (
        "errors",
        "vusers.failed, or one kind of error such as errors.ETIMEDOUT",
    ),
    ("failures", "vusers.failed"),
    ("failed", "vusers.failed"),
    ("vusers.failures", "vusers.failed"),
    ("vusers.errors", "vusers.failed"),
    ("http.errors", "vusers.failed"),
    ("http.failures", "vusers.failed"),
    ("error_rate", "maxErrorRate"),
    ("errors_rate", "maxErrorRate"),
    ("errorrate", "maxErrorRate"),
    ("http.error_rate", "maxErrorRate"),
    ("http_req_failed", "maxErrorRate"),
    ("rps", "http.request_rate"),
    ("http.rps", "http.request_rate"),
    ("request_rate", "http.request_rate"),
    ("requests", "http.requests"),
    ("http_reqs", "http.requests"),
    ("count", "http.requests"),
    ("responses", "http.responses"),
    ("vusers", "vusers.created"),
    ("created", "vusers.created"),
    ("completed", "vusers.completed"),
    ("skipped", "vusers.skipped"),
    ("codes", "http.codes.500"),
    ("http.codes", "http.codes.500"),
    ("http.code", "http.codes.500"),
    ("http.status", "http.codes.500"),
    ("status", "http.codes.500"),
    ("vusers.created_by_name", "vusers.created"),
    ("plugins.expect", "plugins.expect.failed"),
    ("planned", LOAD_PLANNED),
    ("load.vusers", LOAD_CREATED),
    ("dropped_iterations", LOAD_SKIPPED),
];
const HISTOGRAM_ALIASES: [(&str, &str); 17] = [
    ("latency", "http.response_time"),
    ("latencies", "http.response_time"),
    ("duration", "http.response_time"),
    ("response_time", "http.response_time"),
    ("responsetime", "http.response_time"),
    ("response.time", "http.response_time"),
    ("http", "http.response_time"),
    ("http.latency", "http.response_time"),
    ("http.duration", "http.response_time"),
    ("http.responsetime", "http.response_time"),
    ("http.response.time", "http.response_time"),
    ("http_req_duration", "http.response_time"),
    ("session_length", "vusers.session_length"),
    ("dominteractive", "browser.page.dominteractive"),
    ("arrival_delay", ARRIVAL_DELAY),
    ("load.delay", ARRIVAL_DELAY),
    ("load.arrivaldelay", ARRIVAL_DELAY),
];
const CODE_ALIASES: [&str; 9] = [
    "http",
    "code",
    "codes",
    "status",
    "http.status",
    "http.statuscode",
    "http.status_code",
    "http.responses",
    "http.response_codes",
];
const ERROR_ALIASES: [&str; 5] = [
    "error.",
    "http.error.",
    "http.errors.",
    "vusers.error.",
    "vusers.errors.",
];

/// Why a name in an expression is not accepted before a test starts. None for names that Artillery
/// has, and for names with a dot that a processor may emit.
pub(super) fn problem(name: &str) -> Option<String> {
    misspelling(name).or_else(|| {
        (!name.contains('.') && !is_known(name)).then(|| {
            format!(
                "unknown metric {name}: metrics are written like http.response_time.p95, http.requests, \
                 http.codes.500, errors.ETIMEDOUT or vusers.failed; if a processor emits {name}, write '{name}'"
            )
        })
    })
}

/// Why a name cannot be a metric, if it looks like one of Artillery's, or like a misspelled one.
pub(super) fn misspelling(name: &str) -> Option<String> {
    let suffix = name.rsplit_once('.').map_or(name, |(_, suffix)| suffix);
    if HISTOGRAMS.contains(&name) {
        return Some(format!(
            "{name} is a histogram; name one of its values, such as {name}.p95"
        ));
    }
    if let Some(vital) = vital_without_page(name) {
        return Some(format!(
            "{PAGE}{vital} is a histogram of each page; add the page, such as '{PAGE}{vital}.http://example.com/.p75', \
             or with aggregateByName the scenario"
        ));
    }
    if is_known(name) {
        return name
            .strip_prefix("errors.")
            .and_then(nearest_error)
            .map(|code| did_you_mean(name, &format!("errors.{code}")));
    }
    if let Some(meant) = suggestion(name) {
        return Some(did_you_mean(name, &meant));
    }
    if name
        .rsplit_once('.')
        .is_some_and(|(histogram, _)| HISTOGRAMS.contains(&histogram))
    {
        let values = Sketch::SUMMARIES.join(", ");
        return Some(format!(
            "{}: {suffix} is not one of {values}",
            no_metric(name)
        ));
    }
    FAMILIES
        .iter()
        .any(|family| name.starts_with(family))
        .then(|| {
            format!(
                "{}; if a processor emits it, write '{name}' in quotes",
                no_metric(name)
            )
        })
}

/// The web vital that a name consists of, without a page and possibly with one of its values.
fn vital_without_page(name: &str) -> Option<&'static str> {
    let rest = name.strip_prefix(PAGE)?;
    let (vital, value) = rest.split_once('.').unwrap_or((rest, "p75"));
    let is_value = Sketch::SUMMARIES.contains(&value);
    let vital = |one: &&&str| vital.eq_ignore_ascii_case(one) && is_value;
    WEB_VITALS.iter().find(vital).copied()
}

/// Whether a counter is 0 if no worker incremented it. `reported` is whether any metric with a
/// prefix was reported. Counters of a plugin are 0 only if the plugin counted something.
pub(super) fn is_zero_when_uncounted(name: &str, reported: impl Fn(&str) -> bool) -> bool {
    if let Some(rest) = name.strip_prefix(ENDPOINTS) {
        let endpoint = [".codes.", ".errors."]
            .iter()
            .find_map(|kind| rest.rsplit_once(kind).map(|(endpoint, _)| endpoint));
        return endpoint.is_some_and(|endpoint| {
            reported(&format!("{ENDPOINTS}{endpoint}."))
                || reported(&format!("{ENDPOINTS}response_time.{endpoint}"))
        });
    }
    if let Some(group) = PLUGIN_GROUPS.iter().find(|group| name.starts_with(**group)) {
        return is_known(name) && reported(group);
    }
    is_counter(name)
}

/// Whether Artillery or a plugin of it can have a metric with this name.
pub(super) fn is_known(name: &str) -> bool {
    let is_value = |(histogram, summary): (&str, &str)| {
        Sketch::SUMMARIES.contains(&summary)
            && (HISTOGRAMS.contains(&histogram)
                || [PAGE, "browser.step."]
                    .iter()
                    .any(|prefix| histogram.starts_with(prefix)))
    };
    is_counter(name)
        || LOAD.contains(&name)
        || COMPUTED.contains(&name)
        || RATES.iter().any(|(rate, _)| *rate == name)
        || name.starts_with(ENDPOINTS)
        || name
            .strip_prefix("plugins.expect.")
            .is_some_and(|rest| ["ok", "failed"].contains(&rest.split('.').next().unwrap_or(rest)))
        || name
            .strip_prefix("apdex.")
            .is_some_and(|rest| ["satisfied", "tolerated", "frustrated"].contains(&rest))
        || name.rsplit_once('.').is_some_and(is_value)
}

/// Whether a name is that of a counter of Artillery's own.
fn is_counter(name: &str) -> bool {
    let rest_is = |prefix: &str, valid: fn(&str) -> bool| {
        name.strip_prefix(prefix)
            .is_some_and(|rest| !rest.is_empty() && valid(rest))
    };
    COUNTERS.contains(&name)
        || rest_is("http.codes.", is_code)
        || rest_is("browser.page.codes.", is_code)
        || rest_is("browser.page.domcontentloaded.", |_| true)
        || rest_is("errors.", |_| true)
        || rest_is("vusers.created_by_name.", |_| true)
}

fn is_code(code: &str) -> bool {
    code.len() == 3 && code.bytes().all(|digit| digit.is_ascii_digit())
}

fn did_you_mean(name: &str, meant: &str) -> String {
    format!("{}; did you mean {meant}?", no_metric(name))
}

fn no_metric(name: &str) -> String {
    let of_operator = name.starts_with("load.");
    let owner = if of_operator {
        "the operator"
    } else {
        "Artillery"
    };
    format!("{owner} has no metric {name}")
}

/// The known name that was meant, if one is near.
fn suggestion(name: &str) -> Option<String> {
    let lower = name.to_lowercase();
    let alias = |aliases: &[(&str, &'static str)], name: &str| {
        aliases
            .iter()
            .find_map(|(alias, meant)| (*alias == name).then_some(*meant))
    };
    let histogram_of = |name: &str| {
        alias(&HISTOGRAM_ALIASES, name).or_else(|| nearest(HISTOGRAMS.into_iter(), name))
    };
    if let Some(meant) = alias(&ALIASES, &lower) {
        return Some(meant.to_owned());
    }
    if let Some(histogram) = alias(&HISTOGRAM_ALIASES, &lower) {
        return Some(format!("{histogram}.p95"));
    }
    let (base, suffix) = lower
        .strip_suffix(".p99.9")
        .map(|base| (base, "p999"))
        .or_else(|| lower.rsplit_once('.'))
        .unwrap_or(("http", &lower));
    let value = match suffix {
        "avg" | "average" => Some("mean"),
        "med" => Some("median"),
        _ => Sketch::SUMMARIES
            .into_iter()
            .find(|summary| *summary == suffix),
    };
    if let Some((histogram, value)) = histogram_of(base).zip(value) {
        return Some(format!("{histogram}.{value}"));
    }
    let is_http_code = CODE_ALIASES.contains(&base)
        || base == "http.codes"
        || nearest(once("http.codes"), base).is_some();
    if is_http_code && is_code(suffix) {
        return Some(format!("http.codes.{suffix}"));
    }
    if is_http_code && suffix.len() == 3 && suffix.ends_with("xx") {
        return Some("a single code such as http.codes.500".into());
    }
    if let Some(rest) = ERROR_ALIASES
        .iter()
        .find_map(|prefix| lower.strip_prefix(prefix))
    {
        let kind = name.get(name.len() - rest.len()..).unwrap_or(rest);
        return Some(format!("errors.{kind}"));
    }
    let names = COUNTERS
        .into_iter()
        .chain(COMPUTED)
        .chain(LOAD)
        .chain(RATES.map(|(rate, _)| rate));
    nearest(names, &lower).map(ToOwned::to_owned)
}

/// The known code that an error was probably meant to be.
fn nearest_error(kind: &str) -> Option<&'static str> {
    let is_code = kind.starts_with('E') && kind.bytes().all(|c| c.is_ascii_uppercase());
    nearest(
        ERROR_CODES
            .into_iter()
            .filter(|_| is_code && !ERROR_CODES.contains(&kind)),
        &kind.to_lowercase(),
    )
}

/// The name of which another one in lower case is probably a misspelling.
fn nearest(names: impl Iterator<Item = &'static str>, lower: &str) -> Option<&'static str> {
    let distance_to = |name: &str| edit_distance(lower, &name.to_lowercase());
    let max = if lower.len() > 8 { 2 } else { 1 };
    names
        .filter(|name| lower.len().abs_diff(name.len()) <= max)
        .map(|name| (distance_to(name), name))
        .filter(|(distance, name)| *distance <= max && name.len() > 4)
        .min()
        .map(|(_, name)| name)
}
