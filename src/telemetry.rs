//! What is logged, and how.

use std::sync::OnceLock;

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
    if format == "json" {
        let builder = builder.json().with_filter_reloading();
        let handle = builder.reload_handle();
        let change: Change = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        if builder.try_init().is_ok() {
            let _ = CHANGE.set(change);
        }
    } else {
        let builder = builder.with_filter_reloading();
        let handle = builder.reload_handle();
        let change: Change = Box::new(move |filter| handle.reload(filter).map_err(|error| error.to_string()));
        if builder.try_init().is_ok() {
            let _ = CHANGE.set(change);
        }
    }
    Ok(())
}

/// Sets another filter.
type Change = Box<dyn Fn(EnvFilter) -> Result<(), String> + Send + Sync>;

/// Changes what the log of this process has, once it was started.
static CHANGE: OnceLock<Change> = OnceLock::new();

/// Logs what these directives say from here on.
///
/// # Errors
/// One line that names the setting; nothing has changed then.
pub fn change(directives: &str) -> Result<(), String> {
    let filter = filter(directives).map_err(|error| format!("LOG: {error}"))?;
    CHANGE.get().map_or(Ok(()), |change| change(filter))
}
