//! Which log this is: a random number, made with the log, that no other log has.
//!
//! A position over all topics is a place in one log. Were the directory emptied or swapped, the numbers of the new log would
//! mean something else: by its identity that is noticed.

use std::io;

use uuid::Uuid;

use super::files::Storage;

/// The log's identity, and whether it had none and was given this one.
///
/// # Errors
/// If it cannot be read, or written.
pub(super) fn load_or_create(storage: &dyn Storage) -> io::Result<(u64, bool)> {
    if let Some(identity) = read(&storage.identity()?) {
        return Ok((identity, false));
    }
    // Six bits of a random UUID are fixed; none is in both halves.
    let (high, low) = Uuid::new_v4().as_u64_pair();
    let identity = high ^ low;
    storage.write_identity(format!("{identity:016x}\n").as_bytes())?;
    Ok((identity, true))
}

fn read(bytes: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(bytes).ok()?.trim_end();
    (digits.len() == 16).then(|| u64::from_str_radix(digits, 16).ok())?
}
