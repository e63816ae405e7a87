//! GraphQL documents from strangers: what they cost before async-graphql sees them is bounded, and what passes is executed
//! without a panic.
//!
//! An input is a document, and behind a zero byte, if there is one, its variables as JSON.

use std::task::{Context, Poll, Waker};

use pub_sub::{
    broker::{self, Client, Inbox},
    graphql::{
        Settings,
        fuzz::{
            Document, DocumentError, Executor, Extensions, OperationFacts, OperationKind, Outcome, Unresolved,
            steps_taken,
        },
    },
};
use serde_json::value::RawValue;
use tokio::runtime::Runtime;

/// Steps that the checks of one document may take: what the tests allow the worst that is known.
const MAX_STEPS: u64 = 150_000;

/// Bytes of one result. Introspection is the largest that can be asked for here.
const MAX_RESULT_BYTES: usize = 16 << 20;

/// What outlives an input, because making a schema takes longer than using it. A broker is emptied in between.
struct World {
    runtime: Runtime,
    settings: Settings,
    client: Client,
    executor: Executor,
}

impl World {
    fn new() -> Self {
        let client = Client::in_memory(broker::Settings {
            max_publish_rate: 0,
            max_topics: 8,
            max_messages_per_topic: 8,
            max_messages_limit: 16,
            ..broker::Settings::default()
        });
        let settings = Settings { persisted_cache_bytes: 0, ..Settings::default() };
        let executor = pub_sub::graphql::fuzz::executor(&settings);
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        Self { runtime, settings, client, executor }
    }

    async fn clear(&self) {
        for topic in self.client.topics("", None, usize::MAX).unwrap_or_default().0 {
            // An implicit one may have gone by itself.
            let _ = self.client.delete_topic(&topic.name).await;
        }
    }
}

thread_local! {
    static WORLD: World = World::new();
}

/// Checks one input.
pub fn run(input: &[u8]) {
    if let Ok(text) = std::str::from_utf8(input) {
        WORLD.with(|world| check(world, text));
    }
}

fn check(world: &World, text: &str) {
    let (text, variables) = text.split_once('\0').unwrap_or((text, "{}"));
    let limits = &world.settings.documents;
    steps_taken();
    let prepared = Document::prepare(text, limits);
    let steps = steps_taken();
    assert!(steps <= MAX_STEPS, "{steps} steps");
    let document = match prepared {
        Ok(document) => document,
        Err(error) => {
            check_error(text, &error);
            return;
        }
    };
    assert!(text.len() <= limits.max_bytes);
    assert_eq!(Document::prepare(text, limits).unwrap().bytes(), document.bytes());

    let names: Vec<Option<String>> = match document.operation(None) {
        Ok(facts) => vec![facts.name.clone()],
        // Several: named in the document, in any order there.
        Err(_) => names_in(text)
            .filter(|name| document.operation(Some(name)).is_ok())
            .map(|name| Some(name.to_owned()))
            .collect(),
    };
    assert!(!names.is_empty(), "a document of no operation");
    world.runtime.block_on(async {
        for name in names.into_iter().take(4) {
            check_facts(document.operation(name.as_deref()).unwrap(), world);
            // The first time async-graphql executes it; after that it is compiled, if it can be.
            for _ in 0..2 {
                execute(world, text, name.as_deref(), variables).await;
            }
        }
        world.clear().await;
    });
}

/// Everything in a text that could be a name.
fn names_in(text: &str) -> impl Iterator<Item = &str> {
    text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).filter(|name| !name.is_empty())
}

/// What is said of a refused document is for its author to read.
fn check_error(text: &str, error: &DocumentError) {
    assert!(!error.message.is_empty() && error.message.len() < 1_024, "{}", error.message);
    // A line ends with \n, \r or both.
    let lines = text.split(['\n', '\r']).count();
    for (line, column) in &error.locations {
        assert!((1..=lines).contains(line) && (1..=text.len() + 1).contains(column), "{error:?}");
    }
}

fn check_facts(facts: &OperationFacts, world: &World) {
    let limits = &world.settings.documents;
    assert!(facts.depth <= limits.max_depth);
    assert!(facts.selections <= limits.max_selections);
    assert!(facts.aliases <= limits.max_aliases);
    assert!(facts.directives <= limits.max_directives);
    assert!(facts.root_fields <= facts.selections);
    assert!(facts.subscription_field.is_none() || facts.kind == OperationKind::Subscription);
}

async fn execute(world: &World, text: &str, name: Option<&str>, variables: &str) {
    let variables = serde_json::from_str::<&RawValue>(variables).map_or("{}", RawValue::get);
    let request = Unresolved {
        query: Some(text.into()),
        document: None,
        operation: name.map(Into::into),
        variables,
        extensions: Extensions::default(),
    };
    let Ok(asked) = world.executor.read(request, &world.client) else { return };
    let Ok(prepared) = world.executor.prepare(asked) else { return };
    if prepared.kind != OperationKind::Subscription {
        if let Outcome::Executed { result, .. } = world.executor.single(prepared, &world.client).await {
            check_result(result.as_bytes());
        }
        return;
    }
    let inbox = Inbox::default();
    let Ok(mut operation) = world.executor.open(prepared, &world.client, &inbox, 7, None).await else { return };
    let topic = world.client.topics("", None, 1).unwrap_or_default().0;
    if let Some(topic) = topic.first() {
        let data = broker::Payload::parse("[1]", 10).unwrap();
        let new_message = broker::NewMessage::of(data);
        let _ = world.client.publish(&topic.name, new_message).await;
    }
    // Each batch is bounded, and there is little to read.
    let mut events = Vec::new();
    for _ in 0..4 {
        let Poll::Ready(_) = inbox.poll_next(&mut Context::from_waker(Waker::noop())) else { break };
        if let Some(last) = operation.deliver(&mut events, |result, _| check_result(result)) {
            check_result(&last);
        }
    }
}

/// A result is one JSON object of a bounded size.
fn check_result(result: &[u8]) {
    assert!(result.len() <= MAX_RESULT_BYTES, "{} bytes", result.len());
    assert!(result.starts_with(b"{"));
    if let Err(error) = serde_json::from_slice::<&RawValue>(result) {
        panic!("{error}: {:.300}", String::from_utf8_lossy(result));
    }
}
