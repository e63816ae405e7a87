//! A topic's settings: one type from the doors to the stores.
//!
//! A new setting is a field of [`TopicConfig`] and of [`TopicBounds`]. Merging, checking and storing it is done here
//! for every engine, for exports and for imports; each door maps it once.

use std::{ops::RangeInclusive, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, de::Error as _};

use super::{Age, Error};

/// What a topic sets for itself. What is `None` follows the server's settings, also when those change; in an update it
/// stays as it is.
///
/// Its form in JSON is the stored one: an entry of the clustered engine has these names, and an export has them in
/// camelCase.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TopicConfig {
    /// The bound of its history in messages, 1 or more.
    #[serde(alias = "maxMessages", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub max_messages: Option<usize>,
    /// Messages a second that may be published; 0 means no limit.
    #[serde(alias = "maxPublishRate", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub max_publish_rate: Option<u32>,
    /// How old its messages may become; [`Age::UNLIMITED`] means that there is no limit.
    #[serde(alias = "maxAge", skip_serializing_if = "Option::is_none")]
    pub max_age: Option<Age>,
    /// Milliseconds of silence after which the topic is said to be silent, 1,000 or more; 0 means never.
    #[serde(alias = "expectEvery", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub expect_every: Option<u64>,
    /// Which of its messages are kept.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// How many keys may have a value where only the newest message of each key is kept, 1 or more.
    #[serde(alias = "maxKeys", deserialize_with = "number", skip_serializing_if = "Option::is_none")]
    pub max_keys: Option<usize>,
}

/// Which messages of a topic are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Retention {
    /// The newest ones, up to the topic's bounds.
    #[default]
    History,
    /// The newest one of each key, however old it is.
    LatestPerKey,
}

impl Retention {
    /// The name at every door.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            Retention::History => "HISTORY",
            Retention::LatestPerKey => "LATEST_PER_KEY",
        }
    }

    /// The retention of this name.
    ///
    /// # Errors
    /// [`Error::BadRequest`].
    pub fn parse(text: &str) -> Result<Self, Error> {
        [Self::History, Self::LatestPerKey]
            .into_iter()
            .find(|retention| retention.code() == text)
            .ok_or_else(|| Error::bad_request("retention", "must be HISTORY or LATEST_PER_KEY"))
    }
}

/// What holds for a topic: its own settings over those of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopicBounds {
    /// The bound of its history in messages, 1 or more.
    pub max_messages: usize,
    /// Messages a second that may be published; 0 means no limit.
    pub max_publish_rate: u32,
    /// How old its messages may become; [`Age::UNLIMITED`] means that there is no limit.
    pub max_age: Age,
    /// After how long a silence the topic is said to be silent, if it is at all.
    pub expect_every: Option<Duration>,
    /// Which of its messages are kept.
    pub retention: Retention,
    /// How many keys may have a value where only the newest message of each key is kept, 1 or more.
    pub max_keys: usize,
    /// How long the removal of a key is remembered there; [`Age::UNLIMITED`] means as long as the topic.
    pub tombstone_ttl: Age,
}

/// How many keys of a topic may have a value, unless the server's or the topic's settings say something else.
pub const MAX_KEYS: usize = 1_000_000;

/// How long the removal of a key is remembered, unless the server's settings say something else: 24 hours.
const TOMBSTONE_TTL_MS: u64 = 24 * 3_600_000;

/// The shortest and the longest silence that a topic may be said to be silent after, in milliseconds. Silence is looked for
/// about once a second.
const SILENCES: RangeInclusive<u64> = 1_000..=366 * 24 * 3_600_000;

/// The bytes of the first stored form.
const FIRST_FORM: usize = 13;

impl TopicBounds {
    /// What holds where a topic sets nothing.
    #[must_use]
    pub const fn new(max_messages: usize, max_publish_rate: u32) -> Self {
        Self {
            max_messages,
            max_publish_rate,
            max_age: Age::UNLIMITED,
            expect_every: None,
            retention: Retention::History,
            max_keys: MAX_KEYS,
            tombstone_ttl: Age::from_millis(TOMBSTONE_TTL_MS),
        }
    }

    /// How many messages of the topic are kept at most, however many keys they have.
    #[must_use]
    pub fn keeps(&self) -> usize {
        match self.retention {
            Retention::History => self.max_messages,
            Retention::LatestPerKey => usize::MAX,
        }
    }
}

impl TopicConfig {
    /// A history of so many messages, and no limit on the rate.
    #[must_use]
    pub const fn keeping(max_messages: usize) -> Self {
        Self {
            max_messages: Some(max_messages),
            max_publish_rate: Some(0),
            max_age: None,
            expect_every: None,
            retention: None,
            max_keys: None,
        }
    }

