//! What has to be known about a GraphQL request document before async-graphql sees it.
//!
//! async-graphql 7.2.1 defends itself against hostile documents too late or not at all: its parser
//! descends with every bracket, its depth check and its visitors follow each fragment again at every
//! spread, and some of its rules report every pair of offending nodes. [`Document::prepare`] bounds
//! all of that beforehand, settles the rules that async-graphql misses, and hands on a document
//! rewritten where async-graphql would execute the original wrongly (`rewrite` says where).
//!
//! The stages, each bounded by the one before: [`scan()`] bounds bytes, tokens and nesting of the
//! text; the parser makes a tree of it; `analysis` bounds what the tree expands to; `rewrite`
//! dissolves and merges; `overlap` looks for conflicting fields.
//!
//! What stays with the caller: giving the schema's errors a ceiling (a document of the permitted
//! size can still contain some 2,000 unknown fields, and async-graphql reports each), and weighing
//! fields that return lists, since only the schema knows those.

mod absent;
mod analysis;
mod cache;
mod edit;
mod literals;
mod overlap;
mod rewrite;
mod scan;
mod size;
mod survey;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display, Formatter};

use async_graphql_parser::types::{DocumentOperations, ExecutableDocument, OperationDefinition, OperationType};
use async_graphql_parser::{Error as ParserError, Pos, parse_query};
use async_graphql_value::{ConstValue, Variables};

pub use absent::is_json;
pub use cache::{Cached, DocumentCache};
pub use rewrite::Fragments;
pub use scan::scan;
#[cfg(feature = "test-support")]
pub use steps::take as steps_taken;

/// The name of the schema's mutation type; fragments on it are dissolved at a mutation's root.
pub const MUTATION_ROOT: &str = "Mutation";
/// The name of the schema's subscription type; fragments on it are dissolved at the root.
pub const SUBSCRIPTION_ROOT: &str = "Subscription";

/// Bounds on a request document. A document that exceeds one is refused as
/// `ErrorKind::TooComplex`.
///
/// "Expanded" numbers count what a fragment contains once for every time it is spread.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentLimits {
    /// Length of the text in bytes; 64 KiB. Generated documents are a few KiB, the introspection
    /// query is under 2; what is longer belongs in variables.
    pub max_bytes: usize,
    /// Tokens in the text; 5,000. About twenty times the introspection query; everything that is
    /// linear in the document is bounded by this.
    pub max_tokens: usize,
    /// Brackets of all sorts open at once; 72: data nests 64 deep at most, and
    /// `mutation { publishMany(messages: [{data: …}]) }` opens four around it. The parser draws a
    /// line of its own for selection sets, at 64, but only after having descended. At 72 a document
    /// takes under 576 KiB of stack, even in an unoptimised build.
    pub max_nesting: usize,
    /// How deep a variable of type `JSON` may nest; 64, the bound on data at all doors.
    pub max_json_nesting: usize,
    /// Selection sets within one another, those of fragments included; 32, where async-graphql's
    /// `limit_recursive_depth` stands by default. It bounds every recursion along a chain of
    /// fragments, here and there.
    pub max_levels: u64,
    /// Fields within one another in an operation; 15, which the introspection query needs for its
    /// nine levels of `ofType`.
    pub max_depth: u64,
    /// Selections, expanded, in all operations together; 2,000. async-graphql walks through all
    /// of them several times, in the operations that are not executed as well.
    pub max_selections: u64,
    /// Aliases in one operation, expanded; 50. An alias is how one field is executed many times.
    pub max_aliases: u64,
    /// Directives in one operation, expanded; 50. There are only `@skip` and `@include`.
    pub max_directives: u64,
    /// Operations in the text; 50. A tool's editor sends all its tabs; several rules of
    /// async-graphql report every operation with every fragment.
    pub max_operations: usize,
    /// Arguments of one field or directive; 64, more than any has. Comparing two fields takes the
    /// square of this.
    pub max_arguments: usize,
    /// Uses of variables, expanded, in all operations together; 500. async-graphql may report an
    /// error for each of them.
    pub max_variable_uses: u64,
    /// Literals (32 bytes for each value and each item, and their text), expanded, and default
    /// values as often as they are used; 256 KiB. This is what the largest document holds as
    /// written: repeating a long literal through fragments is what it refuses.
    pub max_literal_bytes: u64,
    /// Estimated fields in the answers of `__schema` and `__type`, taking a schema of 48 types
    /// with 6 fields each; 250,000. The introspection query is estimated at a third of it, while
    /// `fields { type { fields { type … } } }` grows sixfold with every step.
    pub max_introspection: u64,
    /// Bytes of variables (32 for each value and each item, and their text), each as often as it
    /// is used; 16 MiB. async-graphql copies a variable wherever it is used. See
    /// `Document::check_variables`.
    pub max_substituted_bytes: u64,
    /// The schema's scalar, enum and input types of which a list variable may have a default
    /// value (`$of: [Kind!] = [A]`), beside the five built-in scalars; none. async-graphql panics
    /// if the type does not exist, so a name must only be put here if it does.
    pub list_default_types: BTreeSet<String>,
}

