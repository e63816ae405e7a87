//! Rewrites a document into an equal one that async-graphql 7.2.1 treats correctly.
//!
//! - It starts the root fields of a subscription only where they are written as plain fields, and
//!   one stream for each: fragments at the root are dissolved and equal fields merged.
//! - It executes every field as often as it is written, where the specification merges fields of
//!   one response key first. For a mutation, whose fields act, the root is therefore dissolved
//!   and merged in the same way; elsewhere equal fields are merged where they stand in one
//!   selection set, which only saves work.
//! - It does not look at `__typename` at all, and so takes a variable used only in a directive on
//!   it for unused: the directives move to an inline fragment around it.
//!
//! All of this happens after the limits have been checked, which bounds every recursion here.

use std::collections::{HashMap, HashSet};

use async_graphql_parser::types::{
    Directive, DocumentOperations, ExecutableDocument, Field, FragmentDefinition, InlineFragment, OperationDefinition,
    OperationType, Selection, SelectionSet,
};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::Name;

use super::overlap::{agree, conflict};
use super::steps::tick;
use super::survey::validation;
use super::{DocumentError, MUTATION_ROOT, SUBSCRIPTION_ROOT, short};

/// The fragments of a document, by name.
pub type Fragments = HashMap<Name, Positioned<FragmentDefinition>>;
type Selections = Vec<Positioned<Selection>>;

/// Rewrites `document` in place.
///
/// # Errors
///
/// `Validation` if a subscription does not select exactly one field or has a
/// condition at its root, or if a mutation selects one response key in ways that cannot be merged.
pub(super) fn rewrite(document: &mut ExecutableDocument) -> Result<(), DocumentError> {
    let fragments = &document.fragments;
    let mut reachable = HashSet::new();
    match &mut document.operations {
        DocumentOperations::Single(operation) => {
            rewrite_operation(None, operation, fragments)?;
            reach(&operation.node.selection_set.node, fragments, &mut reachable);
        }
        DocumentOperations::Multiple(operations) => {
            let mut operations: Vec<_> = operations.iter_mut().collect();
            operations.sort_by_key(|(_, operation)| operation.pos);
            for (name, operation) in operations {
                rewrite_operation(Some(name), operation, fragments)?;
                reach(&operation.node.selection_set.node, fragments, &mut reachable);
            }
        }
    }
    // What is unused now was used only at roots, and is written out there.
    document.fragments.retain(|name, _| reachable.contains(name));
    for fragment in document.fragments.values_mut() {
        tidy(&mut fragment.node.selection_set.node);
    }
    Ok(())
}

fn rewrite_operation(
    name: Option<&Name>,
    operation: &mut Positioned<OperationDefinition>,
    fragments: &Fragments,
) -> Result<(), DocumentError> {
    let set = &mut operation.node.selection_set.node;
    let kind = operation.node.ty;
    if kind != OperationType::Query {
        let subscription = kind == OperationType::Subscription;
        let mut root = Root {
            fragments,
            type_name: if subscription { SUBSCRIPTION_ROOT } else { MUTATION_ROOT },
            subscription,
            out: Vec::new(),
            keys: HashMap::new(),
            visited: HashSet::new(),
        };
        root.collect(&set.items)?;
        if subscription {
            root.check(name, operation.pos)?;
        }
        set.items = root.out;
    }
    tidy(set);
    Ok(())
}

/// The root field of a subscription whose operation has been rewritten. `None` if its root is
/// left with a fragment that async-graphql will refuse.
pub(super) fn subscription_field(operation: &OperationDefinition) -> Option<&Field> {
    operation.selection_set.node.items.iter().find_map(as_field)
}

fn as_field(item: &Positioned<Selection>) -> Option<&Field> {
    match &item.node {
        Selection::Field(field) => Some(&field.node),
        _ => None,
    }
}

/// Where a response key was seen first.
#[derive(Clone, Copy)]
enum Slot {
    /// It is the selection of this index and has no directives: equal fields can join it.
    Plain(usize),
    /// Whether it is selected depends on a directive.
    Conditional,
}

/// The root selection set of a mutation or a subscription, being dissolved.
struct Root<'a> {
    fragments: &'a Fragments,
    type_name: &'static str,
    subscription: bool,
    out: Selections,
    keys: HashMap<&'a Name, Slot>,
    visited: HashSet<&'a Name>,
}

