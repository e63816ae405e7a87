//! The module against a plain evaluator over `Value`, and against broken text, on made-up input.

use std::cmp::Ordering;

use serde_json::Value;

use super::super::{Filter, FilterLimits};
use super::parse;

struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from((self.0 >> 20) % u64::try_from(sides).unwrap()).unwrap()
    }

    fn pick(&mut self, from: &[&'static str]) -> &'static str {
        from[self.roll(from.len())]
    }

    fn list(&mut self, mut item: impl FnMut(&mut Self) -> String) -> String {
        let items: Vec<String> = (0..self.roll(4)).map(|_| item(self)).collect();
        items.join(self.pick(&[",", ",", " , "]))
    }

    fn scalar(&mut self) -> String {
        self.pick(&[
            "0",
            "-0.0",
            "1",
            "1.0",
            "10e-1",
            "2",
            "-1",
            "15e-1",
            "1.5",
            "null",
            "true",
            "false",
            "\"\"",
            "\"a\"",
            "\"ab\"",
            "\"\\u0061b\"",
            "\"b\\n\"",
            "\"\u{e9}\"",
            "\"1\"",
        ])
        .to_owned()
    }

    fn value(&mut self, depth: usize) -> String {
        match self.roll(if depth == 0 { 2 } else { 4 }) {
            2 => format!("[{}]", self.list(|dice| dice.value(depth - 1))),
            3 => format!(
                "{{{}}}",
                self.list(|dice| {
                    let key = dice.pick(&["\"a\"", "\"b\"", "\"\\u0061\"", "\"0\""]);
                    format!("{key}:{}", dice.value(depth - 1))
                })
            ),
            _ => self.scalar(),
        }
    }

    fn filter(&mut self, depth: usize) -> String {
        match self.roll(if depth == 0 { 3 } else { 6 }) {
            3 => format!(r#"{{"not":{}}}"#, self.filter(depth - 1)),
            4 | 5 => {
                let head = self.pick(&["and", "or"]);
                let (first, second) = (self.filter(depth - 1), self.filter(depth - 1));
                format!(r#"{{"{head}":[{first} , {second}]}}"#)
            }
            _ => {
                let field = self.pick(&["a", "b", "a.a", "a.b", "a.0", "b.1", "0", "0.a", "a.b.a", "$key"]);
                let operator = match self.roll(7) {
                    0 => format!(r#""exists":{}"#, self.pick(&["true", "false"])),
                    1 => format!(r#""startsWith":{}"#, self.pick(&["\"a\"", "\"\"", "\"b\""])),
                    2 => format!(r#""in":[{}]"#, self.list(|dice| dice.value(1))),
                    3 => {
                        let name = self.pick(&["gt", "gte", "lt", "lte"]);
                        format!(r#""{name}":{}"#, self.pick(&["0", "1.0", "15e-1", "\"a\"", "\"b\""]))
                    }
                    _ => format!(r#""{}":{}"#, self.pick(&["eq", "ne", "contains"]), self.value(2)),
                };
                format!(r#"{{{operator}, "field":"{field}"}}"#)
            }
        }
    }
}

fn same(left: &Value, right: &Value) -> bool {
    match (left, right) {
        (Value::Number(left), Value::Number(right)) => left.as_f64() == right.as_f64(),
        (Value::Array(left), Value::Array(right)) => {
            left.len() == right.len() && left.iter().zip(right).all(|(l, r)| same(l, r))
        }
        (Value::Object(left), Value::Object(right)) => {
            left.len() == right.len() && left.iter().all(|(key, l)| right.get(key).is_some_and(|r| same(l, r)))
        }
        _ => left == right,
    }
}

/// The language once more, the plain way.
fn naive(filter: &Value, key: Option<&str>, data: &Value) -> bool {
    let object = filter.as_object().unwrap();
    if let Some(group) = object.get("and") {
        return group.as_array().unwrap().iter().all(|inner| naive(inner, key, data));
    }
    if let Some(group) = object.get("or") {
        return group.as_array().unwrap().iter().any(|inner| naive(inner, key, data));
    }
    if let Some(inner) = object.get("not") {
        return !naive(inner, key, data);
    }
    let field = object["field"].as_str().unwrap();
    let value = if field == "$key" {
        key.map(Value::from)
    } else {
        field
            .split('.')
            .try_fold(data, |at, segment| match at {
                Value::Array(items) => items.get(segment.parse::<usize>().ok()?),
                _ => at.get(segment),
            })
            .cloned()
    };
    object.iter().filter(|(name, _)| *name != "field").all(|(name, operand)| {
        let Some(value) = &value else {
            return name == "ne" || (name == "exists" && operand == false);
        };
        let order = match (value, operand) {
            (Value::Number(l), Value::Number(r)) => l.as_f64().partial_cmp(&r.as_f64()),
            (Value::String(l), Value::String(r)) => l.chars().partial_cmp(r.chars()),
            _ => None,
        };
        match name.as_str() {
            "eq" => same(value, operand),
            "ne" => !same(value, operand),
            "in" => operand.as_array().unwrap().iter().any(|operand| same(value, operand)),
            "gt" => order.is_some_and(Ordering::is_gt),
            "gte" => order.is_some_and(Ordering::is_ge),
            "lt" => order.is_some_and(Ordering::is_lt),
            "lte" => order.is_some_and(Ordering::is_le),
            "exists" => operand == true,
            "startsWith" => value.as_str().is_some_and(|v| v.starts_with(operand.as_str().unwrap())),
            "contains" => match value {
                Value::String(value) => operand.as_str().is_some_and(|part| value.contains(part)),
                Value::Array(items) => items.iter().any(|item| same(item, operand)),
                _ => false,
            },
            _ => unreachable!("{name}"),
        }
    })
}

#[test]
fn agrees_with_the_plain_way() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let (mut yes, mut no) = (0, 0);
    for _ in 0..4000 {
        let json = dice.filter(3);
        let filter = parse(&json);
        assert_eq!(parse(filter.canonical()), filter, "{json}");
        let plain: Value = serde_json::from_str(&json).unwrap();
        for _ in 0..6 {
            let data = format!(
                "{{{}}}",
                dice.list(|dice| { format!("\"{}\":{}", dice.pick(&["a", "b", "0"]), dice.value(3)) })
            );
            let data = if dice.roll(8) == 0 { format!("[{data},{data}]") } else { data };
            let key = [None, Some("a"), Some("b\n")][dice.roll(3)];
            let expected = naive(&plain, key, &serde_json::from_str(&data).unwrap());
            assert_eq!(filter.matches(key, &data), expected, "{json} {key:?} {data}");
            *(if expected { &mut yes } else { &mut no }) += 1;
        }
    }
    assert!(yes > 3000 && no > 3000, "{yes} {no}");
}

#[test]
fn broken_text_does_no_harm() {
    let mut dice = Dice(7);
    let broken = |dice: &mut Dice, text: &str| {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=dice.roll(3) {
            let at = dice.roll(chars.len() + 1);
            match dice.roll(3) {
                0 => chars.truncate(at),
                1 => chars.insert(
                    at,
                    dice.pick(&["{", "}", "[", "\"", "\\", ",", ":", "e", "é", "-"]).chars().next().unwrap(),
                ),
                _ => drop(chars.drain(at..(at + 2).min(chars.len()))),
            }
        }
        chars.into_iter().collect::<String>()
    };
    for _ in 0..20_000 {
        let json = dice.filter(2);
        let data = dice.value(3);
        let data = broken(&mut dice, &data);
        let _any_answer_will_do = parse(&json).matches(Some("a"), &data);
        let json = broken(&mut dice, &json);
        if let Err(error) = Filter::parse(&json, &FilterLimits::default()) {
            assert_eq!(error.to_string().lines().count(), 1, "{error}");
        }
    }
}
