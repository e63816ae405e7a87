//! The bytes around a record.
//!
//! A frame is `length: u32, crc32: u32, payload`, little-endian; the length counts the payload, the checksum covers the
//! length and the payload. The length's highest bit says that all of the segment before this frame was synced before the
//! frame was written: where such a frame is sound, nothing before it can be a torn write.

/// Bytes before a frame's payload.
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// The longest payload that the format knows, in bytes. Not the setting: a reader with a lower `max_record_bytes` than
/// the writer had must still read everything that was written. It bounds what a damaged length can make a reader hold.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

const AFTER_SYNC: u32 = 1 << 31;

/// The payload length and checksum at the start of `bytes`; `None` if there are not enough of them.
pub(super) fn frame_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let checksum = rest.first_chunk::<4>()?;
    Some(((u32::from_le_bytes(*length) & !AFTER_SYNC) as usize, u32::from_le_bytes(*checksum)))
}

/// The checksum that a frame with this payload must carry; `length` as it stands in the frame.
pub(super) fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Whether these bytes are one whole frame whose checksum holds.
pub(super) fn is_valid(frame: &[u8]) -> bool {
    let Some((length, expected)) = frame_header(frame) else { return false };
    let (Some(raw), Some(payload)) = (frame.first_chunk::<4>(), frame.get(FRAME_HEADER_BYTES..)) else { return false };
    payload.len() == length && checksum(*raw, payload) == expected
}

/// Whether all before this frame was synced before it was written.
pub(super) fn is_after_sync(frame: &[u8]) -> bool {
    frame.first_chunk::<4>().is_some_and(|length| u32::from_le_bytes(*length) & AFTER_SYNC != 0)
}

/// Says of the first frame in `frames`, sealed or not, that all before it was synced; seals it.
pub(super) fn mark_after_sync(frames: &mut [u8]) {
    if let Some((length, _)) = frame_header(frames)
        && let Some(frame) = frames.get_mut(..FRAME_HEADER_BYTES + length)
    {
        frame[..4].copy_from_slice(&(length as u32 | AFTER_SYNC).to_le_bytes());
        write_checksums(frame);
    }
}

/// Adds the frame to `out` as one of which nothing is said about what is before it.
pub(super) fn copy_frame(frame: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(frame);
    if let Some((length, _)) = frame_header(frame)
        && is_after_sync(frame)
    {
        out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        write_checksums(&mut out[start..]);
    }
}

/// Fills in the checksums of frames that [`super::Record::encode`] left open: the writer's work, not done under the lock
/// of the queue.
pub(super) fn write_checksums(frames: &mut [u8]) {
    let mut rest = frames;
    while let Some((length, _)) = frame_header(rest) {
        let Some((frame, behind)) = rest.split_at_mut_checked(FRAME_HEADER_BYTES + length) else { return };
        let raw = [frame[0], frame[1], frame[2], frame[3]];
        let sum = checksum(raw, &frame[FRAME_HEADER_BYTES..]);
        frame[4..FRAME_HEADER_BYTES].copy_from_slice(&sum.to_le_bytes());
        rest = behind;
    }
}

/// The whole frames in `bytes`, in order. For bytes that were checked or made here.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = frame_header(bytes)?;
        let (frame, behind) = bytes.split_at_checked(FRAME_HEADER_BYTES + length)?;
        bytes = behind;
        Some(frame)
    })
}

pub(super) fn open_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER_BYTES]);
    start
}

pub(super) fn close_frame(out: &mut [u8], start: usize) {
    // The callers bound a record far below 4 GiB.
    let length = (out.len() - start - FRAME_HEADER_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
