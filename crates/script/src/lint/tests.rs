#![allow(clippy::unwrap_used)]
use super::Problem;

fn problem(script: &str) -> Option<Problem> {
    crate::analyze(script, "a.yaml", None).problem
}

const VALID: &str = "
x-shared: &headers {accept: '*/*'}
config:
  target: http://x
  phases:
    - {duration: 1, arrivalRate: 1}
    - pause: 5
  mqtt: {some: thing}
  environments: {dev: {phases: [{duration: 1, arrivalCount: 1}]}}
scenarios:
  - name: one
    testFunction: f
    flow: [{get: {url: /, headers: *headers}}]
  - <<: {weight: 2}
    flow: []
before: {flow: []}
";

#[test]
fn valid_script_has_no_problem() {
    assert_eq!(problem(VALID), None);
    assert_eq!(problem("config: {target: x, includeFiles: [a.yml]}"), None);
    assert_eq!(
        problem("{\"config\": {\"target\": {{ x }}}, \"scenarios\": [1]}"),
        None,
        "unusual, but not reported"
    );
    assert_eq!(
        problem("config: {phases: '{{ p }}'}\nscenarios: [3, {flow: !tag x}]\n"),
        None
    );
}

#[test]
fn ignored_key_is_reported_with_its_position() {
    let message_with = |from: &str, to: &str| problem(&VALID.replace(from, to)).unwrap().message;
    let message = message_with("- pause: 5", "- puase: 5");
    assert!(
        message.contains("`puase`")
            && message.contains("did you mean `pause`?")
            && message.contains("line 7 column 7"),
        "{message}"
    );
    let message = message_with("\nscenarios:", "\nscenario:");
    assert!(
        message.contains("did you mean `scenarios`?") && message.contains("line 10 column 1"),
        "{message}"
    );
    assert!(message_with("    flow: [{", "    flows: [{").contains("did you mean `flow`?"));
    assert!(
        message_with("arrivalCount", "arivalCount").contains("line 9"),
        "in an environment"
    );
    assert!(
        message_with("duration: 1, arrivalRate", "seconds: 1, arrivalRate")
            .contains("known keys: name, duration")
    );
}

#[test]
fn syntax_error_is_reported_with_its_position() {
    let message = problem("config:\n  target: 'x\nscenarios: []\n")
        .unwrap()
        .message;
    assert!(message.contains("line "), "{message}");
    let message = problem("config:\n  a: 1\n b: 2\n").unwrap().message;
    assert!(message.contains("line 3 column 2"), "{message}");
}

#[test]
fn empty_script_is_reported_as_missing() {
    for script in ["", "\n \n", "# config: {}\n", "---\n", "\u{feff}\r\n"] {
        let problem = problem(script).unwrap();
        assert_eq!(problem.message, "the script is empty", "{script:?}");
        assert!(problem.is_missing, "{script:?}");
    }
}

#[test]
fn script_without_config_or_scenarios_is_reported_as_missing() {
    for script in [
        "config: {target: x}",
        "config: {target: x}\nscenarios: []",
        "config: {target: x}\nscenarios:\n",
    ] {
        let problem = problem(script).unwrap();
        assert!(
            problem.is_missing && problem.message.contains("no `scenarios`"),
            "{script}: {problem:?}"
        );
    }
    for script in ["scenarios: [{flow: []}]", "- a", "a text"] {
        assert!(
            problem(script)
                .unwrap()
                .message
                .contains("missing section `config`"),
            "{script}"
        );
    }
}

/// The problem of the valid script with more keys in its `config`.
fn with_config(more: &str) -> Option<Problem> {
    problem(&VALID.replace(
        "  mqtt: {some: thing}\n",
        &format!("  mqtt: {{some: thing}}\n  {more}\n"),
    ))
}

#[test]
fn keys_of_artillery_engines_and_plugins_are_accepted() {
    for more in [
        "engine: http",
        "mode: poisson",
        "apdex: {threshold: 100}",
        "pluginsScope: '@mine/artillery-plugin-'",
        "bundling: {external: [x]}",
        "http2: true",
        "https: {}",
        "wss: {}",
        "hls: {}",
        "engineio: {}",
        "socketioV3: {}",
        "socketio3: {}",
        "grpc: {}",
        "targets: 1\n  engines: {targets: {}}",
        "targets: 1\n  plugins: {targets: {}}",
        "http: {timeout: 3, pool: 1, proxy: x}",
        "tls: {ca: x, key: y}",
        "payload: {path: a.csv, fields: [a], options: {from: 2}}",
        "payload: [{path: a.csv, fields: [a], random: true}]",
        "ensure: {p95: 1, conditions: []}",
    ] {
        assert_eq!(with_config(more), None, "{more}");
    }
}

