//! The disk engine's log, read back from bytes that nobody has written.
//!
//! An input is a sequence of records, each behind a byte with its length; the checksums are put in, which no fuzzer would
//! find. What is left when a length is too long stands behind the last record as a torn end.

use pub_sub::engine::disk::fuzz;

/// Checks one input.
pub fn run(input: &[u8]) {
    let (mut rest, mut payloads) = (input, Vec::new());
    while let Some((length, behind)) = rest.split_first()
        && let Some((payload, behind)) = behind.split_at_checked(usize::from(*length))
        && !payload.is_empty()
    {
        payloads.push(payload);
        rest = behind;
    }
    let sound = payloads.iter().all(|payload| fuzz::record(payload));
    // Damage in the middle is never passed over.
    assert_eq!(fuzz::log(&payloads, rest), sound);
}
