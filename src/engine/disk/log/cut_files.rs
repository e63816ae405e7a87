//! The files beside the log that keep what was cut off it.

use std::io;

use super::files::{CUT, Storage};

/// The limits for torn writes that are kept: their number, and their bytes together. A single larger one is kept
/// alone.
const MOST_ENDS: usize = 10;
const MOST_BYTES: u64 = 64 << 20;

/// The suffix of the names of files that a repair wrote. Only the operator removes them.
const REPAIR: &str = "-repair";

/// Returns the name of the file that keeps what stood in segment `number` from byte `at` on.
pub(super) fn file_name(number: u64, at: u64, by_repair: bool) -> String {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    format!("{CUT}{number:020}-{at}-{time}{}", if by_repair { REPAIR } else { "" })
}

/// Keeps a torn write, and removes the oldest ones so that the limits hold. Returns the file's name.
///
/// # Errors
/// Returns an error if the file cannot be written, for example because the disk is full.
pub(super) fn keep_torn_write(storage: &dyn Storage, number: u64, at: u64, torn: &[u8]) -> io::Result<String> {
    let mut kept: Vec<_> = storage.cut_files()?.into_iter().filter(|(name, _)| !name.ends_with(REPAIR)).collect();
    // The time is the last part of the name.
    kept.sort_by(|(a, _), (b, _)| a.rsplit('-').next().cmp(&b.rsplit('-').next()));
    let mut bytes = kept.iter().map(|(_, size)| size).sum::<u64>() + torn.len() as u64;
    let mut count = kept.len() + 1;
    for (name, size) in &kept {
        if count <= MOST_ENDS && bytes <= MOST_BYTES {
            break;
        }
        storage.remove_cut_file(name)?;
        (count, bytes) = (count - 1, bytes - size);
    }
    let name = file_name(number, at, false);
    storage.write_cut_file(&name, torn)?;
    Ok(name)
}
