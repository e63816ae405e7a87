//! The commands and flags: `--help` shows those that most people need, `--help-all` shows every setting.

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Command, value_parser};
use pub_sub::config::{KEYS, Key};

use crate::cli;

/// The settings that the help of the server shows.
const SERVE: &[&str] = &[
    "port",
    "host",
    "engine",
    "data_dir",
    "nats_url",
    "max_messages_per_topic",
    "max_publish_rate",
    "auto_create_topics",
    "log",
];

/// The settings that the help of a transfer shows.
const TRANSFER: &[&str] = &["engine", "data_dir", "nats_url", "nats_prefix"];

/// The width to which long texts are wrapped.
const WIDTH: usize = 90;

/// Everything that `pub-sub` takes.
pub fn command() -> Command {
    with_settings(Command::new("pub-sub"), SERVE)
        .version(env!("CARGO_PKG_VERSION"))
        .about("A self-hosted, GraphQL-fronted publish/subscribe service that never loses a message silently")
        .after_help(
            "Without a command, pub-sub serves. Settings come from pub-sub.toml (or --config FILE, keys like max_topics), \
             then the\nenvironment (MAX_TOPICS=500), then flags (--max-topics 500). The last one wins.\n\n\
             pub-sub --help-all        every setting with its default\n\
             pub-sub COMMAND --help    the flags of a command\n\
             pub-sub config            the settings in effect",
        )
        .disable_help_subcommand(true)
        .subcommand(with_settings(Command::new("serve"), SERVE).about("Serve (the default)"))
        .subcommand(with_settings(Command::new("config"), &[]).about("Print the effective settings"))
        .subcommand(key())
        .subcommand(export())
        .subcommand(import())
        .subcommand(repair())
        .subcommand(with_settings(Command::new("schema"), &["federation"]).about("Print the GraphQL schema"))
        .subcommand(
            with_settings(Command::new("openapi"), &[]).about("Print the OpenAPI document of the REST routes"),
        )
        .subcommand(health())
        .subcommands(cli::commands())
        .subcommand(
            Command::new("help").about("Print this help, or that of a command").arg(Arg::new("command").value_name("COMMAND")),
        )
}

fn health() -> Command {
    with_settings(Command::new("health"), &["port", "host", "tls_cert", "tls_key", "tls_port"])
        .visible_alias("healthcheck")
        .about("Ask a server whether it is ready; exit with 1 if not")
        .arg(cli::json_argument("Print what the server says about itself as JSON"))
        .args(cli::server_arguments())
        .after_help(
            "Without --url it asks the server on this machine at PORT. If TLS is spoken there (TLS_CERT without TLS_PORT),\n\
             it accepts any certificate, and presents that of TLS_CERT as its own, which the server accepts also with\n\
             TLS_CLIENT_CA.",
        )
}

fn key() -> Command {
    let name =
        Arg::new("name").value_name("NAME").required(true).help("The name of the key's owner, for logs and metrics");
    let printed = "Standard output has the key on its first line, and behind an empty line the entry with its hash.\n\
                   The key is shown only this once: ACCESS_FILE, the server and its log have the hash alone.";
    Command::new("key")
        .about("Create a key, and print it with its entry for ACCESS_FILE")
        .args([name, help()])
        .after_help(printed)
}

fn export() -> Command {
    let output = Arg::new("output")
        .long("output")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("Write to this file instead of standard output; a complete export replaces it");
    with_settings(Command::new("export").arg(output), TRANSFER)
        .about("Write everything that ENGINE=disk or nats stores as lines of JSON, also while servers run")
}

fn import() -> Command {
    let file = Arg::new("file")
        .value_name("FILE")
        .value_parser(value_parser!(PathBuf))
        .help("The export to read; without a file, or with -, standard input");
    with_settings(Command::new("import").arg(file), TRANSFER)
        .about("Create new topics from an export in ENGINE=disk or nats; all or nothing")
}

