//! Walks over a document to change the values in it, wherever they stand.

use async_graphql_parser::{
    Positioned,
    types::{Directive, Selection, SelectionSet},
};
use async_graphql_value::{Name, Value};

/// Changes the arguments of fields and directives.
pub(super) trait EditArguments {
    /// Changes the arguments of one field or directive.
    fn arguments(&mut self, arguments: &mut Vec<(Positioned<Name>, Positioned<Value>)>);

    /// Changes the arguments of directives.
    fn directives(&mut self, directives: &mut [Positioned<Directive>]) {
        for directive in directives {
            self.arguments(&mut directive.node.arguments);
        }
    }

    /// Changes the arguments in a selection set and in all sets within it. Fragments are definitions of their own.
    fn set(&mut self, set: &mut SelectionSet) {
        for item in &mut set.items {
            match &mut item.node {
                Selection::Field(field) => {
                    self.arguments(&mut field.node.arguments);
                    self.directives(&mut field.node.directives);
                    self.set(&mut field.node.selection_set.node);
                }
                Selection::FragmentSpread(spread) => self.directives(&mut spread.node.directives),
                Selection::InlineFragment(inline) => {
                    self.directives(&mut inline.node.directives);
                    self.set(&mut inline.node.selection_set.node);
                }
            }
        }
    }
}