impl<'a> Root<'a> {
    fn collect(&mut self, items: &'a [Positioned<Selection>]) -> Result<(), DocumentError> {
        for item in items {
            tick();
            let directives = item.node.directives();
            let (set, dissolve) = match &item.node {
                Selection::Field(field) => {
                    self.allow(directives, false)?;
                    self.field(item, field)?;
                    continue;
                }
                Selection::FragmentSpread(spread) => {
                    self.allow(directives, true)?;
                    let name = &spread.node.fragment_name.node;
                    let Some(fragment) = self.fragments.get(name) else {
                        self.out.push(item.clone());
                        continue;
                    };
                    let inner = &fragment.node;
                    self.allow(&inner.directives, true)?;
                    if inner.type_condition.node.on.node != self.type_name {
                        self.out.push(item.clone());
                        continue;
                    }
                    let plain = directives.is_empty() && inner.directives.is_empty();
                    // Each fragment counts once, as in the specification's CollectFields.
                    if plain && !self.visited.insert(name) {
                        continue;
                    }
                    (&inner.selection_set.node, plain)
                }
                Selection::InlineFragment(inline) => {
                    self.allow(directives, true)?;
                    let condition = inline.node.type_condition.as_ref();
                    if condition.is_some_and(|on| on.node.on.node != self.type_name) {
                        self.out.push(item.clone());
                        continue;
                    }
                    (&inline.node.selection_set.node, directives.is_empty())
                }
            };
            if dissolve {
                self.collect(&set.items)?;
            } else {
                self.out.push(item.clone());
                self.reserve(set)?;
            }
        }
        Ok(())
    }

    /// Refuses a directive at the root of a subscription: conditions may not stand there, and no
    /// other directive of the schema may stand on a fragment.
    fn allow(&self, directives: &[Positioned<Directive>], fragment: bool) -> Result<(), DocumentError> {
        let refused = directives
            .iter()
            .find(|directive| fragment || matches!(directive.node.name.node.as_str(), "skip" | "include"));
        match refused {
            Some(directive) if self.subscription => {
                let name = short(&directive.node.name.node);
                let message = format!("Directive \"@{name}\" may not be used at the root of a subscription.");
                Err(validation(message, directive.pos))
            }
            _ => Ok(()),
        }
    }

    fn field(&mut self, item: &Positioned<Selection>, field: &'a Positioned<Field>) -> Result<(), DocumentError> {
        let plain = field.node.directives.is_empty();
        let key = &field.node.response_key().node;
        let Some(&slot) = self.keys.get(key) else {
            let slot = if plain { Slot::Plain(self.out.len()) } else { Slot::Conditional };
            self.keys.insert(key, slot);
            self.out.push(item.clone());
            return Ok(());
        };
        if plain
            && let Slot::Plain(at) = slot
            && let Some(Selection::Field(first)) = self.out.get_mut(at).map(|item| &mut item.node)
        {
            mergeable(first, field)?;
            let more = field.node.selection_set.node.items.iter().cloned();
            first.node.selection_set.node.items.extend(more);
            return Ok(());
        }
        Err(twice(key, field.pos))
    }

    /// Takes note of the response keys in a fragment that stays because a directive decides on it.
    fn reserve(&mut self, set: &'a SelectionSet) -> Result<(), DocumentError> {
        for item in &set.items {
            tick();
            match &item.node {
                Selection::Field(field) => {
                    let key = &field.node.response_key().node;
                    if self.keys.insert(key, Slot::Conditional).is_some() {
                        return Err(twice(key, field.pos));
                    }
                }
                Selection::InlineFragment(inline) => {
                    self.reserve(&inline.node.selection_set.node)?;
                }
                Selection::FragmentSpread(spread) => {
                    if let Some(fragment) = self.fragments.get(&spread.node.fragment_name.node) {
                        self.reserve(&fragment.node.selection_set.node)?;
                    }
                }
            }
        }
        Ok(())
    }

    /// Whether a subscription's root is the one field it has to be.
    fn check(&self, name: Option<&Name>, pos: Pos) -> Result<(), DocumentError> {
        let subject = name
            .map_or_else(|| "An anonymous subscription".to_owned(), |name| format!("Subscription \"{}\"", short(name)));
        let fields = || {
            self.out.iter().filter_map(|item| match &item.node {
                Selection::Field(field) => Some(field),
                _ => None,
            })
        };
        if let Some(field) = fields().find(|field| field.node.name.node.starts_with("__")) {
            let message = format!("{subject} must not select an introspection field at its root.");
            return Err(validation(message, field.pos));
        }
        if let Some(second) = fields().nth(1) {
            let message = format!("{subject} must select exactly one root field.");
            return Err(validation(message, second.pos));
        }
        // What else is left is an unknown fragment or one of another type, for async-graphql to
        // name; without even that, nothing is selected.
        if self.out.is_empty() {
            let message = format!("{subject} must select exactly one root field.");
            return Err(validation(message, pos));
        }
        Ok(())
    }
}

