//! A request as clients of all transports write it: JSON text of a document, variables and extensions.

use std::borrow::Cow;

use async_graphql::Variables;

use super::json;
use crate::wire::Fields;

/// A request as a client sent it.
#[derive(Clone, Debug, Default)]
pub struct Asked {
    /// The document, unless it is named by its hash alone.
    pub query: Option<String>,
    /// The SHA-256 hash of a persisted document.
    pub hash: Option<String>,
    /// Which of its operations.
    pub operation: Option<String>,
    /// Its variables.
    pub variables: Variables,
    /// Its id on a single-connection event stream.
    pub operation_id: Option<String>,
    /// The client's name for the ping that is to say that its subscription is open.
    pub ack: Option<String>,
}

/// One request as the specification writes it, from JSON text.
///
/// # Errors
/// What is wrong, naming the parameter.
pub fn read(text: &str) -> Result<Asked, String> {
    let fields = Fields::parse("body", text).map_err(|error| error.to_string())?;
    let parameter = |name| fields.text(name).map_err(|error| error.to_string());
    let query = parameter("query")?.map(Cow::into_owned);
    let operation = parameter("operationName")?.filter(|name| !name.is_empty()).map(Cow::into_owned);
    let extensions = fields.present("extensions").map(|extensions| read_extensions(extensions.get())).transpose()?;
    let variables = fields.present("variables").map(|variables| json::read_variables(variables.get())).transpose()?;
    asked(query, operation, variables.unwrap_or_default(), extensions.unwrap_or_default())
}

/// What this service reads of a request's extensions.
#[derive(Default)]
pub struct Extensions {
    /// The hash of a persisted document.
    hash: Option<String>,
    /// The operation's id on a single-connection event stream.
    operation_id: Option<String>,
    /// The client's name for the ping that is to say that its subscription is open.
    ack: Option<String>,
}

pub fn read_extensions(text: &str) -> Result<Extensions, String> {
    let object = |text| Fields::parse("extensions", text).map_err(|_| "extensions: must be an object".to_owned());
    let text_of = |fields: &Fields<'_>, name| {
        fields.text(name).map(|text| text.map(Cow::into_owned)).map_err(|error| format!("extensions.{error}"))
    };
    let fields = object(text)?;
    let persisted = fields.present("persistedQuery").map(|persisted| object(persisted.get())).transpose()?;
    Ok(Extensions {
        hash: persisted.map(|persisted| text_of(&persisted, "sha256Hash")).transpose()?.flatten(),
        operation_id: text_of(&fields, "operationId")?,
        ack: text_of(&fields, "ack")?,
    })
}

pub fn asked(
    query: Option<String>,
    operation: Option<String>,
    variables: Variables,
    extensions: Extensions,
) -> Result<Asked, String> {
    let Extensions { hash, operation_id, ack } = extensions;
    if query.is_none() && hash.is_none() {
        return Err("query: is missing".to_owned());
    }
    Ok(Asked { query, hash, operation, variables, operation_id, ack })
}
