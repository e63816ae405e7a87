//! Variables that the client did not send. Where one is an argument or a field of an input object, that is absent, as if it
//! were not written (the specification's 6.4.1 and 3.10); in a list it is null. async-graphql takes it for null everywhere,
//! so it gets a document without them.
//!
//! Beside that, null in data: the schema says `JSON!` where data has to be given, and JSON's null is data. async-graphql
//! refuses null there before any scalar sees it, so null goes through it as JSON text ([`Value::Binary`]).

use std::collections::HashSet;

use async_graphql_parser::Positioned;
use async_graphql_parser::types::{
    BaseType, DocumentOperations, ExecutableDocument, OperationDefinition, Selection, SelectionSet, Type,
};
use async_graphql_value::{ConstValue, Name, Value, Variables};
use bytes::Bytes;

use super::edit::EditArguments;
use super::{Document, rewrite};

/// The scalar of which null is a value.
const JSON: &str = "JSON";
/// The arguments and input fields that are of type `JSON!`, or lists of it.
const DATA: [&str; 2] = ["data", "in"];
/// The argument that holds input objects of which each has its own result.
const EACH: &str = "messages";
/// JSON's null as text.
const NULL: &[u8] = b"null";

/// Whether a variable's type is `JSON` or `JSON!`.
#[must_use]
pub fn is_json(ty: &Type) -> bool {
    matches!(&ty.base, BaseType::Named(name) if name == JSON)
}

impl Document {
    /// A copy for async-graphql to validate. A variable of type `JSON` may stand where `JSON!` is wanted, since null is a
    /// value of both; whether it was sent is seen when it is used.
    #[must_use]
    pub fn validated(&self) -> ExecutableDocument {
        let mut document = self.executable.clone();
        for variable in
            operations_of(&mut document).into_iter().flat_map(|operation| &mut operation.node.variable_definitions)
        {
            if is_json(&variable.node.var_type.node) {
                variable.node.var_type.node.nullable = false;
                if let Some(default) = &mut variable.node.default_value {
                    with_json_null(&mut default.node);
                }
            }
        }
        document
    }

    /// Whether a variable of the operation was not sent and has no default.
    #[must_use]
    pub fn has_absent(&self, operation: Option<&str>, given: &Variables) -> bool {
        self.definition(operation).is_ok_and(|definition| absent_of(definition, given).next().is_some())
    }

    /// A copy for `async_graphql::Request::set_parsed_query`, without the variables of the operation that are absent.
    /// Names are shared, the rest is copied.
    #[must_use]
    pub fn executable(&self, operation: Option<&str>, given: &Variables) -> ExecutableDocument {
        let mut document = self.validated();
        let absent: HashSet<Name> = self
            .definition(operation)
            .map(|definition| absent_of(definition, given).cloned().collect())
            .unwrap_or_default();
        if absent.is_empty() {
            return document;
        }
        // What other operations use is not to be missing there: they are not executed.
        if let DocumentOperations::Multiple(operations) = &mut document.operations {
            operations.retain(|name, _| Some(name.as_str()) == operation);
        }
        let mut reachable = HashSet::new();
        for (_, operation) in document.operations.iter() {
            rewrite::reach(&operation.node.selection_set.node, &document.fragments, &mut reachable);
        }
        document.fragments.retain(|name, _| reachable.contains(name));
        let mut strip = Strip { absent, met: HashSet::new() };
        for fragment in document.fragments.values_mut() {
            strip.directives(&mut fragment.node.directives);
            strip.set(&mut fragment.node.selection_set.node);
        }
        for operation in operations_of(&mut document) {
            strip.directives(&mut operation.node.directives);
            strip.set(&mut operation.node.selection_set.node);
            operation.node.variable_definitions.retain(|variable| !strip.met.contains(&variable.node.name.node));
        }
        document
    }
}

/// The operations of a document, to be changed.
pub(super) fn operations_of(document: &mut ExecutableDocument) -> Vec<&mut Positioned<OperationDefinition>> {
    match &mut document.operations {
        DocumentOperations::Single(operation) => vec![operation],
        DocumentOperations::Multiple(operations) => operations.values_mut().collect(),
    }
}

