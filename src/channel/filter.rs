//! The filter a subscription may carry: a small boolean language over a message's key and JSON
//! data, written as JSON itself.
//!
//! One object is one condition, and has exactly one of
//!
//! * `"field": "order.total"` with one or more operators, all of which must hold;
//! * `"and": [..]` or `"or": [..]`, with at least one condition;
//! * `"not": {..}`.
//!
//! A field is a path of object keys and array indexes joined by `.` (a key that itself holds a `.`
//! cannot be named; an index has no sign and no leading zero). The field `$key`, alone, is the
//! message's key. The operators:
//!
//! | operator | holds when the field's value |
//! |---|---|
//! | `eq`, `ne` | is, is not, deeply equal to the operand; numbers by exact value |
//! | `in` | equals one of the operands |
//! | `gt`, `gte`, `lt`, `lte` | is a number (or string) so ordered against a number (or string) |
//! | `exists` | is there (`true`) or is not (`false`); JSON null is there |
//! | `startsWith` | is a string with that prefix |
//! | `contains` | is a string with that substring, or an array with an equal element |
//!
//! On a missing field only `ne` and `"exists": false` hold.
//!
//! Equality is decided on canonical text rather than on trees: a field's value is respelled at most
//! once per message, and given up as soon as it outgrows every operand, so a long `in` costs a
//! binary search and no operand can make a large payload be walked again and again.
#![forbid(unsafe_code)]

use std::borrow::Cow;
use std::cell::OnceCell;
use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Range;
use std::sync::Arc;

pub use self::json::quote;
use self::json::{Cursor, Decimal, decode, respell};

mod json;
mod parse;

/// The deepest nesting anything here follows, whatever [`FilterLimits`] say: it bounds every
/// recursion, and no message nests deeper, so a longer path could never be found.
const DEEPEST: usize = 128;

/// Bounds of one filter.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FilterLimits {
    /// Longest filter, in bytes of its JSON text; the canonical text must fit too, so that it can
    /// always be parsed again under the same limits.
    pub max_bytes: usize,
    /// Most conditions, counting every object that is one: fields, `and`, `or` and `not` alike.
    pub max_conditions: usize,
    /// Deepest condition, the outermost being 1; also, counted by itself, the deepest nesting of
    /// arrays and objects in one operand. More than 128 counts as 128.
    pub max_depth: usize,
}

impl Default for FilterLimits {
    /// 4096 bytes, 64 conditions, 8 deep.
    fn default() -> Self {
        Self { max_bytes: 4096, max_conditions: 64, max_depth: 8 }
    }
}

/// Why a text is not a filter. Displays as one line, `path: message`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilterError {
    /// The place in the filter, such as `filter.and[1].gt`; `filter` is the whole.
    pub path: String,
    /// What that place must be, or what is wrong with it.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

impl std::error::Error for FilterError {}

/// A parsed filter. Clones share it; two are equal when their canonical texts are.
#[derive(Clone)]
pub struct Filter {
    plan: Arc<Plan>,
}

impl Filter {
    /// Reads a filter from its JSON text.
    ///
    /// # Errors
    ///
    /// [`FilterError`], naming the place, when the text is over a limit or is not JSON, or when an
    /// object in it is not a condition: unknown, repeated or ill-assorted keys, an operand of the
    /// wrong type, an empty `and` or `or`, an empty path segment, a path of more than 128 segments,
    /// or a string with an unpaired surrogate escape, which no text could ever equal.
    pub fn parse(json: &str, limits: &FilterLimits) -> Result<Self, FilterError> {
        let plan = Arc::new(parse::plan(json, limits)?);
        Ok(Self { plan })
    }

    /// The filter in one spelling: no spaces, keys and `in` operands in a fixed order, numbers and
    /// strings written one way. Itself a filter, equal to this one, within the same limits.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.plan.canonical
    }

    /// Whether a message with this key and this data passes.
    ///
    /// `data` is valid JSON text, at most 1 MiB and at most 128 deep; it is scanned once, and not
    /// at all if the answer follows from the key. Of a repeated key the last counts, at every
    /// level. A string with an unpaired surrogate escape is there, but matches no operand. Text
    /// that is not JSON gives an unspecified answer.
    #[must_use]
    pub fn matches(&self, key: Option<&str>, data: &str) -> bool {
        let key = key.map(|key| Seen::new(Shape::Text(Some(Cow::Borrowed(key)))));
        let message = Message { plan: &self.plan, key, data, fields: OnceCell::new() };
        self.plan.root.holds(&message)
    }

    /// Whether any condition looks at the data; if not, [`Filter::matches`] never reads it.
    #[must_use]
    pub fn uses_data(&self) -> bool {
        !self.plan.paths.is_empty()
    }
}

