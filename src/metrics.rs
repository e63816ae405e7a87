//! `/metrics`: the metric samples of all parts, as Prometheus reads them. Each part names its own, by Prometheus' conventions:
//! in small letters, with the unit behind the name, and `_total` at the end of a counter's name.

use std::{fmt::Write as _, sync::Arc};

use axum::{Router, http::header, routing::get};

use crate::broker::MetricSample;

/// A part of the server that has metric samples.
pub type Part = Box<dyn Fn() -> Vec<MetricSample> + Send + Sync>;

/// The door's route; each request gathers the samples of all parts.
pub fn routes(parts: Vec<Part>) -> Router {
    let parts = Arc::new(parts);
    let gather = move || {
        let text = render(parts.iter().flat_map(|part| part()));
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new().route("/metrics", get(gather))
}

fn render(samples: impl Iterator<Item = MetricSample>) -> String {
    let mut text = String::new();
    for MetricSample { name, counter, help, value } in samples {
        let kind = if counter { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        let _ = writeln!(text, "# HELP pubsub_{name} {help}\n# TYPE pubsub_{name} {kind}\npubsub_{name} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_kind() {
        let sample = MetricSample { name: "x_total", counter: true, help: "How many.", value: 3 };
        assert_eq!(
            render([sample].into_iter()),
            "# HELP pubsub_x_total How many.\n# TYPE pubsub_x_total counter\npubsub_x_total 3\n"
        );
    }
}
