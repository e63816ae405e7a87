//! How far the log had come when something was last shown to anybody.
//!
//! The footprint is written, not synced, before each acknowledgement. So after a kill it says which bytes must be there,
//! and after a power cut only the policy under which they were written counts. A log that is whole by it goes on with the
//! next offset; any other skips what may have been used. And what cannot be read where the log was whole is no torn write,
//! but damage.

/// The footprint's fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Footprint {
    /// Whether nothing is acknowledged before it is synced.
    pub always: bool,
    /// Whether all up to here was synced when this was written.
    pub synced: bool,
    /// The tail segment's number.
    pub segment: u64,
    /// Its length in bytes.
    pub length: u64,
}

/// The longest name of a boot that is written: a UUID.
const BOOT: usize = 36;

impl Footprint {
    /// As text of a length that never changes, so that one write replaces all of it.
    pub(super) fn write(self, boot: &str) -> String {
        let Self { always, synced, segment, length } = self;
        let boot = boot.get(..BOOT).unwrap_or(boot);
        let text = format!("{boot:BOOT$} {} {} {segment:020} {length:020}", u8::from(always), u8::from(synced));
        let sum = crc32fast::hash(text.as_bytes());
        format!("{text} {sum:08x}\n")
    }

    /// The footprint and the name of its boot; `None` if it is not whole.
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

/// How far the log is known to have been whole, whatever its segments say now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KnownExtent {
    /// There is no footprint, though every log has one.
    NoFootprint,
    /// To this length of this segment.
    AtLeast { segment: u64, length: u64 },
    /// The power was cut, and the disk has forgotten what was not synced: nobody knows how much.
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

    /// The segment that must be there, if the newest one there is an older one.
    pub(super) fn missing(&self, newest: Option<u64>) -> Option<u64> {
        match *self {
            Self::AtLeast { segment, .. } => Some(segment).filter(|segment| newest.unwrap_or(0) < *segment),
            Self::NoFootprint | Self::Unknown => None,
        }
    }

    /// Whether the byte at this place of the segment was there.
    pub(super) fn covers(&self, number: u64, at: u64) -> bool {
        matches!(*self, Self::AtLeast { segment, length } if (number, at) < (segment, length))
    }
}

/// Whether everything that was acknowledged is there, in a log that ends at `tail` (segment and length), and was closed in
/// order or not.
pub(super) fn is_complete(footprint: &[u8], boot: &str, tail: (u64, u64), clean: bool) -> bool {
    match Footprint::read(footprint) {
        Some((footprint, _)) if tail < (footprint.segment, footprint.length) => false,
        Some((footprint, of)) => clean || footprint.always || (!boot.is_empty() && of == boot),
        None => clean,
    }
}
