//! What scripts from public repositories contain.

use super::{expressions, seconds_of};
use crate::{Analysis, analyze};

const SCENARIOS: &str = "scenarios: [{flow: [{get: {url: /}}]}]\n";

fn script(config: &str) -> String {
    format!("config: {{target: 'http://x', {config}}}\n{SCENARIOS}")
}

fn analyze_yaml(script: &str) -> Analysis {
    analyze(script, "a.yaml", None)
}

/// Asserts that a script can run, with one warning that contains all words.
fn assert_warns(script: &str, words: &[&str]) {
    let analysis = analyze_yaml(script);
    assert_eq!(analysis.problem, None, "{script}");
    let has_words = |warning: &String| words.iter().all(|word| warning.contains(word));
    assert!(
        analysis.warnings.len() == 1 && analysis.warnings.iter().all(has_words),
        "{script}: {:?}",
        analysis.warnings
    );
}

fn assert_fine(script: &str) {
    let analysis = analyze_yaml(script);
    assert_eq!(
        (analysis.problem, analysis.warnings),
        (None, Vec::new()),
        "{script}"
    );
}

#[test]
fn script_with_a_byte_order_mark_is_read_completely() {
    for (text, file) in [
        (
            "\u{feff}config:\n  target: http://x\n  phases: [{duration: 7, arrivalRate: 1}]\n  \
             ensure: {p95: 1}\nscenarios:\n  - flow: []\n",
            "a.yaml",
        ),
        (
            "\u{feff}# first\r\nconfig:\r\n  phases: [{duration: 7, arrivalRate: 1}]\r\n  \
             ensure: {p95: 1}\r\nscenarios:\r\n  - flow: []\r\n",
            "a.yml",
        ),
        (
            "\u{feff}{\"config\": {\"phases\": [{\"duration\": 7, \"arrivalRate\": 1}],\n\
             \"ensure\": {\"p95\": 1}},\n\"scenarios\": [{\"flow\": []}]}",
            "a.json",
        ),
        (
            "config:\n  phases: [{name: a\u{feff}b, duration: 7, arrivalRate: 1}] # \u{feff}\n  \
             ensure: {p95: 1}\nscenarios:\n  - flow: []\n",
            "a.yaml",
        ),
    ] {
        let analysis = analyze(text, file, None);
        assert_eq!(analysis.problem, None, "{text}");
        assert_eq!(
            analysis.expected_duration.map(|d| d.as_secs()),
            Some(7),
            "{text}"
        );
        assert_eq!(analysis.ensure.map(|all| all.len()), Some(1), "{text}");
    }
    let second = "config: {target: x}\n\u{feff}scenarios: [{flow: []}]\n";
    let problem = analyze_yaml(second).problem.unwrap();
    assert!(
        problem.message.contains("did you mean `scenarios`?"),
        "js-yaml reads it as a part of the key: {problem:?}"
    );
}

#[test]
fn unknown_top_level_key_is_a_warning() {
    for (key, value) in [
        ("version", "1"),
        ("seed", "7"),
        ("passCriteria", "[]"),
        ("mode", "soak"),
        ("metrics", "{}"),
        ("reporting", "{}"),
        ("chaos", "{}"),
        ("monitoring", "{}"),
        ("filter", "a"),
        ("later", "a"),
        ("conf", "{}"),
    ] {
        assert_warns(
            &format!("{key}: {value}\n{}", script("")),
            &[&format!("unknown key `{key}`"), "at line 1 column 1"],
        );
    }
    for (key, words) in [
        ("plugins: {}", "key `plugins` belongs in `config`"),
        ("phases: []", "key `phases` belongs in `config`"),
        ("mode: poisson", "key `mode` belongs in `config`"),
        ("Before: {flow: []}", "did you mean `before`?"),
        ("scenrios: []", "did you mean `scenarios`?"),
        ("confgi: {}", "did you mean `config`?"),
        ("aftr: {flow: []}", "did you mean `after`?"),
    ] {
        let problem = analyze_yaml(&format!("{}{key}\n", script("")))
            .problem
            .unwrap();
        assert!(
            problem.message.contains(words) && problem.message.contains("line 3 column 1"),
            "{key}: {problem:?}"
        );
    }
    assert_fine(&format!(
        "variables: &v {{a: 1}}\n{}",
        script("variables: *v")
    ));
    let many = (0..100).fold(script(""), |text, n| format!("{text}key{n}: 1\n"));
    assert_eq!(analyze_yaml(&many).warnings.len(), 10);
}

