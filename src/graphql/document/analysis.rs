//! What a parsed document would cost, computed without expanding it.
//!
//! Every definition is walked twice and every spread is followed as an edge of a graph, never as
//! text: the facts of a fragment are computed once, after those of the fragments it spreads, and
//! added wherever it is spread. The work is linear in the size of the document.

use std::collections::{BTreeMap, HashMap};

use async_graphql_parser::types::{Directive, ExecutableDocument, OperationDefinition, Selection, SelectionSet};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{Name, Value};

use super::steps::tick;
use super::survey::{Definition, Survey, too_complex, validation};
use super::{DocumentError, DocumentLimits, OperationFacts, short, size};

/// What [`analyse`] finds out.
pub(super) struct Analysis {
    /// In the order of the document.
    pub operations: Vec<OperationFacts>,
    /// How often each variable is used, by its name, in all operations together once fragments
    /// are expanded.
    pub uses: BTreeMap<String, u64>,
}

/// Numbers that add up (or, for the first two, compare) from a selection to the sets around it.
#[derive(Clone, Copy, Default)]
struct Facts {
    /// Selection sets within one another, those of fragments included.
    levels: u64,
    /// Fields within one another.
    depth: u64,
    selections: u64,
    root_fields: u64,
    aliases: u64,
    directives: u64,
    /// See [`DocumentLimits::max_literal_bytes`].
    literals: u64,
    /// What the selection costs if it stands somewhere below `__schema` or `__type`.
    inside: u64,
    /// What the `__schema` and `__type` fields in the selection cost.
    introspection: u64,
}

impl Facts {
    fn add(&mut self, other: &Self) {
        self.levels = self.levels.max(other.levels);
        self.depth = self.depth.max(other.depth);
        for (sum, part) in [
            (&mut self.selections, other.selections),
            (&mut self.root_fields, other.root_fields),
            (&mut self.aliases, other.aliases),
            (&mut self.directives, other.directives),
            (&mut self.literals, other.literals),
            (&mut self.inside, other.inside),
            (&mut self.introspection, other.introspection),
        ] {
            *sum = sum.saturating_add(part);
        }
    }

    fn add_arguments(&mut self, arguments: &[(Positioned<Name>, Positioned<Value>)]) {
        for (_, value) in arguments {
            self.literals = self.literals.saturating_add(size::literal(&value.node).bytes());
        }
    }

    fn add_directives(&mut self, directives: &[Positioned<Directive>]) {
        for directive in directives {
            tick();
            self.directives = self.directives.saturating_add(1);
            self.add_arguments(&directive.node.arguments);
        }
    }
}

/// About how many items a list of the introspection schema has, so that a selection below it
/// costs that many times as much.
fn fan_out(field: &str) -> u64 {
    match field {
        "types" => 48,
        "fields" | "inputFields" | "enumValues" => 6,
        "args" | "interfaces" | "possibleTypes" | "directives" => 3,
        _ => 1,
    }
}

struct Graph<'a> {
    limits: &'a DocumentLimits,
    /// The fragments, by name.
    index: &'a HashMap<&'a str, usize>,
    /// Of each fragment, filled in as they are computed.
    facts: Vec<Facts>,
}

