//! `/metrics`: the metric families of all parts, as Prometheus reads them. Each part names its own, by Prometheus' conventions:
//! in small letters, with the unit behind the name, and `_total` at the end of a counter's name. The names of what a process
//! uses are those of all services; the others begin with `pubsub_`.

mod process;

use std::{fmt::Write as _, sync::Arc};

use axum::{
    Router,
    http::{HeaderMap, HeaderValue, header},
    routing::get,
};

use crate::{
    access::Caller,
    broker::{Exemplar, MetricFamily, MetricKind, MetricSeries, MetricValue, bounds_in_seconds},
    headers,
    problem::{self, Problem},
};

/// A part of the server that has metrics.
pub type Part = Box<dyn Fn() -> Vec<MetricFamily> + Send + Sync>;

/// The form of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Prometheus' own, version 0.0.4.
    Prometheus,
    /// `OpenMetrics` 1.0.0.
    OpenMetrics,
}

impl Form {
    /// `OpenMetrics` where the client asks for it by name, as Prometheus does.
    fn wanted_by(headers: &HeaderMap) -> Self {
        let asks = |item: &str| headers::with_parameters(item).0.eq_ignore_ascii_case("application/openmetrics-text");
        if headers::items(headers, "Accept").any(asks) { Form::OpenMetrics } else { Form::Prometheus }
    }

    fn content_type(self) -> HeaderValue {
        HeaderValue::from_static(match self {
            Form::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Form::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8",
        })
    }
}

/// The door's route; each request gathers the metrics of all parts.
pub fn routes(parts: Vec<Part>) -> Router {
    let parts = Arc::new(parts);
    let gather = move |Caller(client): Caller, headers: HeaderMap| {
        let form = Form::wanted_by(&headers);
        // What is not to be read is not gathered.
        let text = client.check_stats().map(|()| {
            let families = parts.iter().flat_map(|part| part()).chain([errors()]).chain(process::families());
            render(families, form)
        });
        async move {
            let text = text.map_err(Problem::from)?;
            let headers =
                [(header::CONTENT_TYPE, form.content_type()), (header::VARY, HeaderValue::from_static("accept"))];
            Ok::<_, Problem>((headers, text))
        }
    };
    Router::new().route("/metrics", get(gather))
}

/// The errors that clients were told, by their codes.
fn errors() -> MetricFamily {
    let family = MetricFamily::new(MetricKind::Counter, "errors_total", "Errors that clients were told.");
    problem::counted().fold(family, |family, (code, count)| family.with("code", code, MetricValue::Whole(count)))
}

fn render(families: impl Iterator<Item = MetricFamily>, form: Form) -> String {
    let mut text = String::new();
    for family in families {
        let prefix = if family.name.starts_with("process_") { "" } else { "pubsub_" };
        let name = format!("{prefix}{}", family.name);
        // In OpenMetrics a family of counters has the name without `_total`, and its samples have it.
        let of_family = match (form, family.kind) {
            (Form::OpenMetrics, MetricKind::Counter) => name.strip_suffix("_total").unwrap_or(&name),
            _ => &name,
        };
        let (help, kind) = (escape_help(family.help, form), family.kind.name());
        // Writing to a String cannot fail.
        let _ = match form {
            Form::Prometheus => writeln!(text, "# HELP {of_family} {help}\n# TYPE {of_family} {kind}"),
            Form::OpenMetrics => writeln!(text, "# TYPE {of_family} {kind}\n# HELP {of_family} {help}"),
        };
        for series in &family.series {
            write_series(&mut text, &name, series, form);
        }
    }
    if form == Form::OpenMetrics {
        text.push_str("# EOF\n");
    }
    text
}

fn write_series(text: &mut String, name: &str, MetricSeries { labels, value }: &MetricSeries, form: Form) {
    let of = |more: Option<(&str, &str)>| {
        let all = labels.iter().map(|(label, value)| (*label, &**value)).chain(more);
        let written: Vec<_> = all.map(|(label, value)| format!("{label}=\"{}\"", escape(value))).collect();
        if written.is_empty() { String::new() } else { format!("{{{}}}", written.join(",")) }
    };
    let _ = match value {
        MetricValue::Whole(number) => writeln!(text, "{name}{} {number}", of(None)),
        MetricValue::Number(number) => writeln!(text, "{name}{} {number}", of(None)),
        MetricValue::Counted(counted, exemplars) => {
            let mut below = 0;
            let bounds = bounds_in_seconds().map(|bound| bound.to_string()).chain(["+Inf".to_owned()]);
            // Only OpenMetrics knows exemplars.
            let exemplars = if form == Form::OpenMetrics { exemplars.as_slice() } else { &[] };
            for (bucket, (bound, count)) in bounds.zip(counted.counts).enumerate() {
                below += count;
                let exemplar = exemplars.get(bucket).and_then(Option::as_ref).map(exemplar).unwrap_or_default();
                let _ = writeln!(text, "{name}_bucket{} {below}{exemplar}", of(Some(("le", &bound))));
            }
            let (seconds, rest) = (counted.sum / 1_000_000, counted.sum % 1_000_000);
            writeln!(text, "{name}_sum{labels} {seconds}.{rest:06}\n{name}_count{labels} {below}", labels = of(None))
        }
    };
}

