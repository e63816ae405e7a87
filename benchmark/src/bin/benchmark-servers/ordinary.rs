//! What an ordinary Rust program does with axum, tokio's broadcast channel, serde and async-graphql, and their defaults: topics
//! with a history of 1,000 messages, ids, offsets and acknowledgements. Each subscriber serialises and flushes each message.

use std::{
    collections::{HashMap, VecDeque},
    convert::Infallible,
    io,
    sync::{Arc, Mutex},
};

use axum::{
    Json, Router,
    extract::{
        Path, State, WebSocketUpgrade,
        ws::{Message as Frame, WebSocket},
    },
    http::StatusCode,
    response::{
        IntoResponse as _, Response, Sse,
        sse::{Event as SseEvent, KeepAlive},
    },
    routing::{get, post},
    serve::ListenerExt as _,
};
use futures_util::{SinkExt as _, Stream, StreamExt as _, stream, stream::SplitSink};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::sync::broadcast;

/// Messages that a topic keeps.
const HISTORY: usize = 1_000;

/// One message.
#[derive(Serialize)]
pub struct Event {
    #[serde(rename = "type")]
    kind: &'static str,
    pub topic: String,
    pub data: Value,
    pub id: String,
    pub offset: u64,
    pub published_at: String,
}

struct Topic {
    history: Mutex<History>,
    live: broadcast::Sender<Arc<Event>>,
}

#[derive(Default)]
struct History {
    offset: u64,
    messages: VecDeque<Arc<Event>>,
}

/// All topics.
#[derive(Clone, Default)]
pub struct Broker(Arc<Mutex<HashMap<String, Arc<Topic>>>>);

impl Broker {
    fn topic(&self, name: &str) -> Arc<Topic> {
        let mut topics = self.0.lock().unwrap();
        if let Some(topic) = topics.get(name) {
            return Arc::clone(topic);
        }
        let topic = Arc::new(Topic { history: Mutex::default(), live: broadcast::channel(HISTORY).0 });
        topics.insert(name.to_owned(), Arc::clone(&topic));
        topic
    }

    pub fn publish(&self, topic: String, data: Value) -> Arc<Event> {
        let found = self.topic(&topic);
        let id = uuid::Uuid::now_v7().to_string();
        let published_at = jiff::Timestamp::now().to_string();
        let mut history = found.history.lock().unwrap();
        history.offset += 1;
        let event = Arc::new(Event { kind: "event", topic, data, id, offset: history.offset, published_at });
        if history.messages.len() == HISTORY {
            history.messages.pop_front();
        }
        history.messages.push_back(Arc::clone(&event));
        // Nobody subscribes: that is no error.
        let _ = found.live.send(Arc::clone(&event));
        event
    }

    pub fn subscribe(&self, topic: &str) -> impl Stream<Item = Arc<Event>> + Send + use<> {
        stream::unfold(self.topic(topic).live.subscribe(), |mut live| async move {
            loop {
                match live.recv().await {
                    Ok(event) => return Some((event, live)),
                    Err(broadcast::error::RecvError::Lagged(_)) => {}
                    Err(broadcast::error::RecvError::Closed) => return None,
                }
            }
        })
    }
}

pub fn run() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let broker = Broker::default();
        let app = Router::new()
            .route("/health", get(|| async { "ok" }))
            .route("/ws", get(upgrade))
            .route("/publish", post(publish))
            .route("/topics/{name}/messages", get(events))
            .merge(crate::ordinary_graphql::routes(broker.clone()))
            .with_state(broker);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        crate::announce(listener.local_addr()?);
        let listener = listener.tap_io(|stream| drop(stream.set_nodelay(true)));
        axum::serve(listener, app).await
    })
}

/// What a client sends over the WebSocket.
#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Request {
    Subscribe { topic: String },
    Publish { topic: String, data: Value },
}

#[derive(Serialize)]
struct Ack<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    topic: &'a str,
    status: &'static str,
    id: Option<&'a str>,
    offset: Option<u64>,
    ts: String,
}

async fn upgrade(upgrade: WebSocketUpgrade, State(broker): State<Broker>) -> Response {
    upgrade.on_upgrade(|socket| serve(socket, broker))
}

type Sink = Arc<tokio::sync::Mutex<SplitSink<WebSocket, Frame>>>;

async fn serve(socket: WebSocket, broker: Broker) {
    let (sink, mut requests) = socket.split();
    let sink = Arc::new(tokio::sync::Mutex::new(sink));
    let mut tasks = tokio::task::JoinSet::new();
    while let Some(Ok(frame)) = requests.next().await {
        let Frame::Text(text) = frame else { continue };
        let sent = match serde_json::from_str(&text) {
            Ok(Request::Publish { topic, data }) => {
                let event = broker.publish(topic, data);
                acknowledge(&sink, &event.topic, Some(&event)).await
            }
            Ok(Request::Subscribe { topic }) => {
                let events = broker.subscribe(&topic);
                let acknowledged = acknowledge(&sink, &topic, None).await;
                tasks.spawn(forward(Box::pin(events), Arc::clone(&sink)));
                acknowledged
            }
            Err(error) => sink.lock().await.send(Frame::Text(error.to_string().into())).await,
        };
        if sent.is_err() {
            break;
        }
    }
}

async fn acknowledge(sink: &Sink, topic: &str, event: Option<&Event>) -> Result<(), axum::Error> {
    let id = event.map(|event| event.id.as_str());
    let ts = jiff::Timestamp::now().to_string();
    let ack = Ack { kind: "ack", topic, status: "ok", id, offset: event.map(|event| event.offset), ts };
    let text = serde_json::to_string(&ack).map_err(axum::Error::new)?;
    sink.lock().await.send(Frame::Text(text.into())).await
}

async fn forward(mut events: impl Stream<Item = Arc<Event>> + Unpin, sink: Sink) {
    while let Some(event) = events.next().await {
        let Ok(text) = serde_json::to_string(&*event) else { continue };
        if sink.lock().await.send(Frame::Text(text.into())).await.is_err() {
            return;
        }
    }
}

#[derive(Deserialize)]
struct Publish {
    topic: String,
    data: Value,
}

#[derive(Serialize)]
struct Published {
    status: &'static str,
    topic: String,
    id: String,
    offset: u64,
}

async fn publish(State(broker): State<Broker>, Json(body): Json<Publish>) -> Response {
    let event = broker.publish(body.topic, body.data);
    let published =
        Published { status: "published", topic: event.topic.clone(), id: event.id.clone(), offset: event.offset };
    (StatusCode::OK, Json(published)).into_response()
}

async fn events(
    State(broker): State<Broker>,
    Path(topic): Path<String>,
) -> Sse<impl Stream<Item = Result<SseEvent, Infallible>>> {
    let events = broker.subscribe(&topic).map(|event| {
        let text = serde_json::to_string(&*event).unwrap_or_default();
        Ok(SseEvent::default().event("message").id(event.offset.to_string()).data(text))
    });
    Sse::new(events).keep_alive(KeepAlive::default())
}
