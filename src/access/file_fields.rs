//! The fields of one table of an access file, read with errors that name their place.

use std::fmt::Display;

use toml_edit::{Item, TableLike, Value};

use crate::broker::{Pattern, Timestamp};

/// A field with this similarity (Jaro; 1 = the same) is what was meant.
const SIMILAR: f64 = 0.75;

/// The line of a position in a text, from 1.
pub(super) fn line_at(text: &str, position: usize) -> usize {
    1 + text.bytes().take(position).filter(|byte| *byte == b'\n').count()
}

/// The fields of one table.
pub(super) struct Fields<'a> {
    text: &'a str,
    table: &'a dyn TableLike,
    /// What errors begin with, such as `key "billing": `.
    whose: String,
}

impl<'a> Fields<'a> {
    pub fn new(text: &'a str, table: &'a dyn TableLike, whose: String) -> Self {
        Self { text, table, whose }
    }

    /// The field, if it is there.
    pub fn get(&self, field: &str) -> Option<&'a Item> {
        self.table.get(field)
    }

    /// What is wrong with a field that is there.
    pub fn wrong(&self, field: &str, wrong: impl Display) -> String {
        let span = self.table.get_key_value(field).and_then(|(key, item)| key.span().or_else(|| item.span()));
        self.at(span, field, wrong)
    }

    fn at(&self, span: Option<std::ops::Range<usize>>, field: &str, wrong: impl Display) -> String {
        let line = line_at(self.text, span.map_or(0, |span| span.start));
        format!("line {line}: {}{}: {wrong}", self.whose, field.escape_debug())
    }

    /// Refuses fields that are not among the known ones.
    pub fn only(&self, known: &[&str]) -> Result<(), String> {
        let Some((field, _)) = self.table.iter().find(|(field, _)| !known.contains(field)) else { return Ok(()) };
        let similarity = |known: &str| strsim::jaro(&field.to_lowercase(), known);
        let nearest = known.iter().copied().max_by(|a, b| similarity(a).total_cmp(&similarity(b)));
        let hint = match nearest {
            Some(nearest) if similarity(nearest) >= SIMILAR => format!("; did you mean {nearest}?"),
            _ => format!(" ({})", known.join(", ")),
        };
        Err(self.wrong(field, format!("there is no such field{hint}")))
    }

    pub fn text(&self, field: &str) -> Result<Option<&'a str>, String> {
        let Some(item) = self.get(field) else { return Ok(None) };
        // The value is not shown: it may be a key.
        item.as_str().map(Some).ok_or_else(|| self.wrong(field, "must be text in quotes"))
    }

    /// A flag, which is false if it is not there.
    pub fn flag(&self, field: &str) -> Result<bool, String> {
        let Some(item) = self.get(field) else { return Ok(false) };
        item.as_bool().ok_or_else(|| self.wrong(field, "must be true or false"))
    }

    /// A whole number from 1.
    pub fn number<T: TryFrom<i64>>(&self, field: &str) -> Result<Option<T>, String> {
        let Some(item) = self.get(field) else { return Ok(None) };
        let number = item.as_integer().filter(|number| *number >= 1).and_then(|number| T::try_from(number).ok());
        number.map(Some).ok_or_else(|| {
            self.wrong(field, "must be a whole number from 1; leave the field out if there is to be no limit")
        })
    }

    /// A time with its offset, as TOML's own type or as text.
    pub fn time(&self, field: &str) -> Result<Option<Timestamp>, String> {
        let Some(item) = self.get(field) else { return Ok(None) };
        let text = match item {
            Item::Value(Value::Datetime(time)) => time.value().to_string(),
            other => other.as_str().unwrap_or_default().to_owned(),
        };
        text.parse()
            .map(Some)
            .map_err(|_| self.wrong(field, "must be a time like 2027-01-01T00:00:00Z (RFC 3339, with its offset)"))
    }

    /// A list of patterns, which is empty if it is not there.
    pub fn patterns(&self, field: &str) -> Result<Vec<Pattern>, String> {
        const WRONG: &str = "must be a list of patterns of topics, such as [\"orders.>\"]";
        let Some(item) = self.get(field) else { return Ok(Vec::new()) };
        let values = item.as_array().ok_or_else(|| self.wrong(field, WRONG))?;
        let patterns = values.iter().map(|value| {
            let text = value.as_str().ok_or_else(|| self.wrong(field, WRONG))?;
            Pattern::parse(text).map_err(|error| self.at(value.span(), field, format!("{text:?} {error}")))
        });
        patterns.collect()
    }
}
