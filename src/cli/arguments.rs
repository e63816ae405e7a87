//! What the commands take from the command line in the same way.

use std::{path::PathBuf, time::Duration};

use clap::{Arg, ArgAction, ArgMatches, value_parser};

use super::Problem;
use crate::client::{Access, Address, Remote, Trust};

const HEADING: &str = "Server";

/// The flags that say where the server is, and who asks.
pub fn server() -> [Arg; 5] {
    let file = |name: &'static str, variable: &'static str| {
        Arg::new(name)
            .long(name)
            .env(variable)
            .hide_env_values(true)
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .help_heading(HEADING)
    };
    [
        Arg::new("url")
            .long("url")
            .env("PUB_SUB_URL")
            .hide_env_values(true)
            .value_name("URL")
            .help_heading(HEADING)
            .help("Where the server is [default: http://localhost:8080]"),
        Arg::new("token")
            .long("token")
            .env("PUB_SUB_TOKEN")
            .hide_env_values(true)
            .value_name("TOKEN")
            .help_heading(HEADING)
            .help("A key or token; others on this machine can see flags, but not the variable"),
        file("ca", "PUB_SUB_CA").help("PEM file of certificate authorities to trust, beside the system's"),
        file("cert", "PUB_SUB_CERT").requires("cert-key").help("PEM file of your own certificate"),
        file("cert-key", "PUB_SUB_CERT_KEY").requires("cert").help("PEM file of its private key"),
    ]
}

/// The flag for JSON lines. `help` says what they are.
pub fn json(help: &'static str) -> Arg {
    Arg::new("json").long("json").action(ArgAction::SetTrue).help(help)
}

/// The short help.
pub fn help() -> Arg {
    Arg::new("help").short('h').long("help").action(ArgAction::HelpShort).help("Print this help").display_order(900)
}

/// A text that is given and not empty.
pub fn text<'a>(matches: &'a ArgMatches, name: &str) -> Option<&'a str> {
    matches.get_one::<String>(name).map(String::as_str).filter(|text| !text.is_empty())
}

/// The server that the flags name.
///
/// # Errors
/// A URL, token or certificate that cannot be used.
pub fn remote(matches: &ArgMatches) -> Result<Remote, Problem> {
    let url = text(matches, "url").unwrap_or("http://localhost:8080");
    let address = Address::parse(url).map_err(|wrong| Problem::Usage(format!("--url: {wrong}")))?;
    let path = |name| matches.get_one::<PathBuf>(name).cloned();
    let trust = Trust { authority: path("ca"), identity: path("cert").zip(path("cert-key")) };
    let access = Access { address, token: text(matches, "token").map(str::to_owned), trust };
    Remote::new(&access).map_err(Problem::Usage)
}

/// Reads a duration such as `500ms`, `5s` or `1m 30s`.
///
/// # Errors
/// What is wrong.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let read = text.parse::<jiff::SignedDuration>().ok().and_then(|duration| Duration::try_from(duration).ok());
    read.ok_or_else(|| "must be a duration like 500ms, 5s, 15m or 24h".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_duration("1m 30s"), Ok(Duration::from_secs(90)));
        for bad in ["", "5", "-5s", "soon", "5 apples"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }
}
