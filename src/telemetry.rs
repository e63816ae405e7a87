//! What is logged, and how.

use tracing_subscriber::EnvFilter;

/// What the NATS client says in passing, the engine says in its own words. Later directives go before these.
const QUIET: &str = "async_nats=error";

/// Starts logging to standard error: `directives` as `tracing` reads them, as text or as JSON.
///
/// # Errors
/// One line that names the setting, when the directives cannot be read.
pub fn start(directives: &str, format: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(format!("{QUIET},{directives}")).map_err(|error| format!("LOG: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second start, as in tests, keeps the first.
    let _ = if format == "json" { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}
