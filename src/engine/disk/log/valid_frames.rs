//! The search for valid records after damage. They show whether the damage is a torn write, and what a repair cuts
//! off.

use super::{
    frame::{FRAME_HEADER_BYTES, MAX_PAYLOAD, frame_header, is_valid},
    record::StoredRecord,
};

/// The most bytes whose checksums are computed during the search. Real logs stay far below this limit; bytes that
/// exceed it were crafted.
const SEARCH_BYTES: u64 = 1 << 30;

/// The valid records in damaged bytes, wherever they begin.
pub(super) struct ValidFrames<'a> {
    bytes: &'a [u8],
    budget: u64,
}

impl<'a> ValidFrames<'a> {
    pub(super) fn of(bytes: &'a [u8]) -> Self {
        Self { bytes, budget: SEARCH_BYTES }
    }

    /// Returns whether the search stopped because too many positions looked like a record.
    pub(super) fn is_budget_spent(&self) -> bool {
        self.budget == 0
    }

    fn first(&mut self) -> Option<(&'a [u8], StoredRecord<'a>)> {
        let (length, _) = frame_header(self.bytes)?;
        if length == 0 || length > MAX_PAYLOAD {
            return None;
        }
        let frame = self.bytes.get(..FRAME_HEADER_BYTES + length)?;
        // The payload is decoded first because that costs less than the checksum.
        let stored = StoredRecord::decode(&frame[FRAME_HEADER_BYTES..]).ok()?;
        self.budget = self.budget.saturating_sub(frame.len() as u64);
        is_valid(frame).then_some((frame, stored))
    }
}

impl<'a> Iterator for ValidFrames<'a> {
    type Item = (&'a [u8], StoredRecord<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        while self.bytes.len() > FRAME_HEADER_BYTES && !self.is_budget_spent() {
            if let Some((frame, stored)) = self.first() {
                self.bytes = &self.bytes[frame.len()..];
                return Some((frame, stored));
            }
            self.bytes = &self.bytes[1..];
        }
        None
    }
}
