//! `pub-sub health`: whether a server is ready.

use clap::ArgMatches;
use hyper::Method;
use serde::Deserialize;

use super::{Outcome, Problem, arguments, output};

/// What a server says about itself. One with access rules says all but `status` to those alone who may know it.
#[derive(Deserialize)]
struct Health {
    status: String,
    version: Option<String>,
    uptime_seconds: Option<u64>,
    topics: Option<u64>,
    subscribers: Option<u64>,
}

/// Whether a server was named. Otherwise the one on this machine is meant, as its settings say.
pub fn is_remote(matches: &ArgMatches) -> bool {
    arguments::text(matches, "url").is_some()
}

pub(super) async fn run(matches: &ArgMatches) -> Result<Outcome, Problem> {
    let remote = arguments::remote(matches)?;
    remote.send(Method::GET, "/health/ready", None).await?;
    let health = remote.send(Method::GET, "/health", None).await?;
    let line = if matches.get_flag("json") { health.trim().to_owned() } else { describe(&health)? };
    output::print(&(line + "\n"))?;
    Ok(Outcome::Done)
}

/// Prints that the server on this machine is ready.
///
/// # Errors
/// What standard output says.
pub fn print(matches: &ArgMatches) -> Result<(), String> {
    let line = if matches.get_flag("json") { "{\"status\":\"ready\"}\n" } else { "ready\n" };
    output::print(line).map_err(|problem| match problem {
        Problem::Usage(text) | Problem::Failed(text) => text,
    })
}

fn describe(health: &str) -> Result<String, Problem> {
    let health: Health = serde_json::from_str(health)
        .map_err(|error| Problem::Failed(format!("the server's health cannot be read: {error}")))?;
    let ready = if health.status == "ok" { "ready" } else { health.status.as_str() };
    let mut line = ready.to_owned();
    let numbers = [("topics", health.topics), ("subscribers", health.subscribers)];
    let numbers = numbers.into_iter().filter_map(|(what, number)| Some(format!("{} {what}", number?)));
    let up = health.uptime_seconds.and_then(|seconds| i64::try_from(seconds).ok());
    let up = up.map(|seconds| format!("up {:#}", jiff::SignedDuration::from_secs(seconds)));
    let version = health.version.map(|version| format!("version {version}"));
    for part in version.into_iter().chain(up).chain(numbers) {
        line.push_str(", ");
        line.push_str(&part);
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn health_is_one_line() {
        let all =
            r#"{"status":"ok","uptime_seconds":3661,"uptime_sec":3661,"topics":2,"subscribers":3,"version":"0.1.0"}"#;
        assert_eq!(describe(all).unwrap(), "ready, version 0.1.0, up 1h 1m 1s, 2 topics, 3 subscribers");
        assert_eq!(describe(r#"{"status":"ok"}"#).unwrap(), "ready");
        assert!(describe("<html>").is_err());
    }
}
