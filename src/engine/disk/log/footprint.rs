//! The footprint: how far the log had been written when something was last acknowledged.
//!
//! The footprint is written before each acknowledgement, but not synced. After a kill it says which bytes must be in
//! the log. After a power cut only the policy under which the bytes were written counts. If the footprint shows that
//! the log is complete, the log continues with the next offset. Otherwise it skips the offsets that may have been
//! used. Bytes that cannot be read although the footprint says that they were written are damage, not a torn write.

/// The fields of the footprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Whether nothing is acknowledged before it is synced.
    pub always: bool,
    /// Whether everything up to here was synced when this was written.
    pub synced: bool,
    /// The number of the tail segment.
    pub segment: u64,
    /// The length of the tail segment in bytes.
    pub length: u64,
}

/// The length of the longest boot id that is written: a UUID.
const BOOT: usize = 36;

impl Footprint {
    /// Encodes the footprint as text whose length never changes, so that one write replaces all of it.
    pub(super) fn write(self, boot: &str) -> String {
        let Self { always, synced, segment, length } = self;
        let boot = boot.get(..BOOT).unwrap_or(boot);
        let text = format!("{boot:BOOT$} {} {} {segment:020} {length:020}", u8::from(always), u8::from(synced));
        let sum = crc32fast::hash(text.as_bytes());
        format!("{text} {sum:08x}\n")
    }

    /// Decodes the footprint and its boot id. Returns `None` if the text is incomplete or damaged.
    pub(super) fn read(bytes: &[u8]) -> Option<(Self, String)> {
        let line = std::str::from_utf8(bytes).ok()?.strip_suffix('\n')?;
        let (text, sum) = line.rsplit_once(' ')?;
        if u32::from_str_radix(sum, 16).ok()? != crc32fast::hash(text.as_bytes()) {
            return None;
        }
        let (boot, fields) = text.split_at_checked(BOOT)?;
        let mut fields = fields.split_whitespace();
        let mut number = || fields.next()?.parse::<u64>().ok();
        let (always, synced) = (number()? == 1, number()? == 1);
        let footprint = Self { always, synced, segment: number()?, length: number()? };
        Some((footprint, boot.trim_end().to_owned()))
    }
}

/// How far the log is known to have been written, whatever its segments hold now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownExtent {
    /// There is no footprint, although every log has one.
    NoFootprint,
    /// The log was written at least up to this length of this segment.
    AtLeast { segment: u64, length: u64 },
    /// There was a power cut and the disk has lost some of what was not synced. Nobody knows how much.
    Unknown,
}

impl KnownExtent {
    pub(super) fn of(footprint: &[u8], boot: &str) -> Self {
        match Footprint::read(footprint) {
            Some((Footprint { always, synced, segment, length }, of)) => {
                let same = !boot.is_empty() && of == boot;
                if always || synced || same { Self::AtLeast { segment, length } } else { Self::Unknown }
            }
            None => Self::NoFootprint,
        }
    }

    /// Returns the segment that is missing, if the newest existing segment is older than the footprint's.
    pub(super) fn missing(&self, newest: Option<u64>) -> Option<u64> {
        match *self {
            Self::AtLeast { segment, .. } => Some(segment).filter(|segment| newest.unwrap_or(0) < *segment),
            Self::NoFootprint | Self::Unknown => None,
        }
    }

    /// Returns whether the byte at this position of the segment is known to have been written.
    pub(super) fn covers(&self, number: u64, at: u64) -> bool {
        matches!(*self, Self::AtLeast { segment, length } if (number, at) < (segment, length))
    }
}

/// Returns whether everything that was acknowledged is in a log that ends at `tail` (segment and length). `clean`
/// says whether the log was closed cleanly.
pub(super) fn is_complete(footprint: &[u8], boot: &str, tail: (u64, u64), clean: bool) -> bool {
    match Footprint::read(footprint) {
        Some((footprint, _)) if tail < (footprint.segment, footprint.length) => false,
        Some((footprint, of)) => clean || footprint.always || (!boot.is_empty() && of == boot),
        None => clean,
    }
}
