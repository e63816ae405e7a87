//! `pub-sub completions` and `pub-sub man`: what a shell and `man` need to know about the commands.

use std::{fs, path::PathBuf};

use clap::{Arg, ArgMatches, Command, value_parser};
use clap_complete::Shell;

use super::{arguments, output};

pub(super) fn command() -> Command {
    Command::new("completions")
        .about("Print the completions of a shell")
        .after_help(
            "bash: pub-sub completions bash >~/.local/share/bash-completion/completions/pub-sub\n\
             zsh:  pub-sub completions zsh >~/.zfunc/_pub-sub      (with ~/.zfunc in fpath)\n\
             fish: pub-sub completions fish >~/.config/fish/completions/pub-sub.fish",
        )
        .disable_help_flag(true)
        .arg(Arg::new("shell").value_name("SHELL").required(true).value_parser(value_parser!(Shell)).help("The shell"))
        .arg(arguments::help())
}

pub(super) fn manual_command() -> Command {
    Command::new("man")
        .about("Write the manual pages into a directory")
        .after_help("MANPATH=DIR finds them if DIR is in a directory man1: pub-sub man share/man/man1; man -M share/man pub-sub")
        .disable_help_flag(true)
        .arg(
            Arg::new("directory")
                .value_name("DIR")
                .required(true)
                .value_parser(value_parser!(PathBuf))
                .help("The directory, which is created if it does not exist"),
        )
        .arg(arguments::help())
}

/// Prints the completions of a shell for all commands.
///
/// # Errors
/// What standard output says.
pub fn completions(matches: &ArgMatches, mut all: Command) -> Result<(), String> {
    let Some(shell) = matches.get_one::<Shell>("shell") else { return Ok(()) };
    let mut text = Vec::new();
    clap_complete::generate(*shell, &mut all, "pub-sub", &mut text);
    let mut text = String::from_utf8_lossy(&text).into_owned();
    if *shell == Shell::Bash {
        // clap_complete writes the dash in the name of the program as `__`, and then takes that for the border between a
        // command and its subcommand, so that no command would be found.
        text = text.replace("pub__subcmd__sub", "pub__sub");
    }
    output::print(&text).map_err(|problem| match problem {
        super::Problem::Usage(text) | super::Problem::Failed(text) => text,
    })
}

/// Writes the manual pages of all commands.
///
/// # Errors
/// A directory or file that cannot be written.
pub fn manual(matches: &ArgMatches, all: Command) -> Result<(), String> {
    let Some(directory) = matches.get_one::<PathBuf>("directory") else { return Ok(()) };
    let failed = |error: std::io::Error| format!("{}: {error}", directory.display());
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(all, directory).map_err(failed)
}
