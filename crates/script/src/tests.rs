#![allow(clippy::unwrap_used)]

use super::*;

mod large;
mod real_scripts;
mod work;

fn seconds_of(script: &str, environment: Option<&str>) -> Option<i64> {
    analyze(script, "a.yaml", environment)
        .expected_duration
        .map(|d| d.as_secs())
}

const SCRIPT: &str = "
config:
  target: http://x
  phases: [{duration: 60, arrivalRate: 5}, {pause: '30s'}, {duration: 1.5 min, arrivalRate: 1}]
  environments:
    short: {phases: [{duration: 2}]}
    long: {phases: [{}, {}, {}, {duration: 20, arrivalRate: 1}]}
    same: {target: http://y}
";

#[test]
fn expected_duration_is_the_sum_of_the_phases() {
    assert_eq!(seconds_of(SCRIPT, None), Some(180));
    // Artillery merges the lists, phase by phase.
    assert_eq!(seconds_of(SCRIPT, Some("short")), Some(122));
    assert_eq!(seconds_of(SCRIPT, Some("long")), Some(200));
    assert_eq!(seconds_of(SCRIPT, Some("same")), Some(180));
    assert_eq!(seconds_of(SCRIPT, Some("none")), Some(180));
    assert_eq!(
        seconds_of("config: {target: x}", None),
        Some(1),
        "Artillery's default"
    );
    assert_eq!(
        seconds_of(
            "x-all: &all {phases: [{duration: 9, arrivalRate: 1}]}\nconfig: {<<: *all, target: x}",
            None
        ),
        Some(9)
    );
}

#[test]
fn browser_is_used_if_the_config_or_the_environment_has_its_engine() {
    let uses_browser =
        |script: &str, environment| analyze(script, "a.yaml", environment).uses_browser;
    assert!(uses_browser(
        "config: {target: x, engines: {playwright: {}}}\nscenarios: [{engine: playwright, testFunction: f}]",
        None
    ));
    let in_environment = "config: {target: x, engines: {ws: {}}, environments: {e: {engines: {playwright: null}}}}\n\
        scenarios: [{engine: playwright, testFunction: f}]";
    assert!(uses_browser(in_environment, Some("e")));
    for script in [
        in_environment,
        "config: {target: x, engines: [playwright]}\nscenarios: [{flow: []}]",
        "config: {target: x, plugins: {playwright: {}}}\nscenarios: [{engine: playwright, testFunction: f}]",
        "scenarios: [{engine: playwright, testFunction: f}]",
    ] {
        assert!(!uses_browser(script, None), "{script}");
    }
}

#[test]
fn expected_duration_is_unknown_for_unreadable_phases() {
    for script in [
        "",
        ":",
        "config: {phases: 3}",
        "config: {phases: [{duration: '{{ $env.D }}', arrivalRate: 1}]}",
        "config: {phases: [{duration: -1e400, arrivalRate: 1}]}",
    ] {
        assert!(
            seconds_of(script, None).is_none_or(|seconds| seconds <= 1),
            "{script}"
        );
    }
    assert_eq!(
        seconds_of(
            "config: {phases: [{duration: '{{ $env.D }}', arrivalRate: 1}]}",
            None
        ),
        None
    );
}

#[test]
fn arguments_that_change_the_script_are_recognized() {
    let overrides = |arguments: &str| {
        args_override_script(&arguments.split(' ').map(str::to_owned).collect::<Vec<_>>())
    };
    for more in [
        "--config more.yml",
        "--config=more.yml",
        "-c more.yml",
        "-cmore.yml",
        "--overrides {}",
        "--input a.yml",
        "-iextra.yml",
        "-e staging",
        "-estaging",
        "--environment=staging",
        "-kqe staging",
        "--solo",
        "-qs",
        "--quiet extra.yml",
        "--output report.json extra.yml",
        "-o report.json -c more.yml",
    ] {
        assert!(overrides(more), "{more}");
    }
    for other in [
        "--quiet",
        "-kq",
        "--output report.json",
        "-o report.json",
        "-vconfig",
        "--variables={} -q",
        "--name -c",
        "--tags a:b",
    ] {
        assert!(!overrides(other), "{other}");
    }
    assert!(!args_override_script(&[]));
}

/// Artillery runs all of these: js-yaml 3.15 accepts them.
#[test]
fn yaml_that_artillery_accepts_is_read() {
    for (script, what) in [
        (
            "config: {variables: {a: 123456789012345678901234567890}, ensure: {p95: 1}}\nscenarios: [{flow: []}]",
            "a number beyond 64 bits",
        ),
        (
            "config:\n  target: http://x\n\t\n  ensure: {p95: 1}\n",
            "a line that is one tab",
        ),
        (
            "config:\n  target: http://x\n\t# more\n  ensure: {p95: 1}\n",
            "a tab before a comment",
        ),
        (
            "config:\n  target: http://x\n  \t# more\n  ensure: {p95: 1}\n",
            "a tab before a comment",
        ),
        (
            "config:\n  target:\thttp://x\t\n  ensure: {p95: 1}\t# one\n",
            "tabs between and after",
        ),
        (
            "config:\n  phases:\n  -\tduration: 1\n    arrivalRate: 1\n  ensure: {p95: 1}\n",
            "a tab after -",
        ),
        (
            "config:\n  variables: {a: [\n\t1,\t2\n\t]}\n  ensure: {p95: 1}\n",
            "tabs in a list",
        ),
        (
            "{\n\t\"config\": {\n\t\t\"variables\": {\"a\": \"\\ud83d\\ude00\"},\n\t\t\"ensure\": {\"p95\": 1}\n\t}\n}\n",
            "a surrogate pair",
        ),
        (
            "config:\n  variables: {a: \"\\ud83d\", b: 'x\u{7f}\u{99}'}\n  ensure: {p95: 1}\n",
            "an unpaired surrogate and control characters",
        ),
        (
            "{\n\t\"config\": {\n\t\t\"ensure\": {\n\t\t\t\"p95\": 1\n\t\t}\n\t}\n}\n",
            "JSON with tabs",
        ),
        (
            "config:\n  target: 'http:\n\t//x'\n  ensure: {p95: 1}\n",
            "a tab in a string of two lines",
        ),
        (
            "\u{feff}config:\r\n  ensure:\r\n    p95: 1\r\n",
            "a byte order mark and CRLF",
        ),
    ] {
        let analysis = analyze(script, "a.yaml", None);
        assert_eq!(
            analysis.ensure.map(|thresholds| thresholds.len()),
            Some(1),
            "{what}: {:?}",
            analysis.problem
        );
        assert!(
            analysis.problem.is_none_or(|problem| problem.is_missing),
            "{what}"
        );
    }
}

#[test]
fn ensure_of_an_unreadable_script_is_left_to_artillery() {
    for unreadable in [
        "config: {ensure: {p95: 1}",
        "config: {ensure: {p95: 1}, ensure: {}}",
    ] {
        let analysis = analyze(unreadable, "a.yaml", None);
        assert!(
            analysis.ensure.is_none()
                && analysis.problem.is_some_and(|problem| !problem.is_missing),
            "{unreadable}"
        );
    }
    assert_eq!(
        analyze("config: {ensure: {p95: 1}}", "a.ts", None).ensure,
        None
    );
    let tab = analyze("config:\n\tensure: {p95: 1}\n", "a.yaml", None).problem;
    assert!(
        tab.is_some_and(|problem| !problem.is_missing),
        "js-yaml reads a tab as no indentation"
    );
    assert_eq!(
        analyze("config: {target: x}", "a.yaml", None).ensure,
        Some(Vec::new())
    );
}

#[test]
fn script_that_anchors_make_too_large_is_left_to_artillery() {
    let uses = |anchor: &str, times| vec![anchor; times].join(", ");
    let wide = format!(
        "a: &a [{}]\nb: [{}]\n",
        uses("1", 10_000),
        uses("*a", 10_000)
    );
    let long = format!(
        "a: &a {}\nb: [{}]\n",
        "x".repeat(30_000),
        uses("*a", 10_000)
    );
    let deep = (1..9).fold(format!("a0: &a0 [{}]\n", uses("1", 99)), |text, n| {
        format!(
            "{text}a{n}: &a{n} [{}]\n",
            uses(&format!("*a{}", n - 1), 10)
        )
    });
    for script in [wide, long, deep] {
        let analysis = analyze(&script, "a.yaml", None);
        assert_eq!(
            (
                analysis.ensure,
                analysis.problem,
                analysis.expected_duration
            ),
            (None, None, None)
        );
    }
}

const ENSURE_SCRIPT: &str = r"
config:
  plugins: { ensure: {} }
  most: &most { http.response_time.p99: 300 }
  ensure:
    thresholds: [{ http.response_time.p95: 200, <<: *most }, { 'plugins.x-y./a.p95': 9 }]
    conditions: [{ expression: http.codes.500 == 0 }, { expression: vusers.failed < 5, strict: false }, { strict: true }]
    p95: 250ms
    max: 0.5
    maxErrorRate: 1
  environments:
    lax: { ensure: { thresholds: [{ http.response_time.p95: 900 }], maxErrorRate: 5 } }
    none: { target: x }
";

fn expressions(script: &str, environment: Option<&str>) -> Vec<String> {
    analyze(script, "a.yaml", environment)
        .ensure
        .unwrap_or_default()
        .into_iter()
        .map(|threshold| {
            format!(
                "{}{}",
                threshold.expression,
                if threshold.is_strict() { "" } else { "?" }
            )
        })
        .collect()
}

#[test]
fn ensure_becomes_thresholds() {
    let all = expressions(ENSURE_SCRIPT, None);
    assert_eq!(
        all,
        [
            "http.response_time.p95 < 200",
            "http.response_time.p99 < 300",
            "'plugins.x-y./a.p95' < 9",
            "http.codes.500 == 0",
            "vusers.failed < 5?",
            "?",
            "http.response_time.max < 0.5",
            "http.response_time.p95 < 250",
            "maxErrorRate <= 1",
        ]
    );
    let lax = expressions(ENSURE_SCRIPT, Some("lax"));
    assert!(
        lax.contains(&"http.response_time.p95 < 900".to_owned())
            && lax.contains(&"maxErrorRate <= 5".to_owned())
    );
    assert!(
        lax.contains(&"'plugins.x-y./a.p95' < 9".to_owned()) && lax.len() == all.len(),
        "{lax:?}"
    );
    assert_eq!(expressions(ENSURE_SCRIPT, Some("none")), all);
    assert_eq!(
        expressions("config: {plugins: {ensure: {p99: 3}}}", None),
        ["http.response_time.p99 < 3"]
    );
    for without in [
        "",
        ":",
        "a",
        "config: {ensure: {}}",
        "config: {ensure: true}",
        "config: {ensure: {thresholds: 3, conditions: [a]}}",
    ] {
        assert_eq!(
            expressions(without, Some("e")),
            Vec::<String>::new(),
            "{without}"
        );
    }
    let expressions = expressions(
        "config: {ensure: {thresholds: [{a: [1]}], p99: null, maxErrorRate: '{{ x }}'}, plugins: {ensure: {}}}",
        None,
    );
    assert_eq!(
        expressions,
        [
            "a < ?",
            "http.response_time.p99 < ?",
            "maxErrorRate <= {{ x }}"
        ],
        "none of them can be evaluated"
    );
}
