//! The credential in the payload of `connection_init`.

use crate::{access::bearer, broker::Error, wire::Fields};

/// The credential, in one of the forms that clients send: `{"Authorization": "Bearer …"}`, `{"apiKey": …}`, `{"token": …}`,
/// or headers like those of a request, which some clients put into an object `headers`.
///
/// # Errors
/// [`Error::BadRequest`] for one that cannot be read. It does not contain the credential.
pub fn of_payload(payload: Option<&str>) -> Result<Option<String>, Error> {
    let Some(payload) = payload else { return Ok(None) };
    let fields = Fields::parse("payload", payload)?;
    if let Some(credential) = of_fields(&fields)? {
        return Ok(Some(credential));
    }
    match fields.present("headers") {
        Some(headers) if headers.get().starts_with('{') => of_fields(&Fields::parse("headers", headers.get())?),
        _ => Ok(None),
    }
}

fn of_fields(fields: &Fields<'_>) -> Result<Option<String>, Error> {
    for name in ["Authorization", "authorization"] {
        if let Some(value) = text(fields, name)? {
            return bearer(&value).map(|credential| Some(credential.to_owned()));
        }
    }
    for name in ["X-API-Key", "x-api-key", "apiKey", "token"] {
        if let Some(value) = text(fields, name)? {
            return Ok(Some(value));
        }
    }
    Ok(None)
}

/// A field that is text. An empty one is an absent one: clients send it before anybody has signed in.
fn text(fields: &Fields<'_>, name: &'static str) -> Result<Option<String>, Error> {
    match fields.present(name) {
        None => Ok(None),
        Some(value) if value.get() == "null" => Ok(None),
        Some(_) => Ok(fields.text(name)?.map(std::borrow::Cow::into_owned).filter(|text| !text.is_empty())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn forms_of_clients() {
        let found = |payload: &str| of_payload(Some(payload));
        for payload in [
            r#"{"Authorization":"Bearer k"}"#,
            r#"{"authorization":"bearer k","token":"other"}"#,
            r#"{"apiKey":"k"}"#,
            r#"{"token":"k"}"#,
            r#"{"x-api-key":"k"}"#,
            r#"{"headers":{"Authorization":"Bearer k"}}"#,
        ] {
            assert_eq!(found(payload), Ok(Some("k".to_owned())), "{payload}");
        }
        for payload in ["{}", r#"{"token":null}"#, r#"{"token":""}"#, r#"{"other":1}"#, r#"{"headers":1}"#] {
            assert_eq!(found(payload), Ok(None), "{payload}");
        }
        assert_eq!(of_payload(None), Ok(None));
        for payload in [r#"{"Authorization":"Basic secret"}"#, r#"{"token":{"secret":1}}"#, r#"{"apiKey":12345}"#] {
            let error = found(payload).unwrap_err().to_string();
            assert!(!error.contains("secret") && !error.contains("12345"), "{error}");
        }
    }
}
