//! How a client subscribes, read and checked in one way for all doors.

use std::{borrow::Cow, time::Duration};

use super::{Fields, parse_position};
use crate::broker::{Ack, ConsumerName, Error, Filter, FilterLimits, Overflow, Source, Start, Subscribe, Timestamp};

/// How a client subscribes. Each part is of its type; [`Options::subscribe`] checks how they go together.
#[derive(Default)]
pub struct Options {
    /// The last so many messages.
    pub last: Option<u32>,
    /// After a position.
    pub after: Option<Start>,
    /// From a time on.
    pub since: Option<Timestamp>,
    /// The newest message of each key.
    pub state: bool,
    /// Only messages that match.
    pub filter: Option<Filter>,
    /// Keep the position under this name.
    pub consumer: Option<ConsumerName>,
    /// How long it is kept while nobody uses it.
    pub consumer_ttl: Option<Duration>,
    /// When its position moves.
    pub ack: Option<Ack>,
    /// What happens when the subscription falls behind.
    pub overflow: Option<Overflow>,
}

impl Options {
    /// The options of which most are given as text; `text` returns the one of a name.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field.
    pub fn read<'a>(
        (last, state): (Option<u32>, bool),
        text: impl Fn(&'static str) -> Result<Option<Cow<'a, str>>, Error>,
        limits: &FilterLimits,
    ) -> Result<Self, Error> {
        let overflows = [
            ("HISTORY", Overflow::History),
            ("LATEST", Overflow::Latest),
            ("LATEST_PER_KEY", Overflow::LatestPerKey),
            ("DISCONNECT", Overflow::Disconnect),
        ];
        Ok(Self {
            last,
            after: text("after")?.map(|cursor| parse_position("after", &cursor)).transpose()?,
            since: text("since")?.map(|time| time.parse()).transpose()?,
            state,
            filter: text("filter")?.map(|filter| parse_filter(&filter, limits)).transpose()?,
            consumer: text("consumer")?.map(|name| ConsumerName::parse(&name)).transpose()?,
            consumer_ttl: text("consumer_ttl")?.map(|text| parse_duration("consumer_ttl", &text)).transpose()?,
            ack: choice("ack", text("ack")?.as_deref(), &[("AUTO", Ack::Auto), ("EXPLICIT", Ack::Explicit)])?,
            overflow: choice("overflow", text("overflow")?.as_deref(), &overflows)?,
        })
    }

    /// The options among the fields of an object.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the field.
    pub fn of(fields: &Fields<'_>, limits: &FilterLimits) -> Result<Self, Error> {
        let last = same_last(fields.number("last", u32::MAX)?, fields.number("last_n", u32::MAX)?)?;
        let text = |name| match name {
            // An object, of which the text is read.
            "filter" => Ok(fields.present(name).map(|filter| Cow::Borrowed(filter.get()))),
            _ => fields.text(name),
        };
        Self::read((last, fields.flag("state")?), text, limits)
    }

    /// Where to begin: at most one of the four.
    fn start(&self) -> Result<Option<Start>, Error> {
        let other = start(self.last, self.after.clone(), self.since)?;
        match (self.state, other) {
            (false, other) => Ok(other),
            (true, None) => Ok(Some(Start::State)),
            (true, Some(_)) => Err(Error::bad_request("state", "must not stand beside last, after or since")),
        }
    }

    /// The request for a topic or pattern.
    ///
    /// # Errors
    /// [`Error::BadRequest`] for options that contradict each other.
    pub fn subscribe(self, source: Source) -> Result<Subscribe, Error> {
        if self.ack.is_some() && self.consumer.is_none() {
            return Err(Error::bad_request("ack", "needs a consumer"));
        }
        Ok(Subscribe {
            source,
            start: self.start()?,
            resume: None,
            filter: self.filter,
            overflow: self.overflow.unwrap_or_default(),
            consumer: self.consumer.map(|name| (name, self.ack.unwrap_or_default())),
            consumer_ttl: self.consumer_ttl,
        })
    }
}

/// How many messages to begin with: `last`, or `last_n`, its older name.
///
/// # Errors
/// [`Error::BadRequest`] where both are given and differ.
pub fn same_last(last: Option<u32>, last_n: Option<u32>) -> Result<Option<u32>, Error> {
    match (last, last_n) {
        (Some(last), Some(last_n)) if last != last_n => {
            Err(Error::bad_request("last_n", "is another name of last, and must not differ from it"))
        }
        (last, last_n) => Ok(last.or(last_n)),
    }
}

/// Where to begin: at most one of the three.
///
/// # Errors
/// [`Error::BadRequest`] for more than one.
pub fn start(last: Option<u32>, after: Option<Start>, since: Option<Timestamp>) -> Result<Option<Start>, Error> {
    match (last, after, since) {
        (None, None, None) => Ok(None),
        (Some(count), None, None) => Ok(Some(Start::Last(count))),
        (None, Some(after), None) => Ok(Some(after)),
        (None, None, Some(time)) => Ok(Some(Start::Since(time))),
        _ => Err(Error::bad_request("after", "only one of last, after and since may be given")),
    }
}

/// [`start`] of a cursor and a time that are still text.
///
/// # Errors
/// [`Error::BadRequest`] for more than one, or one that cannot be read.
pub fn start_from_text(last: Option<u32>, after: Option<&str>, since: Option<&str>) -> Result<Option<Start>, Error> {
    let after = after.map(|cursor| parse_position("after", cursor)).transpose()?;
    start(last, after, since.map(str::parse).transpose()?)
}