    /// These settings; where they say nothing, those of `rest`.
    #[must_use]
    pub fn or(self, rest: Self) -> Self {
        Self {
            max_messages: self.max_messages.or(rest.max_messages),
            max_publish_rate: self.max_publish_rate.or(rest.max_publish_rate),
            max_age: self.max_age.or(rest.max_age),
            expect_every: self.expect_every.or(rest.expect_every),
            retention: self.retention.or(rest.retention),
            max_keys: self.max_keys.or(rest.max_keys),
        }
    }

    /// What holds for a topic with these settings.
    #[must_use]
    pub fn bounds(self, defaults: TopicBounds) -> TopicBounds {
        let retention = self.retention.unwrap_or_default();
        TopicBounds {
            max_messages: self.max_messages.unwrap_or(defaults.max_messages).max(1),
            max_publish_rate: self.max_publish_rate.unwrap_or(defaults.max_publish_rate),
            max_age: match retention {
                Retention::History => self.max_age.unwrap_or(defaults.max_age),
                Retention::LatestPerKey => Age::UNLIMITED,
            },
            expect_every: self.expect_every.filter(|silence| *silence > 0).map(Duration::from_millis),
            retention,
            max_keys: self.max_keys.unwrap_or(defaults.max_keys).max(1),
            tombstone_ttl: defaults.tombstone_ttl,
        }
    }

    /// Whether a topic may be set to this, where the largest bound of a history is `max_messages_limit`, and that of keys
    /// `max_keys_limit`.
    ///
    /// # Errors
    /// [`Error::BadRequest`] that names the setting.
    pub fn check(self, max_messages_limit: usize, max_keys_limit: usize) -> Result<(), Error> {
        if self.max_keys.is_some_and(|count| count == 0 || count > max_keys_limit) {
            return Err(Error::bad_request("max_keys", format!("must be from 1 to {max_keys_limit}")));
        }
        if self.max_messages.is_some_and(|count| count == 0 || count > max_messages_limit) {
            return Err(Error::bad_request("max_messages", format!("must be from 1 to {max_messages_limit}")));
        }
        if self.expect_every.is_some_and(|silence| silence != 0 && !SILENCES.contains(&silence)) {
            return Err(Error::bad_request("expect_every", "must be from 1s to 366d, or 0s for never"));
        }
        Ok(())
    }

    /// The settings as bytes of a log's record: the fixed form of the first version, which all versions read, and
    /// behind it what that form has no room for, as JSON.
    #[must_use]
    pub fn encode(self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(FIRST_FORM);
        // No history is of 0 messages, so 0 says that the topic sets none.
        bytes.extend((self.max_messages.unwrap_or(0) as u64).to_le_bytes());
        bytes.extend(self.max_publish_rate.unwrap_or(0).to_le_bytes());
        bytes.push(u8::from(self.max_publish_rate.is_some()));
        let mut further = self;
        (further.max_messages, further.max_publish_rate) = (None, None);
        if further != Self::default() {
            // Numbers always have a form in JSON.
            bytes.extend(serde_json::to_vec(&further).unwrap_or_default());
        }
        bytes
    }

    /// Reads what [`TopicConfig::encode`] writes; `None` if the bytes are of something else.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        let (max_messages, rest) = bytes.split_first_chunk::<8>()?;
        let (rate, rest) = rest.split_first_chunk::<4>()?;
        let (has_rate, further) = rest.split_first()?;
        let max_messages = usize::try_from(u64::from_le_bytes(*max_messages)).ok()?;
        let first = Self {
            max_messages: Some(max_messages).filter(|count| *count > 0),
            max_publish_rate: (*has_rate != 0).then(|| u32::from_le_bytes(*rate)),
            ..Self::default()
        };
        if further.is_empty() { Some(first) } else { Some(first.or(serde_json::from_slice(further).ok()?)) }
    }
}