#[test]
fn text_that_js_yaml_accepts_is_accepted() {
    for config in [
        "variables: {a: one\u{2028}two\u{2029}three\u{85}four}",
        "variables: {a: 1} # one\u{2028}two\n ",
        "variables: {a: 1} # \u{1}\u{7f}\u{fffe}\n ",
        "variables: {a: &a.b/c@d$e 1, b: *a.b/c@d$e }",
        "variables: {a: &größe 1, b: *größe }",
        "variables: {a: &http://x:1 1, b: *http://x:1 }",
        "variables: {a: [1,,2]}",
        "variables: {a: \"\\U0000d800\\ud83d\"}",
        "variables: {a: 1:30, b: 0o7, c: 123456789012345678901234567890}",
    ] {
        assert_fine(&script(config));
    }
    for text in ["%FOO bar\n---\n", "--- # first\n", "%YAML 1.2\n---\n"] {
        assert_fine(&format!("{text}{}", script("")));
    }
    assert_fine(&format!("{}...\n", script("")));
    let long_key = "k".repeat(2000);
    assert_fine(&script(&format!("variables: {{{long_key}: 1}}")));
    assert_warns(
        &format!(
            "x-a: {}1{}\n{}",
            "[".repeat(200),
            "]".repeat(200),
            script("")
        ),
        &["the script could not be checked", "nested too deeply"],
    );
    for refused in [
        "variables: {a: *b}",
        "variables: {a: \u{1}}",
        "variables: {a: '\u{1}'}",
        "variables: {a: @b}",
        "variables: {a: \"\\d\"}",
        "variables: {a: [}",
        "variables: {a: 1\0}",
        "variables: {<<: 1}",
    ] {
        let problem = analyze_yaml(&script(refused)).problem;
        assert!(
            problem.is_some_and(|p| !p.is_missing && p.message.contains("at line 1 column ")),
            "{refused}"
        );
    }
}

