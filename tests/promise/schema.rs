//! What the checker has to learn of a server before it can speak with it: the names of GraphQL's fields, and how a
//! cursor is read.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::{
    leg::{Ask, Start},
    model::Place,
    net::call,
};

/// How the server names things.
#[derive(Clone, Debug)]
pub struct Dialect {
    /// The publisher's id, in messages and as an argument.
    pub message_id: &'static str,
    /// Whether a pattern can be resumed, and a subscription says that it stands.
    pub resumes: bool,
    previous: bool,
    /// Where the epoch stands in a cursor's text.
    epoch: (usize, usize),
    number: fn(&str) -> Option<u64>,
}

/// The ways in which the number of a cursor may be written; the one that reads all of a topic's cursors right is taken.
const NUMBERS: [fn(&str) -> Option<u64>; 4] = [
    |text| u64::from_str_radix(text, 16).ok(),
    |text| text.parse().ok(),
    |text| u64::from_str_radix(text.get(1..)?, 16).ok(),
    |text| text.get(1..)?.parse().ok(),
];

impl Dialect {
    /// Looks at the schema, and at the cursors of a topic that is made for it.
    pub async fn learn(addr: SocketAddr) -> Result<Self, String> {
        let ask = |query: &str| json!({"query": query});
        let names = ask("{ message: __type(name: \"Message\") { fields { name } } }");
        let answer = call(addr, "POST", "/graphql", Some(&names)).await.ok_or("the schema cannot be read")?;
        let fields = answer.body["data"]["message"]["fields"].clone();
        let has = |name: &str| fields.as_array().into_iter().flatten().any(|field| field["name"] == name);

        let topic = format!("probe-{}", std::process::id());
        let batch: Vec<_> = (0..40).map(|n| json!({"topic": topic, "data": n})).collect();
        let answer = call(addr, "POST", "/publish", Some(&batch.into())).await.ok_or("publishing fails")?;
        let results = answer.body["results"].as_array().cloned().unwrap_or_default();
        let query = ask(&format!("{{ topic(name: {topic:?}) {{ epoch }} }}"));
        let answer = call(addr, "POST", "/graphql", Some(&query)).await.ok_or("no topic")?;
        let epoch = answer.body["data"]["topic"]["epoch"].as_str().unwrap_or_default().to_owned();
        let cursors: Vec<_> =
            results.iter().filter_map(|one| Some((one["cursor"].as_str()?, one["offset"].as_u64()?))).collect();
        let begin = cursors.first().and_then(|(cursor, _)| cursor.find(&epoch)).filter(|_| !epoch.is_empty());
        let begin = begin.ok_or_else(|| format!("the epoch {epoch} is not in {cursors:?}"))?;
        let mut dialect = Self {
            message_id: if has("messageId") { "messageId" } else { "id" },
            resumes: has("patternCursor"),
            previous: has("previous"),
            epoch: (begin, begin + epoch.len()),
            number: |_| None,
        };
        let reads_all = |number: &fn(&str) -> Option<u64>| {
            let read = Self { number: *number, ..dialect.clone() };
            cursors.iter().all(|(cursor, offset)| read.place(cursor).is_some_and(|place| place.offset == *offset))
        };
        let number = NUMBERS.iter().find(|number| reads_all(number)).copied();
        dialect.number = number.ok_or_else(|| format!("cursors cannot be read: {cursors:?}"))?;
        call(addr, "DELETE", &format!("/topics/{topic}"), None).await;
        Ok(dialect)
    }

    /// The place that a topic's cursor names.
    pub fn place(&self, cursor: &str) -> Option<Place> {
        let epoch = cursor.get(self.epoch.0..self.epoch.1)?.to_owned();
        let rest = cursor.get(self.epoch.1..)?.trim_start_matches(|c: char| !c.is_ascii_alphanumeric());
        Some(Place { epoch, offset: (self.number)(rest)? })
    }

    /// The fields of a message.
    pub fn fields(&self) -> String {
        let pattern = if self.resumes { " patternCursor" } else { "" };
        let more = format!("{pattern}{}", if self.previous { " previous" } else { "" });
        format!("{} topic key data offset cursor publishedAt{more}", self.message_id)
    }

    /// A subscription as a GraphQL request.
    pub fn subscription(&self, ask: &Ask) -> Value {
        let query = format!(
            "subscription($topic: String!, $last: Int, $after: Cursor, $since: DateTime, $filter: Filter, \
             $consumer: String, $ack: AckMode, $overflow: Overflow) {{ messages(topic: $topic, last: $last, \
             after: $after, since: $since, filter: $filter, consumer: $consumer, ack: $ack, overflow: $overflow) \
             {{ {} gap {{ missed fromOffset toOffset reason }} }} }}",
            self.fields()
        );
        let mut variables = json!({"topic": ask.target.name, "overflow": ask.overflow.code()});
        match &ask.start {
            Start::Live => {}
            Start::Last(count) => variables["last"] = (*count).into(),
            Start::After { cursor, .. } | Start::Resume { cursor, .. } if !ask.by_header => {
                variables["after"] = cursor.as_str().into();
            }
            Start::After { .. } | Start::Resume { .. } => {}
            Start::Since { text, .. } => variables["since"] = text.as_str().into(),
        }
        if let Some(filter) = &ask.filter {
            variables["filter"] = filter.0.clone();
        }
        if let Some(named) = &ask.consumer {
            variables["consumer"] = named.name.as_str().into();
            variables["ack"] = if named.explicit { "EXPLICIT" } else { "AUTO" }.into();
        }
        json!({"query": query, "variables": variables, "extensions": {"ack": "sub"}})
    }
}