/// Where a consumer is moved: exactly one of the three.
///
/// # Errors
/// [`Error::BadRequest`] for none or more than one, or one that cannot be read.
pub fn seek_target(last: Option<u32>, after: Option<&str>, since: Option<Timestamp>) -> Result<Start, Error> {
    let after = after.map(|cursor| parse_position("after", cursor)).transpose()?;
    start(last, after, since)?
        .ok_or_else(|| Error::bad_request("after", "is missing: one of after, since and last says where to"))
}

/// A duration: a whole number with its unit, `ms`, `s`, `m`, `h` or `d`.
///
/// # Errors
/// [`Error::BadRequest`] that names the field.
pub fn parse_duration(field: &'static str, text: &str) -> Result<Duration, Error> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    let read = || number.parse::<u64>().ok()?.checked_mul(milliseconds?).map(Duration::from_millis);
    read().ok_or_else(|| Error::bad_request(field, "must be a duration like 1500ms, 90s, 15m or 24h"))
}

/// [`parse_duration`] in milliseconds.
///
/// # Errors
/// As there.
pub fn parse_milliseconds(field: &'static str, text: &str) -> Result<u64, Error> {
    Ok(u64::try_from(parse_duration(field, text)?.as_millis()).unwrap_or(u64::MAX))
}

/// A duration as [`parse_duration`] reads it, in the largest unit that it is a whole number of.
#[must_use]
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let units = [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000), ("ms", 1)];
    let found = units.into_iter().find(|(_, unit)| milliseconds >= *unit && milliseconds.is_multiple_of(*unit));
    found.map_or_else(|| "0s".to_owned(), |(name, unit)| format!("{}{name}", milliseconds / unit))
}

/// A filter as JSON.
///
/// # Errors
/// [`Error::BadRequest`] that names the part of the filter.
pub fn parse_filter(json: &str, limits: &FilterLimits) -> Result<Filter, Error> {
    // The error begins with the path to the wrong part, and the path with the field's name.
    let wrong = |error: &str| Error::bad_request("filter", error.strip_prefix("filter: ").unwrap_or(error));
    Filter::parse(json, limits).map_err(|error| wrong(&error.to_string()))
}

fn choice<T: Copy>(field: &'static str, given: Option<&str>, choices: &[(&str, T)]) -> Result<Option<T>, Error> {
    let Some(given) = given else { return Ok(None) };
    let found = choices.iter().find(|(name, _)| *name == given).map(|(_, value)| *value);
    found.map(Some).ok_or_else(|| {
        let names: Vec<_> = choices.iter().map(|(name, _)| *name).collect();
        Error::bad_request(field, format!("must be one of {}", names.join(", ")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_a_unit() {
        let read = |text| parse_duration("consumer_ttl", text);
        assert_eq!(read("1500ms"), Ok(Duration::from_millis(1_500)));
        assert_eq!(read("2s").ok().zip(read("3m").ok()), Some((Duration::from_secs(2), Duration::from_mins(3))));
        assert_eq!(read("24h"), read("1d"));
        for bad in
            ["", "s", "5", "-1s", "1.5s", "1 s", "one hour", "1S", "99999999999999999999s", "18446744073709551615h"]
        {
            assert!(read(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn durations_are_written_as_they_are_read() {
        for text in ["0s", "7ms", "1500ms", "2s", "90s", "5m", "36h", "2d"] {
            assert_eq!(duration_text(parse_duration("x", text).unwrap()), text);
        }
        assert_eq!(duration_text(Duration::from_secs(120)), "2m");
        assert_eq!(parse_milliseconds("x", "2s"), Ok(2_000));
    }

    #[test]
    fn only_one_start() {
        assert!(start_from_text(Some(1), Some("0000000000000001-01"), None).is_err());
        assert!(start_from_text(None, Some("x"), None).is_err());
        assert!(start_from_text(None, None, Some("yesterday")).is_err());
        assert_eq!(start_from_text(None, None, None), Ok(None));
        assert_eq!(same_last(Some(2), Some(2)), Ok(Some(2)));
        assert_eq!(same_last(None, Some(2)), Ok(Some(2)));
        assert!(same_last(Some(2), Some(3)).is_err());
    }

    /// What contradicts is refused whatever door it came through.
    #[test]
    fn contradictions_are_refused() {
        let source = || Source::parse("news").unwrap();
        let ack = Options { ack: Some(Ack::Explicit), ..Options::default() };
        assert_eq!(ack.subscribe(source()).unwrap_err(), Error::bad_request("ack", "needs a consumer"));
        let two = Options { last: Some(1), since: Some(Timestamp::now()), ..Options::default() };
        assert!(matches!(two.subscribe(source()), Err(Error::BadRequest { field: "after", .. })));
        let with_state = Options { last: Some(1), state: true, ..Options::default() };
        assert!(matches!(with_state.subscribe(source()), Err(Error::BadRequest { field: "state", .. })));
        let state = Options { state: true, ..Options::default() };
        assert_eq!(state.subscribe(source()).unwrap().start, Some(Start::State));
        let text = |name| Ok((name == "overflow").then_some("latest".into()));
        let wrong = Options::read((None, false), text, &FilterLimits::default()).err().unwrap();
        assert_eq!(wrong.to_string(), "overflow: must be one of HISTORY, LATEST, LATEST_PER_KEY, DISCONNECT");
    }
}