/// Compared with Artillery 2.0.34's own `divideWork` and `phaser`.
#[test]
fn phases_take_as_long_as_in_artillery() {
    for (phases, milliseconds) in [
        ("{duration: 2, arrivalRate: 1}", 2000),
        ("{duration: '2.5', arrivalRate: 900}", 2),
        ("{duration: '1.5', arrivalRate: 900}", 1),
        ("{duration: 1500ms, arrivalRate: 9}", 1500),
        ("{duration: 2 Seconds, arrivalRate: 9}", 2000),
        ("{duration: .5s, arrivalRate: 9}", 500),
        ("{duration: 1.5 hours, arrivalRate: 9}", 5_400_000),
        ("{duration: 1w, arrivalRate: 1}", 604_800_000),
        ("{duration: 1 year, arrivalRate: 1}", 31_557_600_000),
        ("{duration: 2.0, arrivalRate: 1}", 2000),
        ("{duration: '2.0', arrivalRate: 1}", 2000),
        ("{duration: ' 2', arrivalRate: 1}", 2000),
        ("{duration: '2e1', arrivalRate: 1}", 20_000),
        ("{duration: 0x10, arrivalRate: 1}", 16_000),
        ("{duration: 010, arrivalRate: 1}", 8000),
        ("{duration: '010', arrivalRate: 1}", 10_000),
        ("{duration: 1:30, arrivalRate: 1}", 90_000),
        ("{duration: 1_0, arrivalRate: 1}", 10_000),
        ("{duration: true, arrivalRate: 1}", 1000),
        ("{duration: 1500ms, arrivalRate: 1, rampTo: 2}", 2000),
        ("{arrivalRate: 1, rampTo: 2}", 1000),
        ("{duration: 2, rampTo: 2}", 2000),
        ("{duration: 2, arrivalRate: 2, rampTo: 0}", 2000),
        ("{duration: 9, arrivalCount: 3}", 9000),
        ("{pause: 2}", 2000),
        ("{pause: 2, arrivalRate: 1, duration: 1}", 2000),
        ("{pause: '0'}", 0),
        ("{pause: -2}", 0),
        // Not run.
        ("{duration: 9, arrivalRate: 0}", 0),
        (
            "{duration: 9, arrivalRate: 0, rampTo: 0, arrivalCount: 0, pause: 0}",
            0,
        ),
        ("{duration: 9, arrivalRate: false}", 0),
        ("{duration: 9}", 0),
        ("{duration: 0, arrivalRate: 0}", 0),
        ("{duration: 2.5, arrivalRate: 0}", 0),
        ("{}", 0),
        // A text is not 0.
        ("{duration: 9, arrivalRate: '0'}", 9000),
        ("{duration: 9, arrivalCount: '0'}", 0),
        ("{duration: 9, arrivalRate: 1, arrivalCount: 0}", 0),
    ] {
        let text = script(&format!(
            "phases: [{phases}, {{duration: 1, arrivalRate: 1}}]"
        ));
        let analysis = analyze_yaml(&text);
        assert_eq!(analysis.problem, None, "{phases}");
        let duration = analysis.expected_duration.map(|d| d.as_millis());
        assert_eq!(duration, Some(milliseconds + 1000), "{phases}");
    }
    for phases in [
        "{arrivalRate: 1}",
        "{arrivalCount: 3}",
        "{duration: '0', arrivalRate: 1}",
        "{duration: '0', arrivalCount: 1}",
    ] {
        let text = script(&format!("phases: [{{pause: 3}}, {phases}]"));
        assert_eq!(seconds_of(&text, None), None, "{phases}");
        assert_warns(&text, &["config.phases[1]", "`duration` above 0", "line 1"]);
    }
    for phases in [
        "{duration: 2.5, arrivalRate: 1}",
        "{duration: 0, arrivalRate: 1}",
        "{duration: 0s, arrivalRate: 1}",
        "{duration: '2s ', arrivalRate: 1}",
        "{duration: 1.s, arrivalRate: 1}",
        "{duration: 1 month, arrivalRate: 1}",
        "{duration: '1:30', arrivalRate: 1}",
        "{duration: '', arrivalRate: 1}",
        "{duration: null, arrivalCount: 1}",
        "{duration: .inf, arrivalRate: 1}",
        "{pause: 1.5}",
        "{pause: 0, arrivalRate: 1, duration: 1}",
        "{pause: 2s, duration: 2.5}",
    ] {
        let analysis = analyze_yaml(&script(&format!("phases: [{{pause: 3}}, {phases}]")));
        let message = analysis.problem.unwrap().message;
        assert!(
            message.contains("config.phases[1]: invalid ") && message.contains("line 1 column"),
            "{phases}: {message}"
        );
        assert_eq!(analysis.expected_duration, None, "{phases}");
    }
    assert_warns(
        &script("phases: [{duration: '2.5', arrivalRate: 900}]"),
        &["`2.5` is in milliseconds", "2.5s"],
    );
    assert_warns(
        &script("phases: [{duration: 5, arrivalRate: 0}]"),
        &["no phase creates virtual users"],
    );
}