impl Default for DocumentLimits {
    fn default() -> Self {
        Self {
            max_bytes: 64 * 1024,
            max_tokens: 5_000,
            max_nesting: 72,
            max_json_nesting: 64,
            max_levels: 32,
            max_depth: 15,
            max_selections: 2_000,
            max_aliases: 50,
            max_directives: 50,
            max_operations: 50,
            max_arguments: 64,
            max_variable_uses: 500,
            max_literal_bytes: 256 * 1024,
            max_introspection: 250_000,
            max_substituted_bytes: 16 * 1024 * 1024,
            list_default_types: BTreeSet::new(),
        }
    }
}

/// What sort of fault a [`DocumentError`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// The text is not a GraphQL document.
    Syntax,
    /// The document, or the variables given with it, break a rule of GraphQL.
    Validation,
    /// The document, or what it makes of its variables, exceeds a limit.
    TooComplex,
    /// The request names no operation of the document, or names none where it has to.
    Operation,
}

/// Why a document, or a request with it, is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DocumentError {
    /// What sort of fault it is.
    pub kind: ErrorKind,
    /// What is wrong, for the author of the document; under 1 KiB.
    pub message: String,
    /// The lines and columns concerned, from 1, the columns in characters, the most important
    /// first. Empty if no place in the text is to blame.
    pub locations: Vec<(usize, usize)>,
}

impl DocumentError {
    fn new(kind: ErrorKind, message: String, locations: Vec<(usize, usize)>) -> Self {
        Self { kind, message, locations }
    }

    fn at(kind: ErrorKind, message: String, at: impl IntoIterator<Item = Pos>) -> Self {
        let locations = at.into_iter().map(|pos| (pos.line, pos.column)).collect();
        Self::new(kind, message, locations)
    }
}

