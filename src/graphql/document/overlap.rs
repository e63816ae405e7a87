//! The same verdict as async-graphql's `OverlappingFieldsCanBeMerged`, at a bounded price.
//!
//! async-graphql reports a conflict for every argument of the first field with every later field
//! of the same response key, again in every selection set around them: 5,000 tokens come to more
//! than two million errors of 150 bytes each. This check stops at the first. It must therefore
//! find a conflict wherever async-graphql would, and so it groups fields exactly as that does: by
//! response key and by the type condition written directly around the field. What the
//! specification asks beyond that is found only as far as fields are merged before
//! (`a{x:p} a{x:q}` is by then `a{x:p x:q}`).

use std::collections::{HashMap, HashSet};

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql_value::{Name, Value};

use super::steps::tick;
use super::{DocumentError, ErrorKind, short};

/// Checks every selection set of a document that has passed the limits.
///
/// A set is looked at together with the fragments in it, each once. Every fragment is expanded
/// somewhere, so all sets together come to no more than the expanded selections times the levels
/// around them: [`max_selections`](super::DocumentLimits::max_selections) times
/// [`max_levels`](super::DocumentLimits::max_levels).
pub(super) fn check(document: &ExecutableDocument) -> Result<(), DocumentError> {
    let operations = document.operations.iter();
    let sets = operations.map(|(_, operation)| &operation.node.selection_set.node);
    let fragments = document.fragments.values();
    for set in sets.chain(fragments.map(|fragment| &fragment.node.selection_set.node)) {
        check_set(document, set)?;
    }
    Ok(())
}

fn check_set(document: &ExecutableDocument, set: &SelectionSet) -> Result<(), DocumentError> {
    let mut seen = Seen {
        document,
        fields: HashMap::new(),
        fragments: HashSet::new(),
    };
    seen.collect(None, set)?;
    for item in &set.items {
        match &item.node {
            Selection::Field(field) => check_set(document, &field.node.selection_set.node)?,
            Selection::InlineFragment(inline) => {
                check_set(document, &inline.node.selection_set.node)?;
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

struct Seen<'a> {
    document: &'a ExecutableDocument,
    /// The first field of each response key under each type condition.
    fields: HashMap<(Option<&'a str>, &'a str), &'a Positioned<Field>>,
    fragments: HashSet<&'a str>,
}

impl<'a> Seen<'a> {
    /// Recurses through fragments, no deeper than
    /// [`max_levels`](super::DocumentLimits::max_levels).
    fn collect(&mut self, on: Option<&'a str>, set: &'a SelectionSet) -> Result<(), DocumentError> {
        for item in &set.items {
            tick();
            match &item.node {
                Selection::Field(field) => {
                    let key = field.node.response_key().node.as_str();
                    let first = *self.fields.entry((on, key)).or_insert(field);
                    if !agree(&first.node, &field.node) {
                        return Err(conflict(first, field));
                    }
                }
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let on = condition.map(|condition| condition.node.on.node.as_str());
                    self.collect(on, &inline.node.selection_set.node)?;
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.document.fragments.get(name)
                        && self.fragments.insert(name)
                    {
                        let on = fragment.node.type_condition.node.on.node.as_str();
                        self.collect(Some(on), &fragment.node.selection_set.node)?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Whether two fields of one response key ask for the same: the same field with the same
/// arguments. Linear but for the arguments of a single field, whose number is limited.
pub(super) fn agree(first: &Field, second: &Field) -> bool {
    std::ptr::eq(first, second)
        || first.name.node == second.name.node
            && first.arguments.len() == second.arguments.len()
            && first
                .arguments
                .iter()
                .all(|(name, value)| same_argument(second.get_argument(&name.node), value))
}

fn same_argument(other: Option<&Positioned<Value>>, value: &Positioned<Value>) -> bool {
    tick();
    other.is_some_and(|other| other.node == value.node)
}

/// The error for two fields that do not [`agree`].
pub(super) fn conflict(first: &Positioned<Field>, second: &Positioned<Field>) -> DocumentError {
    let key: &Name = &first.node.response_key().node;
    let reason = if first.node.name.node == second.node.name.node {
        "they have differing arguments".to_owned()
    } else {
        let (one, other) = (&first.node.name.node, &second.node.name.node);
        format!(
            "\"{}\" and \"{}\" are different fields",
            short(one),
            short(other)
        )
    };
    let message = format!(
        "Fields \"{}\" conflict because {reason}. Use different aliases on the fields to fetch \
         both if this was intentional.",
        short(key)
    );
    DocumentError::at(ErrorKind::Validation, message, [first.pos, second.pos])
}
