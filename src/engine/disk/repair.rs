//! `pub-sub repair`: what it says about a log, and what it did.

use std::path::Path;

use super::log::{self, Damage};

/// Looks for damage in the log in `directory`, and cuts the log there unless it is only to say what it would do.
/// Returns what is to be printed, and whether there is damage that is still there.
///
/// # Errors
/// One line that names the setting: no log, one that a server has, one of another version, or one that cannot be read
/// or written.
pub fn repair(directory: &Path, dry_run: bool) -> Result<(String, bool), String> {
    let shown = directory.display();
    if !directory.is_dir() {
        return Err(format!("DATA_DIR: {shown} is not there, or no directory"));
    }
    let repair = log::repair(directory, !dry_run).map_err(|error| format!("DATA_DIR: {error}"))?;
    let Some(damage) = repair.damage else {
        let mut said = format!("The log in {shown} is sound: {} segments were read.\n", repair.segments);
        if repair.torn_bytes > 0 {
            let bytes = repair.torn_bytes;
            said.push_str(&format!(
                "Its last {bytes} bytes are a write that a crash tore; the next start cuts them off.\n"
            ));
        }
        return Ok((said, false));
    };
    let Damage { file, at, why, bytes, messages, kept, topics } = damage;
    let mut said = format!("{file} is damaged at byte {at}: {why}.\n");
    said.push_str(&format!("Behind that are {bytes} bytes, in which {messages} messages can still be read.\n"));
    if dry_run {
        said.push_str(
            "Nothing was changed. Without --dry-run the log is cut there, and what is cut is kept beside it.\n",
        );
        return Ok((said, true));
    }
    said.push_str(&format!(
        "The log was cut there. {topics} topics are left; their offsets go on behind all that were used.\n"
    ));
    for name in kept {
        said.push_str(&format!("What was cut is kept in {}.\n", directory.join(name).display()));
    }
    Ok((said, false))
}