/// Checks a document's shape against the limits.
///
/// # Errors
///
/// `Validation` for a cycle of fragments, an unused fragment and what [`survey`](super::survey)
/// finds; `TooComplex` for an exceeded limit.
pub(super) fn analyse(document: &ExecutableDocument, limits: &DocumentLimits) -> Result<Analysis, DocumentError> {
    // The parser keeps definitions in hash maps; by position, errors and facts are reproducible.
    let mut named: Vec<_> = document.fragments.iter().collect();
    named.sort_by_key(|(_, fragment)| fragment.pos);
    let names = named.iter().enumerate();
    let index = names.map(|(at, (name, _))| (name.as_str(), at)).collect();
    let survey = Survey { limits, index: &index };
    let mut fragments = Vec::with_capacity(named.len());
    for (name, fragment) in named {
        let (pos, fragment) = (fragment.pos, &fragment.node);
        let set = &fragment.selection_set.node;
        fragments.push(survey.definition(Some(name), pos, &fragment.directives, set)?);
    }

    let mut named: Vec<_> = document.operations.iter().collect();
    named.sort_by_key(|(_, operation)| operation.pos);
    if let Some((_, operation)) = named.get(limits.max_operations) {
        let limit = limits.max_operations as u64;
        return Err(too_complex("document", limit, "operations", operation.pos));
    }
    let mut operations = Vec::with_capacity(named.len());
    for (name, operation) in named {
        let (pos, operation) = (operation.pos, &operation.node);
        survey.variables(&operation.variable_definitions)?;
        let set = &operation.selection_set.node;
        let definition = survey.definition(name, pos, &operation.directives, set)?;
        operations.push((definition, operation));
    }

    let order = dependencies_first(&fragments)?;
    let mut graph = Graph { limits, index: &index, facts: vec![Facts::default(); fragments.len()] };
    for &at in &order {
        graph.facts[at] = graph.definition_facts(&fragments[at]);
    }
    let uses = variable_uses(&operations, &fragments, &order)?;
    let operations = graph.check(&operations, &uses)?;
    Ok(Analysis { operations, uses })
}

impl<'a> Graph<'a> {
    fn definition_facts(&self, definition: &Definition<'_>) -> Facts {
        let mut facts = self.set_facts(definition.set);
        facts.add_directives(definition.directives);
        facts
    }

    /// The second walk. Spreads are looked up, not followed, so the recursion is again bounded by
    /// the nesting of the text.
    fn set_facts(&self, set: &SelectionSet) -> Facts {
        let mut total = Facts::default();
        for item in &set.items {
            tick();
            let mut one = match &item.node {
                Selection::Field(field) => {
                    let field = &field.node;
                    let mut one = if field.selection_set.node.items.is_empty() {
                        Facts::default()
                    } else {
                        self.set_facts(&field.selection_set.node)
                    };
                    let name = field.name.node.as_str();
                    if matches!(name, "__schema" | "__type") {
                        one.introspection = one.inside.saturating_add(1);
                    }
                    one.inside = one.inside.saturating_mul(fan_out(name)).saturating_add(1);
                    one.depth = one.depth.saturating_add(1);
                    one.root_fields = 1;
                    one.aliases = one.aliases.saturating_add(u64::from(field.alias.is_some()));
                    one.add_arguments(&field.arguments);
                    one
                }
                Selection::FragmentSpread(spread) => {
                    let at = self.index.get(spread.node.fragment_name.node.as_str());
                    at.and_then(|&at| self.facts.get(at)).copied().unwrap_or_default()
                }
                Selection::InlineFragment(inline) => self.set_facts(&inline.node.selection_set.node),
            };
            one.selections = one.selections.saturating_add(1);
            one.add_directives(item.node.directives());
            total.add(&one);
        }
        total.levels = total.levels.saturating_add(1);
        total
    }

