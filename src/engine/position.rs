//! A consumer's position as engines write it down: a JSON object that later versions may add to.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::channel::{Ack, Position, Timestamp, TopicName};

#[derive(Serialize, Deserialize)]
struct Written<'a> {
    ack: &'a str,
    used_at: i64,
    /// Topic and cursor.
    #[serde(rename = "places")]
    cursors: Vec<(String, String)>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    since: Option<String>,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    ttl: Option<u64>,
    /// Where instances share positions: the subscription that has it, by a name of its own.
    #[serde(default, skip_serializing_if = "str::is_empty")]
    holder: &'a str,
    #[serde(default, skip_serializing_if = "is_zero")]
    seeks: u64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

/// The position, and who has it, as bytes.
pub(super) fn encode(position: &Position, holder: &str) -> Vec<u8> {
    let cursors = position.cursors.iter().map(|(topic, cursor)| (topic.to_string(), cursor.to_string()));
    let written = Written {
        ack: position.ack.code(),
        used_at: position.used_at.0,
        cursors: cursors.collect(),
        since: position.since.as_ref().map(ToString::to_string),
        ttl: position.ttl.map(|ttl| u64::try_from(ttl.as_millis()).unwrap_or(u64::MAX)),
        holder,
        seeks: position.seeks,
    };
    // Strings and numbers always have a form in JSON.
    serde_json::to_vec(&written).unwrap_or_default()
}

/// The position, and who has it, from bytes; `None` if they are of something else. A cursor that cannot be read is left
/// out: there the consumer begins again, and gets a gap.
pub(super) fn decode(bytes: &[u8]) -> Option<(Position, String)> {
    let written: Written<'_> = serde_json::from_slice(bytes).ok()?;
    let ack = [Ack::Auto, Ack::Explicit].into_iter().find(|ack| ack.code() == written.ack)?;
    let cursor = |(topic, cursor): (String, String)| Some((TopicName::parse(&topic).ok()?, cursor.parse().ok()?));
    let cursors = written.cursors.into_iter().filter_map(cursor).collect();
    let ttl = written.ttl.map(Duration::from_millis);
    let since = written.since.and_then(|since| since.parse().ok());
    let (used_at, seeks) = (Timestamp(written.used_at), written.seeks);
    Some((Position { ack, cursors, since, used_at, ttl, seeks }, written.holder.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::channel::{Cursor, Epoch};

    #[test]
    fn what_is_written_can_be_read() {
        let at = |topic: &str, offset| (TopicName::parse(topic).unwrap(), Cursor { epoch: Epoch::random(), offset });
        let position = Position {
            ack: Ack::Explicit,
            used_at: Timestamp(-7),
            ttl: Some(Duration::from_millis(1_500)),
            since: Some("p0123456789abcdef-17f".parse().unwrap()),
            cursors: vec![at("a.1", 0), at("ünï \"x\"", u64::MAX)],
            seeks: 3,
        };
        assert_eq!(decode(&encode(&position, "x")), Some((position, "x".to_owned())));
        for bad in ["", "{}", "[]", r#"{"ack":"LATER","used_at":1,"places":[]}"#, r#"{"ack":"AUTO"}"#] {
            assert_eq!(decode(bad.as_bytes()), None, "{bad}");
        }
        let odd = br#"{"ack":"AUTO","used_at":1,"places":[["a*","x"],["b","y"]],"new":1}"#;
        assert_eq!(decode(odd).unwrap().0.cursors, []);
    }
}
