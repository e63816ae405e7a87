//! What is logged, and how.

use tracing_subscriber::EnvFilter;

/// What the NATS client says in passing, the engine says in its own words. Later directives go before these.
const QUIET: &str = "async_nats=error";

/// This part of the NATS client logs the servers' URLs, which may contain a password. No directive goes before this one.
const SECRET: &str = "async_nats::connector=error";

fn filter(directives: &str) -> Result<EnvFilter, String> {
    // `tracing` takes a space behind a comma for a part of the name.
    let directives: Vec<_> = directives.split(',').map(str::trim).collect();
    let directives = format!("{QUIET},{},{SECRET}", directives.join(","));
    EnvFilter::try_new(directives).map_err(|error| error.to_string())
}

/// Checks directives without starting the log.
///
/// # Errors
/// What is wrong, without the name of the setting.
pub fn check(directives: &str) -> Result<(), String> {
    filter(directives).map(drop)
}

/// Starts logging to standard error: `directives` as `tracing` reads them, as text or as JSON.
///
/// # Errors
/// One line that names the setting, when the directives cannot be read.
pub fn start(directives: &str, format: &str) -> Result<(), String> {
    let filter = filter(directives).map_err(|error| format!("LOG: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // Whoever reads standard error may have gone away. Reporting that there would panic.
    let builder = builder.log_internal_errors(false);
    // A second start, as in tests, keeps the first.
    let _ = if format == "json" { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}
