//! From a filter's JSON text to its plan, and to its canonical text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::BTreeMap;

use serde_json::value::RawValue;

use super::json::{Cursor, decode, nesting, quote, respell};
use super::{Bound, Condition, DEEPEST, FilterError, FilterLimits, Path, Plan, Source, Test};

/// The keys that say what kind of condition an object is.
const HEADS: [&str; 4] = ["field", "and", "or", "not"];
/// The operators of a field condition, in the order the canonical text has them.
const OPERATORS: [&str; 10] = ["eq", "ne", "in", "gt", "gte", "lt", "lte", "exists", "startsWith", "contains"];

/// What [`Filter::parse`](super::Filter::parse) does.
pub(super) fn plan(json: &str, limits: &FilterLimits) -> Result<Plan, FilterError> {
    let max = limits.max_bytes;
    if json.len() > max {
        return refuse("filter", format!("must be at most {max} bytes, not {}", json.len()));
    }
    // serde_json checks the grammar without recursion; from here on the text is known to be
    // JSON. It is not read into a `Value`, which would lose repeated keys, and would take an
    // object for a number if its key were the one `arbitrary_precision` uses inside.
    let raw = match serde_json::from_str::<&RawValue>(json) {
        Ok(raw) => raw.get(),
        Err(error) => return refuse("filter", format!("must be JSON: {error}")),
    };
    let mut parser = Parser {
        max_conditions: limits.max_conditions,
        max_depth: limits.max_depth.min(DEEPEST),
        conditions: 0,
        paths: Vec::new(),
        probes: Vec::new(),
        longest: 0,
        out: String::new(),
    };
    let root = parser.condition(raw, "filter", 1)?;
    let Parser { paths: named, mut probes, longest, out: canonical, .. } = parser;
    if canonical.len() > max {
        let length = canonical.len();
        return refuse("filter", format!("must be at most {max} bytes, not {length}, in canonical form"));
    }
    probes.sort();
    let mut paths = named.clone();
    paths.sort();
    let places = named.iter().map(|path| paths.binary_search(path).unwrap_or_default()).collect();
    Ok(Plan { canonical, root, paths, places, probes, longest })
}

struct Parser {
    max_conditions: usize,
    max_depth: usize,
    conditions: usize,
    paths: Vec<Path>,
    probes: Vec<String>,
    longest: usize,
    out: String,
}

impl Parser {
    /// Reads one condition, and appends its canonical text.
    fn condition(&mut self, raw: &str, path: &str, depth: usize) -> Result<Condition, FilterError> {
        if depth > self.max_depth {
            return refuse(path, format!("must be at most {} conditions deep", self.max_depth));
        }
        self.conditions = self.conditions.saturating_add(1);
        if self.conditions > self.max_conditions {
            let message = format!("is one too many: at most {} conditions", self.max_conditions);
            return refuse(path, message);
        }
        let members = condition_members(raw, path)?;
        let mut rest = members.into_iter();
        let Some((head, body)) = rest.next().filter(|(name, _)| HEADS.contains(name)) else {
            return refuse(path, "must have one of field, and, or, not");
        };
        let rest = rest.as_slice();
        let at = format!("{path}.{head}");
        if let Some((name, _)) = rest.first() {
            if HEADS.contains(name) {
                return refuse(path, "must have only one of field, and, or, not");
            }
            if head != "field" {
                let message = format!("is an operator: it goes with field, not with {head}");
                return refuse(&format!("{path}.{name}"), message);
            }
        }
        match head {
            "field" => self.field(body, rest, path, &at),
            "and" => Ok(Condition::All(self.group(head, body, &at, depth)?)),
            "or" => Ok(Condition::Any(self.group(head, body, &at, depth)?)),
            _ => {
                self.out.push_str("{\"not\":");
                let inner = self.condition(body, &at, depth.saturating_add(1))?;
                self.out.push('}');
                Ok(Condition::Not(Box::new(inner)))
            }
        }
    }

    fn group(&mut self, head: &str, raw: &str, at: &str, depth: usize) -> Result<Vec<Condition>, FilterError> {
        let Some(items) = items(raw).filter(|items| !items.is_empty()) else {
            return refuse(at, "must be an array of at least one condition");
        };
        let mut group = Vec::new();
        self.out.push_str("{\"");
        self.out.push_str(head);
        self.out.push_str("\":");
        let mut before = '[';
        for (index, item) in items.into_iter().enumerate() {
            self.out.push(std::mem::replace(&mut before, ','));
            group.push(self.condition(item, &format!("{at}[{index}]"), depth.saturating_add(1))?);
        }
        self.out.push_str("]}");
        Ok(group)
    }