#[test]
fn ensure_rules_of_javascript_are_read_where_their_meaning_is_clear() {
    for (rule, read) in [
        ("counters['http.codes.200'] > 0", "http.codes.200 > 0"),
        ("counters[\"http.codes.200\"] > 0", "http.codes.200 > 0"),
        ("stats['http.codes.500'] === 0", "http.codes.500 == 0"),
        (
            "(stats['http.codes.500'] || 0) === 0",
            "(http.codes.500) == 0",
        ),
        ("(http.codes.500 ?? 0) !== 1", "(http.codes.500) != 1"),
        (
            "(counters['http.codes.200'] / counters['http.requests']) >= 0.99",
            "(http.codes.200 / http.requests) >= 0.99",
        ),
        (
            "summaries['http.response_time'].p95 < 1e3",
            "http.response_time.p95 < 1000",
        ),
        (
            "aggregate.summaries['http.response_time']['p95'] < 5",
            "http.response_time.p95 < 5",
        ),
        ("(a || 0e0) < .5", "(a) < 0.5"),
        ("counters['a b'] < .5", "'a b' < 0.5"),
        ("a < 1 && b < 2 || c < 3", "a < 1  and  b < 2  or  c < 3"),
        ("!(a < 1)", "not (a < 1)"),
        // As Artillery writes them.
        (
            "not (a < 1) and max(b, 2) in (1, 2)",
            "not (a < 1) and max(b, 2) in (1, 2)",
        ),
        (
            "plugins.metrics-by-endpoint./a (get).codes.200 > 4",
            "plugins.metrics-by-endpoint./a (get).codes.200 > 4",
        ),
        (
            "vusers.created_by_name.My scenario > 0",
            "vusers.created_by_name.My scenario > 0",
        ),
    ] {
        let text = format!(
            "config:\n  ensure:\n    conditions:\n      - expression: {}\n{SCENARIOS}",
            format_args!("'{}'", rule.replace('\'', "''"))
        );
        assert_eq!(expressions(&text, None), [read], "{rule}");
        assert_eq!(analyze_yaml(&text).warnings, Vec::<String>::new(), "{rule}");
    }
    for (limit, read) in [
        ("p95: '< 1500'", "http.response_time.p95 < 1500"),
        ("p95: '<= 1500ms'", "http.response_time.p95 <= 1500"),
        ("maxErrorRate: '< 1'", "maxErrorRate < 1"),
        ("thresholds: [{a: '<= 3'}]", "a <= 3"),
    ] {
        let text = script(&format!("ensure: {{{limit}}}"));
        assert_eq!(expressions(&text, None), [read], "{limit}");
        assert_fine(&text);
    }
}

#[test]
fn ensure_rule_that_cannot_be_read_decides_only_with_the_plugin() {
    for rule in [
        "stats['a'].filter(x => x > 1)",
        "http.codes.500",
        "http.codes.500 ? 1 : 0",
        "not http.codes.500 > 5",
        "http.codes.500 = 0",
        "http.codes.500 < {{ x }}",
        "http.codes.500 == null",
        "(http.codes.500 == 0",
        "a || b > 0",
        "",
    ] {
        let ensure = format!(
            "ensure: {{conditions: [{{expression: \"{rule}\"}}, {{expression: http.codes.404 == 0}}]}}"
        );
        for (plugins, is_strict) in [("", false), (", plugins: {ensure: {}}", true)] {
            let text = script(&format!("{ensure}{plugins}"));
            assert_warns(
                &text,
                &["config.ensure", "cannot be evaluated", "line 1 column"],
            );
            let strict: Vec<_> = analyze_yaml(&text)
                .ensure
                .unwrap()
                .iter()
                .map(loadtest_api::v1alpha1::Threshold::is_strict)
                .collect();
            assert_eq!(strict, [is_strict, true], "{rule} {plugins}");
        }
    }
    for (ensure, words) in [
        ("[{p95: 1}]", "config.ensure is a list"),
        (
            "{thresholds: {a: 1}}",
            "config.ensure.thresholds is not a list",
        ),
        (
            "{conditions: [a > 1]}",
            "config.ensure.conditions[0] is not read",
        ),
        (
            "{thresholds: [a]}",
            "config.ensure.thresholds[0] is not read",
        ),
    ] {
        let text = script(&format!("ensure: {ensure}"));
        assert_warns(&text, &[words]);
        assert_eq!(expressions(&text, None), Vec::<String>::new(), "{ensure}");
    }
}

