//! One request with several messages, and what the server has said to it.

use serde::Deserialize;
use serde_json::{json, value::RawValue};

use super::input::Line;
use crate::client::{ErrorObject, Failure, Refusal, Remote};

/// What came of one message: the object that the server has sent if it is published.
pub type Done = Result<Box<RawValue>, Refusal>;

/// What came of a request.
#[derive(Debug)]
pub enum Answer {
    /// Each message has its own result.
    Each(Vec<Done>),
    /// The request as a whole was refused, or did not reach the server.
    Whole(Failure),
}

#[derive(Deserialize)]
struct Body {
    results: Vec<Box<RawValue>>,
}

#[derive(Deserialize)]
struct Published {
    error: Option<ErrorObject>,
    duplicate: Option<bool>,
}

/// Publishes messages in their order, by one request.
pub async fn publish(remote: &Remote, lines: &[Line]) -> Answer {
    let exchanged = remote.exchange(hyper::Method::POST, "/publish", Some(body(lines))).await;
    let answered = match exchanged {
        Ok(answered) => answered,
        Err(failure) => return Answer::Whole(failure),
    };
    if let Ok(Body { results }) = serde_json::from_str(&answered.text)
        && results.len() == lines.len()
        && let Ok(each) = results.into_iter().map(done).collect()
    {
        return Answer::Each(each);
    }
    Answer::Whole(Failure::of_response(&answered, remote.address()))
}

fn done(result: Box<RawValue>) -> Result<Done, serde_json::Error> {
    let published: Published = serde_json::from_str(result.get())?;
    Ok(match (published.error, published.duplicate) {
        (Some(error), _) => Err(error.into()),
        (None, _) => Ok(result),
    })
}

fn body(lines: &[Line]) -> String {
    let mut body = String::from("[");
    for (index, line) in lines.iter().enumerate() {
        if index > 0 {
            body.push(',');
        }
        let mut fields = json!({"topic": line.topic, "id": line.id});
        if let Some(key) = &line.key {
            fields["key"] = key.as_str().into();
        }
        if let Some(offset) = line.expected_offset {
            fields["expected_offset"] = offset.into();
        }
        if let Some(offset) = line.expected_key_offset {
            fields["expected_key_offset"] = offset.into();
        }
        if let Some(headers) = &line.headers {
            fields["headers"] = json!(headers);
        }
        if let Some(ttl) = &line.ttl {
            fields["ttl"] = ttl.as_str().into();
        }
        if line.is_removal {
            fields["remove"] = true.into();
        }
        let fields = fields.to_string();
        // The data go as they came, with every digit.
        body.push_str(&format!("{},\"data\":{}}}", &fields[..fields.len() - 1], line.data));
    }
    body.push(']');
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_keep_the_data() {
        let line = |data: &str, key: Option<&str>| Line {
            number: 1,
            topic: "a\"b".to_owned(),
            data: data.to_owned(),
            key: key.map(str::to_owned),
            id: "7".to_owned(),
            expected_offset: key.map(|_| 5),
            expected_key_offset: key.map(|_| 4),
            headers: key.map(|key| [(key.to_owned(), "v".to_owned())].into()),
            ttl: key.map(|_| "5s".to_owned()),
            is_removal: key.is_some(),
        };
        let text = body(&[line("1.50e400", None), line("{}", Some("k"))]);
        let wanted = r#"[{"topic":"a\"b","id":"7","data":1.50e400},{"topic":"a\"b","id":"7","key":"k","expected_offset":5,"expected_key_offset":4,"headers":{"k":"v"},"ttl":"5s","remove":true,"data":{}}]"#;
        assert_eq!(text, wanted);
    }

    #[test]
    fn results_are_told_apart() {
        let read = |text: &str| done(serde_json::from_str(text).unwrap()).unwrap();
        assert!(read(r#"{"status":"published","offset":1,"duplicate":false}"#).is_ok());
        assert_eq!(read(r#"{"error":{"code":"CONFLICT","message":"no"}}"#).unwrap_err().code, "CONFLICT");
    }
}
