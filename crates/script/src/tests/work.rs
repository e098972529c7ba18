//! The time of an analysis is linear in the length of the script.

use std::fmt::Write;

use crate::analyze;
use crate::testing::work as work_done;

/// `n` lines between two texts.
fn lines(before: &str, n: usize, line: impl Fn(usize) -> String, after: &str) -> String {
    let mut text = before.to_owned();
    (0..n).for_each(|i| {
        let _ = writeln!(text, "{}", line(i));
    });
    text + after
}

const SCENARIOS: &str = "scenarios: [{flow: []}]\n";

/// A script of about `n` parts.
type Script = fn(usize) -> String;

#[test]
fn analysis_takes_time_linear_in_the_length_of_the_script() {
    let scripts: [(&str, Script); 11] = [
        ("top-level keys with used anchors", |n| {
            let keys = lines(
                "",
                n,
                |i| format!("k{i}: &a{i} {{x: 1}}"),
                "config:\n  variables:\n",
            );
            lines(&keys, n, |i| format!("    v{i}: *a{i}"), SCENARIOS)
        }),
        ("top-level keys in JSON", |n| {
            let keys = lines("{", n, |i| format!("\"k{i}\": {{\"a\": [1, {{}}]}},"), "");
            keys + "\"config\": {}, \"scenarios\": [{\"flow\": []}]}"
        }),
        ("keys close to known ones", |n| {
            lines("config:\n", n, |i| format!("  targe{i}: x"), SCENARIOS)
        }),
        ("steps with two keys", |n| {
            lines(
                "config: {}\nscenarios:\n- flow:\n",
                n,
                |_| "  - {get: {url: /}, think: 1}".into(),
                "",
            )
        }),
        ("phases without duration", |n| {
            lines(
                "config:\n  phases:\n",
                n,
                |_| "  - {arrivalRate: 1}".into(),
                SCENARIOS,
            )
        }),
        ("rules that cannot be read", |n| {
            lines(
                "config:\n  ensure:\n    conditions:\n",
                n,
                |_| "    - expression: a ? b".into(),
                SCENARIOS,
            )
        }),
        ("keys that an environment replaces", |n| {
            let own = lines("config:\n  variables:\n", n, |i| format!("    v{i}: 1"), "");
            let own = own + "  environments:\n    e:\n      variables:\n";
            lines(&own, n, |i| format!("        v{i}: 2"), SCENARIOS)
        }),
        ("comments", |n| {
            lines("", n, |_| "# config:".into(), "config: {}\n")
        }),
        ("one text of many lines", |n| {
            lines("config: '", n, |_| " x".into(), "'\n")
        }),
        ("block text", |n| {
            lines("config: |\n", n, |_| "  - &a *b".into(), "")
        }),
        ("flow text of many lines", |n| {
            lines("config: [", n, |_| "a b".into(), "]\n")
        }),
    ];
    for (what, script) in scripts {
        let work = |n| {
            let text = script(n);
            let before = work_done();
            let _ = analyze(&text, "a.yaml", Some("e"));
            (work_done() - before, text.len())
        };
        let (once, size) = work(1000);
        let (twice, _) = work(2000);
        assert!(once < 40 * size, "{what}: {once} steps for {size} bytes");
        assert!(
            twice < once * 5 / 2,
            "{what}: {once} steps, {twice} for twice the text"
        );
    }
}

#[test]
fn aliases_do_not_multiply_the_work() {
    let bomb = |depth| {
        let start = "config: &a0 [1, 2, 3]\n";
        let uses = |i: usize| vec![format!("*a{i}"); 9].join(", ");
        lines(
            start,
            depth,
            |i| format!("k{i}: &a{} [{}]", i + 1, uses(i)),
            SCENARIOS,
        )
    };
    for depth in [5, 60, 500] {
        let text = bomb(depth);
        let before = work_done();
        let analysis = analyze(&text, "a.yaml", None);
        assert!(work_done() - before < 40 * text.len(), "{depth}");
        assert_eq!(analysis.ensure.is_none(), depth > 5, "{depth}");
        assert!(
            analysis
                .warnings
                .iter()
                .any(|warning| warning.contains("could not be checked"))
                == (depth > 5)
        );
    }
}
