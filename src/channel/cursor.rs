//! Positions in a topic: an epoch and an offset.

use std::{fmt, str::FromStr};

use super::Error;

/// One incarnation of a topic: made at random with it, so that deleted and created again is another epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// A new epoch. The random part of a version 7 UUID is 74 bits; 62 of them are its low half.
    #[must_use]
    pub fn random() -> Self {
        Self(uuid::Uuid::now_v7().as_u64_pair().1)
    }

    /// The epoch as the number that engines store.
    #[must_use]
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The epoch from its number.
    #[must_use]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The epoch from its text: 16 hexadecimal digits.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        if text.len() == 16 { hex(text).map(Self) } else { None }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// A position in a topic: after the message at `offset` of `epoch`. Offset 0 is before the first message. Its text is
/// opaque to clients and the same at every door; within an epoch, texts sort in the order of their offsets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cursor {
    /// The incarnation of the topic.
    pub epoch: Epoch,
    /// Grows strictly within an epoch, from 1.
    pub offset: u64,
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.epoch, SortableHex(self.offset))
    }
}

/// A number as hexadecimal digits behind a digit that says how many there are (less one): short for small numbers, and
/// a larger number is a greater text. It needs no escaping in a URL.
pub(super) struct SortableHex(pub u64);

impl fmt::Display for SortableHex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let further_digits = self.0.checked_ilog2().unwrap_or(0) / 4;
        write!(f, "{further_digits:x}{:x}", self.0)
    }
}

impl SortableHex {
    /// Reads what [`SortableHex`] writes; every number has one text.
    pub(super) fn parse(text: &str) -> Option<u64> {
        let number = hex(text.get(1..)?)?;
        (SortableHex(number).to_string() == text).then_some(number)
    }
}

/// A number in lower-case hexadecimal digits, without a sign.
fn hex(text: &str) -> Option<u64> {
    let plain = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    plain.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let read = |text: &str| {
            let (epoch, offset) = text.split_once('-')?;
            Some(Cursor { epoch: Epoch::parse(epoch)?, offset: SortableHex::parse(offset)? })
        };
        read(text).ok_or_else(|| Error::bad_request("cursor", "is not a cursor that this service gave out"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_survive_as_text() {
        let cursor = Cursor { epoch: Epoch::random(), offset: u64::MAX };
        assert_eq!(cursor.to_string().parse(), Ok(cursor));
        for bad in [
            "",
            "-",
            "1-01",
            "00000000000000zz-01",
            "+000000000000001-01",
            "0000000000000001-",
            "0000000000000001-1",
            "0000000000000001-11",
            "0000000000000001-101",
            "0000000000000001-0a1",
            "0000000000000001-0\u{fc}",
            "x",
        ] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }

    #[test]
    fn cursors_of_an_epoch_sort_as_text() {
        let epoch = Epoch::random();
        let text = |offset| Cursor { epoch, offset }.to_string();
        let offsets = (0..70).chain((4..64).flat_map(|bit| [(1 << bit) - 1, 1 << bit])).chain([u64::MAX]);
        let mut texts: Vec<_> = offsets.map(|offset| (offset, text(offset))).collect();
        texts.sort_unstable();
        texts.dedup();
        assert!(texts.is_sorted_by(|a, b| a.1 < b.1));
        assert!(texts.iter().all(|(_, text)| text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')));
    }
}