fn repair() -> Command {
    let dry_run = Arg::new("dry-run")
        .long("dry-run")
        .action(ArgAction::SetTrue)
        .help("Report what a repair would do, and change nothing");
    with_settings(Command::new("repair").arg(dry_run), &["engine", "data_dir"])
        .about("Cut the log of ENGINE=disk where it is damaged, and keep the part that is cut off beside it")
        .after_help(
            "Exits with 0 if the log is sound, or is now; with 1 if --dry-run found damage; with 2 if the repair\ncould not \
             be done, for example because a server is running.",
        )
}

/// Prints the help of a command, or of all.
pub fn print_help(command: Option<&String>) -> Result<(), String> {
    let mut all = command_tree();
    let wanted = match command {
        None => &mut all,
        Some(name) => all.find_subcommand_mut(name).ok_or_else(|| format!("help: there is no command {name:?}"))?,
    };
    wanted.print_help().map_err(|error| error.to_string())
}

/// The commands with their full names, which usage lines show.
fn command_tree() -> Command {
    let mut all = command();
    all.build();
    all
}

/// Gives a command all settings as flags. Its help shows some of them.
fn with_settings(command: Command, shown: &[&str]) -> Command {
    let flags = KEYS.iter().flat_map(|key| {
        let flag = flag(key).hide_short_help(!shown.contains(&key.name));
        // The other name is a flag of its own, so that an error can name the one that was written.
        std::iter::once(flag).chain(key.alias.map(|alias| setting(alias).hide(true)))
    });
    command
        .disable_help_flag(true)
        .arg(help())
        .arg(
            Arg::new("help-all")
                .long("help-all")
                .action(ArgAction::HelpLong)
                .help("Print this help with every setting")
                .display_order(901),
        )
        .arg(
            Arg::new("config")
                .long("config")
                .value_name("FILE")
                .value_parser(value_parser!(PathBuf))
                .help_heading("Settings")
                .help("Read settings from this TOML file instead of pub-sub.toml"),
        )
        .args(flags)
}

fn help() -> Arg {
    Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print this help").display_order(900)
}

fn setting(name: &'static str) -> Arg {
    Arg::new(name).long(name.replace('_', "-")).value_name("VALUE").allow_hyphen_values(true)
}

fn flag(key: &Key) -> Arg {
    let default = match key.default_text() {
        empty if empty.is_empty() => String::new(),
        default => format!(" [default: {default}]"),
    };
    // The first sentence says what it is.
    let summary = key.meaning.split_inclusive(". ").next().unwrap_or_default().trim_end();
    setting(key.name)
        .value_name(key.value_name())
        .help_heading(heading(key.part))
        .help(format!("{summary}{default}"))
        .long_help(wrapped(&format!("{}{default}", key.meaning)))
}

fn heading(part: &str) -> &'static str {
    match part {
        "access" => "Settings of access",
        "broker" => "Settings of topics, messages and consumers",
        "engine" => "Settings of the engine",
        "socket" | "ws" => "Settings of WebSockets",
        "graphql" => "Settings of GraphQL",
        _ => "Settings",
    }
}

fn wrapped(text: &str) -> String {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if line.is_empty() => line.push_str(word),
            Some(line) if line.len() + 1 + word.len() <= WIDTH => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines.join("\n")
}

/// What the command line says of settings: the file, and each flag under the name that was written.
pub fn settings(matches: &ArgMatches) -> (Option<PathBuf>, Vec<(String, String)>) {
    // A flag may stand before the command or behind it; the one behind it is nearer.
    let levels = [Some(matches), matches.subcommand().map(|(_, matches)| matches)];
    let (mut file, mut flags) = (None, Vec::new());
    for name in KEYS.iter().flat_map(Key::names) {
        let given = levels.iter().flatten().rev().find_map(|matches| matches.get_one::<String>(name));
        flags.extend(given.map(|value| (name.to_owned(), value.clone())));
    }
    for matches in levels.into_iter().flatten() {
        file = matches.get_one::<PathBuf>("config").cloned().or(file);
    }
    (file, flags)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_commands_are_consistent() {
        command().debug_assert();
    }

    #[test]
    fn long_texts_are_wrapped() {
        let text = "word ".repeat(40);
        let wrapped = wrapped(text.trim_end());
        assert!(wrapped.lines().count() > 1 && wrapped.lines().all(|line| line.len() <= WIDTH));
        assert_eq!(wrapped.replace('\n', " "), text.trim_end());
    }
}