/// Whether two fields of one response key can be one field with the selections of both.
fn mergeable(first: &Positioned<Field>, second: &Positioned<Field>) -> Result<(), DocumentError> {
    let leaf = |field: &Field| field.selection_set.node.items.is_empty();
    if agree(&first.node, &second.node) && leaf(&first.node) == leaf(&second.node) {
        Ok(())
    } else {
        Err(conflict(first, second))
    }
}

/// Merges what is written twice in one selection set, dissolves inline fragments that say nothing,
/// and gives every `__typename` with directives an inline fragment to carry them. Recurses into
/// what the text nests.
fn tidy(set: &mut SelectionSet) {
    let mut out: Selections = Vec::with_capacity(set.items.len());
    let mut keys: HashMap<Name, usize> = HashMap::new();
    let mut spreads: HashSet<Name> = HashSet::new();
    // The next selection is last.
    let mut pending = std::mem::take(&mut set.items);
    pending.reverse();
    while let Some(mut item) = pending.pop() {
        tick();
        let plain = item.node.directives().is_empty();
        match &mut item.node {
            Selection::Field(field) if plain => {
                let key = &field.node.response_key().node;
                let first = keys.get(key).and_then(|&at| out.get_mut(at));
                match first.map(|first| &mut first.node) {
                    Some(Selection::Field(first)) => {
                        // Fields that cannot be merged stay for `overlap` to report.
                        if mergeable(first, field).is_ok() {
                            let more = &mut field.node.selection_set.node.items;
                            first.node.selection_set.node.items.append(more);
                            continue;
                        }
                    }
                    _ => {
                        keys.insert(key.clone(), out.len());
                    }
                }
            }
            Selection::Field(field) if field.node.name.node == "__typename" => {
                let directives = std::mem::take(&mut field.node.directives);
                item = carry(item, directives);
            }
            Selection::FragmentSpread(spread) if plain && !spreads.insert(spread.node.fragment_name.node.clone()) => {
                continue;
            }
            Selection::InlineFragment(inline) if plain && inline.node.type_condition.is_none() => {
                let inner = &mut inline.node.selection_set.node.items;
                pending.extend(inner.drain(..).rev());
                continue;
            }
            _ => {}
        }
        out.push(item);
    }
    for item in &mut out {
        match &mut item.node {
            Selection::Field(field) => tidy(&mut field.node.selection_set.node),
            Selection::InlineFragment(inline) => tidy(&mut inline.node.selection_set.node),
            Selection::FragmentSpread(_) => {}
        }
    }
    set.items = out;
}

/// Puts a selection into an inline fragment with `directives`.
fn carry(item: Positioned<Selection>, directives: Vec<Positioned<Directive>>) -> Positioned<Selection> {
    let pos = item.pos;
    let fragment = InlineFragment {
        type_condition: None,
        directives,
        selection_set: Positioned::new(SelectionSet { items: vec![item] }, pos),
    };
    Positioned::new(Selection::InlineFragment(Positioned::new(fragment, pos)), pos)
}

/// Adds the fragments spread below `set` to `reachable`, visiting each once.
pub(super) fn reach(set: &SelectionSet, fragments: &Fragments, reachable: &mut HashSet<Name>) {
    let mut pending = vec![set];
    while let Some(set) = pending.pop() {
        for item in &set.items {
            tick();
            match &item.node {
                Selection::Field(field) => pending.push(&field.node.selection_set.node),
                Selection::InlineFragment(inline) => {
                    pending.push(&inline.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => {
                    let name = &spread.node.fragment_name.node;
                    if let Some(fragment) = fragments.get(name)
                        && reachable.insert(name.clone())
                    {
                        pending.push(&fragment.node.selection_set.node);
                    }
                }
            }
        }
    }
}

fn twice(key: &Name, pos: Pos) -> DocumentError {
    let message = format!("\"{}\" is selected more than once under different conditions; use aliases.", short(key));
    validation(message, pos)
}
