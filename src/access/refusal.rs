//! Why a token is refused.

/// Why a token is refused. Neither form of it contains anything of the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is longer than tokens may be, or not a JSON Web Token.
    Malformed,
    /// Its algorithm is not that of the key.
    WrongAlgorithm,
    /// It names a key that is not in the set, or names none while the set has several.
    UnknownKey,
    /// The signature does not fit.
    BadSignature,
    /// It expired, longer ago than the leeway.
    Expired,
    /// It is not valid yet.
    NotYetValid,
    /// Another issuer than `JWT_ISSUER` has made it.
    WrongIssuer,
    /// It is meant for another service than `JWT_AUDIENCE`.
    WrongAudience,
    /// A claim is missing or malformed: which, and how.
    BadClaims(&'static str),
    /// The keys were not fetched yet.
    KeysUnavailable,
}

impl Refusal {
    /// The label `reason` of the metric.
    #[must_use]
    pub fn reason(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::WrongAlgorithm => "wrong_algorithm",
            Self::UnknownKey => "unknown_key",
            Self::BadSignature => "bad_signature",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongIssuer => "wrong_issuer",
            Self::WrongAudience => "wrong_audience",
            Self::BadClaims(_) => "bad_claims",
            Self::KeysUnavailable => "keys_unavailable",
        }
    }

    /// What the client is told.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::Malformed => "the credential is neither a known key nor a well-formed token",
            Self::WrongAlgorithm => "the token's algorithm is not the one of the key that this server has for it",
            Self::UnknownKey => "the token was signed with a key that this server does not know",
            Self::BadSignature => "the token's signature is wrong",
            Self::Expired => "the token has expired",
            Self::NotYetValid => "the token is not valid yet",
            Self::WrongIssuer => "the token is from another issuer than this server accepts",
            Self::WrongAudience => "the token is meant for another audience than this server",
            Self::BadClaims(what) => what,
            Self::KeysUnavailable => {
                "this server has not got the keys yet that tokens are checked with; try again later"
            }
        }
    }
}