impl fmt::Debug for Filter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Filter").field(&self.canonical()).finish()
    }
}

impl PartialEq for Filter {
    fn eq(&self, other: &Self) -> bool {
        self.canonical() == other.canonical()
    }
}

impl Eq for Filter {}

impl Hash for Filter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.canonical().hash(state);
    }
}

type Path = Vec<String>;

struct Plan {
    canonical: String,
    root: Condition,
    /// Sorted and distinct, so that the paths below any one prefix lie side by side.
    paths: Vec<Path>,
    /// From the number a condition has for its path to the path's place in `paths`.
    places: Vec<usize>,
    /// Canonical text of every `contains` operand, sorted: one pass over an array serves them all.
    probes: Vec<String>,
    /// Length of the longest operand's canonical text; a longer value equals none of them.
    longest: usize,
}

enum Condition {
    All(Vec<Condition>),
    Any(Vec<Condition>),
    Not(Box<Condition>),
    Field(Source, Vec<Test>),
}

enum Source {
    Key,
    Data(usize),
}

/// Operands compared for equality are held as canonical text.
enum Test {
    Eq(String),
    Ne(String),
    In(Vec<String>),
    Order(fn(Ordering) -> bool, Bound),
    Exists(bool),
    StartsWith(String),
    Contains { element: String, part: Option<String> },
}

enum Bound {
    Number(String),
    Text(String),
}

/// One message in front of a filter; the data is scanned when a condition first asks for it.
struct Message<'a> {
    plan: &'a Plan,
    key: Option<Seen<'a>>,
    data: &'a str,
    fields: OnceCell<Vec<Option<Seen<'a>>>>,
}

impl<'a> Message<'a> {
    fn field(&self, source: &Source) -> Option<&Seen<'a>> {
        let Source::Data(number) = source else {
            return self.key.as_ref();
        };
        let fields = self.fields.get_or_init(|| {
            let mut found = vec![None; self.plan.paths.len()];
            let whole = walk(&mut Cursor::new(self.data), &self.plan.paths, 0, &mut found);
            if whole.is_none() {
                found.fill(None);
            }
            found.into_iter().map(|raw| raw.map(|raw| Seen::new(Shape::of(raw)))).collect()
        });
        fields.get(*self.plan.places.get(*number)?)?.as_ref()
    }
}

impl Condition {
    /// Recurses as deep as the conditions nest, which parsing has bounded.
    fn holds(&self, message: &Message<'_>) -> bool {
        match self {
            Self::All(group) => group.iter().all(|condition| condition.holds(message)),
            Self::Any(group) => group.iter().any(|condition| condition.holds(message)),
            Self::Not(inner) => !inner.holds(message),
            Self::Field(source, tests) => {
                let seen = message.field(source);
                tests.iter().all(|test| test.holds(seen, message.plan))
            }
        }
    }
}

impl Test {
    fn holds<'a>(&self, seen: Option<&Seen<'a>>, plan: &'a Plan) -> bool {
        let Some(seen) = seen else {
            return matches!(self, Self::Ne(_) | Self::Exists(false));
        };
        match self {
            Self::Eq(operand) => seen.text(plan) == Some(operand),
            Self::Ne(operand) => seen.text(plan) != Some(operand),
            Self::In(operands) => {
                seen.text(plan).is_some_and(|text| operands.binary_search_by(|o| o.as_str().cmp(text)).is_ok())
            }
            Self::Order(holds, bound) => match (&seen.shape, bound) {
                (Shape::Number(value), Bound::Number(bound)) => {
                    Decimal::read(bound).is_some_and(|bound| holds(value.compare(&bound)))
                }
                (Shape::Text(Some(value)), Bound::Text(bound)) => holds((**value).cmp(bound)),
                _ => false,
            },
            Self::Exists(wanted) => *wanted,
            Self::StartsWith(prefix) => match &seen.shape {
                Shape::Text(Some(value)) => value.starts_with(prefix),
                _ => false,
            },
            Self::Contains { element, part } => match (&seen.shape, part) {
                (Shape::Text(Some(value)), Some(part)) => value.contains(part),
                (Shape::Other(raw), _) => seen.elements.get_or_init(|| probed(raw, plan)).contains(element.as_str()),
                _ => false,
            },
        }
    }
}

/// The value of a field, and what has been worked out about it for the conditions so far.
struct Seen<'a> {
    shape: Shape<'a>,
    text: OnceCell<Option<String>>,
    elements: OnceCell<BTreeSet<&'a str>>,
}

