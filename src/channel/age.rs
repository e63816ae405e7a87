//! How old something may become, as clients write it.

use std::{fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::Error;

/// The longest age, a hundred years, in milliseconds: clocks can add it without an overflow.
const LONGEST: u64 = 100 * 365 * 24 * 3_600_000;

/// A length of time in whole milliseconds, at most a hundred years. Clients write it as a whole number with its unit:
/// `1500ms`, `90s`, `15m`, `24h` or `7d`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Age(u64);

impl Age {
    /// Of a topic: its messages may become as old as they like.
    pub const UNLIMITED: Self = Self(0);

    /// So many milliseconds; more than a hundred years become a hundred years.
    #[must_use]
    pub const fn from_millis(milliseconds: u64) -> Self {
        Self(if milliseconds < LONGEST { milliseconds } else { LONGEST })
    }

    /// A setting's time, in whole milliseconds. What is shorter than one, and not nothing, becomes one.
    #[must_use]
    pub fn of(duration: Duration) -> Self {
        let whole = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self::from_millis(if duration.is_zero() { 0 } else { whole.max(1) })
    }

    /// In milliseconds.
    #[must_use]
    pub const fn as_millis(self) -> u64 {
        self.0
    }

    /// Whether it is nothing, which means no limit where a topic sets it.
    #[must_use]
    pub const fn is_unlimited(self) -> bool {
        self.0 == 0
    }

    /// The age that a client has given in `field`. A message has no use for none at all; a topic takes `0s` for no limit.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field.
    pub fn parse(field: &'static str, text: &str) -> Result<Self, Error> {
        text.parse().map_err(|NotAnAge| Error::bad_request(field, NotAnAge.to_string()))
    }

    /// The time that a message is to be kept, which a client has given as `ttl`.
    ///
    /// # Errors
    /// [`Error::BadRequest`], also for no time at all.
    pub fn parse_ttl(text: &str) -> Result<Self, Error> {
        match Self::parse("ttl", text)? {
            Self::UNLIMITED => Err(Error::bad_request("ttl", "must be longer than 0")),
            ttl => Ok(ttl),
        }
    }
}

/// Text that is no age.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be a duration like 1500ms, 90s, 15m or 24h, at most 876000h")]
pub struct NotAnAge;

impl FromStr for Age {
    type Err = NotAnAge;

    fn from_str(text: &str) -> Result<Self, NotAnAge> {
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(digits);
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(NotAnAge),
        };
        let length = number.parse::<u64>().ok().and_then(|number| number.checked_mul(milliseconds));
        length.filter(|length| *length <= LONGEST).map(Self).ok_or(NotAnAge)
    }
}

impl fmt::Display for Age {
    /// The largest unit up to the hour of which it is a whole number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            0 => f.write_str("0s"),
            whole if whole % 3_600_000 == 0 => write!(f, "{}h", whole / 3_600_000),
            whole if whole % 60_000 == 0 => write!(f, "{}m", whole / 60_000),
            whole if whole % 1_000 == 0 => write!(f, "{}s", whole / 1_000),
            whole => write!(f, "{whole}ms"),
        }
    }
}

impl Serialize for Age {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Age {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(|NotAnAge| D::Error::custom(format!("invalid value: {text:?}, which {NotAnAge}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_are_numbers_with_units() {
        for (text, milliseconds) in
            [("1500ms", 1_500), ("2s", 2_000), ("90s", 90_000), ("15m", 900_000), ("1h", 3_600_000), ("0s", 0)]
        {
            assert_eq!(text.parse(), Ok(Age(milliseconds)), "{text}");
        }
        assert_eq!("36500d".parse(), Ok(Age(LONGEST)));
        for bad in ["", "s", "5", "-5s", "+5s", "1.5s", "1h30m", "5 s", "5S", "five seconds", "36501d", "1e3s"] {
            assert_eq!(bad.parse::<Age>(), Err(NotAnAge), "{bad:?}");
        }
        for bad in ["99999999999999999999s", "18446744073709551615d"] {
            assert_eq!(bad.parse::<Age>(), Err(NotAnAge), "{bad:?}");
        }
        assert!(matches!(Age::parse_ttl("0s"), Err(Error::BadRequest { field: "ttl", .. })));
        assert!(matches!(Age::parse("max_age", "soon"), Err(Error::BadRequest { field: "max_age", .. })));
    }

    #[test]
    fn what_is_written_can_be_read() {
        for milliseconds in [0, 1, 999, 1_000, 1_500, 59_000, 60_000, 90_000, 3_600_000, 5_400_000, LONGEST] {
            let age = Age(milliseconds);
            assert_eq!(age.to_string().parse(), Ok(age));
            assert_eq!(serde_json::from_str::<Age>(&serde_json::to_string(&age).unwrap()).unwrap(), age);
        }
        assert_eq!(
            [Age(0), Age(1_500), Age(90_000), Age(7_200_000)].map(|age| age.to_string()),
            ["0s", "1500ms", "90s", "2h"]
        );
        assert!(serde_json::from_str::<Age>("5").is_err() && serde_json::from_str::<Age>("\"soon\"").is_err());
    }

    #[test]
    fn settings_become_whole_milliseconds() {
        assert_eq!(Age::of(Duration::ZERO), Age::UNLIMITED);
        assert_eq!(Age::of(Duration::from_nanos(1)), Age(1));
        assert_eq!(Age::of(Duration::MAX), Age(LONGEST));
    }
}
