//! Reading one segment: its header, its records, and how it ends.

use super::{
    error::OpenError,
    files::{FORMAT, OLDEST_FORMAT, SEGMENT_HEADER_BYTES, Scanned, SegmentHeader, SegmentScanner, file_name},
    footprint::KnownExtent,
    frame::{FRAME_HEADER_BYTES, is_after_sync},
    record::StoredRecord,
    valid_frames::ValidFrames,
};

/// How a segment ends.
pub(super) enum SegmentEnd {
    /// The file ends after a whole record.
    Whole { length: u64 },
    /// A torn write follows the whole records, which end at `length`.
    Torn { length: u64, torn: Vec<u8> },
    /// The file ends within its header: it was created, and nothing was written to it.
    IncompleteHeader { bytes: u64 },
}

impl SegmentEnd {
    /// The number of bytes at the end at which no whole record begins.
    pub fn torn_bytes(&self) -> u64 {
        match self {
            Self::Whole { .. } => 0,
            Self::Torn { torn, .. } => torn.len() as u64,
            Self::IncompleteHeader { bytes } => *bytes,
        }
    }
}

/// Reads one segment and passes each record to `take`, with its frame and the position of the frame in the file. The
/// sequence number of the header comes first, as a record with an empty frame.
///
/// `extent` is given for the last segment only, because only that one may end with a torn write. It says how far the log
/// is known to have been written. Bytes after that point at which no record begins count as a torn write, unless later
/// records show that the log continued there.
///
/// # Errors
/// If the segment is damaged and no torn write explains the damage, if it has another version, or if it cannot be read.
pub(super) fn read_segment(
    scanner: &mut SegmentScanner,
    number: u64,
    extent: Option<&KnownExtent>,
    mut take: impl FnMut(&StoredRecord<'_>, &[u8], u64),
) -> Result<SegmentEnd, OpenError> {
    let file = file_name(number);
    let reading = |error| OpenError::Io { doing: format!("reading {file}"), error };
    let damaged = |at, why| OpenError::Damaged { file: file.clone(), at, why };
    match scanner.header(number).map_err(reading)? {
        SegmentHeader::Valid { sequence } => take(&StoredRecord::Sequences { upto: sequence }, &[], 0),
        // The header is synced before the first record is written, so this file has never had a record.
        SegmentHeader::Bad(_) | SegmentHeader::OtherVersion { checksum_holds: false, .. }
            if scanner.size() <= SEGMENT_HEADER_BYTES as u64
                && extent.is_some_and(|extent| !extent.covers(number, 0)) =>
        {
            return Ok(SegmentEnd::IncompleteHeader { bytes: scanner.size() });
        }
        SegmentHeader::OtherVersion { version, .. } => {
            return Err(OpenError::UnknownVersion { file, found: version, oldest: OLDEST_FORMAT, known: FORMAT });
        }
        SegmentHeader::Bad(why) => return Err(damaged(0, why)),
    }
    loop {
        let at = scanner.position();
        match scanner.next().map_err(reading)? {
            Scanned::End if extent.is_some_and(|extent| extent.covers(number, at)) => {
                return Err(damaged(at, "the file ends here, and was longer"));
            }
            Scanned::End => return Ok(SegmentEnd::Whole { length: at }),
            Scanned::Invalid { at, why } => {
                let Some(extent) = extent.filter(|extent| !extent.covers(number, at)) else {
                    return Err(damaged(at, why));
                };
                let torn = scanner.rest().map_err(reading)?;
                if has_later_records(&torn, extent) {
                    return Err(damaged(at, why));
                }
                return Ok(SegmentEnd::Torn { length: at, torn });
            }
            Scanned::Frame(frame) => {
                // The checksum holds, so the record was written like this. To cut it off would lose valid data.
                let stored =
                    StoredRecord::decode(&frame[FRAME_HEADER_BYTES..]).map_err(|fault| damaged(at, fault.0))?;
                take(&stored, frame, at);
            }
        }
    }
}

/// Returns whether records after the invalid bytes show that these bytes are not a torn write.
///
/// A power cut can lose one page of a write and keep the next, so a valid record alone proves nothing. A record that was
/// written after a sync does: everything before it was on the disk. Without a footprint nothing is known about a power
/// cut, and any valid record counts.
fn has_later_records(torn: &[u8], extent: &KnownExtent) -> bool {
    let mut later = ValidFrames::of(torn.get(1..).unwrap_or_default());
    let found = match extent {
        KnownExtent::NoFootprint => later.next().is_some(),
        KnownExtent::AtLeast { .. } | KnownExtent::Unknown => later.any(|(frame, _)| is_after_sync(frame)),
    };
    found || later.is_budget_spent()
}
