//! The command line: reads settings, starts the log, binds, serves, and returns an exit code.

mod cli;
mod client;
mod command_line;
mod healthcheck;

use std::{
    io::Write,
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::ArgMatches;
use pub_sub::{access, config::Config, engine, listener, serve, telemetry, transfer};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let matches = command_line::command().get_matches();
    let done = match matches.subcommand() {
        Some(("help", about)) => command_line::print_help(about.get_one("command"))
            .map(|()| ExitCode::SUCCESS)
            .map_err(|message| (message, ExitCode::from(2))),
        Some(("key", flags)) => {
            let name = flags.get_one::<String>("name").map(String::as_str).unwrap_or_default();
            create_key(name).map(|()| ExitCode::SUCCESS).map_err(|message| (message, ExitCode::from(2)))
        }
        Some(("repair", flags)) => repair(&matches, flags.get_flag("dry-run")),
        Some(("completions", flags)) => plain(cli::completions(flags, command_line::command())),
        Some(("man", flags)) => plain(cli::manual(flags, command_line::command())),
        Some(("health", flags)) if !cli::is_remote(flags) => plain(check_health(&matches, flags)),
        Some((name, flags)) if let Some(done) = cli::run(name, flags) => done,
        _ => plain(run(&matches)),
    };
    done.unwrap_or_else(|(message, code)| {
        let _ = writeln!(std::io::stderr(), "pub-sub: {message}");
        code
    })
}

/// A command that succeeds or fails.
fn plain(done: Result<(), String>) -> Result<ExitCode, (String, ExitCode)> {
    done.map(|()| ExitCode::SUCCESS).map_err(|message| (message, ExitCode::FAILURE))
}

/// Asks the server that the settings describe.
fn check_health(matches: &ArgMatches, flags: &ArgMatches) -> Result<(), String> {
    healthcheck::run(&load(matches)?.server)?;
    cli::print_health(flags)
}

fn load(matches: &ArgMatches) -> Result<Config, String> {
    let (file, flags) = command_line::settings(matches);
    Config::load(file.as_deref(), &flags).map_err(|error| error.to_string())
}

/// Creates a key. Standard output has what scripts need: the key on the first line, then the entry for `ACCESS_FILE`.
fn create_key(name: &str) -> Result<(), String> {
    access::check_name(name).map_err(|wrong| format!("NAME: {wrong}"))?;
    let key = access::generate()?;
    print(&format!("{key}\n\n{}", access::entry(name, access::KeyHash::of(&key))))?;
    let _ = writeln!(
        std::io::stderr(),
        "\nThe first line is the key. Give it to {name:?} now: it is shown only this once.\n\
         Append the other lines to ACCESS_FILE, and name the topics, for example subscribe = [\"orders.>\"]."
    );
    Ok(())
}

