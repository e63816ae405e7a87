//! The text that Prometheus reads, and OpenMetrics: a parser that accepts nothing but what the two formats allow.

use std::collections::{BTreeMap, BTreeSet};

/// Which of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Prometheus,
    OpenMetrics,
}

/// All families of one text.
#[derive(Debug)]
pub struct Exposition {
    pub families: Vec<Family>,
}

/// A family, under the name that it has in Prometheus' own form.
#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub kind: String,
    pub help: String,
    pub samples: Vec<Sample>,
}

#[derive(Debug)]
pub struct Sample {
    pub name: String,
    pub labels: BTreeMap<String, String>,
    pub value: f64,
}

#[track_caller]
fn name(text: &str) -> &str {
    let is_name = text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_')
        && text.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    assert!(is_name, "{text:?} is no name");
    text
}

fn unescape(text: &str, quotes: bool) -> String {
    let (mut out, mut chars) = (String::new(), text.chars());
    while let Some(c) = chars.next() {
        out.push(match c {
            '\\' => match chars.next() {
                Some('\\') => '\\',
                Some('n') => '\n',
                Some('"') if quotes => '"',
                other => panic!("\\{other:?} in {text:?}"),
            },
            '"' if quotes => panic!("a quotation mark that is not escaped in {text:?}"),
            c => c,
        });
    }
    out
}

/// `a="b",c="d"}` and what follows.
fn labels(mut text: &str) -> (BTreeMap<String, String>, &str) {
    let mut found = BTreeMap::new();
    loop {
        let (label, rest) = text.split_once("=\"").unwrap_or_else(|| panic!("no label in {text:?}"));
        let mut end = None;
        let mut is_escaped = false;
        for (at, c) in rest.char_indices() {
            match c {
                '"' if !is_escaped => {
                    end = Some(at);
                    break;
                }
                '\\' => is_escaped = !is_escaped,
                _ => is_escaped = false,
            }
        }
        let end = end.unwrap_or_else(|| panic!("no end of a label's value in {text:?}"));
        let before = found.insert(name(label).to_owned(), unescape(&rest[..end], true));
        assert!(before.is_none(), "{label} twice");
        match &rest[end + 1..] {
            rest if rest.starts_with(',') => text = &rest[1..],
            rest if rest.starts_with('}') => return (found, &rest[1..]),
            rest => panic!("{rest:?} behind a label"),
        }
    }
}

impl Sample {
    fn parse(line: &str) -> Self {
        let end = line.find(['{', ' ']).unwrap_or_else(|| panic!("no value in {line:?}"));
        let (of, rest) = line.split_at(end);
        let (labels, rest) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest),
            None => (BTreeMap::new(), rest),
        };
        let number = rest.strip_prefix(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
        assert!(number.bytes().all(|byte| byte.is_ascii_digit() || b".-+e".contains(&byte)), "{line:?}");
        Self { name: name(of).to_owned(), labels, value: number.parse().unwrap_or_else(|_| panic!("{line:?}")) }
    }

    fn has(&self, labels: &[(&str, &str)]) -> bool {
        self.labels.len() == labels.len()
            && labels.iter().all(|(name, value)| self.labels.get(*name).is_some_and(|it| it == value))
    }
}

impl Exposition {
    #[track_caller]
    pub fn parse(text: &str, form: Form) -> Self {
        let text = match form {
            Form::Prometheus => text.strip_suffix('\n').expect("a line feed at the end"),
            Form::OpenMetrics => text.strip_suffix("\n# EOF\n").expect("the end of OpenMetrics"),
        };
        let mut families: Vec<Family> = Vec::new();
        let mut lines = text.lines().peekable();
        while let Some(line) = lines.next() {
            let of = |line: &str, what: &str| {
                let rest = line.strip_prefix(&format!("# {what} ")).unwrap_or_else(|| panic!("no {what} in {line:?}"));
                let (of, rest) = rest.split_once(' ').unwrap_or_else(|| panic!("nothing behind {line:?}"));
                (name(of).to_owned(), rest.to_owned())
            };
            let next = lines.next().unwrap_or_else(|| panic!("nothing after {line:?}"));
            let ((family, help), (same, kind)) = match form {
                Form::Prometheus => (of(line, "HELP"), of(next, "TYPE")),
                Form::OpenMetrics => (of(next, "HELP"), of(line, "TYPE")),
            };
            assert_eq!(family, same);
            assert!(["counter", "gauge", "histogram"].contains(&kind.as_str()), "{kind}");
            let help = unescape(&help, form == Form::OpenMetrics);
            assert!(help.ends_with('.') && help.len() > 5, "{family} has no help");
            let mut samples = Vec::new();
            while let Some(line) = lines.next_if(|line| !line.starts_with('#')) {
                samples.push(Sample::parse(line));
            }
            let name = match (form, kind.as_str()) {
                (Form::OpenMetrics, "counter") => {
                    assert!(!family.ends_with("_total"), "{family}");
                    family + "_total"
                }
                _ => family,
            };
            assert_eq!(kind == "counter", name.ends_with("_total"), "{name} is a {kind}");
            assert!(!families.iter().any(|known| known.name == name), "{name} stands twice");
            let family = Family { name, kind, help, samples };
            family.check();
            families.push(family);
        }
        Self { families }
    }

    #[track_caller]
    pub fn family(&self, name: &str) -> &Family {
        self.families.iter().find(|family| family.name == name).unwrap_or_else(|| panic!("no {name}"))
    }

    pub fn try_number(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut samples = self.families.iter().flat_map(|family| &family.samples);
        samples.find(|sample| sample.name == name && sample.has(labels)).map(|sample| sample.value)
    }

    /// The value of the series with these labels and no others.
    #[track_caller]
    pub fn number(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.try_number(name, labels).unwrap_or_else(|| panic!("no {name} with {labels:?}"))
    }
}

impl Family {
    fn check(&self) {
        let mut seen = BTreeSet::new();
        for Sample { name, labels, value } in &self.samples {
            assert!(seen.insert((name, labels)), "{name} with {labels:?} twice");
            assert!(*value >= 0.0, "{name} is {value}");
            match self.kind.as_str() {
                "histogram" => {
                    let part = name.strip_prefix(&self.name).unwrap_or_else(|| panic!("{name} in {}", self.name));
                    assert!(["_bucket", "_sum", "_count"].contains(&part), "{name}");
                    assert_eq!(part == "_bucket", labels.contains_key("le"), "{name}");
                }
                _ => assert_eq!(name, &self.name),
            }
        }
        if self.kind == "histogram" {
            let buckets: Vec<_> = self.samples.iter().filter(|sample| sample.name.ends_with("_bucket")).collect();
            let bound = |sample: &Sample| match sample.labels["le"].as_str() {
                "+Inf" => f64::INFINITY,
                bound => bound.parse().unwrap(),
            };
            assert!(buckets.windows(2).all(|two| bound(two[0]) < bound(two[1]) && two[0].value <= two[1].value));
            let (last, count) = (buckets.last().unwrap(), self.samples.last().unwrap());
            assert_eq!((bound(last), last.value), (f64::INFINITY, count.value));
            assert!(count.name.ends_with("_count"));
        }
    }
}
