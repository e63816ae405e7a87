//! Filters, and what a filter says of a message, worked out without the server.

use serde_json::{Value, json};

use crate::random::Random;

/// What filters look at.
#[derive(Clone, Debug)]
pub struct Subject {
    pub key: Option<String>,
    pub v: i64,
    pub s: String,
}

/// A filter as it is sent.
#[derive(Clone, Debug)]
pub struct Filter(pub Value);

impl Filter {
    pub fn random(random: &mut Random) -> Self {
        Self(Self::make(random, 2))
    }

    fn make(random: &mut Random, depth: u64) -> Value {
        let v = random.below(10);
        let key = format!("k{}", random.below(4));
        match random.below(if depth == 0 { 9 } else { 12 }) {
            0 => json!({"field": "v", "lt": v}),
            1 => json!({"field": "v", "gte": v}),
            2 => json!({"field": "v", "eq": v}),
            3 => json!({"field": "$key", "eq": key}),
            4 => json!({"field": "$key", "exists": random.chance(50)}),
            5 => json!({"field": "v", "in": [v, (v + 3) % 10]}),
            6 => json!({"field": "s", "startsWith": if random.chance(50) { "a" } else { "b" }}),
            7 => json!({"field": "$key", "ne": key}),
            // Nothing passes.
            8 => json!({"field": "v", "gt": 100}),
            9 => json!({"not": Self::make(random, depth - 1)}),
            10 => json!({"and": [Self::make(random, depth - 1), Self::make(random, depth - 1)]}),
            _ => json!({"or": [Self::make(random, depth - 1), Self::make(random, depth - 1)]}),
        }
    }

    pub fn passes(&self, subject: &Subject) -> bool {
        passes(&self.0, subject)
    }
}

fn passes(filter: &Value, subject: &Subject) -> bool {
    let list = |filters: &Value| filters.as_array().cloned().unwrap_or_default();
    if let Some(filters) = filter.get("and") {
        return list(filters).iter().all(|filter| passes(filter, subject));
    }
    if let Some(filters) = filter.get("or") {
        return list(filters).iter().any(|filter| passes(filter, subject));
    }
    if let Some(filter) = filter.get("not") {
        return !passes(filter, subject);
    }
    let value = match filter["field"].as_str() {
        Some("$key") => subject.key.as_ref().map(|key| json!(key)),
        Some("v") => Some(json!(subject.v)),
        Some("s") => Some(json!(subject.s)),
        _ => None,
    };
    filter.as_object().into_iter().flatten().filter(|(name, _)| *name != "field").all(|(operator, operand)| {
        let number = || value.as_ref().and_then(Value::as_i64).zip(operand.as_i64());
        match operator.as_str() {
            "eq" => value.as_ref() == Some(operand),
            "ne" => value.as_ref() != Some(operand),
            "exists" => operand.as_bool() == Some(value.is_some()),
            "in" => value.as_ref().is_some_and(|value| list(operand).contains(value)),
            "lt" => number().is_some_and(|(value, bound)| value < bound),
            "gt" => number().is_some_and(|(value, bound)| value > bound),
            "gte" => number().is_some_and(|(value, bound)| value >= bound),
            "startsWith" => {
                let text = value.as_ref().and_then(Value::as_str).zip(operand.as_str());
                text.is_some_and(|(text, start)| text.starts_with(start))
            }
            _ => false,
        }
    })
}

/// Whether a topic's name matches a pattern.
pub fn pattern_matches(pattern: &str, topic: &str) -> bool {
    let (pattern, topic): (Vec<_>, Vec<_>) = (pattern.split('.').collect(), topic.split('.').collect());
    let more = pattern.last() == Some(&">");
    let fixed = pattern.len() - usize::from(more);
    let lengths = if more { topic.len() > fixed } else { topic.len() == fixed };
    lengths && pattern[..fixed].iter().zip(&topic).all(|(want, is)| *want == "*" || want == is)
}