enum Shape<'a> {
    Number(Decimal<'a>),
    /// `None` if an unpaired surrogate keeps it from being text.
    Text(Option<Cow<'a, str>>),
    Other(&'a str),
}

impl<'a> Shape<'a> {
    fn of(raw: &'a str) -> Self {
        match raw.bytes().next() {
            Some(b'"') => Self::Text(decode(raw)),
            Some(b'-' | b'0'..=b'9') => Decimal::read(raw).map_or(Self::Other(raw), Self::Number),
            _ => Self::Other(raw),
        }
    }
}

impl<'a> Seen<'a> {
    fn new(shape: Shape<'a>) -> Self {
        Self { shape, text: OnceCell::new(), elements: OnceCell::new() }
    }

    /// The value's canonical text, unless that is certain to equal no operand.
    fn text(&self, plan: &Plan) -> Option<&String> {
        let respelled = self.text.get_or_init(|| {
            let (mut out, longest) = (String::new(), plan.longest);
            match &self.shape {
                Shape::Number(value) => value.spell(&mut out, longest)?,
                Shape::Text(Some(value)) if value.len() <= longest => quote(value, &mut out),
                Shape::Text(_) => return None,
                Shape::Other(raw) => respell(&mut Cursor::new(raw), &mut out, longest, DEEPEST)?,
            }
            Some(out)
        });
        respelled.as_ref()
    }
}

/// Which of the filter's `contains` operands are elements of this array; none, of anything else.
fn probed<'a>(raw: &str, plan: &'a Plan) -> BTreeSet<&'a str> {
    let (mut found, mut text) = (BTreeSet::new(), String::new());
    let _stopped_at_what_is_no_array = Cursor::new(raw).elements(|cursor| {
        let element = cursor.value()?;
        text.clear();
        if respell(&mut Cursor::new(element), &mut text, plan.longest, DEEPEST).is_some()
            && let Ok(place) = plan.probes.binary_search(&text)
        {
            found.insert(plan.probes.get(place)?.as_str());
        }
        Some(())
    });
    found
}

/// Reads one value, `depth` segments down the given paths, and notes the text of each path's value.
/// `found` lies alongside `paths`. Recurses no deeper than the longest path.
fn walk<'a>(cursor: &mut Cursor<'a>, paths: &[Path], depth: usize, found: &mut [Option<&'a str>]) -> Option<()> {
    let kind = cursor.peek()?;
    let start = cursor.position();
    // Paths are distinct and sorted, so only the first can end here, and the last goes on if any do.
    let deeper = paths.last().is_some_and(|path| path.len() > depth);
    let next = depth.saturating_add(1);
    match kind {
        b'{' if deeper => cursor.members(|cursor, key| {
            let Some(branch) = decode(key).and_then(|key| branch(paths, depth, &key)) else {
                return cursor.skip();
            };
            let found = found.get_mut(branch.clone())?;
            // What an earlier member of this name held no longer counts, even where this one is
            // of another shape.
            found.fill(None);
            walk(cursor, paths.get(branch)?, next, found)
        })?,
        b'[' if deeper => {
            let mut wanted = BTreeMap::new();
            for segment in paths.iter().filter_map(|path| path.get(depth)) {
                if let Some(index) = array_index(segment)
                    && let Some(branch) = branch(paths, depth, segment)
                {
                    wanted.insert(index, branch);
                }
            }
            let mut index = 0_usize;
            cursor.elements(|cursor| {
                let branch = wanted.get(&index);
                index = index.saturating_add(1);
                let Some(branch) = branch else {
                    return cursor.skip();
                };
                walk(cursor, paths.get(branch.clone())?, next, found.get_mut(branch.clone())?)
            })?;
        }
        _ => cursor.skip()?,
    }
    if paths.first().is_some_and(|path| path.len() == depth) {
        *found.first_mut()? = cursor.since(start);
    }
    Some(())
}

/// Where the paths with this segment at this depth lie, if there are any.
fn branch(paths: &[Path], depth: usize, segment: &str) -> Option<Range<usize>> {
    let at = |path: &Path| path.get(depth).map(String::as_str).cmp(&Some(segment));
    let start = paths.partition_point(|path| at(path).is_lt());
    let length = paths.get(start..)?.partition_point(|path| at(path).is_eq());
    (length > 0).then(|| start..start.saturating_add(length))
}

fn array_index(segment: &str) -> Option<usize> {
    let plain = segment.bytes().all(|byte| byte.is_ascii_digit());
    let shortest = segment == "0" || !segment.starts_with('0');
    if plain && shortest { segment.parse().ok() } else { None }
}

#[cfg(test)]
mod tests;