    fn field(
        &mut self,
        raw: &str,
        operators: &[(&'static str, &str)],
        path: &str,
        at: &str,
    ) -> Result<Condition, FilterError> {
        let name = text_operand(raw, at)?;
        if name.is_empty() {
            return refuse(at, "must not be empty");
        }
        let source = if name == "$key" {
            Source::Key
        } else {
            let segments: Path = name.split('.').map(str::to_owned).collect();
            if segments.iter().any(String::is_empty) {
                return refuse(at, "must not have an empty path segment");
            }
            if segments.len() > DEEPEST {
                return refuse(at, format!("must have at most {DEEPEST} path segments"));
            }
            Source::Data(self.paths.iter().position(|path| *path == segments).unwrap_or_else(|| {
                self.paths.push(segments);
                self.paths.len().saturating_sub(1)
            }))
        };
        if operators.is_empty() {
            return refuse(path, format!("must have an operator: one of {}", OPERATORS.join(", ")));
        }
        self.out.push_str("{\"field\":");
        quote(&name, &mut self.out);
        let mut tests = Vec::new();
        for (name, raw) in operators {
            let (test, operand) = self.test(name, raw, &format!("{path}.{name}"))?;
            tests.push(test);
            self.out.push_str(",\"");
            self.out.push_str(name);
            self.out.push_str("\":");
            self.out.push_str(&operand);
        }
        self.out.push('}');
        Ok(Condition::Field(source, tests))
    }

    /// One operator, and its operand's canonical text.
    fn test(&mut self, name: &str, raw: &str, at: &str) -> Result<(Test, String), FilterError> {
        let order: fn(Ordering) -> bool = match name {
            "gt" => Ordering::is_gt,
            "gte" => Ordering::is_ge,
            "lt" => Ordering::is_lt,
            "lte" => Ordering::is_le,
            "exists" => {
                return match raw {
                    "true" | "false" => Ok((Test::Exists(raw == "true"), raw.to_owned())),
                    _ => refuse(at, "must be true or false"),
                };
            }
            "startsWith" => {
                let prefix = text_operand(raw, at)?;
                let mut text = String::new();
                quote(&prefix, &mut text);
                return Ok((Test::StartsWith(prefix), text));
            }
            "in" => return self.one_of(raw, at),
            _ => {
                let operand = self.operand(raw, at)?;
                let test = match name {
                    "eq" => Test::Eq(operand.clone()),
                    "ne" => Test::Ne(operand.clone()),
                    _ => {
                        self.probes.push(operand.clone());
                        let part = decode(&operand).map(Cow::into_owned);
                        Test::Contains { element: operand.clone(), part }
                    }
                };
                return Ok((test, operand));
            }
        };
        match raw.bytes().next() {
            Some(b'"') => {
                let text = self.operand(raw, at)?;
                Ok((Test::Order(order, Bound::Text(text_operand(raw, at)?)), text))
            }
            Some(b'-' | b'0'..=b'9') => {
                let text = self.operand(raw, at)?;
                Ok((Test::Order(order, Bound::Number(text.clone())), text))
            }
            _ => refuse(at, "must be a number or a string"),
        }
    }

    /// `in`: the operands are a set, and are kept as one.
    fn one_of(&mut self, raw: &str, at: &str) -> Result<(Test, String), FilterError> {
        let Some(items) = items(raw) else {
            return refuse(at, "must be an array");
        };
        let mut operands = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            match self.operand(item, at) {
                Ok(text) => operands.push(text),
                Err(error) => return refuse(&format!("{at}[{index}]"), error.message),
            }
        }
        operands.sort();
        operands.dedup();
        let text = format!("[{}]", operands.join(","));
        Ok((Test::In(operands), text))
    }

    fn operand(&mut self, raw: &str, at: &str) -> Result<String, FilterError> {
        if nesting(raw) > self.max_depth {
            return refuse(at, format!("must be nested at most {} deep", self.max_depth));
        }
        let mut text = String::new();
        if respell(&mut Cursor::new(raw), &mut text, usize::MAX, DEEPEST).is_none() {
            return refuse(at, "must not hold an unpaired surrogate escape");
        }
        self.longest = self.longest.max(text.len());
        Ok(text)
    }
}

fn text_operand(raw: &str, at: &str) -> Result<String, FilterError> {
    match decode(raw) {
        Some(text) => Ok(text.into_owned()),
        None if raw.starts_with('"') => refuse(at, "must not hold an unpaired surrogate escape"),
        None => refuse(at, "must be a string"),
    }
}

/// A condition's keys and the texts of their values, in canonical order.
fn condition_members<'a>(raw: &'a str, path: &str) -> Result<Vec<(&'static str, &'a str)>, FilterError> {
    let mut members = Vec::new();
    let whole = Cursor::new(raw).members(|cursor, key| {
        members.push((key, cursor.value()?));
        Some(())
    });
    if whole.is_none() {
        return refuse(path, "must be an object");
    }
    let mut known = BTreeMap::new();
    for (key, value) in members {
        let name = decode(key).unwrap_or(Cow::Borrowed(key));
        let found = HEADS.iter().chain(&OPERATORS).enumerate().find(|(_, known)| **known == name);
        let Some((rank, found)) = found else {
            return refuse(&member_path(path, &name), "is not a known key");
        };
        if known.insert(rank, (*found, value)).is_some() {
            return refuse(&format!("{path}.{found}"), "must be given only once");
        }
    }
    Ok(known.into_values().collect())
}

/// The path of a key that may be anything: kept short and on one line.
fn member_path(path: &str, name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '$');
    let mut short: String = name.chars().take(40).collect();
    if short.len() < name.len() {
        short.push('…');
    }
    if !name.is_empty() && short.chars().all(|c| plain(c) || c == '…') {
        format!("{path}.{short}")
    } else {
        format!("{path}.{short:?}")
    }
}

fn items(raw: &str) -> Option<Vec<&str>> {
    let mut items = Vec::new();
    Cursor::new(raw).elements(|cursor| {
        items.push(cursor.value()?);
        Some(())
    })?;
    Some(items)
}

fn refuse<T>(path: &str, message: impl Into<String>) -> Result<T, FilterError> {
    Err(FilterError { path: path.to_owned(), message: message.into() })
}
