//! Traces for an OpenTelemetry collector: a span for each message that is published in a trace that is recorded, until the engine
//! has accepted it, and one for each of its deliveries. The context goes with the message, in its headers. Without
//! `OTLP_ENDPOINT` none of this exists.

mod post;

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, SystemTime},
};

use opentelemetry::{
    Context, KeyValue, SpanId, TraceFlags, TraceId,
    trace::{
        Span as _, SpanContext, SpanKind, Status, TraceContextExt as _, TraceState, Tracer as _, TracerProvider as _,
    },
};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig as _, WithHttpConfig as _};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracer, SdkTracerProvider, Span},
};

use crate::broker::{Error, Message, Publication, Publish, Secret, TopicName, TraceContext, Tracer};
use post::Poster;

/// Where traces go, and which.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The URL of the collector; empty if nothing is recorded.
    pub endpoint: String,
    /// Headers for the collector, as `name=value`, separated by commas.
    pub headers: Secret,
    /// How many of a hundred traces that begin here are recorded.
    pub sample_percent: u32,
    /// Whether spans have the attributes of OpenTelemetry's conventions for messaging.
    pub messaging_attributes: bool,
}

impl Default for Settings {
    fn default() -> Self {
        Self { endpoint: String::new(), headers: Secret::default(), sample_percent: 100, messaging_attributes: true }
    }
}

impl Settings {
    /// Checks the values.
    ///
    /// # Errors
    /// One line that names the setting.
    pub fn check(&self) -> Result<(), String> {
        if !self.endpoint.is_empty() {
            let uri: Option<hyper::Uri> = self.endpoint.parse().ok();
            let is_http = |uri: &hyper::Uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some();
            let Some(uri) = uri.filter(is_http) else {
                return Err("OTLP_ENDPOINT: must be a URL like http://localhost:4318".to_owned());
            };
            // The log and `pub-sub config` show the URL.
            if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
                return Err(
                    "OTLP_ENDPOINT: must not contain a user or a password; OTLP_HEADERS has room for them".to_owned()
                );
            }
        }
        self.headers().map(drop)
    }

    fn headers(&self) -> Result<HashMap<String, String>, String> {
        let given = self.headers.reveal().split(',').map(str::trim).filter(|pair| !pair.is_empty());
        let one = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let (name, value) = (name.trim(), value.trim());
            let is_header = hyper::header::HeaderName::try_from(name).is_ok()
                && hyper::header::HeaderValue::try_from(value).is_ok();
            is_header.then(|| (name.to_owned(), value.to_owned()))
        };
        given
            .map(|pair| one(pair).ok_or_else(|| "OTLP_HEADERS: must be name=value, separated by commas".to_owned()))
            .collect()
    }
}

/// Records spans, and brings them to the collector in batches.
pub struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
    messaging_attributes: bool,
}

impl Traces {
    /// Begins to record, if that is wanted. Called on the server's runtime.
    ///
    /// # Errors
    /// One line that names the setting.
    pub fn open(settings: &Settings) -> Result<Option<Arc<Self>>, String> {
        if settings.endpoint.is_empty() {
            return Ok(None);
        }
        let wrong = |error: String| format!("OTLP_ENDPOINT: {error}");
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Poster::new().map_err(wrong)?)
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", settings.endpoint.trim_end_matches('/')))
            .with_headers(settings.headers()?)
            .build()
            .map_err(|error| wrong(error.to_string()))?;
        let ratio = f64::from(settings.sample_percent) / 100.0;
        let sampler = Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio)));
        let resource = Resource::builder()
            .with_service_name("pub-sub")
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .with_attribute(KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(sampler)
            .with_resource(resource)
            .build();
        let tracer = provider.tracer("pub-sub");
        let messaging_attributes = settings.messaging_attributes;
        tracing::info!(endpoint = settings.endpoint, percent = settings.sample_percent, "traces are recorded");
        Ok(Some(Arc::new(Self { provider, tracer, messaging_attributes })))
    }

    /// Brings what is left to the collector, which may take some seconds.
    pub async fn close(self: Arc<Self>) {
        // It waits for a thread, which waits for the runtime.
        let closed = tokio::task::spawn_blocking(move || self.provider.shutdown_with_timeout(Duration::from_secs(3)));
        if let Ok(Err(error)) = closed.await {
            tracing::warn!(%error, "the last spans did not get to the collector");
        }
    }

    fn attributes(&self, operation: &'static str, topic: &TopicName, door: &'static str) -> Vec<KeyValue> {
        let mut attributes = vec![KeyValue::new("pubsub.interface", door)];
        if self.messaging_attributes {
            attributes.extend([
                KeyValue::new("messaging.system", "pub-sub"),
                KeyValue::new("messaging.operation.name", operation),
                KeyValue::new("messaging.operation.type", if operation == "publish" { "send" } else { "process" }),
                KeyValue::new("messaging.destination.name", topic.as_str().to_owned()),
            ]);
        }
        attributes
    }
}

