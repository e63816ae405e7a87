//! The commands of the command line that talk to a server, as a client of its public protocols.

mod arguments;
mod bench;
mod completions;
mod ending;
mod health;
mod notes;
mod output;
mod publish;
mod raw;
mod subscribe;
mod topics;

use std::process::ExitCode;

use clap::{ArgMatches, Command};

pub use arguments::{json as json_argument, server as server_arguments};
pub use completions::{completions, manual};
pub use health::{is_remote, print as print_health};

/// What a command has come to; its exit code follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    /// It has done what it should.
    Done,
    /// It has not, and has said so.
    Failed,
    /// Something was missed, and that was not to happen.
    Missed,
}

/// Why a command ends without having done what it should.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Problem {
    /// It was asked in a wrong way.
    Usage(String),
    /// It did not succeed.
    Failed(String),
}

impl From<crate::client::Failure> for Problem {
    fn from(failure: crate::client::Failure) -> Self {
        Problem::Failed(failure.to_string())
    }
}

/// The commands.
pub fn commands() -> [Command; 6] {
    [
        publish::command(),
        subscribe::command(),
        topics::command(),
        bench::command(),
        completions::command(),
        completions::manual_command(),
    ]
}

/// Runs a command if it is one of these.
pub fn run(name: &str, matches: &ArgMatches) -> Option<Result<ExitCode, (String, ExitCode)>> {
    let outcome = match name {
        "bench" => with_runtime(bench::run(matches)),
        "health" => with_runtime(health::run(matches)),
        "pub" => with_runtime(publish::run(matches)),
        "sub" => with_runtime(subscribe::run(matches)),
        "topics" => with_runtime(topics::run(matches)),
        _ => return None,
    };
    Some(match outcome {
        Ok(Outcome::Done) => Ok(ExitCode::SUCCESS),
        Ok(Outcome::Failed) => Ok(ExitCode::FAILURE),
        Ok(Outcome::Missed) => Ok(ExitCode::from(3)),
        Err(Problem::Usage(message)) => Err((message, ExitCode::from(2))),
        Err(Problem::Failed(message)) => Err((message, ExitCode::FAILURE)),
    })
}

fn with_runtime(command: impl Future<Output = Result<Outcome, Problem>>) -> Result<Outcome, Problem> {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.map_err(|error| Problem::Failed(error.to_string()))?;
    let outcome = runtime.block_on(command);
    // A thread that reads standard input, or writes where nobody reads, must not hold up the end.
    runtime.shutdown_background();
    outcome
}
