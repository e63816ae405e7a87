//! The command line: reads settings, starts the log, binds, serves, and returns an exit code.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, TcpStream},
    path::{Path, PathBuf},
    process::ExitCode,
    time::Duration,
};

use clap::{Arg, ArgAction, ArgMatches, Command};
use pub_sub::{
    config::{Config, KEYS},
    engine, serve, telemetry, transfer,
};
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
};
use tokio_util::sync::CancellationToken;

fn main() -> ExitCode {
    let matches = command().get_matches();
    let done = match matches.subcommand() {
        Some(("repair", flags)) => repair(&matches, flags.get_flag("dry-run")),
        _ => run(&matches).map(|()| ExitCode::SUCCESS).map_err(|message| (message, ExitCode::FAILURE)),
    };
    done.unwrap_or_else(|(message, code)| {
        let _ = writeln!(std::io::stderr(), "pub-sub: {message}");
        code
    })
}

fn command() -> Command {
    let settings = KEYS.iter().map(|key| {
        let flag = key.name.replace('_', "-");
        Arg::new(key.name).long(flag).value_name("VALUE").help(key.meaning).global(true).allow_hyphen_values(true)
    });
    Command::new("pub-sub")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A self-hosted, GraphQL-fronted publish/subscribe service that never loses a message silently")
        .after_help(
            "Settings come from pub-sub.toml (or --config FILE), then the environment (PORT=9000), then flags. The \
             last one wins.",
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(clap::value_parser!(PathBuf))
                .global(true)
                .help("Read settings from this TOML file instead of pub-sub.toml"),
        )
        .args(settings)
        .subcommand(Command::new("serve").about("Serve (the default)"))
        .subcommand(Command::new("config").about("Print the effective settings"))
        .subcommand(
            Command::new("export")
                .about("Write everything that ENGINE=disk or nats stores as lines of JSON, also while servers run")
                .arg(
                    Arg::new("output")
                        .long("output")
                        .value_name("FILE")
                        .value_parser(clap::value_parser!(PathBuf))
                        .help("Write to this file instead of standard output; a complete export replaces it"),
                ),
        )
        .subcommand(
            Command::new("import").about("Create new topics from an export in ENGINE=disk or nats; all or nothing").arg(
                Arg::new("file")
                    .value_name("FILE")
                    .value_parser(clap::value_parser!(PathBuf))
                    .help("The export to read; without a file, or with -, standard input"),
            ),
        )
        .subcommand(
            Command::new("repair")
                .about("Cut the log of ENGINE=disk where it is damaged, and keep the part that is cut off beside it")
                .after_help(
                    "Exits with 0 if the log is sound, or is now; with 1 if --dry-run found damage; with 2 if the repair \
                     could not be done, for example because a server is running.",
                )
                .arg(
                    Arg::new("dry-run")
                        .long("dry-run")
                        .action(ArgAction::SetTrue)
                        .help("Report what a repair would do, and change nothing"),
                ),
        )
        .subcommand(Command::new("schema").about("Print the GraphQL schema"))
        .subcommand(Command::new("openapi").about("Print the OpenAPI document of the REST routes"))
        .subcommand(
            Command::new("healthcheck").about("Ask the server on this machine whether it is ready; exit with 1 if not"),
        )
}

fn load(matches: &ArgMatches) -> Result<Config, String> {
    let file = matches.get_one::<PathBuf>("config");
    let flags: Vec<(String, String)> = KEYS
        .iter()
        .filter_map(|key| Some((key.name.to_owned(), matches.get_one::<String>(key.name)?.clone())))
        .collect();
    Config::load(file.map(PathBuf::as_path), &flags).map_err(|error| error.to_string())
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
        Some(("healthcheck", _)) => healthcheck(config.server.host, config.server.port),
        Some(("export", matches)) => export(&config, matches.get_one::<PathBuf>("output")),
        Some(("import", matches)) => import(&config, matches.get_one::<PathBuf>("file")),
        _ => start(config),
    }
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|error| error.to_string())
}

fn runtime() -> Result<tokio::runtime::Runtime, String> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|error| error.to_string())
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
    runtime()?.block_on(transfer::export(config, output.map(PathBuf::as_path)))
}

fn import(config: &Config, file: Option<&PathBuf>) -> Result<(), String> {
    begin_transfer(config)?;
    let file = file.map(PathBuf::as_path).filter(|file| file.as_os_str() != "-");
    // While the file is read, nothing has been written that must be rolled back, so a signal may end the process.
    let import = transfer::Import::read(config, file)?;
    runtime()?.block_on(async {
        let stop = CancellationToken::new();
        let signalled = until_second_signal(stop.clone())?;
        tokio::select! {
            imported = import.run(&stop) => imported,
            () = signalled => Err("a second signal: what was imported so far is left as it is".to_owned()),
        }
    })
}

fn start(config: Config) -> Result<(), String> {
    telemetry::start(&config.server.log, &config.server.log_format)?;
    raise_file_limit();
    runtime()?.block_on(async {
        let (host, port) = (config.server.host, config.server.port);
        let listener = TcpListener::bind((host, port))
            .await
            .map_err(|error| format!("PORT: cannot listen on {host}:{port}: {error}"))?;
        let stop = CancellationToken::new();
        let signalled = until_second_signal(stop.clone())?;
        tokio::select! {
            served = serve(listener, config, stop) => served.map_err(|error| error.to_string()),
            () = signalled => {
                tracing::warn!("a second signal: stopping at once");
                Ok(())
            }
        }
    })
}

/// The first signal cancels `stop`. The returned future ends with the second signal.
fn until_second_signal(stop: CancellationToken) -> Result<impl Future<Output = ()>, String> {
    let signals = |kind| signal(kind).map_err(|error| error.to_string());
    Ok(wait_for_signals(signals(SignalKind::interrupt())?, signals(SignalKind::terminate())?, stop))
}

async fn wait_for_signals(mut interrupt: Signal, mut terminate: Signal, stop: CancellationToken) {
    for _ in 0..2 {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
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

/// Asks the server whether it is ready. Container engines run this, so the image needs no curl.
fn healthcheck(host: IpAddr, port: u16) -> Result<(), String> {
    let ask = || -> std::io::Result<String> {
        let wait = Duration::from_secs(2);
        // A server that listens on all addresses can be reached on loopback.
        let address = match host {
            IpAddr::V4(host) if host.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(host) if host.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            host => host,
        };
        let mut stream = TcpStream::connect_timeout(&SocketAddr::from((address, port)), wait)?;
        stream.set_read_timeout(Some(wait))?;
        stream.write_all(b"GET /health/ready HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")?;
        let mut response = String::new();
        stream.read_to_string(&mut response)?;
        Ok(response)
    };
    match ask() {
        Ok(response) if response.starts_with("HTTP/1.1 200") => Ok(()),
        Ok(response) => Err(response.lines().next().unwrap_or_default().to_owned()),
        Err(error) => Err(error.to_string()),
    }
}
