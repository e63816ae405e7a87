//! The bytes around a record.
//!
//! A frame is `length: u32, crc32: u32, payload`, little-endian. The length counts the payload. The checksum covers
//! the length and the payload. The highest bit of the length says that everything before this frame in the segment
//! was synced before the frame was written. So nothing before a valid frame with this bit can be a torn write.

/// The bytes before a frame's payload.
pub(super) const FRAME_HEADER_BYTES: usize = 8;

/// The longest payload that the format allows, in bytes. It is independent of the setting `max_record_bytes`, because
/// a reader with a lower setting must still read everything that was written. It limits how much memory a damaged
/// length can make a reader allocate.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

const AFTER_SYNC: u32 = 1 << 31;

/// Returns the payload length and the checksum at the start of `bytes`, or `None` if `bytes` is too short.
pub(super) fn frame_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let checksum = rest.first_chunk::<4>()?;
    Some(((u32::from_le_bytes(*length) & !AFTER_SYNC) as usize, u32::from_le_bytes(*checksum)))
}

/// Computes the checksum that a frame with this payload must carry. `length` is the raw field, including the highest
/// bit.
pub(super) fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Returns whether these bytes are one whole frame whose checksum is right.
pub(super) fn is_valid(frame: &[u8]) -> bool {
    let Some((length, expected)) = frame_header(frame) else { return false };
    let (Some(raw), Some(payload)) = (frame.first_chunk::<4>(), frame.get(FRAME_HEADER_BYTES..)) else { return false };
    payload.len() == length && checksum(*raw, payload) == expected
}

/// Returns whether everything before this frame was synced before the frame was written.
pub(super) fn is_after_sync(frame: &[u8]) -> bool {
    frame.first_chunk::<4>().is_some_and(|length| u32::from_le_bytes(*length) & AFTER_SYNC != 0)
}

/// Marks the first frame in `frames` as one before which everything was synced, and writes its checksum.
pub(super) fn mark_after_sync(frames: &mut [u8]) {
    if let Some((length, _)) = frame_header(frames)
        && let Some(frame) = frames.get_mut(..FRAME_HEADER_BYTES + length)
    {
        frame[..4].copy_from_slice(&(length as u32 | AFTER_SYNC).to_le_bytes());
        write_checksums(frame);
    }
}

/// Appends a copy of the frame to `out` without the mark, because at the new position it may not be true.
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

/// Writes the checksums that [`super::Record::encode`] left out. The writer does this, so that it does not happen
/// under the lock of the queue.
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

/// Returns the whole frames in `bytes`, in order. The bytes were validated before or encoded by this process.
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
    // The callers limit a record to far less than 4 GiB.
    let length = (out.len() - start - FRAME_HEADER_BYTES) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}
