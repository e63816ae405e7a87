//! What is logged, and how.

use tracing_subscriber::EnvFilter;

/// Starts logging to standard error: `directives` as `tracing` reads them, as text or as JSON.
///
/// # Errors
/// One line that names the setting, when the directives cannot be read.
pub fn start(directives: &str, format: &str) -> Result<(), String> {
    let filter = EnvFilter::try_new(directives).map_err(|error| format!("LOG: {error}"))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    // A second start, as in tests, keeps the first.
    let _ = if format == "json" { builder.json().try_init() } else { builder.try_init() };
    Ok(())
}
