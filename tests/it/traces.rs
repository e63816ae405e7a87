//! Traces, as a collector sees them: through every way in, to the deliveries, and over several instances.

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use axum::{Router, body::Bytes, http::HeaderMap, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{KeyValue, any_value::Value as Any},
    trace::v1::{Span, span::SpanKind, status::StatusCode},
};
use prost::Message as _;
use pub_sub::{broker::Secret, config::Config, engine::nats::Settings};
use serde_json::{Value, json};

use crate::{
    doors::{raw_ws::Socket, sse::EventStream},
    harness::{TestServer, alone, eventually},
    nats::Nats,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

fn traceparent(flags: &str) -> String {
    format!("00-{TRACE}-{PARENT}-{flags}")
}

/// A collector that takes OTLP over HTTP.
#[derive(Clone)]
struct Collector {
    addr: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    resources: Arc<Mutex<Vec<KeyValue>>>,
    headers: Arc<Mutex<Option<HeaderMap>>>,
}

impl Collector {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let collector = Self {
            addr: listener.local_addr().unwrap(),
            spans: Arc::default(),
            resources: Arc::default(),
            headers: Arc::default(),
        };
        let taken = collector.clone();
        let take = async move |headers: HeaderMap, body: Bytes| {
            let request = ExportTraceServiceRequest::decode(body).unwrap();
            *taken.headers.lock().unwrap() = Some(headers);
            for of_resource in request.resource_spans {
                *taken.resources.lock().unwrap() = of_resource.resource.unwrap_or_default().attributes;
                let spans = of_resource.scope_spans.into_iter().flat_map(|of_scope| of_scope.spans);
                taken.spans.lock().unwrap().extend(spans);
            }
        };
        let routes = Router::new().route("/v1/traces", post(take));
        tokio::spawn(async move { axum::serve(listener, routes).await });
        collector
    }

    fn configure(&self, config: &mut Config) {
        config.traces.endpoint = format!("http://{}", self.addr);
    }

    /// So many spans, by their names.
    async fn spans(&self, count: usize) -> Vec<Span> {
        let mut spans = eventually("spans", || async {
            let spans = self.spans.lock().unwrap().clone();
            (spans.len() >= count).then_some(spans)
        })
        .await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.sort_by(|a, b| a.name.cmp(&b.name));
        spans
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn attribute(attributes: &[KeyValue], key: &str) -> Option<String> {
    let value = attributes.iter().find(|attribute| attribute.key == key)?.value.clone()?.value?;
    Some(match value {
        Any::StringValue(text) => text,
        Any::IntValue(number) => number.to_string(),
        Any::BoolValue(is) => is.to_string(),
        other => panic!("{other:?}"),
    })
}

#[tokio::test]
async fn a_message_is_traced_from_its_publisher_to_its_subscribers() {
    let collector = Collector::start().await;
    let server = TestServer::with(|config| {
        collector.configure(config);
        config.traces.headers = Secret::new("authorization=Bearer x, x-team = a".to_owned());
    });
    let mut plain = Socket::connect(&server, "/ws", None).await;
    plain.send(r#"{"type":"subscribe","topic":"news","consumer":"worker"}"#).await;
    assert_eq!(plain.json().await["type"], "ack");
    let request = "GET /topics/news/messages HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n";
    let mut events = EventStream::open(&server, request).await.unwrap();
    server.wait_for_subscribers("news", 2).await;
    let query = "mutation { publish(topic: \"news\", data: 1) { offset } }";
    let body = json!({"query": query, "extensions": {"traceparent": traceparent("01"), "tracestate": "a=1"}});
    server.post("/graphql", &body).await.expect(200);
    let delivered = plain.json().await;
    let event: Value = serde_json::from_str(&events.next().await.unwrap().data).unwrap();
    assert_eq!(delivered["headers"], event["headers"]);
    assert_eq!(delivered["headers"]["tracestate"], "a=1");

    let spans = collector.spans(3).await;
    let (published, deliveries) = (&spans[2], &spans[..2]);
    assert_eq!(published.name, "publish news");
    assert_eq!((hex(&published.trace_id), hex(&published.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    assert_eq!(published.kind, SpanKind::Producer as i32);
    let of_publish = |key: &str| attribute(&published.attributes, key);
    assert_eq!(of_publish("messaging.destination.name").as_deref(), Some("news"));
    assert_eq!(of_publish("messaging.message.id").as_deref(), delivered["id"].as_str());
    assert_eq!(of_publish("pubsub.interface").as_deref(), Some("graphql"));
    // The message carries the span of its publishing.
    let carried = format!("00-{TRACE}-{}-01", hex(&published.span_id));
    assert_eq!(delivered["headers"]["traceparent"], carried);
    for delivery in deliveries {
        assert_eq!((&*delivery.name, delivery.kind), ("deliver news", SpanKind::Consumer as i32));
        assert_eq!((&delivery.trace_id, &delivery.parent_span_id), (&published.trace_id, &published.span_id));
        assert!(delivery.start_time_unix_nano <= delivery.end_time_unix_nano);
    }
    let mut consumers: Vec<_> =
        deliveries.iter().map(|span| attribute(&span.attributes, "messaging.consumer.group.name")).collect();
    consumers.sort();
    assert_eq!(consumers, [None, Some("worker".to_owned())]);
    // OpenMetrics leads from the latency of deliveries to the trace.
    let request = server.request(reqwest::Method::GET, "/metrics").header("accept", "application/openmetrics-text");
    let metrics = server.send(request).await.text;
    let exemplar = format!(" # {{trace_id=\"{TRACE}\"}} ");
    let buckets = metrics.lines().filter(|line| line.starts_with("pubsub_delivery_latency_seconds_bucket"));
    let with_exemplar: Vec<_> = buckets.filter_map(|line| line.split_once(&exemplar)).collect();
    assert!((1..=2).contains(&with_exemplar.len()), "{metrics}");
    let (seconds, at) = with_exemplar[0].1.split_once(' ').unwrap();
    assert!(seconds.parse::<f64>().unwrap() < 60.0 && at.parse::<f64>().unwrap() > 1.7e9, "{seconds} {at}");
    let resource = collector.resources.lock().unwrap().clone();
    assert_eq!(attribute(&resource, "service.name").as_deref(), Some("pub-sub"));
    let headers = collector.headers.lock().unwrap().clone().unwrap();
    assert_eq!((headers["authorization"].as_bytes(), headers["x-team"].as_bytes()), (&b"Bearer x"[..], &b"a"[..]));
}

#[tokio::test]
async fn what_is_refused_is_a_failed_span() {
    let collector = Collector::start().await;
    let server = TestServer::with(|config| {
        collector.configure(config);
        config.traces.messaging_attributes = false;
    });
    let body = json!([{"topic": "a", "data": 1}, {"topic": "a", "data": 2, "expected_offset": 7}]);
    assert_eq!(server.post("/publish", &body).await.status, 207);
    let spans = collector.spans(2).await;
    let failed = |span: &&Span| span.status.as_ref().is_some_and(|status| status.code == StatusCode::Error as i32);
    assert_eq!(spans.iter().filter(failed).count(), 1);
    assert!(spans.iter().all(|span| span.parent_span_id.is_empty()));
    let keys = spans.iter().flat_map(|span| &span.attributes).map(|attribute| attribute.key.as_str());
    assert!(keys.clone().all(|key| key.starts_with("pubsub.")) && keys.count() > 0);
}

#[tokio::test]
async fn a_trace_that_is_not_recorded_goes_by() {
    let collector = Collector::start().await;
    let server = TestServer::with(|config| {
        collector.configure(config);
        config.traces.sample_percent = 0;
    });
    let mut plain = Socket::connect(&server, "/ws", None).await;
    plain.send(r#"{"type":"subscribe","topic":"news"}"#).await;
    assert_eq!(plain.json().await["type"], "ack");
    // One begins here and is not recorded; one is not recorded by its client; one is.
    server.publish("news", 1.into()).await;
    for flags in ["00", "01"] {
        let request = server.request(reqwest::Method::POST, "/publish").header("traceparent", traceparent(flags));
        server.send(request.json(&json!({"topic": "news", "data": flags}))).await.expect(200);
    }
    let headers = [plain.json().await, plain.json().await, plain.json().await].map(|mut event| event["headers"].take());
    assert_eq!((&headers[0], &headers[1]["traceparent"]), (&Value::Null, &traceparent("00").into()));
    let spans = collector.spans(2).await;
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:#?}");
    assert_eq!(headers[2]["traceparent"], format!("00-{TRACE}-{}-01", hex(&spans[1].span_id)));
}

/// A collector that is not there costs spans, and nothing else.
#[tokio::test]
async fn without_its_collector_the_server_goes_on() {
    let server = TestServer::with(|config| config.traces.endpoint = "http://127.0.0.1:1".to_owned());
    server.publish_numbers("news", 1..=100).await;
    assert_eq!(server.get("/topics/news").await.expect(200)["messages"], 100);
}

#[tokio::test]
async fn a_trace_goes_on_at_another_instance() {
    let _alone = alone().await;
    let nats = Nats::single().await;
    let collector = Collector::start().await;
    let instance = || {
        TestServer::with(|config| {
            collector.configure(config);
            config.engine.engine = "nats".to_owned();
            config.engine.nats = Settings { url: nats.urls().join(","), ..Settings::default() };
        })
    };
    let (a, b) = (instance(), instance());
    let mut plain = Socket::connect(&b, "/ws", None).await;
    plain.send(r#"{"type":"subscribe","topic":"news"}"#).await;
    assert_eq!(plain.json().await["type"], "ack");
    let mut publisher = Socket::connect(&a, "/ws", None).await;
    let frame = json!({"type": "publish", "topic": "news", "data": 1, "headers": {"traceparent": traceparent("01")}});
    publisher.send(frame.to_string()).await;
    assert_eq!(publisher.json().await["status"], "ok");
    // What the publisher gave stays.
    assert_eq!(plain.json().await["headers"]["traceparent"], traceparent("01"));
    let spans = collector.spans(2).await;
    assert_eq!(spans.iter().map(|span| &*span.name).collect::<Vec<_>>(), ["deliver news", "publish news"]);
    for span in spans {
        assert_eq!((hex(&span.trace_id), hex(&span.parent_span_id)), (TRACE.to_owned(), PARENT.to_owned()));
    }
}
