//! The broker's metrics.

use super::{Broker, ConsumerLag, MetricFamily, MetricKind, MetricSample, MetricSeries, MetricValue};
use crate::{channel::renderings, engine::Health};

/// Consumers whose lag is looked at for one scrape: each takes a topic's lock for a moment.
const CONSUMERS_LOOKED_AT: usize = 10_000;

/// The most topics with series of their own.
pub const MAX_METRICS_TOPICS: usize = 1_000;

impl Broker {
    /// The metrics of the broker and of its engine.
    #[must_use]
    pub fn metric_families(&self) -> Vec<MetricFamily> {
        let mut families = MetricFamily::from_samples(self.metric_samples());
        families.extend(self.0.measures.families());
        families.push(self.0.open.family());
        families.extend(self.lag_of_consumers());
        families.extend(self.busiest_topics());
        families
    }

    fn metric_samples(&self) -> Vec<MetricSample> {
        let totals = self.totals();
        let (made, shared) = renderings();
        let health = self.0.engine.health();
        let counter = |name, help, value| MetricSample { name, label: None, counter: true, help, value };
        let gauge =
            |name, help, value: usize| MetricSample { name, label: None, counter: false, help, value: value as u64 };
        let mut samples = vec![
            gauge("topics", "Topics that exist.", totals.topics),
            gauge(
                "silent_topics",
                "Topics in which nothing was published for longer than their expect_every.",
                self.0.registry.silent(),
            ),
            gauge("subscriptions", "Live subscriptions.", totals.subscriptions),
            gauge("patterns", "Different patterns that are subscribed.", totals.patterns),
            gauge("consumers", "Named consumers that this instance knows.", self.0.consumers.count()),
            gauge("history_messages", "Messages that all histories keep.", totals.messages),
            gauge("history_bytes", "Bytes that all histories take in memory.", totals.history_bytes),
            gauge("dedup_bytes", "Bytes of message ids whose messages are not kept any more.", totals.dedup_bytes),
            counter(
                "dedup_forgotten_early_total",
                "Message ids forgotten before DEDUP_WINDOW was over, because DEDUP_BYTES was used up.",
                totals.dedup_forgotten_early,
            ),
            counter("messages_published_total", "Messages accepted since the start.", totals.published),
            counter("renderings_made_total", "Messages that were written out in one of their forms.", made),
            counter("renderings_shared_total", "Times that what had been written out before was used again.", shared),
            gauge("ready", "Whether the server can do all that it is there for.", self.check_ready().is_ok().into()),
            gauge("engine_writable", "Whether the engine stores.", (health == Health::Ready).into()),
        ];
        samples.extend(self.0.engine.metric_samples());
        samples
    }

    /// How far the consumer is behind that is furthest, of the first [`CONSUMERS_LOOKED_AT`].
    fn lag_of_consumers(&self) -> [MetricFamily; 2] {
        let known = self.0.consumers.all();
        let lags = known.iter().take(CONSUMERS_LOOKED_AT).flat_map(|consumer| self.lags(&consumer.position()));
        let worst = lags.fold(ConsumerLag::default(), |worst, lag| ConsumerLag {
            messages: worst.messages.max(lag.messages),
            time: worst.time.max(lag.time),
        });
        let gauge = |name, help, value| MetricFamily::of(MetricKind::Gauge, name, help, value);
        [
            gauge(
                "consumer_lag_messages_max",
                "Messages behind the position of the consumer that is furthest behind in a topic.",
                MetricValue::Whole(worst.messages),
            ),
            gauge(
                "consumer_lag_seconds_max",
                "How long the oldest message has waited that a consumer has not confirmed.",
                MetricValue::Number(worst.time.as_secs_f64()),
            ),
        ]
    }

    /// The topics with the most messages, as many as the setting says.
    fn busiest_topics(&self) -> Vec<MetricFamily> {
        let most = self.0.settings.metrics_topics;
        if most == 0 {
            return Vec::new();
        }
        let mut topics: Vec<_> = self.0.registry.all().into_iter().map(|topic| (topic.total(), topic)).collect();
        topics.sort_by(|(a, one), (b, other)| b.cmp(a).then_with(|| one.name().cmp(other.name())));
        topics.truncate(most);
        let family = |kind, name, help| MetricFamily::new(kind, name, help);
        let mut families = [
            family(MetricKind::Counter, "topic_messages_total", "Messages of a topic since this instance knows it."),
            family(MetricKind::Gauge, "topic_history_messages", "Messages that a topic's history keeps."),
            family(MetricKind::Gauge, "topic_subscriptions", "Live subscriptions of a topic, through patterns too."),
            family(
                MetricKind::Gauge,
                "topic_lag_messages_max",
                "Messages that the subscription has not read that is furthest behind in a topic.",
            ),
        ];
        for (total, topic) in topics {
            let info = topic.info();
            let lag = topic.subscriptions(1).first().map_or(0, |worst| worst.lag);
            let numbers = [total, info.messages as u64, info.subscribers as u64, lag];
            for (family, number) in families.iter_mut().zip(numbers) {
                let labels = vec![("topic", topic.name().to_string().into())];
                family.series.push(MetricSeries { labels, value: MetricValue::Whole(number) });
            }
        }
        families.into()
    }
}
