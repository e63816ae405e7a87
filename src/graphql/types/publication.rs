//! What publishing answers.

use async_graphql::{Description, ID, Object, SimpleObject};

use super::refusal;
use crate::{
    broker,
    graphql::scalars::{Cursor, DateTime, Long},
};

/// Where a published message stands.
#[derive(Description)]
pub struct Publication(pub broker::Publication);

#[Object(use_type_description)]
impl Publication {
    /// The `id` of the message, unique over all topics: the text of `cursor`.
    async fn id(&self) -> ID {
        self.0.cursor.to_string().into()
    }

    /// The message's id in its topic: the given one, else a generated UUID (version 7).
    async fn message_id(&self) -> ID {
        self.0.id.as_str().into()
    }

    /// The topic's name.
    async fn topic(&self) -> &str {
        self.0.topic.as_str()
    }

    /// The message's number in its topic.
    async fn offset(&self) -> Long {
        Long(self.0.cursor.offset)
    }

    /// The message's position, for `after`.
    async fn cursor(&self) -> Cursor {
        self.0.cursor.into()
    }

    /// When the message was accepted.
    async fn published_at(&self) -> DateTime {
        DateTime(self.0.published_at)
    }

    /// Whether the id was published before, and is remembered: this is then the first one's position, and nothing was
    /// stored.
    async fn duplicate(&self) -> bool {
        self.0.duplicate
    }
}

/// One item's own result in a batch: exactly one of the two.
#[derive(SimpleObject)]
pub struct PublishResult {
    /// Where the message stands; null if it was refused.
    pub publication: Option<Publication>,
    /// Why the message was refused; null if it was not.
    pub error: Option<PublishError>,
}

/// Why one message of a batch was refused.
#[derive(SimpleObject)]
pub struct PublishError {
    /// The code, as in other errors' `extensions.code`.
    pub code: String,
    /// One line for people.
    pub message: String,
    /// With `RATE_LIMITED` and `UNAVAILABLE`: milliseconds after which it may be tried again.
    pub retry_after_ms: Option<Long>,
    /// With `CONFLICT`: the topic's newest offset.
    pub current_offset: Option<Long>,
    /// With `UNKNOWN`: the id with which to publish again, so that the message is stored once whatever happened.
    pub message_id: Option<ID>,
}

impl From<Result<broker::Publication, broker::Error>> for PublishResult {
    fn from(result: Result<broker::Publication, broker::Error>) -> Self {
        match result {
            Ok(done) => Self { publication: Some(Publication(done)), error: None },
            Err(error) => {
                let problem = refusal(error);
                let error = PublishError {
                    code: problem.code.as_str().to_owned(),
                    message: problem.message.into_owned(),
                    retry_after_ms: problem
                        .retry_after
                        .map(|wait| Long(wait.as_millis().try_into().unwrap_or(u64::MAX))),
                    current_offset: problem.current_offset.map(Long),
                    message_id: problem.id.map(|id| ID::from(&*id)),
                };
                Self { publication: None, error: Some(error) }
            }
        }
    }
}
