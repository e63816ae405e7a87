//! `pub-sub repair`: its report about a log.

use std::path::Path;

use super::log::{self, Damage};

/// Looks for damage in the log in `directory`, and cuts the log there unless `dry_run` is set. Returns the text to
/// print, and whether the log is still damaged.
///
/// # Errors
/// Returns one line that names the setting: there is no log, a server uses it, it has another version, or it cannot
/// be read or written.
pub fn repair(directory: &Path, dry_run: bool) -> Result<(String, bool), String> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(format!("DATA_DIR: {shown} does not exist, or is not a directory"));
    }
    let repair = log::repair(directory, !dry_run).map_err(|error| format!("DATA_DIR: {error}"))?;
    let Some(damage) = repair.damage else {
        let mut said = format!("The log in {shown} is sound: {} segments were read.\n", repair.segments);
        if repair.torn_bytes > 0 {
            let bytes = repair.torn_bytes;
            said.push_str(&format!("Its last {bytes} bytes are a torn write; the next start cuts them off.\n"));
        }
        return Ok((said, false));
    };
    let Damage { file, at, why, bytes, messages, kept, topics } = damage;
    let mut said = format!("{file} is damaged at byte {at}: {why}.\n");
    said.push_str(&format!("{bytes} bytes follow the damage. {messages} messages in them can still be read.\n"));
    if dry_run {
        said.push_str(
            "Nothing was changed. Without --dry-run the log is cut there, and what is cut off is kept in files beside it.\n",
        );
        return Ok((said, true));
    }
    said.push_str(&format!(
        "The log was cut there. {topics} topics are left; their offsets continue above all that were used.\n"
    ));
    for name in kept {
        said.push_str(&format!("What was cut off is kept in {}.\n", directory.join(name).display()));
    }
    Ok((said, false))
}
