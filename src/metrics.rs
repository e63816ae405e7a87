//! `/metrics`: numbers as Prometheus reads them.

use std::{fmt::Write as _, sync::Arc};

use axum::{Router, http::header, routing::get};

/// One number.
pub struct Sample {
    /// Its name, without the prefix that all share.
    pub name: &'static str,
    /// Whether it only grows.
    pub counter: bool,
    /// What it says, with its unit.
    pub help: &'static str,
    /// The number now.
    pub value: u64,
}

/// The door's route; `collect` is asked at each request.
pub fn routes(collect: Arc<dyn Fn() -> Vec<Sample> + Send + Sync>) -> Router {
    let answer = move || {
        let text = render(&collect());
        async move { ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text) }
    };
    Router::new().route("/metrics", get(answer))
}

fn render(samples: &[Sample]) -> String {
    let mut text = String::new();
    for Sample { name, counter, help, value } in samples {
        let kind = if *counter { "counter" } else { "gauge" };
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
        let sample = Sample { name: "x_total", counter: true, help: "How many.", value: 3 };
        assert_eq!(
            render(&[sample]),
            "# HELP pubsub_x_total How many.\n# TYPE pubsub_x_total counter\npubsub_x_total 3\n"
        );
    }
}
