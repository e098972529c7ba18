//! Durations as the status shows them.

use k8s_openapi::jiff::SignedDuration;

/// A duration in whole seconds: `55s`, `2m5s`, `1h0m3s`. Below two minutes in seconds alone, as kubectl shows an age.
/// Nothing is rounded away, and a negative duration (clocks that differ) is `0s`.
#[must_use]
pub fn format(duration: SignedDuration) -> String {
    let seconds = duration.as_secs().max(0);
    match seconds {
        0..120 => format!("{seconds}s"),
        120..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        _ => format!("{}h{}m{}s", seconds / 3600, seconds / 60 % 60, seconds % 60),
    }
}

/// Parses what [`format()`] writes, and nothing else.
#[must_use]
pub fn parse(text: &str) -> Option<SignedDuration> {
    let mut seconds: i64 = 0;
    let mut digits = String::new();
    for c in text.chars() {
        let unit = match c {
            '0'..='9' => {
                digits.push(c);
                continue;
            }
            'h' => 3600,
            'm' => 60,
            's' => 1,
            _ => return None,
        };
        seconds = seconds.checked_add(
            std::mem::take(&mut digits)
                .parse::<i64>()
                .ok()?
                .checked_mul(unit)?,
        )?;
    }
    (digits.is_empty() && !text.is_empty()).then(|| SignedDuration::from_secs(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formatted_durations_parse() {
        for (seconds, text) in [
            (0, "0s"),
            (55, "55s"),
            (119, "119s"),
            (120, "2m0s"),
            (725, "12m5s"),
            (3600, "1h0m0s"),
            (7384, "2h3m4s"),
        ] {
            let duration = SignedDuration::from_secs(seconds);
            assert_eq!(format(duration), text);
            assert_eq!(parse(text), Some(duration));
        }
        assert_eq!(format(SignedDuration::from_secs(-3)), "0s");
    }

    #[test]
    fn other_texts_do_not_parse() {
        for text in [
            "",
            "5",
            "x",
            "5d",
            "s",
            "99999999999999999999s",
            "9223372036854775807h",
            "1s2",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