impl Display for DocumentError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        match self.locations.first() {
            Some((line, column)) => write!(f, " (line {line}, column {column})"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for DocumentError {}

impl From<ParserError> for DocumentError {
    fn from(error: ParserError) -> Self {
        let kind = match &error {
            ParserError::Syntax { .. } => ErrorKind::Syntax,
            ParserError::RecursionLimitExceeded => ErrorKind::TooComplex,
            ParserError::MissingOperation => ErrorKind::Operation,
            _ => ErrorKind::Validation,
        };
        let message = match &error {
            // The parser's message draws the whole line, twice; its last line has the reason.
            ParserError::Syntax { message, .. } => {
                let reason = message.rsplit_once("= ").map_or(&**message, |(_, tail)| tail);
                let reason: String = reason.trim().chars().take(300).collect();
                format!("Syntax error: {reason}.")
            }
            ParserError::OperationDuplicated { operation, .. } => {
                format!("Operation \"{}\" is defined twice.", short(operation))
            }
            ParserError::FragmentDuplicated { fragment, .. } => {
                format!("Fragment \"{}\" is defined twice.", short(fragment))
            }
            ParserError::MultipleOperations { .. } => {
                "An anonymous operation must be the only operation of its document.".to_owned()
            }
            other => format!("The document is refused: {other}"),
        };
        Self::at(kind, message, error.positions())
    }
}

/// The three kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum OperationKind {
    /// `query`, or no keyword at all.
    Query,
    /// `mutation`
    Mutation,
    /// `subscription`
    Subscription,
}

impl From<OperationType> for OperationKind {
    fn from(kind: OperationType) -> Self {
        match kind {
            OperationType::Query => Self::Query,
            OperationType::Mutation => Self::Mutation,
            OperationType::Subscription => Self::Subscription,
        }
    }
}

/// What is known about one operation. The numbers are those of the document as it was sent, with
/// fragments expanded.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OperationFacts {
    /// Its kind.
    pub kind: OperationKind,
    /// Its name, which is what `async_graphql::Request::operation_name` has to be set to.
    pub name: Option<String>,
    /// Fields within one another.
    pub depth: u64,
    /// Fields, inline fragments and fragment spreads.
    pub selections: u64,
    /// Aliases.
    pub aliases: u64,
    /// Directives, including those on the operation itself.
    pub directives: u64,
    /// Fields at the root, before any are merged.
    pub root_fields: u64,
    /// The name (not the alias) of a subscription's only root field. `None` for other operations,
    /// and for a subscription that async-graphql will refuse for the fragments at its root.
    pub subscription_field: Option<String>,
}

/// A document that has passed all checks.
#[derive(Clone, Debug)]
pub struct Document {
    executable: ExecutableDocument,
    bytes: usize,
    operations: Vec<OperationFacts>,
    /// See [`analysis::Analysis::uses`].
    uses: BTreeMap<String, u64>,
}

impl Document {
    /// Reads and checks a document.
    ///
    /// The work is linear in the text, but for the search for conflicting fields, which is bounded
    /// by eight times [`max_selections`](DocumentLimits::max_selections).
    ///
    /// # Errors
    ///
    /// The first fault found, of any kind; [`ErrorKind::Operation`] only if there is no operation
    /// in the document at all. What depends on the schema is not checked.
    pub fn prepare(text: &str, limits: &DocumentLimits) -> Result<Self, DocumentError> {
        scan(text, limits)?;
        let literals = literals::find(text, limits)?;
        let mut executable = parse_query(&literals.text)?;
        literals.restore(&mut executable);
        let analysis::Analysis { mut operations, uses } = analysis::analyse(&executable, limits)?;
        rewrite::rewrite(&mut executable)?;
        absent::settle_nulls(&mut executable);
        overlap::check(&executable, limits)?;
        for facts in &mut operations {
            if facts.kind == OperationKind::Subscription {
                facts.subscription_field = definition(&executable, facts.name.as_deref())
                    .and_then(rewrite::subscription_field)
                    .map(|field| field.name.node.to_string());
            }
        }
        let names = operations.iter().map(|facts| {
            let field = facts.subscription_field.as_ref().map_or(0, String::len);
            size_of::<OperationFacts>() + facts.name.as_ref().map_or(0, String::len) + field
        });
        let bytes = size_of::<Self>()
            + names.sum::<usize>()
            + uses.keys().map(|name| 64 + name.len()).sum::<usize>()
            + size::document(&executable);
        Ok(Self { executable, bytes, operations, uses })
    }

