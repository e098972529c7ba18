//! A program that scripts find as `kubectl`, for replies that no cluster of the tests gives.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;

/// The result of a script.
#[derive(Debug)]
pub struct Output {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

/// Runs a script of the repository.
pub fn run(command: &mut Command) -> Output {
    let output = command
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("the script runs");
    Output {
        code: output.status.code().expect("the script exits"),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

/// The fake program of one test.
pub struct FakeKubectl {
    folder: PathBuf,
}

impl FakeKubectl {
    /// Creates a fake whose replies are `body`: lines of bash, in which `$*` are the arguments and `$REAL_KUBECTL` is the real
    /// kubectl. `name` is unique among the tests.
    pub fn new(name: &str, body: &str) -> Self {
        let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("kubectl-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).unwrap();
        let program = folder.join("kubectl");
        let text = format!("#!/bin/bash\necho \"$*\" >>\"${{0%/*}}/calls\"\n{body}\n");
        std::fs::write(&program, text).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        Self { folder }
    }

    /// Runs a script that finds the fake.
    pub fn run(&self, script: &str, args: &[&str], variables: &[(&str, &str)]) -> Output {
        let path = std::env::var("PATH").unwrap();
        let real = std::env::split_paths(&path)
            .map(|folder| folder.join("kubectl"))
            .find(|program| program.exists())
            .expect("kubectl is on PATH");
        run(Command::new(script)
            .args(args)
            .env("PATH", format!("{}:{path}", self.folder.display()))
            .env("REAL_KUBECTL", real)
            .env_remove("IMG")
            .env_remove("NAMESPACES")
            .envs(variables.iter().copied()))
    }

    /// Returns what the fake wrote to a file beside it, or nothing.
    pub fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.folder.join(name)).unwrap_or_default()
    }

    /// Returns the arguments of each call so far.
    pub fn calls(&self) -> Vec<String> {
        self.file("calls").lines().map(str::to_owned).collect()
    }
}
