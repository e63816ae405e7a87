//! The log's identity: a random number that is created with the log and that no other log has.
//!
//! A position over all topics is only valid in one log. If the directory is emptied or replaced, the sequence numbers
//! of the new log mean something else, and the identity reveals it.

use std::io;

use uuid::Uuid;

use super::files::Storage;

/// Returns the log's identity, and whether it had none and this one was created.
///
/// # Errors
/// Returns an error if the identity cannot be read or written.
pub(super) fn load_or_create(storage: &dyn Storage) -> io::Result<(u64, bool)> {
    if let Some(identity) = read(&storage.identity()?) {
        return Ok((identity, false));
    }
    // Six bits of a random UUID are fixed, and they are not at the same positions in the two halves.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    let identity = high ^ low;
    storage.write_identity(format!("{identity:016x}\n").as_bytes())?;
    Ok((identity, true))
}

fn read(bytes: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(bytes).ok()?.trim_end();
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}