/// A number of an object whose fields are read through a buffer (`serde(flatten)`): there, with `arbitrary_precision`,
/// only `serde_json`'s own type reads one.
fn number<'de, D: Deserializer<'de>, T: TryFrom<u64>>(deserializer: D) -> Result<Option<T>, D::Error> {
    let Some(number) = Option::<serde_json::Number>::deserialize(deserializer)? else { return Ok(None) };
    let read = number.as_u64().and_then(|number| T::try_from(number).ok());
    read.map(Some).ok_or_else(|| D::Error::custom(format!("invalid value: {number}, which is out of range")))
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOTH: TopicConfig = TopicConfig::keeping(7);

    #[test]
    fn what_is_stored_can_be_read() {
        let aged = TopicConfig { max_age: Some(Age::from_millis(90_000)), ..BOTH };
        let unlimited = TopicConfig { max_age: Some(Age::UNLIMITED), ..TopicConfig::default() };
        let expecting = TopicConfig { expect_every: Some(300_000), ..BOTH };
        let one = TopicConfig { max_messages: None, ..BOTH };
        let latest = TopicConfig { retention: Some(Retention::LatestPerKey), max_keys: Some(9), ..BOTH };
        for config in [BOTH, aged, unlimited, TopicConfig::default(), one, expecting, latest] {
            assert_eq!(TopicConfig::decode(&config.encode()), Some(config));
            let json = serde_json::to_string(&config).unwrap();
            assert_eq!(serde_json::from_str::<TopicConfig>(&json).unwrap(), config);
        }
        assert_eq!(serde_json::to_string(&BOTH).unwrap(), r#"{"max_messages":7,"max_publish_rate":0}"#);
    }

    #[test]
    fn the_first_form_stays_what_it_is() {
        assert_eq!(BOTH.encode(), [7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        let none = [0; FIRST_FORM];
        assert_eq!(TopicConfig::decode(&none), Some(TopicConfig::default()));
        assert_eq!(TopicConfig::decode(&none[1..]), None);
        // Behind it stands what it has no room for; a setting of a later version is passed over.
        let longer = |json: &[u8]| TopicConfig::decode(&[&none[..], json].concat());
        let rate = TopicConfig { max_publish_rate: Some(9), ..TopicConfig::default() };
        assert_eq!(longer(br#"{"max_publish_rate":9,"later":"x"}"#), Some(rate));
        assert_eq!(longer(b"{"), None);
    }

    #[test]
    fn exports_have_other_names_and_every_number_has_a_range() {
        let camel = r#"{"maxMessages":7,"maxPublishRate":0}"#;
        assert_eq!(serde_json::from_str::<TopicConfig>(camel).unwrap(), BOTH);
        let aged = serde_json::from_str::<TopicConfig>(r#"{"maxAge":"90s"}"#).unwrap();
        assert_eq!(aged.max_age, Some(Age::from_millis(90_000)));
        for bad in [
            r#"{"max_age":90}"#,
            r#"{"max_publish_rate":4294967296}"#,
            r#"{"max_messages":-1}"#,
            r#"{"max_messages":"7"}"#,
        ] {
            assert!(serde_json::from_str::<TopicConfig>(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_change_goes_before_what_was_set_and_that_before_the_server() {
        let set = TopicConfig { max_publish_rate: None, ..BOTH };
        let change = TopicConfig { max_messages: Some(9), ..TopicConfig::default() };
        assert_eq!(change.or(set), TopicConfig { max_messages: Some(9), ..TopicConfig::default() });
        let defaults = TopicBounds { max_age: Age::from_millis(7), ..TopicBounds::new(1, 5) };
        let bounds = TopicBounds { max_messages: 9, ..defaults };
        assert_eq!(change.or(set).bounds(defaults), bounds);
        let unlimited = TopicConfig { max_age: Some(Age::UNLIMITED), ..change };
        assert_eq!(unlimited.bounds(defaults), TopicBounds { max_age: Age::UNLIMITED, ..bounds });
        assert!(change.check(9, 1).is_ok() && change.check(8, 1).is_err());
        for (keys, good) in [(0, false), (1, true), (5, true), (6, false)] {
            let config = TopicConfig { max_keys: Some(keys), ..TopicConfig::default() };
            assert_eq!(config.check(9, 5).is_ok(), good, "{keys}");
        }
        let latest = TopicConfig { retention: Some(Retention::LatestPerKey), ..change }.bounds(defaults);
        assert_eq!((latest.max_age, latest.keeps(), latest.max_messages), (Age::UNLIMITED, usize::MAX, 9));
        for (silence, good) in [(0, true), (1, false), (999, false), (1_000, true), (u64::MAX, false)] {
            let config = TopicConfig { expect_every: Some(silence), ..TopicConfig::default() };
            assert_eq!(config.check(9, 1).is_ok(), good, "{silence}");
        }
        let off = TopicConfig { expect_every: Some(0), ..TopicConfig::default() };
        let on = TopicConfig { expect_every: Some(2_000), ..TopicConfig::default() };
        assert_eq!(off.or(on).bounds(defaults).expect_every, None);
        assert_eq!(TopicConfig::default().or(on).bounds(defaults).expect_every, Some(Duration::from_secs(2)));
    }
}
