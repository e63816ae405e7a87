//! What values and documents weigh in memory, in bytes, approximately and from above.

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{
    BaseType, Directive, ExecutableDocument, Field, FragmentDefinition, OperationDefinition, Selection, SelectionSet,
    Type, VariableDefinition,
};
use async_graphql_value::{ConstValue, Name, Value};

use super::steps::tick;

/// Charged for a name beside its text: the reference counts, the length and the allocator's part.
const NAME: usize = 48;

/// How much there is in a value.
#[derive(Clone, Copy, Default)]
pub(super) struct Weight {
    /// Values, items of lists, fields of objects, and the lists and objects themselves.
    nodes: u64,
    /// Bytes of text in them.
    text: u64,
}

impl Weight {
    fn node(text: usize) -> Self {
        Self { nodes: 1, text: text as u64 }
    }

    fn add(&mut self, other: Self) {
        self.nodes = self.nodes.saturating_add(other.nodes);
        self.text = self.text.saturating_add(other.text);
    }

    /// What limits are expressed in: 32 bytes for each node, about what copying one costs beside
    /// its text.
    pub(super) fn bytes(self) -> u64 {
        self.nodes.saturating_mul(32).saturating_add(self.text)
    }

    /// The memory it takes. The most expensive node is an object of one field, which has a hash
    /// table and an array of its own; 288 bytes cover half of that for each of its two nodes.
    fn memory(self) -> usize {
        let bytes = self.nodes.saturating_mul(288).saturating_add(self.text);
        usize::try_from(bytes).unwrap_or(usize::MAX)
    }
}

/// The weight of a literal in a document. Recurses no deeper than the literal nests, which
/// [`scan`](super::scan()) has bounded.
pub(super) fn literal(value: &Value) -> Weight {
    tick();
    let mut total = Weight::node(match value {
        Value::Variable(name) | Value::Enum(name) => name.len(),
        Value::Number(number) => number.to_string().len(),
        Value::String(text) => text.len(),
        Value::Object(fields) => fields.keys().map(|name| name.len()).sum(),
        Value::Binary(text) => text.len(),
        Value::List(_) | Value::Null | Value::Boolean(_) => 0,
    });
    match value {
        Value::List(items) => items.iter().for_each(|item| total.add(literal(item))),
        Value::Object(fields) => fields.values().for_each(|item| total.add(literal(item))),
        _ => {}
    }
    total
}

/// The weight of a constant: a default value, or a variable the caller gave. The latter is nested
/// as deeply as its decoder allowed, so this one does not recurse.
pub(super) fn constant(value: &ConstValue) -> Weight {
    let mut total = Weight::default();
    let mut pending = vec![value];
    while let Some(value) = pending.pop() {
        tick();
        total.add(Weight::node(match value {
            ConstValue::Enum(name) => name.len(),
            ConstValue::Number(number) => number.to_string().len(),
            ConstValue::String(text) => text.len(),
            ConstValue::Binary(bytes) => bytes.len(),
            ConstValue::Object(fields) => fields.keys().map(|name| name.len()).sum(),
            ConstValue::List(_) | ConstValue::Null | ConstValue::Boolean(_) => 0,
        }));
        match value {
            ConstValue::List(items) => pending.extend(items),
            ConstValue::Object(fields) => pending.extend(fields.values()),
            _ => {}
        }
    }
    total
}

/// The memory a parsed document occupies. The vectors in it were grown by pushing and may have
/// room for twice what they hold, which is why every element counts double.
pub(super) fn document(document: &ExecutableDocument) -> usize {
    let operations: usize = document
        .operations
        .iter()
        .map(|(name, operation)| {
            2 * size_of::<(Name, Positioned<OperationDefinition>)>()
                + name.map_or(0, |name| NAME + name.len())
                + set(&operation.node.selection_set.node)
                + directives(&operation.node.directives)
                + variables(&operation.node.variable_definitions)
        })
        .sum();
    let fragments: usize = document
        .fragments
        .iter()
        .map(|(name, fragment)| {
            2 * size_of::<(Name, Positioned<FragmentDefinition>)>()
                + 2 * NAME
                + name.len()
                + fragment.node.type_condition.node.on.node.len()
                + set(&fragment.node.selection_set.node)
                + directives(&fragment.node.directives)
        })
        .sum();
    size_of::<ExecutableDocument>() + operations + fragments
}

fn set(set: &SelectionSet) -> usize {
    let items = set.items.iter().map(|item| {
        tick();
        let inside = match &item.node {
            Selection::Field(field) => one_field(&field.node),
            Selection::FragmentSpread(spread) => NAME + spread.node.fragment_name.node.len(),
            Selection::InlineFragment(inline) => {
                let condition = inline.node.type_condition.as_ref();
                condition.map_or(0, |on| NAME + on.node.on.node.len()) + self::set(&inline.node.selection_set.node)
            }
        };
        inside + directives(item.node.directives())
    });
    2 * size_of::<Positioned<Selection>>() * set.items.len() + items.sum::<usize>()
}

fn one_field(field: &Field) -> usize {
    field.alias.as_ref().map_or(0, |alias| NAME + alias.node.len())
        + NAME
        + field.name.node.len()
        + arguments(&field.arguments)
        + set(&field.selection_set.node)
}

fn directives(directives: &[Positioned<Directive>]) -> usize {
    let inside =
        directives.iter().map(|directive| NAME + directive.node.name.node.len() + arguments(&directive.node.arguments));
    2 * size_of_val(directives) + inside.sum::<usize>()
}

fn arguments(arguments: &[(Positioned<Name>, Positioned<Value>)]) -> usize {
    let inside = arguments.iter().map(|(name, value)| NAME + name.node.len() + literal(&value.node).memory());
    2 * size_of_val(arguments) + inside.sum::<usize>()
}

fn variables(variables: &[Positioned<VariableDefinition>]) -> usize {
    let inside = variables.iter().map(|variable| {
        let variable = &variable.node;
        let default = variable.default_value.as_ref();
        NAME + variable.name.node.len()
            + one_type(&variable.var_type.node)
            + directives(&variable.directives)
            + default.map_or(0, |value| constant(&value.node).memory())
    });
    2 * size_of_val(variables) + inside.sum::<usize>()
}

fn one_type(mut ty: &Type) -> usize {
    let mut total = 0;
    loop {
        match &ty.base {
            BaseType::Named(name) => return total + NAME + name.len(),
            BaseType::List(inner) => {
                total += size_of::<Type>() + NAME;
                ty = inner;
            }
        }
    }
}
