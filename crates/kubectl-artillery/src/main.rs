//! The program `kubectl-artillery`.

use std::process::ExitCode;

use clap::{CommandFactory, Parser};
use kubectl_artillery::cli::{Cli, Command, Connection};
use kubectl_artillery::error::{Error, Result};
use kubectl_artillery::outcome::Outcome;
use kubectl_artillery::session::Session;
use kubectl_artillery::text::Color;
use kubectl_artillery::{compare, init, list, logs, report_command, run, text, validate};

fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            // Help and version are no errors.
            return ExitCode::from(if error.use_stderr() {
                Outcome::Unfinished
            } else {
                Outcome::Passed
            });
        }
    };
    match execute(cli) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            let colors = text::use_colors(&std::io::stderr());
            eprintln!("{} {error}", text::paint("error:", Color::Bad, colors));
            if let Some(advice) = &error.advice {
                eprintln!("{advice}");
            }
            Outcome::Unfinished.into()
        }
    }
}

fn execute(cli: Cli) -> Result<Outcome> {
    match cli.command {
        Command::Validate(args) => validate::run(&args),
        Command::Completion { shell } => {
            let mut command = Cli::command();
            clap_complete::generate(
                shell,
                &mut command,
                "kubectl-artillery",
                &mut std::io::stdout(),
            );
            Ok(Outcome::Passed)
        }
        command => {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build();
            let runtime = runtime.map_err(|error| Error::new(format!("Cannot start: {error}")))?;
            let outcome = runtime.block_on(in_cluster(cli.connection, command));
            // A thread that reads keys may still wait for one.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn in_cluster(connection: Connection, command: Command) -> Result<Outcome> {
    if let Command::Init(args) = &command {
        return init::run(&connection, args).await;
    }
    let session = Session::connect(&connection).await?;
    match command {
        Command::Run(args) => run::run(session, args).await,
        Command::Rerun(args) => run::rerun(session, args).await,
        Command::Watch(args) => run::watch(&session, &args).await,
        Command::Logs(args) => logs::run(&session, &args).await,
        Command::Stop(args) => run::stop(&session, &args).await,
        Command::List(args) => list::run(&session, &args).await,
        Command::Report(args) => report_command::run(&session, &args).await,
        Command::Compare(args) => compare::run(&session, &args).await,
        Command::Init(_) | Command::Validate(_) | Command::Completion { .. } => Ok(Outcome::Passed),
    }
}