    /// The memory this takes, in bytes, estimated from above.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The operation to execute for a request's `operationName`; an empty one counts as none.
    ///
    /// # Errors
    ///
    /// [`ErrorKind::Operation`] if there is none of that name, or if there is no name and more
    /// than one operation.
    pub fn operation(&self, name: Option<&str>) -> Result<&OperationFacts, DocumentError> {
        let message = match (name.filter(|name| !name.is_empty()), &*self.operations) {
            (None, [only]) => return Ok(only),
            (None, _) => "The document has several operations: operationName is required.".into(),
            (Some(name), all) => {
                let named = |facts: &&OperationFacts| facts.name.as_deref() == Some(name);
                match all.iter().find(named) {
                    Some(facts) => return Ok(facts),
                    None => format!("Unknown operation named \"{}\".", short(name)),
                }
            }
        };
        Err(DocumentError::new(ErrorKind::Operation, message, Vec::new()))
    }

    /// The only operation with its name, and the fragments; `None` if there are several operations.
    #[must_use]
    pub fn only(&self) -> Option<(Option<&str>, &OperationDefinition, &Fragments)> {
        let [only] = &*self.operations else { return None };
        let name = only.name.as_deref();
        definition(&self.executable, name).map(|definition| (name, definition, &self.executable.fragments))
    }

    /// How often a variable is used, in all operations together once fragments are expanded.
    #[must_use]
    pub fn uses(&self, variable: &str) -> u64 {
        self.uses.get(variable).copied().unwrap_or(0)
    }

    fn definition(&self, name: Option<&str>) -> Result<&OperationDefinition, DocumentError> {
        let name = self.operation(name)?.name.as_deref();
        definition(&self.executable, name).ok_or_else(|| {
            let message = "The operation does not exist.".to_owned();
            DocumentError::new(ErrorKind::Operation, message, Vec::new())
        })
    }

    /// One error ([`ErrorKind::Validation`]) for every variable of the operation that must have a
    /// value and has none: of a non-null type, and either null (but for `JSON!`) or absent without a default. Where
    /// it is used, in a directive for example, makes no difference.
    ///
    /// If the operation cannot be told, that is the only error ([`ErrorKind::Operation`]).
    #[must_use]
    pub fn missing_variables(&self, operation: Option<&str>, given: &Variables) -> Vec<DocumentError> {
        let definition = match self.definition(operation) {
            Ok(definition) => definition,
            Err(error) => return vec![error],
        };
        let mut errors = Vec::new();
        for variable in &definition.variable_definitions {
            let (pos, variable) = (variable.pos, &variable.node);
            let fault = match given.get(&variable.name.node) {
                _ if variable.var_type.node.nullable => continue,
                // Null is a value of JSON, wherever it is wanted.
                Some(ConstValue::Null) if absent::is_json(&variable.var_type.node) => continue,
                Some(ConstValue::Null) => "must not be null",
                None if variable.default_value.is_none() => "was not provided",
                _ => continue,
            };
            let ty = variable.var_type.node.to_string();
            let message =
                format!("Variable \"${}\" of required type \"{}\" {fault}.", short(&variable.name.node), short(&ty));
            errors.push(DocumentError::at(ErrorKind::Validation, message, [pos]));
        }
        errors
    }

    /// Checks a request's variables: that none is [missing](Self::missing_variables), and that
    /// copying each wherever it is used stays within
    /// [`max_substituted_bytes`](DocumentLimits::max_substituted_bytes).
    ///
    /// # Errors
    ///
    /// All missing variables, or one `ErrorKind::TooComplex`.
    pub fn check_variables(
        &self,
        operation: Option<&str>,
        given: &Variables,
        limits: &DocumentLimits,
    ) -> Result<(), Vec<DocumentError>> {
        let missing = self.missing_variables(operation, given);
        if !missing.is_empty() {
            return Err(missing);
        }
        self.check_nesting(operation, given, limits)?;
        let mut bytes = 0u64;
        for (name, value) in given.iter() {
            if let Some(&times) = self.uses.get(name.as_str()) {
                bytes = bytes.saturating_add(size::constant(value).bytes().saturating_mul(times));
            }
        }
        let limit = limits.max_substituted_bytes;
        if bytes > limit {
            let message = format!("The variables come to {bytes} bytes where they are used; the limit is {limit}.");
            let error = DocumentError::new(ErrorKind::TooComplex, message, Vec::new());
            return Err(vec![error]);
        }
        Ok(())
    }

