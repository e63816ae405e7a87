//! Tests of the checks alone are in `lexical`, `limits` and `rewriting`; those in `execution` run
//! what passes through async-graphql.

mod absence;
mod caching;
mod execution;
mod lexical;
mod limits;
mod literals;
mod rewriting;

use async_graphql_parser::types::{ExecutableDocument, Selection, SelectionSet};
use async_graphql_value::Variables;

use super::{Document, DocumentError, DocumentLimits, ErrorKind, steps};

fn prepare(text: &str) -> Result<Document, DocumentError> {
    Document::prepare(text, &DocumentLimits::default())
}

/// Prepares a document that has to be refused, and returns why.
fn refuse(text: &str) -> DocumentError {
    match prepare(text) {
        Ok(_) => panic!("accepted: {text:.200}"),
        Err(error) => error,
    }
}

/// Prepares a hostile document and returns the result and the steps it took.
fn counted(text: &str) -> (Result<Document, DocumentError>, u64) {
    steps::take();
    let result = prepare(text);
    (result, steps::take())
}

fn variables(json: &str) -> Variables {
    Variables::from_json(serde_json::from_str(json).unwrap())
}

/// `{f0}` spread `width` times per level down to level `depth`.
fn tree(width: usize, depth: usize) -> String {
    let mut text = String::from("{...f0}");
    for level in 0..depth {
        // Inline fragments, so that the spreads are not the same selection twice.
        let spread = format!("... on Query{{...f{}}}", level + 1);
        text += &format!("fragment f{level} on Query{{...f{} {}}}", level + 1, spread.repeat(width - 1));
    }
    text + &format!("fragment f{depth} on Query{{a}}")
}

/// `count` items made by `item`.
fn many(count: usize, item: impl Fn(usize) -> String) -> String {
    (0..count).map(item).collect()
}

/// The query that graphql-js builds with every option on, and so GraphiQL sends, with as many
/// levels of `ofType`.
fn introspection(of_type: usize) -> String {
    let of_types = "ofType { kind name ".repeat(of_type) + &"}".repeat(of_type);
    format!(
        "query IntrospectionQuery {{
          __schema {{
            description
            queryType {{ name kind }}
            mutationType {{ name kind }}
            subscriptionType {{ name kind }}
            types {{ ...FullType }}
            directives {{
              name
              description
              isRepeatable
              locations
              args(includeDeprecated: true) {{ ...InputValue }}
            }}
          }}
        }}
        fragment FullType on __Type {{
          kind
          name
          description
          specifiedByURL
          isOneOf
          fields(includeDeprecated: true) {{
            name
            description
            args(includeDeprecated: true) {{ ...InputValue }}
            type {{ ...TypeRef }}
            isDeprecated
            deprecationReason
          }}
          inputFields(includeDeprecated: true) {{ ...InputValue }}
          interfaces {{ ...TypeRef }}
          enumValues(includeDeprecated: true) {{
            name
            description
            isDeprecated
            deprecationReason
          }}
          possibleTypes {{ ...TypeRef }}
        }}
        fragment InputValue on __InputValue {{
          name
          description
          type {{ ...TypeRef }}
          defaultValue
          isDeprecated
          deprecationReason
        }}
        fragment TypeRef on __Type {{ kind name {of_types} }}"
    )
}

/// The selections of a document in a canonical form, for comparison.
fn outline(document: &ExecutableDocument) -> String {
    let mut operations: Vec<_> = document.operations.iter().collect();
    operations.sort_by_key(|(_, operation)| operation.pos);
    let mut fragments: Vec<_> = document.fragments.iter().collect();
    fragments.sort_by_key(|(_, fragment)| fragment.pos);
    let operations = operations.iter().map(|(_, operation)| set_outline(&operation.node.selection_set.node));
    let fragments = fragments.iter().map(|(name, fragment)| {
        let set = set_outline(&fragment.node.selection_set.node);
        format!("{name}{set}")
    });
    operations.chain(fragments).collect::<Vec<_>>().join(" ")
}

fn set_outline(set: &SelectionSet) -> String {
    if set.items.is_empty() {
        return String::new();
    }
    let items = set.items.iter().map(|item| {
        let directives = item.node.directives().iter();
        let directives: String = directives.map(|directive| format!("@{}", directive.node.name.node)).collect();
        match &item.node {
            Selection::Field(field) => {
                let field = &field.node;
                let alias = field.alias.as_ref();
                let alias = alias.map_or_else(String::new, |alias| format!("{}:", alias.node));
                let inner = set_outline(&field.selection_set.node);
                format!("{alias}{}{directives}{inner}", field.name.node)
            }
            Selection::FragmentSpread(spread) => {
                format!("...{}{directives}", spread.node.fragment_name.node)
            }
            Selection::InlineFragment(inline) => {
                let on = inline.node.type_condition.as_ref();
                let on = on.map_or("", |on| on.node.on.node.as_str());
                let inner = set_outline(&inline.node.selection_set.node);
                format!("...[{on}]{directives}{inner}")
            }
        }
    });
    format!("{{{}}}", items.collect::<Vec<_>>().join(" "))
}