/// Repairs the log and prints what it did. The exit code tells a script whether the log is sound.
fn repair(matches: &ArgMatches, dry_run: bool) -> Result<ExitCode, (String, ExitCode)> {
    let repaired = load(matches).and_then(|config| match config.engine.engine.as_str() {
        "disk" => engine::disk::repair(Path::new(&config.engine.data_dir), dry_run),
        other => Err(format!("ENGINE: must be disk for a repair, not {other:?}")),
    });
    let unable = |message| (message, ExitCode::from(2));
    let (said, damaged) = repaired.map_err(unable)?;
    print(&said).map_err(unable)?;
    Ok(if damaged { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

fn run(matches: &ArgMatches) -> Result<(), String> {
    let config = load(matches)?;
    match matches.subcommand() {
        Some(("config", _)) => print(&config.to_toml()),
        Some(("schema", _)) => print(&pub_sub::graphql::sdl(config.graphql.federation)),
        Some(("openapi", _)) => print(&pub_sub::rest::openapi_text()),
        Some(("export", matches)) => export(&config, matches.get_one::<PathBuf>("output")),
        Some(("import", matches)) => import(&config, matches.get_one::<PathBuf>("file")),
        _ => start(config, || load(matches).map(|config| config.server.log)),
    }
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

/// What runs the tasks, on so many threads; 0 = one for each core.
fn runtime(threads: usize) -> Result<tokio::runtime::Runtime, String> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if threads > 0 {
        builder.worker_threads(threads);
    }
    builder.enable_all().build().map_err(|error| error.to_string())
}

/// What a transfer logs by default. It reports its result itself, and a refusal is one line. Warnings of the disk engine
/// are logged all the same: what an import finds in a log that a crash has left, no later start reports again.
const TRANSFER_LOG: &str = "error,pub_sub::engine::disk=warn";

fn begin_transfer(config: &Config) -> Result<(), String> {
    let is_default = config.server.log == Config::default().server.log;
    telemetry::start(if is_default { TRANSFER_LOG } else { &config.server.log }, &config.server.log_format)?;
    raise_file_limit();
    Ok(())
}

fn export(config: &Config, output: Option<&PathBuf>) -> Result<(), String> {
    begin_transfer(config)?;
    runtime(config.server.worker_threads)?.block_on(transfer::export(config, output.map(PathBuf::as_path)))
}

fn import(config: &Config, file: Option<&PathBuf>) -> Result<(), String> {
    begin_transfer(config)?;
    let file = file.map(PathBuf::as_path).filter(|file| file.as_os_str() != "-");
    // While the file is read, nothing has been written that must be rolled back, so a signal may end the process.
    let import = transfer::Import::read(config, file)?;
    runtime(config.server.worker_threads)?.block_on(async {
        let stop = CancellationToken::new();
        let signalled = until_second_signal(stop.clone(), || Ok(()))?;
        tokio::select! {
            imported = import.run(&stop) => imported,
            () = signalled => Err("a second signal: what was imported so far is left as it is".to_owned()),
        }
    })
}

/// Serves. `log` reads again what is to be logged.
fn start(config: Config, log: impl Fn() -> Result<String, String>) -> Result<(), String> {
    telemetry::start(&config.server.log, &config.server.log_format)?;
    raise_file_limit();
    runtime(config.server.worker_threads)?.block_on(async {
        let stop = CancellationToken::new();
        let signalled = until_second_signal(stop.clone(), || log().and_then(|log| telemetry::change(&log)))?;
        let listener = listener::bind(&config.server).await?;
        tokio::select! {
            served = serve(listener, config, stop) => served.map_err(|error| error.to_string()),
            () = signalled => {
                tracing::warn!("a second signal: stopping at once");
                Ok(())
            }
        }
    })
}

/// The first signal cancels `stop`. The returned future ends with the second signal. `hung_up` is called for each SIGHUP.
fn until_second_signal(
    stop: CancellationToken,
    hung_up: impl Fn() -> Result<(), String>,
) -> Result<impl Future<Output = ()>, String> {
    let signals = |kind| signal(kind).map_err(|error| error.to_string());
    let (interrupt, terminate) = (signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?);
    Ok(wait_for_signals(interrupt, terminate, signals(SignalKind::hangup())?, stop, hung_up))
}

async fn wait_for_signals(
    mut interrupt: Signal,
    mut terminate: Signal,
    mut hangup: Signal,
    stop: CancellationToken,
    hung_up: impl Fn() -> Result<(), String>,
) {
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            // A terminal that is closed sends it, and so do tools that rotate logs or reload settings.
            _ = hangup.recv() => {
                match hung_up() {
                    Ok(()) => tracing::info!(
                        "SIGHUP: LOG and the files of access rules, keys and certificates are read again; other settings are read \
                         only at the start"
                    ),
                    Err(error) => tracing::warn!(%error, "SIGHUP: what is logged stays as it was"),
                }
                continue;
            }
        }
        if stop.is_cancelled() {
            return;
        }
        stop.cancel();
    }
}

/// Raises the limit on open files: every connection is a file descriptor, and many shells allow only 1,024.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    if let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }) {
        tracing::warn!(%error, "the limit on open files stays as it was");
    }
}
