//! The ids that a client gives its operations: of any length, within a bound for all of them.

use crate::broker::Error;

/// Bytes of all operations' ids on one WebSocket or one event stream, as JSON text, as which every message repeats them. The first operation may
/// have a longer one: an id may be as long as a frame or a body.
const MAX_ID_BYTES: usize = 1 << 20;

/// Checks whether there is room for another operation's id beside those of the running ones.
///
/// # Errors
/// [`Error::LimitReached`].
pub fn check_room<'a>(mut ids: impl Iterator<Item = &'a String>, id: &str) -> Result<(), Error> {
    let Some(first) = ids.next() else { return Ok(()) };
    if first.len() + ids.map(String::len).sum::<usize>() + id.len() > MAX_ID_BYTES {
        let what = "bytes of operation ids on one connection";
        return Err(Error::LimitReached { what, limit: MAX_ID_BYTES, own: true });
    }
    Ok(())
}

/// Checks the length of an id that stands in a body, where a bound of frames does not hold.
///
/// # Errors
/// [`Error::BadRequest`].
pub fn check_length(id: &str) -> Result<(), Error> {
    if id.len() > MAX_ID_BYTES {
        let message = format!("must be at most {MAX_ID_BYTES} bytes as JSON");
        return Err(Error::bad_request("extensions.operationId", message));
    }
    Ok(())
}

/// Why an id is refused, in the words of npm graphql-ws. A close frame has room for 123 bytes.
pub fn exists(id: &str) -> String {
    const MOST: usize = 123 - "Subscriber for  already exists".len();
    if id.len() <= MOST {
        return format!("Subscriber for {id} already exists");
    }
    let cut = id.floor_char_boundary(MOST - "…".len());
    format!("Subscriber for {}… already exists", id.get(..cut).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_fits_a_close_frame() {
        assert_eq!(exists("a"), "Subscriber for a already exists");
        for (id, length) in
            [("x".repeat(93), 123), ("x".repeat(94), 123), ("ü".repeat(500), 123), ("🌍".repeat(500), 121)]
        {
            let reason = exists(&id);
            assert_eq!(reason.len(), length, "{reason}");
            assert!(reason.ends_with(" already exists"), "{reason}");
        }
    }

    #[test]
    fn one_long_id_fits_and_many_do_not() {
        let long = "x".repeat(MAX_ID_BYTES + 1);
        assert!(check_room([].iter(), &long).is_ok());
        let ids = ["x".to_owned(), "y".to_owned()];
        assert!(check_room(ids.iter(), &long[..MAX_ID_BYTES - 2]).is_ok());
        let refused = check_room(ids.iter(), &long[..MAX_ID_BYTES - 1]).unwrap_err();
        assert_eq!(refused.to_string(), "at most 1048576 bytes of operation ids on one connection");
    }
}
