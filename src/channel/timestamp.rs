//! Times.

use std::{
    cell::RefCell,
    fmt::{self, Write as _},
    str::FromStr,
};

use super::Error;

/// Milliseconds since the Unix epoch, UTC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(pub i64);

impl Timestamp {
    /// The wall clock now.
    #[must_use]
    pub fn now() -> Self {
        Self(jiff::Timestamp::now().as_millisecond())
    }
}

impl fmt::Display for Timestamp {
    /// RFC 3339 in UTC with milliseconds.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = jiff::Timestamp::from_millisecond(self.0).unwrap_or_default();
        let (second, millisecond) = (at.as_millisecond().div_euclid(1_000), at.as_millisecond().rem_euclid(1_000));
        SECOND.with_borrow_mut(|known| {
            if known.0 != Some(second) {
                known.1.clear();
                write!(known.1, "{:.0}", jiff::Timestamp::from_second(second).unwrap_or_default())?;
                // The milliseconds come between.
                known.1.pop();
                known.0 = Some(second);
            }
            f.write_str(&known.1)
        })?;
        let digit = |value: i64| b'0' + u8::try_from(value % 10).unwrap_or_default();
        let rest = [b'.', digit(millisecond / 100), digit(millisecond / 10), digit(millisecond), b'Z'];
        f.write_str(std::str::from_utf8(&rest).map_err(|_| fmt::Error)?)
    }
}

thread_local! {
    /// The second that was written last, and its text up to the second, since most times that are written are of one second.
    static SECOND: RefCell<(Option<i64>, String)> = const { RefCell::new((None, String::new())) };
}

impl FromStr for Timestamp {
    type Err = Error;

    /// Reads RFC 3339 with any offset; finer than milliseconds is cut off.
    fn from_str(text: &str) -> Result<Self, Error> {
        read_time(text).map(Self).ok_or_else(|| {
            let lost_plus = text.rsplit_once(' ').is_some_and(|(time, offset)| {
                !time.contains(' ') && offset.contains(':') && read_time(&format!("{time}+{offset}")).is_some()
            });
            let message = if lost_plus {
                "has a space before its offset: a '+' in an address means a space and must be written %2B"
            } else {
                "must be a time like 2026-01-31T12:00:00Z (RFC 3339)"
            };
            Error::bad_request("since", message)
        })
    }
}

/// A time in RFC 3339 as milliseconds since 1970. `jiff::Timestamp` ends some hours before the year 9999 does, so the parts are
/// read one by one.
fn read_time(text: &str) -> Option<i64> {
    // What may stand behind an RFC 9557 time does not belong to RFC 3339.
    if text.contains('[') {
        return None;
    }
    // jiff reads nine digits of a second's fraction, and RFC 3339 does not bound them.
    let fraction = text.find('.').map_or(text.len(), |at| at + 1);
    let digits = text[fraction..].bytes().take_while(u8::is_ascii_digit).count();
    let text = format!("{}{}", &text[..fraction + digits.min(9)], &text[fraction + digits..]);
    let pieces = jiff::fmt::temporal::Pieces::parse(&text).ok()?;
    let civil = pieces.date().to_datetime(pieces.time()?);
    let offset = i64::from(pieces.to_numeric_offset()?.seconds());
    let since_1970 = civil.duration_since(jiff::civil::date(1970, 1, 1).at(0, 0, 0, 0));
    let milliseconds = since_1970.as_nanos().div_euclid(1_000_000) - i128::from(offset) * 1_000;
    i64::try_from(milliseconds).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_rfc_3339() {
        let at: Timestamp = "2026-01-31T13:00:00.1239+01:00".parse().unwrap();
        assert_eq!(at.to_string(), "2026-01-31T12:00:00.123Z");
        assert!("yesterday".parse::<Timestamp>().is_err());
        let read = |text: &str| text.parse::<Timestamp>().map(|at| at.0);
        assert_eq!(read("9999-12-31T23:59:59.9999999999-01:00"), Ok(253_402_304_399_999));
        assert_eq!(read("1969-12-31T23:59:59.9995Z"), Ok(-1));
        assert!(read("2026-01-31T12:00:00 01:00").unwrap_err().to_string().contains("%2B"));
        assert!(!Timestamp(i64::MAX).to_string().is_empty());
        for at in
            [0, -1, -1_001, 999, 1_000, 1_769_860_800_123, 1_769_860_800_007, 1_769_860_801_000, -62_167_219_200_001]
        {
            let wanted = format!("{:.3}", jiff::Timestamp::from_millisecond(at).unwrap());
            assert_eq!(Timestamp(at).to_string(), wanted);
        }
    }
}
