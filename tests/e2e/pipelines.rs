//! `hack/ci-gate.sh`: what a pipeline gets for each result of a test, and for each failure of the command itself.

use std::process::Command;

use serde_json::json;

use crate::cluster;
use crate::fake_kubectl::{FakeKubectl, Output, run};
use crate::support::TestEnv;

/// Runs `hack/ci-gate.sh`.
pub fn ci_gate(args: &[&str]) -> Output {
    run(Command::new("hack/ci-gate.sh").args(args))
}

/// Replies with a status: `$COMPLETED`, and from the second read on `$COMPLETED_LATER`. `$WAIT` is the error of `wait`.
const CLUSTER: &str = r#"
reads="${0%/*}/reads"
case "$*" in
"get "*jsonpath*)
  echo >>"$reads"
  [ "$(wc -l <"$reads")" = 1 ] || COMPLETED=$COMPLETED_LATER
  case $COMPLETED in
  error*) echo "$COMPLETED" >&2; exit 1 ;;
  '') printf '\n\n\nWaiting for 2 workers.\n' ;;
  *) printf '%s\n%s\nThe message.\nThe test has ended.\n' "$COMPLETED" "$VERDICT" ;;
  esac ;;
"get "*) echo "NAME STATUS" ;;
"wait "*) [ -z "$WAIT" ] || { echo "$WAIT" >&2; exit 1; } ;;
esac
"#;

#[test]
fn ci_gate_reports_a_failed_command_with_its_own_exit_code() {
    let end = "2026-01-01T00:00:00Z";
    let gone = r#"error from server (NotFound): loadtests.loadtest.artillery.io "t" not found"#;
    let timeout = "error: timed out waiting for the condition on loadtests/t";
    let lost = "error: unexpected EOF";
    let refused = "error: the connection to the server 10.0.0.1:6443 was refused";
    let wrong_url =
        "error from server (NotFound): the server could not find the requested resource";
    // The end of the test at the first read, the error of the wait, the end at the second read, the verdict.
    let cases = [
        ([end, "", "", "Passed"], 0, "Passed: The message.\n", ""),
        ([end, "", "", "Failed"], 1, "Failed: The message.\n", ""),
        (
            [end, "", "", "Inconclusive"],
            3,
            "Inconclusive: The message.\n",
            "",
        ),
        (["", "", end, "Passed"], 0, "Passed: The message.\n", ""),
        (
            ["", timeout, "", ""],
            2,
            "Not ended: Waiting for 2 workers.\n",
            "",
        ),
        // The test ends while the wait fails.
        (
            ["", timeout, end, "Passed"],
            0,
            "Passed: The message.\n",
            "",
        ),
        (["", lost, end, "Passed"], 0, "Passed: The message.\n", ""),
        (["", lost, end, "Failed"], 1, "Failed: The message.\n", ""),
        (["", lost, "", ""], 69, "", lost),
        (["", lost, refused, ""], 69, "", refused),
        (
            ["", "", "", ""],
            69,
            "",
            "it was replaced while it was awaited",
        ),
        ([refused, "", "", ""], 69, "", refused),
        ([wrong_url, "", "", ""], 69, "", wrong_url),
        ([gone, "", "", ""], 66, "", gone),
        (["", timeout, gone, ""], 66, "", gone),
    ];
    for ([first, wait, later, verdict], code, shown, message) in cases {
        let cluster = FakeKubectl::new("ci-gate", CLUSTER);
        let variables = [
            ("COMPLETED", first),
            ("WAIT", wait),
            ("COMPLETED_LATER", later),
            ("VERDICT", verdict),
        ];
        let output = cluster.run("hack/ci-gate.sh", &["t", "5s", "-n", "shop"], &variables);
        assert_eq!(output.code, code, "{variables:?}: {output:?}");
        let expected = if shown.is_empty() {
            String::new()
        } else {
            format!("NAME STATUS\n{shown}")
        };
        assert_eq!(output.stdout, expected, "{variables:?}: {output:?}");
        assert!(output.stderr.contains(message), "{variables:?}: {output:?}");
    }
}