/// What stands behind a bucket: the id of a trace, how long it took and when, in seconds.
fn exemplar(Exemplar { trace_id, micros, at }: &Exemplar) -> String {
    let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
    let (at, at_rest) = (at.0.div_euclid(1_000), at.0.rem_euclid(1_000));
    format!(" # {{trace_id=\"{trace_id}\"}} {seconds}.{rest:06} {at}.{at_rest:03}")
}

/// A label's value as both forms write it.
fn escape(value: &str) -> String {
    value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

fn escape_help(help: &str, form: Form) -> String {
    match form {
        Form::Prometheus => help.replace('\\', "\\\\").replace('\n', "\\n"),
        Form::OpenMetrics => escape(help),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::MetricSample;

    fn families() -> Vec<MetricFamily> {
        let sample =
            |label, value| MetricSample { name: "x_total", label, counter: true, help: "How \"many\".", value };
        let mut families = MetricFamily::from_samples([sample(None, 3), sample(Some(("why", "so")), 4)]);
        let odd = MetricValue::Number(0.5);
        families.push(MetricFamily::new(MetricKind::Gauge, "process_y", "One.").with("topic", "a\"\\\nb", odd));
        families
    }

    #[test]
    fn numbers_have_their_kind() {
        assert_eq!(
            render(families().into_iter(), Form::Prometheus),
            "# HELP pubsub_x_total How \"many\".\n# TYPE pubsub_x_total counter\npubsub_x_total 3\n\
             pubsub_x_total{why=\"so\"} 4\n# HELP process_y One.\n# TYPE process_y gauge\n\
             process_y{topic=\"a\\\"\\\\\\nb\"} 0.5\n"
        );
        assert_eq!(
            render(families().into_iter().take(1), Form::OpenMetrics),
            "# TYPE pubsub_x counter\n# HELP pubsub_x How \\\"many\\\".\npubsub_x_total 3\npubsub_x_total{why=\"so\"} 4\n# EOF\n"
        );
    }

    #[test]
    fn buckets_count_all_below_them() {
        let mut counted = crate::broker::Counted::default();
        (counted.counts[0], counted.counts[2], counted.counts[17], counted.sum) = (1, 2, 3, 40_000_007);
        let text = render([MetricFamily::histogram("z_seconds", "Time.", counted)].into_iter(), Form::Prometheus);
        for line in [
            "# TYPE pubsub_z_seconds histogram",
            "pubsub_z_seconds_bucket{le=\"0.00005\"} 1",
            "pubsub_z_seconds_bucket{le=\"0.0001\"} 1",
            "pubsub_z_seconds_bucket{le=\"0.00025\"} 3",
            "pubsub_z_seconds_bucket{le=\"10\"} 3",
            "pubsub_z_seconds_bucket{le=\"+Inf\"} 6",
            "pubsub_z_seconds_sum 40.000007",
            "pubsub_z_seconds_count 6",
        ] {
            assert!(text.lines().any(|known| known == line), "{line} in {text}");
        }
    }

    #[test]
    fn openmetrics_has_exemplars() {
        let mut counted = crate::broker::Counted::default();
        (counted.counts[0], counted.counts[1], counted.sum) = (1, 1, 101);
        let at = crate::broker::Timestamp(1_795_000_000_007);
        let exemplars = vec![None, Some(Exemplar { trace_id: "4bf9".into(), micros: 61, at })];
        let family = MetricFamily::with_exemplars("z_seconds", "Time.", counted, exemplars);
        let text = |form| render([family.clone()].into_iter(), form);
        let line = "pubsub_z_seconds_bucket{le=\"0.0001\"} 2 # {trace_id=\"4bf9\"} 0.000061 1795000000.007";
        assert!(text(Form::OpenMetrics).lines().any(|known| known == line), "{}", text(Form::OpenMetrics));
        assert!(!text(Form::Prometheus).contains(" # "));
    }

    #[test]
    fn openmetrics_is_asked_for_by_name() {
        let form = |accept: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, HeaderValue::from_str(accept).unwrap());
            Form::wanted_by(&headers)
        };
        let prometheus =
            "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,text/plain;version=0.0.4;q=0.4";
        assert_eq!(form(prometheus), Form::OpenMetrics);
        for other in ["*/*", "text/plain", ""] {
            assert_eq!(form(other), Form::Prometheus, "{other}");
        }
        assert_eq!(Form::wanted_by(&HeaderMap::new()), Form::Prometheus);
    }
}
