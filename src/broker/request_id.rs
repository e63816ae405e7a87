//! The id of the request that a task is responding to: the client's own, or one that is made. The response has it, and so has what
//! is logged meanwhile.

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher as _, RandomState},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// The longest id that a client may give.
const MAX_BYTES: usize = 128;

/// What an id may have beside letters and digits: what the common formats of ids have. Nothing of it needs quoting in a log.
const MARKS: &[u8] = b"-._~:/+=@";

tokio::task_local! {
    static CURRENT: RequestId;
}

/// The id of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestId(Id);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Id {
    Given(Arc<str>),
    /// One that nobody has written out yet.
    Made(u64),
}

impl RequestId {
    /// The id that a client gives: 1 to 128 letters, digits and `-._~:/+=@`. None for any other text.
    #[must_use]
    pub fn given(text: &[u8]) -> Option<Self> {
        let is_plain = |byte: &u8| byte.is_ascii_alphanumeric() || MARKS.contains(byte);
        let text = std::str::from_utf8(text).ok()?;
        let is_id = (1..=MAX_BYTES).contains(&text.len()) && text.as_bytes().iter().all(is_plain);
        is_id.then(|| Self(Id::Given(text.into())))
    }

    /// A new one. Hardly any other request has it, and it does not tell how many requests there were between two.
    #[must_use]
    pub fn made() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        static HASHER: OnceLock<RandomState> = OnceLock::new();
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self(Id::Made(HASHER.get_or_init(RandomState::new).hash_one(number)))
    }

    /// Responds to the request: what is logged meanwhile has this id.
    pub fn responding<F: Future>(self, response: F) -> impl Future<Output = F::Output> {
        CURRENT.scope(self, response)
    }

    /// The same for those who poll the response themselves, for one poll.
    pub fn enter<T>(&self, poll: impl FnOnce() -> T) -> T {
        CURRENT.sync_scope(self.clone(), poll)
    }

    /// The id of the request that this task is responding to.
    #[must_use]
    pub fn current() -> Option<Self> {
        CURRENT.try_with(Clone::clone).ok()
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Id::Given(text) => f.write_str(text),
            Id::Made(number) => write!(f, "{number:016x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn ids_are_plain_and_bounded() {
        let longest = "x".repeat(MAX_BYTES);
        for good in ["a", "0af7651916cd43dd8448eb211c80319c", "req-1.2_3~4:5/6+7=8@9", &longest] {
            assert_eq!(RequestId::given(good.as_bytes()).unwrap().to_string(), good);
        }
        for bad in ["", " ", "a b", "a\nb", "a\"b", "\u{fc}", "{}", &(longest + "x")] {
            assert_eq!(RequestId::given(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(RequestId::given(&[0xff]), None);
        let (one, other) = (RequestId::made(), RequestId::made());
        assert!(one != other && one.to_string().len() == 16);
        assert_eq!(RequestId::current(), None);
        let seen = one.clone().responding(async { RequestId::current() }).await;
        assert_eq!(seen, Some(one));
    }
}