#[test]
fn ci_gate_rejects_incorrect_arguments() {
    let cluster = FakeKubectl::new("ci-gate-arguments", CLUSTER);
    for (args, message) in [
        (&[][..], "usage: ci-gate.sh NAME"),
        (
            &["-n", "shop", "t"],
            "must be the name of a LoadTest, not '-n'",
        ),
        (
            &["loadtest/t"],
            "must be the name of a LoadTest, not 'loadtest/t'",
        ),
        (
            &["t", "15m", "-o", "yaml"],
            "the option -o changes the output",
        ),
        (&["t", "--output=yaml"], "the option --output=yaml changes"),
        (
            &["t", "15"],
            "must be a duration with a unit, such as 15m or 90s, not '15'",
        ),
        (
            &["t", ""],
            "must be a duration with a unit, such as 15m or 90s, not ''",
        ),
        (
            &["t", "soon"],
            "must be a duration with a unit, such as 15m or 90s, not 'soon'",
        ),
        (
            &["t", "15 m"],
            "must be a duration with a unit, such as 15m or 90s, not '15 m'",
        ),
    ] {
        let output = cluster.run("hack/ci-gate.sh", args, &[]);
        assert_eq!((output.code, &*output.stdout), (64, ""), "{args:?}");
        assert!(output.stderr.contains(message), "{args:?}: {output:?}");
    }
    assert!(cluster.calls().is_empty());
}

#[test]
fn ci_gate_waits_ten_minutes_if_the_timeout_is_left_out() {
    for (args, timeout) in [
        (&["t"][..], "--timeout=10m"),
        (&["t", "-n", "shop"], "--timeout=10m -n shop"),
        (&["t", "1h30m", "-n", "shop"], "--timeout=1h30m -n shop"),
        (&["t", "1.5h"], "--timeout=1.5h"),
    ] {
        let cluster = FakeKubectl::new("ci-gate-timeout", CLUSTER);
        let variables = [
            ("COMPLETED_LATER", "2026-01-01T00:00:00Z"),
            ("VERDICT", "Passed"),
        ];
        assert_eq!(cluster.run("hack/ci-gate.sh", args, &variables).code, 0);
        let wait = format!("wait --for=jsonpath={{.status.completionTime}} loadtest/t {timeout}");
        assert!(cluster.calls().contains(&wait), "{:?}", cluster.calls());
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ci_gate_timeout_reports_why_the_test_has_not_ended() {
    let mut env = TestEnv::new(&cluster()).await;
    env.start_operator(&[]).await;
    env.load_test_with(
        "late",
        1,
        json!({"testScript": {"config": {"configMap": "nowhere"}}}),
    )
    .await;
    env.until_phase("late", "Pending").await;
    let output = ci_gate(&["late", "1s", "-n", &env.namespace]);
    assert_eq!(output.code, 2, "{output:?}");
    assert!(
        output.stdout.contains(&format!(
            "Not ended: ConfigMap {}/nowhere not found",
            env.namespace
        )),
        "{output:?}"
    );

    // The words of the real kubectl for failures of the command itself.
    let namespace = format!("-n={}", env.namespace);
    for (args, code, message) in [
        (
            ["missing", "1s", &namespace, "-v=0"],
            66,
            "\"missing\" not found",
        ),
        (
            ["late", "1s", &namespace, "--server=https://127.0.0.1:1"],
            69,
            "127.0.0.1:1",
        ),
        (
            ["late", "1s", &namespace, "--as=nobody"],
            69,
            "cannot get resource",
        ),
        (
            ["late", "1s", &namespace, "--nothing"],
            64,
            "unknown flag: --nothing",
        ),
        (
            ["late", "1s", &namespace, "-n"],
            64,
            "flag needs an argument",
        ),
    ] {
        let output = ci_gate(&args);
        assert_eq!((output.code, &*output.stdout), (code, ""), "{output:?}");
        assert!(output.stderr.contains(message), "{args:?}: {output:?}");
    }
}
