//! `kubectl artillery run` on a terminal, which tmux provides.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::support::TestEnv;
use crate::support::process::plugin;
use crate::{cluster, deploy_target, script_with_constant_rate};

/// A terminal of its own. It ends when this is dropped.
struct Terminal {
    name: String,
}

impl Terminal {
    /// Runs a command line in a terminal of this size.
    fn start(name: &str, width: u16, height: u16, command: &str) -> Self {
        let terminal = Self {
            name: format!("{name}-{}", std::process::id()),
        };
        let (width, height) = (width.to_string(), height.to_string());
        terminal.tmux(&["new-session", "-d", "-x", &width, "-y", &height, command]);
        terminal
    }

    fn tmux(&self, args: &[&str]) -> String {
        let output = Command::new("tmux")
            .args(["-L", &self.name, "-f", "/dev/null"])
            .args(args)
            .output()
            .expect("tmux runs");
        assert!(output.status.success(), "tmux {args:?}: {output:?}");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// What the terminal shows.
    fn text(&self) -> String {
        self.tmux(&["capture-pane", "-p"])
    }

    async fn until(&self, env: &TestEnv, expected: &str) -> String {
        env.until(expected, async || {
            let text = self.text();
            text.contains(expected).then_some(text)
        })
        .await
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = Command::new("tmux")
            .args(["-L", &self.name, "kill-server"])
            .output();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn run_shows_a_test_on_a_terminal_that_is_resized_and_restores_it() {
    let mut env = TestEnv::new(&cluster()).await;
    deploy_target(&env).await;
    env.start_operator(&[]).await;
    let script = script_with_constant_rate("/screen", 25)["test-script.yaml"].clone();
    let manifest = json!({"apiVersion": "loadtest.artillery.io/v1alpha1", "kind": "LoadTest", "metadata": {"name": "screen"},
        "spec": {"count": 2, "environment": "dev", "thresholds": ["http.codes.200 > 0"], "testScript": {"inline": script}}});
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let file = folder.join(format!("{}-screen.json", env.namespace));
    std::fs::write(&file, manifest.to_string()).unwrap();
    let program = plugin();
    let (program, file) = (program.display(), file.display());
    let command = format!(
        "{program} run -f {file} -n {}; echo exit code $?; sleep 600",
        env.namespace
    );
    let terminal = Terminal::start("screen", 80, 24, &command);
    let text = terminal.until(&env, "requests ").await;
    println!("{text}");
    let title = format!("{}/screen  Running  2 workers", env.namespace);
    for expected in [&*title, "Workers: 2 pods", "http.codes.200 > 0", "q: leave"] {
        assert!(text.contains(expected), "{expected} in\n{text}");
    }
    terminal.tmux(&["resize-window", "-x", "200", "-y", "50"]);
    let last_line_is_drawn = async || {
        let text = terminal.text();
        let last = text.lines().nth(49)?;
        last.contains("q: leave").then_some(text.clone())
    };
    let text = env
        .until("the larger terminal is used", last_line_is_drawn)
        .await;
    println!("{text}");
    terminal.tmux(&["send-keys", "s"]);
    terminal.until(&env, "Stop the test? y: stop").await;
    terminal.tmux(&["send-keys", "n"]);
    let text = terminal.until(&env, "exit code 0").await;
    assert!(text.contains("Passed: The threshold is met."), "{text}");
}
