//! Operations that are executed without async-graphql, because they are executed again and again: what a subscription to
//! messages selects, and the mutations `publish`, `publishMany` and `acknowledge`.
//!
//! async-graphql validates a document and executes it the first time. If it was found valid, it is compiled: selections
//! become pieces of JSON text with the fields of messages and publications in between, and arguments become places from
//! which values are taken, in the document or among the variables. From then on only the values of variables are checked.
//!
//! ```text
//! subscription($t: String!) { messages(topic: $t) { offset ... on Message { body: data } } }
//!
//!     topic: variable 0
//!     {"data":{"messages":{"offset":  OFFSET  ,"body":  DATA  }}}
//! ```
//!
//! Whatever is unusual is left to async-graphql: other fields, several operations in one document, and values that are not
//! of the form that clients usually send, valid or not. So async-graphql words every error about documents and variables, and
//! here only the broker's own errors are written, in the same way. `compiled/tests.rs` compares the two on random documents
//! and messages.
//!
//! Which selections count may depend on variables (`@skip`, `@include`): each combination of their values is compiled for
//! itself.

mod mutation;
pub mod parts;
pub mod selection;
mod subscription;
#[cfg(test)]
mod tests;
mod variables;

use std::sync::Arc;

use async_graphql_parser::types::OperationType;

use self::{
    mutation::{Mutation, Step},
    selection::Selector,
    variables::Variables,
};
use super::document::{Document, MUTATION_ROOT, OperationKind, SUBSCRIPTION_ROOT};
use crate::broker::{Client, Error, Subscribe};

pub use self::subscription::Subscription;

/// Variables in conditions: with each the combinations double.
const MAX_CONDITIONS: usize = 3;

/// The only operation of a document, compiled. `S` is what results of a subscription are made with.
pub struct Programs<S> {
    /// The operation's name.
    name: Option<Box<str>>,
    variables: Variables,
    /// The variables in conditions, with their places.
    conditions: Vec<(Box<str>, usize)>,
    /// By the values of those, as bits.
    combinations: Vec<Option<Arc<Program<S>>>>,
}

/// One operation.
pub enum Program<S> {
    Mutation(Mutation),
    Subscription(Subscription<S>),
}

/// A request for a compiled operation, with the values of its arguments.
pub struct Call<S> {
    program: Arc<Program<S>>,
    values: Values,
}

/// An operation with what its client wants to subscribe to, or why that is refused.
pub type Subscribing<S> = (Arc<Program<S>>, Result<Subscribe, Error>);

enum Values {
    Mutation(Vec<Step>),
    Subscription(Box<Result<Subscribe, Error>>),
}

impl<S> Programs<S> {
    /// Compiles a document that was found valid; `None` where that is not possible. `max_bytes` bounds the variables, each
    /// as often as it is used.
    pub fn compile(document: &Document, max_bytes: u64) -> Option<Self> {
        let (name, operation, fragments) = document.only()?;
        if operation.ty == OperationType::Query || !operation.directives.is_empty() {
            return None;
        }
        let variables = Variables::declared(&operation.variable_definitions, document, max_bytes)?;
        let root = &operation.selection_set.node;
        let sets = std::iter::once(root).chain(fragments.values().map(|fragment| &fragment.node.selection_set.node));
        let conditions = selection::conditions(sets);
        if conditions.len() > MAX_CONDITIONS {
            return None;
        }
        let place = |name: &&str| Some(((*name).into(), variables.find(name)?));
        let places = conditions.iter().map(place).collect::<Option<_>>()?;
        let program = |bits: usize| {
            let value = |name: &str| {
                let at = conditions.iter().position(|known| *known == name)?;
                Some(bits >> at & 1 == 1)
            };
            let selector = Selector::new(fragments, &value);
            Some(Arc::new(if operation.ty == OperationType::Mutation {
                let roots = selector.roots(MUTATION_ROOT, root)?;
                Program::Mutation(Mutation::compile(&roots, &selector, &variables)?)
            } else {
                let roots = selector.roots(SUBSCRIPTION_ROOT, root)?;
                Program::Subscription(Subscription::compile(&roots, &selector, &variables)?)
            }))
        };
        let combinations: Vec<_> = (0..1 << conditions.len()).map(program).collect();
        let any = combinations.iter().any(Option::is_some);
        any.then(|| Self { name: name.map(Into::into), variables, conditions: places, combinations })
    }

    /// The memory that this takes, in bytes.
    pub fn bytes(&self) -> usize {
        let programs = self.combinations.iter().flatten().map(|program| match &**program {
            Program::Mutation(mutation) => mutation.bytes(),
            Program::Subscription(subscription) => subscription.bytes(),
        });
        size_of::<Self>()
            + self.name.as_ref().map_or(0, |name| name.len())
            + self.variables.bytes()
            + programs.sum::<usize>()
    }

    fn program(&self, value: impl Fn(&str, usize) -> Option<bool>) -> Option<&Arc<Program<S>>> {
        let mut bits = 0;
        for (at, (name, place)) in self.conditions.iter().enumerate() {
            bits |= usize::from(value(name, *place)?) << at;
        }
        self.combinations.get(bits)?.as_ref()
    }

    /// Reads a request for the operation of this name with these variables as JSON text; `None` where async-graphql has to
    /// read it. Nothing is done yet.
    pub fn call(&self, name: Option<&str>, variables: &str, client: &Client) -> Option<Call<S>> {
        if name.is_some() && name != self.name.as_deref() {
            return None;
        }
        let given = self.variables.read(variables)?;
        let program = self.program(|_, place| given.flag(place))?;
        let values = match &**program {
            Program::Mutation(mutation) => Values::Mutation(mutation.read(&given, client)?),
            Program::Subscription(subscription) => Values::Subscription(Box::new(subscription.read(&given)?)),
        };
        Some(Call { program: program.clone(), values })
    }

    /// The subscription with these values of the variables in conditions.
    pub fn subscription(&self, value: impl Fn(&str) -> Option<bool>) -> Option<&Subscription<S>> {
        match &**self.program(|name, _| value(name))? {
            Program::Subscription(subscription) => Some(subscription),
            Program::Mutation(_) => None,
        }
    }
}

impl<S> Call<S> {
    /// What the operation does.
    pub fn kind(&self) -> OperationKind {
        match &*self.program {
            Program::Mutation(_) => OperationKind::Mutation,
            Program::Subscription(_) => OperationKind::Subscription,
        }
    }

    /// Executes a mutation. Returns the result as JSON, and whether it has errors; `None` for a subscription.
    pub async fn execute(self, client: &Client) -> Option<(String, bool)> {
        match (&*self.program, self.values) {
            (Program::Mutation(mutation), Values::Mutation(steps)) => Some(mutation.execute(steps, client).await),
            _ => None,
        }
    }

    /// What is needed to subscribe; `None` for a mutation.
    pub fn subscribe(self) -> Option<Subscribing<S>> {
        match self.values {
            Values::Subscription(request) => Some((self.program, *request)),
            Values::Mutation(_) => None,
        }
    }
}

impl<S> Program<S> {
    /// The subscription.
    pub fn subscription(&self) -> Option<&Subscription<S>> {
        match self {
            Program::Subscription(subscription) => Some(subscription),
            Program::Mutation(_) => None,
        }
    }
}
