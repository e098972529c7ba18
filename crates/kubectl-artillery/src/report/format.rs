//! Numbers and times as the status prints them, and with separators for reading.

use std::fmt::Write;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use loadtest_api::duration;

/// `1,234,567`.
pub(super) fn grouped(n: i64) -> String {
    let digits = n.unsigned_abs().to_string();
    let mut grouped = String::from(if n < 0 { "-" } else { "" });
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1,234.5`: the decimals are those of the value.
pub(super) fn grouped_decimal(value: f64) -> String {
    let text = value.to_string();
    let (whole, decimals) = text.split_once('.').unwrap_or((&text, ""));
    match (whole.parse(), decimals) {
        (Ok(0) | Err(_), _) => text,
        (Ok(whole), "") => grouped(whole),
        (Ok(whole), decimals) => format!("{}.{decimals}", grouped(whole)),
    }
}

/// `48.9ms`, as in the status.
pub(super) fn milliseconds(ms: f64) -> String {
    format!("{ms}ms")
}

/// `33.9s`.
pub(super) fn seconds(seconds: f64) -> String {
    format!("{seconds}s")
}

/// `99%`.
pub(super) fn percent(share: f64) -> String {
    format!("{}%", (share * 100.0).round())
}

/// `300m`, or `2` for whole CPUs.
pub(super) fn millicores(millicores: f64) -> String {
    let rounded = millicores.round();
    if rounded >= 1000.0 && rounded % 1000.0 == 0.0 {
        format!("{}", rounded / 1000.0)
    } else {
        format!("{rounded}m")
    }
}

/// `512Mi`.
pub(super) fn mebibytes(mebibytes: f64) -> String {
    format!("{}Mi", mebibytes.round())
}

/// `12.3/s`: what happened in a step, per second.
pub(super) fn rate(per_second: f64) -> String {
    let decimals = usize::from(per_second < 100.0);
    let rounded = format!("{per_second:.decimals$}");
    let rounded: f64 = rounded.parse().unwrap_or(per_second);
    format!("{}/s", grouped_decimal(rounded))
}

/// `2026-01-31 12:00:05 UTC`.
pub(super) fn time(time: &Time) -> String {
    time.0.strftime("%Y-%m-%d %H:%M:%S UTC").to_string()
}

/// `2026-01-31T12:00:05Z`, for machines.
pub(super) fn timestamp(time: &Time) -> String {
    time.0.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `+2m5s`: how much later than another time.
pub(super) fn offset(time: &Time, since: &Time) -> String {
    let difference = time.0.duration_since(since.0);
    let sign = if difference.is_negative() { "-" } else { "+" };
    format!("{sign}{}", duration::format(difference.abs()))
}

/// A time on the axis of a chart: `0`, `30s`, `2m`, `2m30s`, `1h`.
pub(super) fn axis_time(seconds: i64) -> String {
    let parts = [
        (seconds / 3600, "h"),
        (seconds / 60 % 60, "m"),
        (seconds % 60, "s"),
    ];
    let mut text = String::new();
    for (n, unit) in parts.into_iter().filter(|(n, _)| *n != 0) {
        let _ = write!(text, "{n}{unit}");
    }
    if text.is_empty() { "0".into() } else { text }
}

/// At most so many characters, with an ellipsis where something was cut.
pub(super) fn shortened(text: &str, max: usize) -> String {
    match text.char_indices().nth(max) {
        Some((at, _)) => format!("{}…", text.get(..at).unwrap_or_default()),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_grouped_by_thousands() {
        let cases = [
            (0, "0"),
            (999, "999"),
            (1000, "1,000"),
            (-1_234_567, "-1,234,567"),
            (i64::MIN, "-9,223,372,036,854,775,808"),
        ];
        for (n, text) in cases {
            assert_eq!(grouped(n), text);
        }
        assert_eq!(
            [0.5, 7.0, 1234.5, 98765.0, -0.5].map(grouped_decimal),
            ["0.5", "7", "1,234.5", "98,765", "-0.5"]
        );
        assert_eq!(
            [0.04, 12.34, 99.96, 1234.5].map(rate),
            ["0/s", "12.3/s", "100/s", "1,234/s"]
        );
    }

    #[test]
    fn times_on_an_axis_have_no_zero_parts() {
        let texts = [0, 30, 60, 150, 3600, 5400, 3661].map(axis_time);
        assert_eq!(texts, ["0", "30s", "1m", "2m30s", "1h", "1h30m", "1h1m1s"]);
    }
}
