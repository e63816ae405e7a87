//! The broker's metric samples.

use super::{Broker, MetricSample};

impl Broker {
    /// The samples of the broker and of its engine.
    #[must_use]
    pub fn metric_samples(&self) -> Vec<MetricSample> {
        let totals = self.totals();
        let counter = |name, help, value| MetricSample { name, label: None, counter: true, help, value };
        let gauge =
            |name, help, value: usize| MetricSample { name, label: None, counter: false, help, value: value as u64 };
        let mut samples = vec![
            gauge("topics", "Topics that exist.", totals.topics),
            gauge("subscriptions", "Live subscriptions.", totals.subscriptions),
            gauge("patterns", "Different patterns that are subscribed.", totals.patterns),
            gauge("history_messages", "Messages that all histories keep.", totals.messages),
            gauge("history_bytes", "Bytes that all histories take in memory.", totals.history_bytes),
            gauge("dedup_bytes", "Bytes of message ids whose messages are not kept any more.", totals.dedup_bytes),
            counter(
                "dedup_forgotten_early_total",
                "Message ids forgotten before DEDUP_WINDOW was over, because DEDUP_BYTES was used up.",
                totals.dedup_forgotten_early,
            ),
            counter("messages_published_total", "Messages accepted since the start.", totals.published),
        ];
        samples.extend(self.0.engine.metric_samples());
        samples
    }
}