    fn check_nesting(
        &self,
        operation: Option<&str>,
        given: &Variables,
        limits: &DocumentLimits,
    ) -> Result<(), Vec<DocumentError>> {
        let definitions = self.definition(operation).into_iter().flat_map(|operation| &operation.variable_definitions);
        for variable in definitions.filter(|variable| absent::is_json(&variable.node.var_type.node)) {
            let name = &variable.node.name.node;
            let limit = limits.max_json_nesting;
            if given.get(name).is_some_and(|value| nests_deeper(value, limit)) {
                let message = format!("Variable \"${}\" must not nest deeper than {limit}.", short(name));
                return Err(vec![DocumentError::at(ErrorKind::Validation, message, [variable.pos])]);
            }
        }
        Ok(())
    }

    /// Puts the default values of the operation's absent variables into `given`, and JSON's null in the place of nulls that
    /// are given as data.
    ///
    /// async-graphql evaluates `@skip` and `@include` with the variables given and takes an absent
    /// one for false, whatever its default. Does nothing if the operation cannot be told.
    pub fn fill_defaults(&self, operation: Option<&str>, given: &mut Variables) {
        let Ok(definition) = self.definition(operation) else {
            return;
        };
        for variable in &definition.variable_definitions {
            let name = &variable.node.name.node;
            if let Some(default) = &variable.node.default_value
                && !given.contains_key(name)
            {
                given.insert(name.clone(), default.node.clone());
            }
            if let Some(value) = given.get_mut(name) {
                absent::json_nulls_of(&variable.node.var_type.node, value);
            }
        }
    }
}

/// Whether lists and objects stand more than `levels` within one another. Recurses no deeper than that.
fn nests_deeper(value: &ConstValue, levels: usize) -> bool {
    let inside = |item: &ConstValue| levels == 0 || nests_deeper(item, levels - 1);
    match value {
        ConstValue::List(items) => levels == 0 || items.iter().any(inside),
        ConstValue::Object(fields) => levels == 0 || fields.values().any(inside),
        _ => false,
    }
}

fn definition<'a>(document: &'a ExecutableDocument, name: Option<&str>) -> Option<&'a OperationDefinition> {
    match (&document.operations, name) {
        (DocumentOperations::Single(operation), None) => Some(&operation.node),
        (DocumentOperations::Multiple(operations), Some(name)) => operations.get(name).map(|operation| &operation.node),
        _ => None,
    }
}

/// A name for use in a message: at most 64 characters of it.
fn short(name: &str) -> &str {
    match name.char_indices().nth(64) {
        Some((end, _)) => name.get(..end).unwrap_or(name),
        None => name,
    }
}

/// Counts the steps of the checks, so that tests can bound them instead of the time they take.
mod steps {
    #[cfg(any(test, feature = "test-support"))]
    thread_local! {
        static TAKEN: std::cell::Cell<u64> = const { std::cell::Cell::new(0) };
    }

    /// Called for every node visited; free outside of tests.
    pub(super) fn tick() {
        #[cfg(any(test, feature = "test-support"))]
        TAKEN.with(|taken| taken.set(taken.get() + 1));
    }

    /// Steps taken on this thread since this was last called.
    #[cfg(any(test, feature = "test-support"))]
    #[allow(clippy::must_use_candidate, reason = "a test also begins to count by this")]
    pub fn take() -> u64 {
        TAKEN.with(|taken| taken.replace(0))
    }
}