impl Tracer for Traces {
    fn publish(
        &self,
        topic: &TopicName,
        within: Option<&TraceContext>,
        door: &'static str,
    ) -> Option<Box<dyn Publish>> {
        let parent = within.map_or_else(Context::new, remote);
        let span = self
            .tracer
            .span_builder(format!("publish {topic}"))
            .with_kind(SpanKind::Producer)
            .with_attributes(self.attributes("publish", topic, door))
            .start_with_context(&self.tracer, &parent);
        span.span_context().is_sampled().then(|| {
            let publishing = Publishing { span, messaging_attributes: self.messaging_attributes };
            Box::new(publishing) as Box<dyn Publish>
        })
    }

    fn deliver(&self, message: &Message, within: &TraceContext, door: &'static str, consumer: Option<&str>) {
        let mut attributes = self.attributes("deliver", &message.topic, door);
        attributes.push(KeyValue::new("pubsub.message.offset", offset(message.cursor.offset)));
        if self.messaging_attributes {
            attributes.push(KeyValue::new("messaging.message.id", message.id.as_str().to_owned()));
            if let Some(consumer) = consumer {
                attributes.push(KeyValue::new("messaging.consumer.group.name", consumer.to_owned()));
            }
        }
        // From the moment at which the message was accepted, so that its length is what the delivery took.
        let accepted = Duration::from_millis(u64::try_from(message.published_at.0).unwrap_or_default());
        let mut span = self
            .tracer
            .span_builder(format!("deliver {}", message.topic))
            .with_kind(SpanKind::Consumer)
            .with_start_time((SystemTime::UNIX_EPOCH + accepted).min(SystemTime::now()))
            .with_attributes(attributes)
            .start_with_context(&self.tracer, &remote(within));
        span.end();
    }
}

/// Attributes are signed.
fn offset(offset: u64) -> i64 {
    i64::try_from(offset).unwrap_or(i64::MAX)
}

/// The context as OpenTelemetry has it.
fn remote(context: &TraceContext) -> Context {
    let mut fields = context.parent().split('-').skip(1);
    let mut field = || fields.next().unwrap_or_default();
    let (trace, parent) = (TraceId::from_hex(field()), SpanId::from_hex(field()));
    let flags = if context.is_sampled() { TraceFlags::SAMPLED } else { TraceFlags::default() };
    let state = context.state().and_then(|state| state.parse::<TraceState>().ok()).unwrap_or_default();
    let (trace, parent) = (trace.unwrap_or(TraceId::INVALID), parent.unwrap_or(SpanId::INVALID));
    Context::new().with_remote_span_context(SpanContext::new(trace, parent, flags, true, state))
}

/// The span of a message that is being published.
struct Publishing {
    span: Span,
    messaging_attributes: bool,
}

impl Publish for Publishing {
    fn context(&self) -> TraceContext {
        let context = self.span.span_context();
        let flags = context.trace_flags().to_u8();
        let parent = format!("00-{}-{}-{flags:02x}", context.trace_id(), context.span_id());
        let state = context.trace_state().header();
        TraceContext::recorded(&parent, Some(state.as_str()).filter(|state| !state.is_empty()))
    }

    fn end(mut self: Box<Self>, result: &Result<Publication, Error>) {
        match result {
            Ok(done) => {
                self.span.set_attribute(KeyValue::new("pubsub.message.offset", offset(done.cursor.offset)));
                self.span.set_attribute(KeyValue::new("pubsub.message.duplicate", done.duplicate));
                if self.messaging_attributes {
                    self.span.set_attribute(KeyValue::new("messaging.message.id", done.id.as_str().to_owned()));
                }
            }
            Err(error) => self.span.set_status(Status::error(error.to_string())),
        }
        self.span.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_are_checked() {
        let checked = |endpoint: &str, headers: &str| {
            let headers = Secret::new(headers.to_owned());
            Settings { endpoint: endpoint.to_owned(), headers, ..Settings::default() }.check()
        };
        for (endpoint, headers) in
            [("", ""), ("http://localhost:4318", "a=b"), ("https://a.example/otlp/", "authorization=Bearer x=, b=")]
        {
            assert_eq!(checked(endpoint, headers), Ok(()), "{endpoint} {headers}");
        }
        for endpoint in ["localhost:4318", "ftp://a", "http://", "/v1/traces", "http://user:secret@a"] {
            let refused = checked(endpoint, "").unwrap_err();
            assert!(refused.starts_with("OTLP_ENDPOINT: ") && !refused.contains("secret"), "{refused}");
        }
        for headers in ["a", "a b=c", "=c", "a=b\u{1}c"] {
            assert!(checked("", headers).unwrap_err().starts_with("OTLP_HEADERS: "), "{headers}");
        }
    }
}