#[test]
fn misspelled_key_is_reported_with_the_probable_one() {
    for (more, meant) in [
        ("tagret: x", "target"),
        ("environment: {}", "environments"),
        ("htpt: {}", "http"),
        ("statsinterval: 3", "statsInterval"),
        ("http: {timeuot: 3}", "timeout"),
        ("http: {maxSocket: 3}", "maxSockets"),
        ("tls: {rejectUnauthorised: false}", "rejectUnauthorized"),
        ("payload: {path: a.csv, field: [a]}", "fields"),
        (
            "payload: [{path: a.csv, fields: [a], skipHeaders: true}]",
            "skipHeader",
        ),
        ("ensure: {threshold: []}", "thresholds"),
        ("plugins: {ensure: {maxErrorsRate: 1}}", "maxErrorRate"),
    ] {
        let message = with_config(more).unwrap().message;
        assert!(
            message.contains(&format!("did you mean `{meant}`?")),
            "{more}: {message}"
        );
    }
    let requests = |steps: &str| {
        problem(&format!(
            "config: {{target: x}}\nscenarios: [{{flow: [{steps}]}}]"
        ))
        .map(|problem| problem.message)
    };
    for steps in [
        "{get: {url: /, header: {}}}",
        "{loop: [{post: {url: /, header: {a: b}}}], count: 2}",
    ] {
        assert!(
            requests(steps).unwrap().contains("did you mean `headers`?"),
            "{steps}"
        );
    }
    assert!(
        requests("{get: {url: /, cookies: {}}}")
            .unwrap()
            .contains("did you mean `cookie`?")
    );
    for steps in [
        "{get: {url: /, headers: {header: a, url: b}, timeout: 3}}",
        "{log: a}, {think: 1}",
        "{post: {url: /, json: {header: 1}}}",
    ] {
        assert_eq!(requests(steps), None, "{steps}");
    }
    let other = "config: {target: x}\nscenarios: [{flow: [{get: {header: a}}], engine: mine}]";
    assert_eq!(problem(other), None, "another engine's requests");
}

#[test]
fn duplicate_key_is_reported_with_its_position() {
    for (script, place) in [
        (
            "config: {target: x}\nscenarios: [{flow: []}]\nconfig: {}\n",
            "line 3 column 1",
        ),
        (
            "config: {target: x}\nscenarios: [{flow: [{get: {url: /, headers: {a: 1, a: 2}}}]}]",
            "line 2 column 52",
        ),
        (
            "config: {target: x, variables: {1: a, '1': b}}\nscenarios: [{flow: []}]",
            "line 1 column 39",
        ),
    ] {
        let message = problem(script).unwrap().message;
        assert!(
            message.contains("duplicate key") && message.contains(place),
            "{script}: {message}"
        );
    }
    let merged =
        "x-a: &a {name: a}\nconfig: {target: x}\nscenarios: [{<<: *a, <<: *a, name: b, flow: []}]";
    assert_eq!(
        problem(merged),
        None,
        "js-yaml accepts several merge keys, and values that override merged ones"
    );
}

#[test]
fn top_level_key_that_holds_a_used_anchor_is_accepted() {
    let script = |top: &str| {
        format!("{top}\nconfig: {{target: x, defaults: *a}}\nscenarios: [{{flow: []}}]\n")
    };
    for top in [
        "definitions: &a {headers: {}}",
        "shared:\n  # more\n  headers:\n    - &a {accept: x}\n",
        "all: [&a {}, &b {}]",
    ] {
        assert_eq!(problem(&script(top)), None, "{top}");
    }
    let unused = crate::analyze(&script("x-a: &a {}\ndefinitions: &b {}"), "a.yaml", None);
    assert_eq!(unused.problem, None);
    assert!(
        unused.warnings.iter().any(|warning| {
            warning.contains("`definitions`")
                && warning.contains("custom keys start with x-")
                && warning.contains("line 2 column 1")
        }),
        "{:?}",
        unused.warnings
    );
    assert_eq!(
        problem(
            "$schema: s\nx-all: &all {config: {target: x}, scenarios: [{flow: []}]}\n<<: *all\n"
        ),
        None
    );
}

#[test]
fn scenario_of_a_built_in_engine_without_flow_is_reported() {
    let message_for = |scenarios: &str| {
        problem(&format!("config: {{target: x}}\n{scenarios}")).map(|problem| problem.message)
    };
    for scenarios in [
        "scenarios: [{flow: []}, {name: a}]",
        "scenarios: [{flow: []}, {engine: ws}]",
    ] {
        assert!(
            message_for(scenarios)
                .unwrap()
                .contains("scenarios[1] has no `flow`"),
            "{scenarios}"
        );
    }
    assert!(
        message_for("scenarios: [{flow: []}]\nbefore: {engine: http}")
            .unwrap()
            .contains("before has no `flow`")
    );
    assert_eq!(
        message_for("scenarios: [{engine: playwright, testFunction: f}]\nafter: {flow: []}"),
        None
    );
    assert_eq!(
        message_for("x-a: &a {flow: []}\nscenarios: [{<<: *a}]"),
        None
    );
}

#[test]
fn unknown_environment_is_reported() {
    let problem = |script: &str, environment| crate::analyze(script, "a.yaml", environment).problem;
    let unknown = problem(VALID, Some("deb")).unwrap();
    assert!(
        unknown.is_missing
            && unknown
                .message
                .contains("unknown environment `deb` (config.environments has dev)")
            && unknown
                .message
                .ends_with("Artillery would run the script without one"),
        "{unknown:?}"
    );
    for (script, environment) in [
        (VALID, Some("dev")),
        (VALID, Some("")),
        (VALID, None),
        ("config: {target: x}\nscenarios: [{flow: []}]", Some("dev")),
        (
            "config: {target: 'http://{{ $environment }}', environments: {a: {}}}\nscenarios: [{flow: []}]",
            Some("dev"),
        ),
    ] {
        assert_eq!(
            problem(script, environment),
            None,
            "{script} {environment:?}"
        );
    }
}
