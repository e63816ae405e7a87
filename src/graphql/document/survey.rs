//! The first walk over a document: what each definition refers to, and the faults that show in a
//! single node and that async-graphql overlooks or stumbles over.

use std::collections::HashMap;

use async_graphql_parser::types::{BaseType, Directive, Selection, SelectionSet, Type, VariableDefinition};
use async_graphql_parser::{Pos, Positioned};
use async_graphql_value::{Name, Value};

use super::steps::tick;
use super::{DocumentError, DocumentLimits, ErrorKind, short};

/// The scalars every schema has.
const BUILT_IN: [&str; 5] = ["Boolean", "Float", "ID", "Int", "String"];

/// An operation or a fragment and what it refers to.
pub(super) struct Definition<'a> {
    pub name: Option<&'a str>,
    pub pos: Pos,
    pub directives: &'a [Positioned<Directive>],
    pub set: &'a SelectionSet,
    /// The known fragments spread anywhere in it, by index, and where.
    pub spreads: Vec<(usize, Pos)>,
    /// The variables used anywhere in it.
    pub uses: Vec<&'a str>,
}

/// The walk.
pub(super) struct Survey<'a> {
    pub limits: &'a DocumentLimits,
    /// The fragments, by name.
    pub index: &'a HashMap<&'a str, usize>,
}

impl<'a> Survey<'a> {
    /// Walks over one operation or fragment.
    pub(super) fn definition(
        &self,
        name: Option<&'a Name>,
        pos: Pos,
        directives: &'a [Positioned<Directive>],
        set: &'a SelectionSet,
    ) -> Result<Definition<'a>, DocumentError> {
        let mut definition =
            Definition { name: name.map(Name::as_str), pos, directives, set, spreads: Vec::new(), uses: Vec::new() };
        self.directives(directives, &mut definition)?;
        self.set(set, &mut definition)?;
        Ok(definition)
    }

    /// Recurses into the selection sets written out in the text; [`scan`](super::scan()) and the
    /// parser have bounded those.
    fn set(&self, set: &'a SelectionSet, into: &mut Definition<'a>) -> Result<(), DocumentError> {
        for item in &set.items {
            tick();
            self.directives(item.node.directives(), into)?;
            match &item.node {
                Selection::Field(field) => {
                    let inner = &field.node.selection_set.node;
                    // async-graphql passes over `__typename` without looking at it.
                    if field.node.name.node == "__typename"
                        && !(inner.items.is_empty() && field.node.arguments.is_empty())
                    {
                        let message = "Field \"__typename\" takes neither arguments nor selections.";
                        return Err(validation(message.to_owned(), field.pos));
                    }
                    self.arguments(&field.node.arguments, field.pos, into)?;
                    self.set(inner, into)?;
                }
                Selection::FragmentSpread(spread) => {
                    // An unknown one is left for async-graphql to report.
                    let name = spread.node.fragment_name.node.as_str();
                    if let Some(&at) = self.index.get(name) {
                        into.spreads.push((at, spread.pos));
                    }
                }
                Selection::InlineFragment(inline) => {
                    self.set(&inline.node.selection_set.node, into)?;
                }
            }
        }
        Ok(())
    }

    fn directives(
        &self,
        directives: &'a [Positioned<Directive>],
        into: &mut Definition<'a>,
    ) -> Result<(), DocumentError> {
        for directive in directives {
            tick();
            self.arguments(&directive.node.arguments, directive.pos, into)?;
        }
        Ok(())
    }

    fn arguments(
        &self,
        arguments: &'a [(Positioned<Name>, Positioned<Value>)],
        pos: Pos,
        into: &mut Definition<'a>,
    ) -> Result<(), DocumentError> {
        if arguments.len() > self.limits.max_arguments {
            let limit = self.limits.max_arguments as u64;
            return Err(too_complex("field or directive", limit, "arguments", pos));
        }
        for (_, value) in arguments {
            variables_in(&value.node, &mut into.uses);
        }
        Ok(())
    }

    /// Checks the variables an operation defines.
    pub(super) fn variables(&self, variables: &[Positioned<VariableDefinition>]) -> Result<(), DocumentError> {
        for variable in variables {
            tick();
            // No directive may stand here, and async-graphql does not look.
            if let Some(directive) = variable.node.directives.first() {
                let name = short(&directive.node.name.node);
                let message = format!("Directive \"@{name}\" may not be used on a variable definition.");
                return Err(validation(message, directive.pos));
            }
            // async-graphql panics ("Type `X` not defined") over the default of a list variable
            // whose items are of an unknown type; without a list it reports the type.
            let name = item_type(&variable.node.var_type.node);
            if variable.node.default_value.is_some()
                && matches!(variable.node.var_type.node.base, BaseType::List(_))
                && !BUILT_IN.contains(&name)
                && !self.limits.list_default_types.contains(name)
            {
                let message = format!("Unknown type \"{}\".", short(name));
                return Err(validation(message, variable.node.var_type.pos));
            }
        }
        Ok(())
    }
}

fn variables_in<'a>(value: &'a Value, into: &mut Vec<&'a str>) {
    tick();
    match value {
        Value::Variable(name) => into.push(name),
        Value::List(items) => items.iter().for_each(|item| variables_in(item, into)),
        Value::Object(fields) => fields.values().for_each(|item| variables_in(item, into)),
        _ => {}
    }
}

fn item_type(mut ty: &Type) -> &str {
    loop {
        match &ty.base {
            BaseType::Named(name) => return name,
            BaseType::List(inner) => ty = inner,
        }
    }
}

/// A [`ErrorKind::Validation`] error.
pub(super) fn validation(message: String, pos: Pos) -> DocumentError {
    DocumentError::at(ErrorKind::Validation, message, [pos])
}

/// The [`ErrorKind::TooComplex`] error for a thing with more of something than it may have.
pub(super) fn too_complex(thing: &str, limit: u64, what: &str, pos: Pos) -> DocumentError {
    let message = format!("The {thing} has more than {limit} {what}.");
    DocumentError::at(ErrorKind::TooComplex, message, [pos])
}