#[test]
fn target_is_checked_with_the_one_of_the_test() {
    let target = |config: &str, given| {
        let text = format!("config: {{{config}}}\n{SCENARIOS}");
        analyze(&text, "a.yaml", Some("e")).target.warning(given)
    };
    let missing = "no target: set config.target in the script, or spec.target";
    for config in [
        "phases: []",
        "target: ",
        "target: ''",
        "environments: {f: {target: x}}",
    ] {
        assert_eq!(target(config, None).as_deref(), Some(missing), "{config}");
        assert_eq!(target(config, Some("http://x")), None, "{config}");
    }
    for url in [
        "host:8080",
        "localhost:80",
        "10.0.0.1:80",
        "example.com",
        "httpbin.org",
    ] {
        let warning = format!("target {url} has no scheme; use http://{url}");
        let config = format!("target: '{url}'");
        assert_eq!(target(&config, None), Some(warning.clone()), "{url}");
        assert_eq!(target(&config, Some("http://x")), None, "{url}");
        assert_eq!(
            target("target: 'http://x'", Some(url)),
            Some(warning),
            "{url}"
        );
    }
    for config in [
        "target: 'http://x'",
        "target: 'https://x:1'",
        "target: 'http:x'",
        "target: '{{ $env.TARGET }}'",
        "target: '{{ host }}:80'",
        "target: 'ws://x'",
        "environments: {e: {target: 'http://x'}}",
    ] {
        assert_eq!(target(config, None), None, "{config}");
    }
    for scenarios in [
        "scenarios: [{flow: [{get: {url: 'http://y/'}}]}]",
        "scenarios: [{flow: [{get: {url: '{{ url }}'}}]}]",
        "scenarios: [{engine: socketio, flow: [{get: {url: /}}]}]",
    ] {
        let analysis = analyze_yaml(&format!("config: {{target: 'host:80'}}\n{scenarios}"));
        assert_eq!(analysis.target.warning(None), None, "{scenarios}");
    }
    let javascript = analyze("module.exports = {}", "a.js", None);
    assert_eq!(javascript.target.warning(None), None);
    assert_eq!(javascript.target.warning(Some("host:80")), None);
}

#[test]
fn suspicious_parts_are_warnings() {
    for (config, words) in [
        ("payload: {fields: [a]}", "config.payload has no `path`"),
        (
            "payload: [{path: a.csv}, {fields: [a]}]",
            "config.payload has no `path`",
        ),
        ("includeFiles: [a.yml]", "`artillery run` does not read"),
    ] {
        assert_warns(&script(config), &[words, "line 1 column"]);
    }
    assert_fine(&script("payload: [{path: a.csv, fields: [a]}]"));
    let steps =
        |steps: &str| format!("config: {{target: 'http://x'}}\nscenarios:\n- flow: [{steps}]\n");
    assert_warns(
        &steps("{get: {url: /}}, {get: {url: /}, think: 1}"),
        &[
            "scenarios[0].flow[1]",
            "2 keys (get, think)",
            "line 3 column",
        ],
    );
    assert_fine(&steps("{loop: [{get: {url: /}}], count: 2}, {think: 1}"));
}

#[test]
fn script_without_content_is_empty() {
    for text in [
        "",
        " ",
        "\t\n",
        "# only\n  # comments",
        "\u{feff}# only",
        "---",
        "--- # a\n",
        "%YAML 1.2\n---\n",
        "---\n...\n",
        "~",
        "null",
    ] {
        for file in ["a.yaml", "a.json"] {
            let problem = analyze(text, file, None).problem.unwrap();
            assert_eq!(problem.message, "the script is empty", "{text:?}");
            assert!(problem.is_missing);
        }
    }
}
