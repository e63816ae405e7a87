//! `/metrics`: the metric samples of all parts, as Prometheus reads them. Each part names its own, by Prometheus' conventions:
//! in small letters, with the unit behind the name, and `_total` at the end of a counter's name.

use std::{fmt::Write as _, sync::Arc};

use axum::{Router, http::header, routing::get};

use crate::{access::Caller, broker::MetricSample, problem::Problem};

/// A part of the server that has metric samples.
pub type Part = Box<dyn Fn() -> Vec<MetricSample> + Send + Sync>;

/// The door's route; each request gathers the samples of all parts.
pub fn routes(parts: Vec<Part>) -> Router {
    let parts = Arc::new(parts);
    let gather = move |Caller(client): Caller| {
        // What is not to be read is not gathered.
        let text = client.check_stats().map(|()| render(parts.iter().flat_map(|part| part())));
        async move {
            let text = text.map_err(Problem::from)?;
            Ok::<_, Problem>(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
        }
    };
    Router::new().route("/metrics", get(gather))
}

fn render(samples: impl Iterator<Item = MetricSample>) -> String {
    let (mut text, mut last) = (String::new(), "");
    for MetricSample { name, label, counter, help, value } in samples {
        let kind = if counter { "counter" } else { "gauge" };
        // Writing to a String cannot fail.
        if name != last {
            let _ = writeln!(text, "# HELP pubsub_{name} {help}\n# TYPE pubsub_{name} {kind}");
        }
        last = name;
        let label = label.map(|(label, value)| format!("{{{label}=\"{value}\"}}")).unwrap_or_default();
        let _ = writeln!(text, "pubsub_{name}{label} {value}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_their_kind() {
        let sample = MetricSample { name: "x_total", label: None, counter: true, help: "How many.", value: 3 };
        assert_eq!(
            render([sample].into_iter()),
            "# HELP pubsub_x_total How many.\n# TYPE pubsub_x_total counter\npubsub_x_total 3\n"
        );
    }
}
