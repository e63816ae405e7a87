//! The bytes around a record.
//!
//! A frame is `length: u32, crc32: u32, payload`, little-endian; the length counts the payload, the checksum covers the
//! length and the payload. The length's highest bit says that all of the segment before this frame was synced before the
//! frame was written: where such a frame is sound, nothing before it can be a torn write.

use super::record::Stored;

/// Bytes before a frame's payload.
pub(super) const FRAME_HEADER: usize = 8;

/// The longest payload that the format knows, in bytes. Not the setting: a reader with a lower `max_record_bytes` than
/// the writer had must still read everything that was written. It bounds what a damaged length can make a reader hold.
pub(super) const MAX_PAYLOAD: usize = 64 << 20;

const BEHIND_SYNC: u32 = 1 << 31;

/// The most bytes whose checksums are tried while sound frames are looked for behind damage. What would take more is no
/// log of ours.
const SEARCH_BYTES: u64 = 1 << 30;

/// The payload length and checksum at the start of `bytes`; `None` if there are not enough of them.
pub(super) fn frame_header(bytes: &[u8]) -> Option<(usize, u32)> {
    let (length, rest) = bytes.split_first_chunk::<4>()?;
    let checksum = rest.first_chunk::<4>()?;
    Some(((u32::from_le_bytes(*length) & !BEHIND_SYNC) as usize, u32::from_le_bytes(*checksum)))
}

/// The checksum that a frame with this payload must carry; `length` as it stands in the frame.
pub(super) fn checksum(length: [u8; 4], payload: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&length);
    hasher.update(payload);
    hasher.finalize()
}

/// Whether these bytes are one whole frame whose checksum holds.
pub(super) fn is_sound(frame: &[u8]) -> bool {
    let Some((length, expected)) = frame_header(frame) else { return false };
    let (Some(raw), Some(payload)) = (frame.first_chunk::<4>(), frame.get(FRAME_HEADER..)) else { return false };
    payload.len() == length && checksum(*raw, payload) == expected
}

/// Whether all before this frame was synced before it was written.
pub(super) fn is_behind_sync(frame: &[u8]) -> bool {
    frame.first_chunk::<4>().is_some_and(|length| u32::from_le_bytes(*length) & BEHIND_SYNC != 0)
}

/// Says of the first frame in `frames`, sealed or not, that all before it was synced; seals it.
pub(super) fn mark_behind_sync(frames: &mut [u8]) {
    if let Some((length, _)) = frame_header(frames)
        && let Some(frame) = frames.get_mut(..FRAME_HEADER + length)
    {
        frame[..4].copy_from_slice(&(length as u32 | BEHIND_SYNC).to_le_bytes());
        seal(frame);
    }
}

/// Adds the frame to `out` as one of which nothing is said about what is before it.
pub(super) fn copy(frame: &[u8], out: &mut Vec<u8>) {
    let start = out.len();
    out.extend_from_slice(frame);
    if let Some((length, _)) = frame_header(frame)
        && is_behind_sync(frame)
    {
        out[start..start + 4].copy_from_slice(&(length as u32).to_le_bytes());
        seal(&mut out[start..]);
    }
}

/// Fills in the checksums of frames that [`super::Record::encode`] left open: the writer's work, not done under the lock
/// of the queue.
pub(super) fn seal(frames: &mut [u8]) {
    let mut rest = frames;
    while let Some((length, _)) = frame_header(rest) {
        let Some((frame, behind)) = rest.split_at_mut_checked(FRAME_HEADER + length) else { return };
        let raw = [frame[0], frame[1], frame[2], frame[3]];
        let sum = checksum(raw, &frame[FRAME_HEADER..]);
        frame[4..FRAME_HEADER].copy_from_slice(&sum.to_le_bytes());
        rest = behind;
    }
}

/// The whole frames in `bytes`, in order. For bytes that were checked or made here.
pub(super) fn frames(mut bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        let (length, _) = frame_header(bytes)?;
        let (frame, behind) = bytes.split_at_checked(FRAME_HEADER + length)?;
        bytes = behind;
        Some(frame)
    })
}

pub(super) fn open_frame(out: &mut Vec<u8>) -> usize {
    let start = out.len();
    out.extend_from_slice(&[0; FRAME_HEADER]);
    start
}

pub(super) fn close_frame(out: &mut [u8], start: usize) {
    // The callers bound a record far below 4 GiB.
    let length = (out.len() - start - FRAME_HEADER) as u32;
    out[start..start + 4].copy_from_slice(&length.to_le_bytes());
}

/// The sound records in bytes that are damaged somewhere, wherever they begin.
pub(super) struct Survivors<'a> {
    bytes: &'a [u8],
    budget: u64,
}

impl<'a> Survivors<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, budget: SEARCH_BYTES }
    }

    /// Whether there were too many places that look like a record to try them all.
    pub(super) fn gave_up(&self) -> bool {
        self.budget == 0
    }

    fn first(&mut self) -> Option<(&'a [u8], Stored<'a>)> {
        let (length, _) = frame_header(self.bytes)?;
        if length == 0 || length > MAX_PAYLOAD {
            return None;
        }
        let frame = self.bytes.get(..FRAME_HEADER + length)?;
        // What a record says is looked at first: that costs less than its checksum.
        let stored = Stored::decode(&frame[FRAME_HEADER..]).ok()?;
        self.budget = self.budget.saturating_sub(frame.len() as u64);
        is_sound(frame).then_some((frame, stored))
    }
}

impl<'a> Iterator for Survivors<'a> {
    type Item = (&'a [u8], Stored<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.bytes.len() > FRAME_HEADER && !self.gave_up() {
            if let Some((frame, stored)) = self.first() {
                self.bytes = &self.bytes[frame.len()..];
                return Some((frame, stored));
            }
            self.bytes = &self.bytes[1..];
        }
        None
    }
}
