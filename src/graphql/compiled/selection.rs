//! What a selection set asks for of one object, as pieces of JSON text with fields in between.

use std::{cell::Cell, collections::HashMap};

use async_graphql_parser::{
    Positioned,
    types::{Directive, Field, FragmentDefinition, Selection as Selected, SelectionSet},
};
use async_graphql_value::{Name, Value};

use crate::wire;

/// A field of one type of the schema that can be written without an execution.
pub trait Part: Sized {
    /// The type's name.
    const TYPE: &'static str;
    /// What the fields are written from.
    type From<'a>: Copy;

    /// The field of this name. `inner` is what is selected of its own object.
    fn named(name: &str, inner: &Inner<'_>) -> Option<Self>;

    /// Writes the field's value as JSON.
    fn write(&self, from: Self::From<'_>, out: &mut String);
}

/// A compiled selection set.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Selection<F> {
    /// Each field with the text before it.
    pieces: Box<[(Box<str>, F)]>,
    end: Box<str>,
    /// What is written where there is no object.
    none: Box<str>,
}

impl<F: Part> Selection<F> {
    /// Writes the object.
    pub fn write(&self, from: F::From<'_>, out: &mut String) {
        for (text, field) in &self.pieces {
            out.push_str(text);
            field.write(from, out);
        }
        out.push_str(&self.end);
    }

    /// Writes the object, or null where there is none.
    pub fn write_nullable(&self, from: Option<F::From<'_>>, out: &mut String) {
        match from {
            Some(from) => self.write(from, out),
            None => self.write_none(out),
        }
    }
}

impl<F> Selection<F> {
    /// The same between two texts.
    #[must_use]
    pub fn within(mut self, before: &str, after: &str) -> Self {
        match self.pieces.first_mut() {
            Some((text, _)) => *text = format!("{before}{text}").into(),
            None => self.end = format!("{before}{}", self.end).into(),
        }
        self.end = format!("{}{after}", self.end).into();
        self.none = format!("{before}{}{after}", self.none).into();
        self
    }

    /// Writes null in the place of the object, where [`Selection::within`] has put texts around it.
    pub fn write_none(&self, out: &mut String) {
        out.push_str(&self.none);
    }

    /// The fields, without those of objects within.
    pub fn fields(&self) -> impl Iterator<Item = &F> {
        self.pieces.iter().map(|(_, field)| field)
    }

    /// The memory that this takes, in bytes, without the fields' own.
    pub fn bytes(&self) -> usize {
        let pieces = self.pieces.iter().map(|(text, _)| size_of::<(Box<str>, F)>() + text.len());
        size_of::<Self>() + pieces.sum::<usize>() + self.end.len() + self.none.len()
    }
}

/// Fields that one operation may select to be compiled, each as often as its fragments are spread. Larger operations are
/// rare, and not repeated often enough to be worth it.
const MAX_FIELDS: usize = 256;

/// Bytes of the names in them. Clients may choose long aliases.
const MAX_NAME_BYTES: usize = 8 << 10;

/// What selections are compiled with: the fragments of the document, and the values of the variables in `@skip` and
/// `@include`.
pub struct Selector<'a> {
    fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
    conditions: &'a dyn Fn(&str) -> Option<bool>,
    /// Fields and bytes of names that may still come.
    left: Cell<Option<(usize, usize)>>,
}

/// One field of the merged selection, with the selection sets of all fields that were merged.
pub struct Chosen<'a> {
    pub field: &'a Positioned<Field>,
    sets: Vec<&'a SelectionSet>,
}

impl<'a> Chosen<'a> {
    /// The key in the response.
    pub fn key(&self) -> &'a str {
        self.field.node.response_key().node.as_str()
    }

    /// The field's name.
    pub fn name(&self) -> &'a str {
        self.field.node.name.node.as_str()
    }

    /// What is selected of the field's object.
    pub fn inner<'b>(&'b self, selector: &'b Selector<'b>) -> Inner<'b> {
        Inner { selector, sets: &self.sets }
    }
}

/// What is selected of one field's object.
pub struct Inner<'a> {
    selector: &'a Selector<'a>,
    sets: &'a [&'a SelectionSet],
}

impl Inner<'_> {
    /// The compiled selection; `None` where something cannot be compiled.
    pub fn compile<F: Part>(&self) -> Option<Selection<F>> {
        let chosen = self.selector.merged(F::TYPE, self.sets)?;
        // async-graphql does not merge what another field adds to an object of which one field selects nothing.
        if let [_, _, ..] = self.sets {
            for set in self.sets {
                if self.selector.merged(F::TYPE, &[set])?.is_empty() {
                    return None;
                }
            }
        }
        let (mut pieces, mut text) = (Vec::with_capacity(chosen.len()), String::new());
        for (index, chosen) in chosen.iter().enumerate() {
            text.push(if index == 0 { '{' } else { ',' });
            text.push_str(&wire::quoted(chosen.key()));
            text.push(':');
            if chosen.name() == TYPE_NAME {
                text.push_str(&wire::quoted(F::TYPE));
            } else if chosen.field.node.arguments.is_empty() {
                let field = F::named(chosen.name(), &chosen.inner(self.selector))?;
                pieces.push((std::mem::take(&mut text).into(), field));
            } else {
                return None;
            }
        }
        // Where everything is skipped, async-graphql has null for the object.
        text.push_str(if chosen.is_empty() { "null" } else { "}" });
        Some(Selection { pieces: pieces.into(), end: text.into(), none: "null".into() })
    }
}

