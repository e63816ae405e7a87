//! Who a subscription belongs to and what it asks for, as those see it who look at a topic's subscriptions.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use super::{ConsumerName, Error, Filter, Overflow, Pattern, Timestamp};

/// Names a live subscription of this instance. No other instance gives the same, and none is given twice while the
/// process lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SubscriptionId(pub u64);

impl fmt::Display for SubscriptionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for SubscriptionId {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let is_plain = text.len() == 16 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        let number = u64::from_str_radix(text, 16).ok().filter(|_| is_plain);
        number.map(Self).ok_or_else(|| Error::bad_request("subscription", "must be 16 hexadecimal digits"))
    }
}

/// What is known of a subscription from its beginning to its end.
pub(crate) struct Subscriber {
    pub id: SubscriptionId,
    /// The name of the principal that has subscribed; none on a server without access rules.
    pub principal: Option<Arc<str>>,
    /// The interface that it came through, such as `graphql`.
    pub door: &'static str,
    /// Whence the client came, if that is known.
    pub address: Option<IpAddr>,
    /// When it began.
    pub since: Timestamp,
    pub overflow: Overflow,
    pub consumer: Option<ConsumerName>,
    pub filter: Option<Filter>,
    /// The pattern that was subscribed, unless it was one topic.
    pub pattern: Option<Pattern>,
}

impl Subscriber {
    /// Somebody of whom nothing is known but what it chose.
    pub fn unknown(overflow: Overflow, consumer: Option<ConsumerName>) -> Self {
        Self {
            id: SubscriptionId(0),
            principal: None,
            door: "none",
            address: None,
            since: Timestamp::now(),
            overflow,
            consumer,
            filter: None,
            pattern: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_have_one_text() {
        for id in [0, 7, u64::MAX] {
            assert_eq!(SubscriptionId(id).to_string().parse(), Ok(SubscriptionId(id)));
        }
        for bad in ["", "7", "+000000000000007", "000000000000000G", "000000000000000A", "00000000000000070"] {
            assert!(bad.parse::<SubscriptionId>().is_err(), "{bad}");
        }
    }
}
