//! Finds fields of one response key that do not ask for the same, at a bounded price.
//!
//! async-graphql's `OverlappingFieldsCanBeMerged` reports a conflict for every argument of the
//! first field with every later field of the same response key, again in every selection set
//! around them: 5,000 tokens come to more than two million errors of 150 bytes each. This check
//! stops at the first conflict, and so has to find one wherever async-graphql would. It therefore
//! applies that rule as it is, which compares fields under literally the same type condition (for
//! it, an inline fragment without one stands alone), and beside it the specification's as far as
//! that goes without a schema: fields of the selection set's own type conflict with those under
//! any type condition, whereas fields under two different conditions may belong to two types and
//! differ. Conflicts further down are found as far as fields have been merged before
//! (`a{x:p} a{x:q}` is by then `a{x:p x:q}`).

use std::collections::{HashMap, HashSet};

use async_graphql_parser::types::{ExecutableDocument, Field, Selection, SelectionSet};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{Name, Value};

use super::steps::tick;
use super::{DocumentError, DocumentLimits, ErrorKind, short};

/// How often a selection may be looked at on average. A set is looked at together with the
/// fragments in it, each once, so a selection is as often as there are sets around it up to the
/// next field: once or twice in a document that is not contrived. Without this bound it would be
/// [`max_levels`](DocumentLimits::max_levels) times, here and in async-graphql.
const LOOKS: u64 = 8;

/// Checks every selection set of a document that has passed the limits.
///
/// # Errors
///
/// [`ErrorKind::Validation`] for the first conflict; [`ErrorKind::TooComplex`] if that takes more
/// than eight times [`max_selections`](DocumentLimits::max_selections) steps.
pub(super) fn check(document: &ExecutableDocument, limits: &DocumentLimits) -> Result<(), DocumentError> {
    let mut budget = limits.max_selections.saturating_mul(LOOKS);
    let operations = document.operations.iter();
    let sets = operations.map(|(_, operation)| &operation.node.selection_set);
    let fragments = document.fragments.values();
    for set in sets.chain(fragments.map(|fragment| &fragment.node.selection_set)) {
        check_set(document, &mut budget, set)?;
    }
    Ok(())
}

fn check_set(
    document: &ExecutableDocument,
    budget: &mut u64,
    set: &Positioned<SelectionSet>,
) -> Result<(), DocumentError> {
    let mut seen = Seen {
        document,
        budget,
        fragments: HashSet::new(),
        written: HashMap::new(),
        own: HashMap::new(),
        typed: HashMap::new(),
    };
    seen.collect(None, None, set)?;
    for item in &set.node.items {
        match &item.node {
            Selection::Field(field) => check_set(document, budget, &field.node.selection_set)?,
            Selection::InlineFragment(inline) => {
                check_set(document, budget, &inline.node.selection_set)?;
            }
            Selection::FragmentSpread(_) => {}
        }
    }
    Ok(())
}

type Fields<'a, Key> = HashMap<Key, &'a Positioned<Field>>;

/// The first field of each response key in one selection set and the fragments in it.
struct Seen<'a, 'b> {
    document: &'a ExecutableDocument,
    /// Steps left.
    budget: &'b mut u64,
    fragments: HashSet<&'a str>,
    /// By the type condition directly around the field, as async-graphql has it.
    written: Fields<'a, (Option<&'a str>, &'a str)>,
    /// Of the set's own type.
    own: Fields<'a, &'a str>,
    /// Under any type condition: the first field and, if there is one, the first that differs
    /// from it. No field agrees with both, so more need not be kept.
    typed: HashMap<&'a str, (&'a Positioned<Field>, Option<&'a Positioned<Field>>)>,
}

impl<'a> Seen<'a, '_> {
    /// Adds the fields of `set`, which stands directly in a fragment with the type condition
    /// `written` and belongs to the type `on`; `None` is the type of the outermost set.
    ///
    /// Recurses through fragments, no deeper than
    /// [`max_levels`](super::DocumentLimits::max_levels).
    fn collect(
        &mut self,
        written: Option<&'a str>,
        on: Option<&'a str>,
        set: &'a Positioned<SelectionSet>,
    ) -> Result<(), DocumentError> {
        for item in &set.node.items {
            self.spend(1, item.pos)?;
            match &item.node {
                Selection::Field(field) => self.add(written, on, field)?,
                Selection::InlineFragment(inline) => {
                    let condition = inline.node.type_condition.as_ref();
                    let written = condition.map(|condition| condition.node.on.node.as_str());
                    self.collect(written, written.or(on), &inline.node.selection_set)?;
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = self.document.fragments.get(name)
                        && self.fragments.insert(name)
                    {
                        let on = Some(fragment.node.type_condition.node.on.node.as_str());
                        self.collect(on, on, &fragment.node.selection_set)?;
                    }
                }
            }
        }
        Ok(())
    }

    fn add(
        &mut self,
        written: Option<&'a str>,
        on: Option<&'a str>,
        field: &'a Positioned<Field>,
    ) -> Result<(), DocumentError> {
        let key = field.node.response_key().node.as_str();
        let same = *self.written.entry((written, key)).or_insert(field);
        if !std::ptr::eq(same, field) {
            self.spend(field.node.arguments.len() as u64, field.pos)?;
        }
        compare(same, field)?;
        if on.is_none() {
            compare(self.own.entry(key).or_insert(field), field)?;
            if let Some(&(first, differing)) = self.typed.get(key) {
                compare(first, field)?;
                differing.map_or(Ok(()), |differing| compare(differing, field))?;
            }
        } else {
            if let Some(own) = self.own.get(key) {
                compare(own, field)?;
            }
            let (first, differing) = self.typed.entry(key).or_insert((field, None));
            if differing.is_none() && !agree(&first.node, &field.node) {
                *differing = Some(field);
            }
        }
        Ok(())
    }

    fn spend(&mut self, steps: u64, pos: Pos) -> Result<(), DocumentError> {
        tick();
        let Some(left) = self.budget.checked_sub(steps) else {
            let message = "The document nests fragments in fragments too often.".to_owned();
            return Err(DocumentError::at(ErrorKind::TooComplex, message, [pos]));
        };
        *self.budget = left;
        Ok(())
    }
}

fn compare(first: &Positioned<Field>, second: &Positioned<Field>) -> Result<(), DocumentError> {
    if agree(&first.node, &second.node) { Ok(()) } else { Err(conflict(first, second)) }
}

/// Whether two fields of one response key ask for the same: the same field with the same
/// arguments. Linear but for the arguments of a single field, whose number is limited.
pub(super) fn agree(first: &Field, second: &Field) -> bool {
    std::ptr::eq(first, second)
        || first.name.node == second.name.node
            && first.arguments.len() == second.arguments.len()
            && first.arguments.iter().all(|(name, value)| same_argument(second.get_argument(&name.node), value))
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
        format!("\"{}\" and \"{}\" are different fields", short(one), short(other))
    };
    let message = format!(
        "Fields \"{}\" conflict because {reason}. Use different aliases on the fields to fetch \
         both if this was intentional.",
        short(key)
    );
    DocumentError::at(ErrorKind::Validation, message, [first.pos, second.pos])
}
