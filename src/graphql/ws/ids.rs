//! The ids that a client gives its operations: of any length, within a bound for all of them.

use crate::problem::{Code, Problem};

/// Bytes of all operations' ids on one connection. The first operation may have a longer one: an id may be as long as a frame.
const MAX_ID_BYTES: usize = 1 << 20;

/// Why there is no room for another operation beside those of these ids.
pub(super) fn room<'a>(
    ids: impl ExactSizeIterator<Item = &'a String>,
    id: &str,
    max_operations: usize,
) -> Option<Problem> {
    let operations = ids.len();
    if operations >= max_operations {
        let message = format!("at most {max_operations} operations on one connection");
        return Some(Problem::new(Code::LimitReached, message));
    }
    let too_long = operations > 0 && ids.map(String::len).sum::<usize>() + id.len() > MAX_ID_BYTES;
    too_long.then(|| {
        Problem::new(Code::LimitReached, format!("at most {MAX_ID_BYTES} bytes of operation ids on one connection"))
    })
}

/// Why an id is refused, in the words of npm graphql-ws. A close frame has room for 123 bytes.
pub(super) fn exists(id: &str) -> String {
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
        assert!(room([].iter(), &long, 10).is_none());
        let ids = ["x".to_owned(), "y".to_owned()];
        assert!(room(ids.iter(), &long[..MAX_ID_BYTES - 2], 10).is_none());
        assert!(room(ids.iter(), &long[..MAX_ID_BYTES - 1], 10).is_some());
        assert!(room(ids.iter(), "z", 2).is_some());
    }
}
