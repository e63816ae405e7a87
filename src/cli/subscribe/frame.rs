//! What a server sends to a subscriber: the JSON objects of `/ws`, which are also the data of event streams.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{super::raw::present, gap::Gap};
use crate::client::{ErrorObject, Failure, Refusal};

/// What has come from the server.
#[derive(Debug)]
pub enum Item {
    /// A message.
    Message(Message),
    /// Something was missed here. The text is the object as it came.
    Gap(Gap, String),
    /// A topic was deleted. The text is the object as it came.
    Deleted(String, String),
    /// The state is complete at this position. The text is the object as it came.
    StateComplete(String, String),
    /// The subscription is open. It begins here, if that can be said.
    Subscribed(Subscribed),
    /// An acknowledgement was accepted or refused.
    Acknowledged(Result<(), Refusal>),
    /// The subscription has ended.
    Ended(Refusal),
    /// The server asks whether what it has sent has arrived.
    Confirm,
    /// Nothing that concerns a subscriber.
    Other,
}

/// A message.
#[derive(Debug)]
pub struct Message {
    /// The whole object as it came.
    pub text: String,
    /// Its data as JSON text.
    pub data: String,
    pub topic: String,
    /// The key that it removes.
    pub removed_key: Option<String>,
    /// Its position in its topic.
    pub cursor: String,
    /// Its position in the subscription, to go on after it.
    pub position: String,
}

/// How a subscription has begun.
#[derive(Debug, Default)]
pub struct Subscribed {
    /// Where it begins.
    pub position: Option<String>,
    /// Of a named consumer: whether the server knew it.
    pub resumed: Option<bool>,
}

/// Every object that concerns a subscriber.
#[derive(Deserialize)]
struct Frame {
    #[serde(rename = "type")]
    kind: String,
    topic: Option<String>,
    #[serde(default, deserialize_with = "present")]
    data: Option<Box<RawValue>>,
    key: Option<String>,
    #[serde(default)]
    removed: bool,
    cursor: Option<String>,
    pattern_cursor: Option<String>,
    msg: Option<String>,
    request_id: Option<String>,
    error: Option<ErrorObject>,
    consumer: Option<Consumer>,
}

#[derive(Deserialize)]
struct Consumer {
    resumed: bool,
    cursor: Option<String>,
}

/// How the frame that subscribes is named in its reply.
pub const SUBSCRIBE: &str = "subscribe";
/// How those that acknowledge are.
pub const ACKNOWLEDGE: &str = "acknowledge";

impl Item {
    /// Reads an object.
    ///
    /// # Errors
    /// [`Failure::Answer`] for what no pub-sub server sends.
    pub fn read(text: String) -> Result<Self, Failure> {
        let unreadable = || Failure::Answer(format!("the server has sent what this program cannot read: {text}"));
        let frame: Frame = serde_json::from_str(&text).map_err(|_| unreadable())?;
        let is_reply = |to: &str| frame.request_id.as_deref() == Some(to);
        Ok(match (frame.kind.as_str(), frame.error) {
            ("event", _) => {
                let (Some(topic), Some(data), Some(cursor)) = (frame.topic, frame.data, frame.cursor) else {
                    return Err(unreadable());
                };
                let data = data.get().to_owned();
                let position = frame.pattern_cursor.unwrap_or_else(|| cursor.clone());
                let removed_key = frame.key.filter(|_| frame.removed);
                Item::Message(Message { text, data, topic, removed_key, cursor, position })
            }
            ("gap", _) => Item::Gap(serde_json::from_str(&text).map_err(|_| unreadable())?, text),
            ("info", _) if frame.msg.as_deref() == Some("topic_deleted") => {
                Item::Deleted(frame.topic.ok_or_else(unreadable)?, text)
            }
            ("state", _) => {
                let position = frame.pattern_cursor.or(frame.cursor).ok_or_else(unreadable)?;
                Item::StateComplete(position, text)
            }
            ("ack", _) if is_reply(SUBSCRIBE) => Item::Subscribed(Subscribed::of(frame.consumer)),
            ("consumer", _) => Item::Subscribed(Subscribed::of(frame.consumer)),
            ("ack", _) if is_reply(ACKNOWLEDGE) => Item::Acknowledged(Ok(())),
            ("error", Some(error)) if is_reply(ACKNOWLEDGE) => Item::Acknowledged(Err(error.into())),
            ("error", Some(error)) => Item::Ended(error.into()),
            _ => Item::Other,
        })
    }
}

impl Subscribed {
    fn of(consumer: Option<Consumer>) -> Self {
        match consumer {
            Some(Consumer { resumed, cursor }) => Self { position: cursor, resumed: Some(resumed) },
            None => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Item {
        Item::read(text.to_owned()).unwrap()
    }

    #[test]
    fn messages_keep_their_data_as_they_are() {
        let text = r#"{"type":"event","topic":"a","data":{"n":1.50e400},"offset":7,"cursor":"e-7","new":1}"#;
        let Item::Message(message) = read(text) else { panic!("no message") };
        assert_eq!((message.data.as_str(), message.position.as_str()), (r#"{"n":1.50e400}"#, "e-7"));
        assert_eq!(message.text, text);
        let Item::Message(message) = read(&text.replace("\"new\":1", "\"pattern_cursor\":\"p-9\"")) else {
            panic!("no message")
        };
        assert_eq!((message.cursor.as_str(), message.position.as_str()), ("e-7", "p-9"));
        let Item::Message(message) = read(r#"{"type":"event","topic":"a","data":null,"cursor":"e-1"}"#) else {
            panic!("no message")
        };
        assert_eq!((message.data.as_str(), message.removed_key), ("null", None));
        let removal = r#"{"type":"event","topic":"a","data":null,"key":"k","removed":true,"cursor":"e-1"}"#;
        let Item::Message(message) = read(removal) else { panic!("no message") };
        assert_eq!(message.removed_key.as_deref(), Some("k"));
    }

    #[test]
    fn replies_and_notices_are_told_apart() {
        let ack = r#"{"type":"ack","topic":"a","status":"ok","request_id":"subscribe","consumer":{"name":"c","resumed":false,"cursor":"e-0"}}"#;
        let Item::Subscribed(begun) = read(ack) else { panic!("no reply") };
        assert_eq!((begun.position.as_deref(), begun.resumed), (Some("e-0"), Some(false)));
        assert!(matches!(read(r#"{"type":"ack","request_id":"acknowledge"}"#), Item::Acknowledged(Ok(()))));
        let error = r#"{"type":"error","topic":"a","error":{"code":"CONSUMER_TAKEN_OVER","message":"gone"}}"#;
        assert!(matches!(read(error), Item::Ended(refusal) if refusal.code == "CONSUMER_TAKEN_OVER"));
        let deleted = r#"{"type":"info","topic":"a","msg":"topic_deleted"}"#;
        assert!(matches!(read(deleted), Item::Deleted(topic, _) if topic == "a"));
        let complete = r#"{"type":"state","topic":"a","cursor":"e-7"}"#;
        assert!(matches!(read(complete), Item::StateComplete(position, _) if position == "e-7"));
        assert!(matches!(read(r#"{"type":"later"}"#), Item::Other));
        assert!(Item::read("<html>".to_owned()).is_err());
        assert!(Item::read(r#"{"type":"event","topic":"a"}"#.to_owned()).is_err());
    }
}