/// The field that every object has.
pub const TYPE_NAME: &str = "__typename";

impl<'a> Selector<'a> {
    pub fn new(
        fragments: &'a HashMap<Name, Positioned<FragmentDefinition>>,
        conditions: &'a dyn Fn(&str) -> Option<bool>,
    ) -> Self {
        Self { fragments, conditions, left: Cell::new(Some((MAX_FIELDS, MAX_NAME_BYTES))) }
    }

    /// The fields of an operation's own selection set. `None` where a condition stands there: the arguments of fields that
    /// are skipped have to be valid, too.
    pub fn roots<'b>(&'b self, type_name: &str, set: &'b SelectionSet) -> Option<Vec<Chosen<'b>>> {
        let mut chosen = Vec::new();
        self.collect(type_name, set, false, &mut chosen)?;
        Some(chosen)
    }

    /// The fields of selection sets on one object of this type, in the order in which each key comes first.
    fn merged<'b>(&'b self, type_name: &str, sets: &[&'b SelectionSet]) -> Option<Vec<Chosen<'b>>> {
        let mut chosen = Vec::new();
        for set in sets {
            self.collect(type_name, set, true, &mut chosen)?;
        }
        Some(chosen)
    }

    /// Recurses as deep as the document's levels, which are bounded.
    fn collect<'b>(
        &'b self,
        type_name: &str,
        set: &'b SelectionSet,
        conditional: bool,
        chosen: &mut Vec<Chosen<'b>>,
    ) -> Option<()> {
        for item in &set.items {
            let directives = item.node.directives();
            if !conditional && !directives.is_empty() {
                return None;
            }
            if !self.is_included(directives)? {
                continue;
            }
            match &item.node {
                Selected::Field(field) => {
                    self.take(field)?;
                    let (key, inner) = (field.node.response_key(), &field.node.selection_set.node);
                    match chosen.iter_mut().find(|known| known.key() == key.node.as_str()) {
                        Some(known) => known.sets.push(inner),
                        None => chosen.push(Chosen { field, sets: vec![inner] }),
                    }
                }
                Selected::FragmentSpread(spread) => {
                    let fragment = &self.fragments.get(&spread.node.fragment_name.node)?.node;
                    if !fragment.directives.is_empty() || fragment.type_condition.node.on.node != type_name {
                        return None;
                    }
                    self.collect(type_name, &fragment.selection_set.node, conditional, chosen)?;
                }
                Selected::InlineFragment(inline) => {
                    if inline.node.type_condition.as_ref().is_some_and(|on| on.node.on.node != type_name) {
                        return None;
                    }
                    self.collect(type_name, &inline.node.selection_set.node, conditional, chosen)?;
                }
            }
        }
        Some(())
    }

    /// Counts a field.
    fn take(&self, field: &Positioned<Field>) -> Option<()> {
        let (fields, bytes) = self.left.take()?;
        let bytes = bytes.checked_sub(field.node.response_key().node.len())?;
        self.left.set(Some((fields.checked_sub(1)?, bytes)));
        Some(())
    }

    /// Whether a selection with these directives counts; `None` for another directive, or a condition that has no value.
    fn is_included(&self, directives: &[Positioned<Directive>]) -> Option<bool> {
        let mut included = true;
        for directive in directives {
            let wanted = wanted(&directive.node)?;
            let value = match &condition(&directive.node)?.node {
                Value::Boolean(value) => *value,
                Value::Variable(name) => (self.conditions)(name)?,
                _ => return None,
            };
            included &= value == wanted;
        }
        Some(included)
    }
}

/// The value of the condition with which a directive lets its selection count.
fn wanted(directive: &Directive) -> Option<bool> {
    match directive.name.node.as_str() {
        "skip" => Some(false),
        "include" => Some(true),
        _ => None,
    }
}

fn condition(directive: &Directive) -> Option<&Positioned<Value>> {
    directive.get_argument("if")
}

/// The names of the variables in conditions, each once.
pub fn conditions<'a>(sets: impl Iterator<Item = &'a SelectionSet>) -> Vec<&'a str> {
    let (mut names, mut pending) = (Vec::new(), sets.collect::<Vec<_>>());
    while let Some(set) = pending.pop() {
        for item in &set.items {
            for directive in item.node.directives() {
                if let Some(Value::Variable(name)) = condition(&directive.node).map(|value| &value.node)
                    && !names.contains(&name.as_str())
                {
                    names.push(name.as_str());
                }
            }
            match &item.node {
                Selected::Field(field) => pending.push(&field.node.selection_set.node),
                Selected::InlineFragment(inline) => pending.push(&inline.node.selection_set.node),
                Selected::FragmentSpread(_) => {}
            }
        }
    }
    names
}
