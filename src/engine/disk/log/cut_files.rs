//! What is cut off the log is kept in files beside it.

use std::io;

use super::files::{CUT, Storage};

/// How many ends that crashes tore are kept, and how many bytes of them together; of a larger one, that one alone.
const MOST_ENDS: usize = 10;
const MOST_BYTES: u64 = 64 << 20;

/// How the names end of what a repair cut: that is removed by nobody but the operator.
const REPAIR: &str = "-repair";

/// The name under which is kept what stood in segment `number` from byte `at` on.
pub(super) fn file_name(number: u64, at: u64, by_repair: bool) -> String {
    let time = jiff::Timestamp::now().strftime("%Y%m%dT%H%M%S%3fZ");
    format!("{CUT}{number:020}-{at}-{time}{}", if by_repair { REPAIR } else { "" })
}

/// Keeps an end that a crash tore, and removes the oldest of those that were kept before, so that they stay within their
/// bounds. Tells the name.
///
/// # Errors
/// If it cannot be written: the disk may well be full.
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