fn absent_of<'a>(definition: &'a OperationDefinition, given: &'a Variables) -> impl Iterator<Item = &'a Name> {
    let definitions = definition.variable_definitions.iter();
    let absent = definitions.filter(|variable| variable.node.default_value.is_none());
    absent.map(|variable| &variable.node.name.node).filter(|name| !given.contains_key(*name))
}

struct Strip {
    absent: HashSet<Name>,
    /// Those that were used.
    met: HashSet<Name>,
}

impl EditArguments for Strip {
    fn arguments(&mut self, arguments: &mut Vec<(Positioned<Name>, Positioned<Value>)>) {
        arguments.retain_mut(|(name, value)| {
            if self.absent(&value.node) {
                return false;
            }
            if name.node == EACH {
                self.each(&mut value.node);
            }
            self.value(&mut value.node);
            true
        });
    }
}

impl Strip {
    /// Whether a value is an absent variable.
    fn absent(&mut self, value: &Value) -> bool {
        match value {
            Value::Variable(name) if self.absent.contains(name) => {
                self.met.insert(name.clone());
                true
            }
            _ => false,
        }
    }

    /// Marks the data that is absent from input objects of which each has its own result: one without data is refused for
    /// itself.
    fn each(&mut self, value: &mut Value) {
        match value {
            Value::List(items) => items.iter_mut().for_each(|item| self.each(item)),
            Value::Object(fields) => {
                if let Some(data) = fields.get_mut("data")
                    && self.absent(data)
                {
                    *data = Value::Binary(Bytes::default());
                }
            }
            _ => {}
        }
    }

    fn value(&mut self, value: &mut Value) {
        match value {
            Value::List(items) => {
                for item in items {
                    if self.absent(item) {
                        *item = Value::Null;
                    } else {
                        self.value(item);
                    }
                }
            }
            Value::Object(fields) => fields.retain(|_, field| {
                let absent = self.absent(field);
                if !absent {
                    self.value(field);
                }
                !absent
            }),
            _ => {}
        }
    }
}

/// Puts JSON's null in the place of nulls that are given as data.
pub(super) fn settle_nulls(document: &mut ExecutableDocument) {
    for operation in operations_of(document) {
        json_nulls(&mut operation.node.selection_set.node);
    }
    for fragment in document.fragments.values_mut() {
        json_nulls(&mut fragment.node.selection_set.node);
    }
}

/// Null that is given as data, in literals.
fn json_nulls(set: &mut SelectionSet) {
    fn of_field(name: &str, value: &mut Value) {
        match value {
            Value::Null if DATA.contains(&name) => *value = Value::Binary(NULL.into()),
            Value::List(items) => items.iter_mut().for_each(|item| of_field(name, item)),
            Value::Object(fields) => fields.iter_mut().for_each(|(name, item)| of_field(name, item)),
            _ => {}
        }
    }
    for item in &mut set.items {
        match &mut item.node {
            Selection::Field(field) => {
                field.node.arguments.iter_mut().for_each(|(name, value)| of_field(&name.node, &mut value.node));
                json_nulls(&mut field.node.selection_set.node);
            }
            Selection::InlineFragment(inline) => json_nulls(&mut inline.node.selection_set.node),
            Selection::FragmentSpread(_) => {}
        }
    }
}

/// Null that is given as data, in a variable of this type.
pub(super) fn json_nulls_of(ty: &Type, value: &mut ConstValue) {
    fn of_field(data: bool, value: &mut ConstValue) {
        match value {
            ConstValue::Null if data => with_json_null(value),
            ConstValue::List(items) => items.iter_mut().for_each(|item| of_field(data, item)),
            ConstValue::Object(fields) => {
                fields.iter_mut().for_each(|(name, item)| of_field(DATA.contains(&name.as_str()), item));
            }
            _ => {}
        }
    }
    if is_json(ty) {
        with_json_null(value);
    } else {
        of_field(matches!(&ty.base, BaseType::List(item) if is_json(item)), value);
    }
}

fn with_json_null(value: &mut ConstValue) {
    if *value == ConstValue::Null {
        *value = ConstValue::Binary(NULL.into());
    }
}