    /// Holds every operation, and all of them together, against the limits.
    fn check(
        &self,
        operations: &[(Definition<'a>, &'a OperationDefinition)],
        uses: &BTreeMap<String, u64>,
    ) -> Result<Vec<OperationFacts>, DocumentError> {
        let limits = self.limits;
        let mut found = Vec::with_capacity(operations.len());
        let mut whole = Facts::default();
        let mut last = Pos::from((1, 1));
        for (definition, operation) in operations {
            let facts = self.definition_facts(definition);
            let pos = definition.pos;
            for (what, value, limit) in [
                ("levels of selection sets and fragments", facts.levels, limits.max_levels),
                ("levels of fields", facts.depth, limits.max_depth),
                ("selections once fragments are expanded", facts.selections, limits.max_selections),
                ("aliases once fragments are expanded", facts.aliases, limits.max_aliases),
                ("directives once fragments are expanded", facts.directives, limits.max_directives),
            ] {
                if value > limit {
                    return Err(too_complex("operation", limit, what, pos));
                }
            }
            found.push(OperationFacts {
                kind: operation.ty.into(),
                name: definition.name.map(str::to_owned),
                depth: facts.depth,
                selections: facts.selections,
                aliases: facts.aliases,
                directives: facts.directives,
                root_fields: facts.root_fields,
                subscription_field: None,
            });
            whole.add(&facts);
            for variable in &operation.variable_definitions {
                if let Some(default) = &variable.node.default_value {
                    let times = uses.get(variable.node.name.node.as_str()).copied();
                    let weight = size::constant(&default.node).bytes();
                    whole.literals = whole.literals.saturating_add(weight.saturating_mul(times.unwrap_or(0).max(1)));
                }
            }
            last = pos;
        }
        let used = uses.values().fold(0u64, |sum, &n| sum.saturating_add(n));
        for (what, value, limit) in [
            ("selections once fragments are expanded", whole.selections, limits.max_selections),
            ("uses of variables once fragments are expanded", used, limits.max_variable_uses),
            ("bytes of values once fragments are expanded", whole.literals, limits.max_literal_bytes),
            ("steps of introspection", whole.introspection, limits.max_introspection),
        ] {
            if value > limit {
                return Err(too_complex("document", limit, what, last));
            }
        }
        Ok(found)
    }
}

/// The fragments in an order in which each comes after all that it spreads. Iterative: a chain of
/// fragments may be as long as the document.
fn dependencies_first(fragments: &[Definition<'_>]) -> Result<Vec<usize>, DocumentError> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut marks = vec![Mark::New; fragments.len()];
    let mut order = Vec::with_capacity(fragments.len());
    let mut path: Vec<(usize, usize)> = Vec::new();
    for first in 0..fragments.len() {
        if marks[first] == Mark::New {
            marks[first] = Mark::Open;
            path.push((first, 0));
        }
        while let Some((at, edge)) = path.last_mut() {
            tick();
            let Some(&(next, pos)) = fragments[*at].spreads.get(*edge) else {
                marks[*at] = Mark::Done;
                order.push(*at);
                path.pop();
                continue;
            };
            *edge += 1;
            match marks[next] {
                Mark::New => {
                    marks[next] = Mark::Open;
                    path.push((next, 0));
                }
                Mark::Open => {
                    let name = short(fragments[next].name.unwrap_or_default());
                    let message = format!("Cannot spread fragment \"{name}\" within itself.");
                    return Err(validation(message, pos));
                }
                Mark::Done => {}
            }
        }
    }
    Ok(order)
}

/// Counts how often each variable is used once fragments are expanded, by counting how often each
/// fragment is; one that is not expanded at all is an error.
fn variable_uses(
    operations: &[(Definition<'_>, &OperationDefinition)],
    fragments: &[Definition<'_>],
    order: &[usize],
) -> Result<BTreeMap<String, u64>, DocumentError> {
    let mut times = vec![0u64; fragments.len()];
    let mut uses = BTreeMap::new();
    let mut record = |definition: &Definition<'_>, times: u64| {
        for &name in &definition.uses {
            tick();
            match uses.get_mut(name) {
                Some(count) => *count = times.saturating_add(*count),
                None => {
                    uses.insert(name.to_owned(), times);
                }
            }
        }
    };
    for (operation, _) in operations {
        record(operation, 1);
        for &(at, _) in &operation.spreads {
            times[at] = times[at].saturating_add(1);
        }
    }
    // Users first: when a fragment's turn comes, all its uses have been counted.
    for &at in order.iter().rev() {
        tick();
        record(&fragments[at], times[at]);
        for &(next, _) in &fragments[at].spreads {
            times[next] = times[next].saturating_add(times[at]);
        }
    }
    match fragments.iter().zip(&times).find(|(_, times)| **times == 0) {
        None => Ok(uses),
        Some((fragment, _)) => {
            let name = short(fragment.name.unwrap_or_default());
            let message = format!("Fragment \"{name}\" is never used.");
            Err(validation(message, fragment.pos))
        }
    }
}
