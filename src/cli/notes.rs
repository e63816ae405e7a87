//! What a command says on standard error.

use std::io::{IsTerminal as _, Write as _};

/// Whether a stream may have colours: on a terminal, unless `NO_COLOR` has a value (no-color.org).
fn has_colours(is_terminal: bool) -> bool {
    is_terminal && std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

/// Whether standard output may have colours.
pub fn output_has_colours() -> bool {
    has_colours(std::io::stdout().is_terminal())
}

/// Says something on standard error, in one line.
pub fn note(text: &str) {
    let mut stderr = std::io::stderr();
    // Nobody can be told if that fails.
    let _ = if has_colours(stderr.is_terminal()) {
        writeln!(stderr, "\x1b[33mpub-sub: {text}\x1b[0m")
    } else {
        writeln!(stderr, "pub-sub: {text}")
    };
}
