//! The claims of a token whose signature was verified.

use std::{fmt, time::Duration};

use serde::{
    Deserialize,
    de::{Error as _, IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Refusal, Rights, Settings, check_name};
use crate::broker::{Pattern, Timestamp};

/// The last time that can be written, at the end of the year 9999, in milliseconds.
const LAST_TIME: i64 = 253_402_207_200_000;

/// What the claims of every token have to be.
#[derive(Clone, Debug)]
pub(super) struct Rules {
    issuer: Option<String>,
    audience: Option<String>,
    leeway: Duration,
    claim: String,
}

/// What the claims say.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Checked {
    pub name: String,
    pub rights: Rights,
    /// With the leeway.
    pub expires: Timestamp,
}

impl Rules {
    pub fn new(settings: &Settings) -> Self {
        let set = |text: &String| Some(text.clone()).filter(|text| !text.is_empty());
        Self {
            issuer: set(&settings.jwt_issuer),
            audience: set(&settings.jwt_audience),
            leeway: settings.jwt_leeway,
            claim: settings.jwt_claim.clone(),
        }
    }

    /// Checks claims at a time.
    pub fn check(&self, claims: &RawValue, now: Timestamp) -> Result<Checked, Refusal> {
        let claims = Claims::read(claims.get(), &self.claim)?;
        let leeway = i64::try_from(self.leeway.as_millis()).unwrap_or(i64::MAX);
        let expires =
            time(claims.expires.ok_or(Refusal::BadClaims("the token has no claim `exp`, which is required"))?)
                .ok_or(Refusal::BadClaims("the token's claim `exp` must be a number of seconds"))?;
        let expires = Timestamp(expires.saturating_add(leeway).min(LAST_TIME));
        if now >= expires {
            return Err(Refusal::Expired);
        }
        if let Some(not_before) = claims.not_before {
            let not_before =
                time(not_before).ok_or(Refusal::BadClaims("the token's claim `nbf` must be a number of seconds"))?;
            if not_before > now.0.saturating_add(leeway) {
                return Err(Refusal::NotYetValid);
            }
        }
        if let Some(issuer) = &self.issuer
            && claims.issuer.and_then(text).as_ref() != Some(issuer)
        {
            return Err(Refusal::WrongIssuer);
        }
        if let Some(audience) = &self.audience
            && !claims.audience.is_some_and(|given| names_audience(given, audience))
        {
            return Err(Refusal::WrongAudience);
        }
        let name = claims.subject.ok_or(Refusal::BadClaims("the token has no claim `sub`, which is required"))?;
        let name = text(name).ok_or(Refusal::BadClaims("the token's claim `sub` must be text"))?;
        check_name(&name).map_err(|_| {
            Refusal::BadClaims(
                "the token's claim `sub` must be 1 to 255 bytes of text without control characters and without white \
                 space at its ends, and not \"anonymous\" or \"api_key\"",
            )
        })?;
        let rights = claims.rights.map_or_else(|| Ok(Rights::default()), rights)?;
        Ok(Checked { name, rights, expires })
    }
}

/// Seconds since 1970 as milliseconds; bounded, so that sums do not overflow.
fn time(claim: &RawValue) -> Option<i64> {
    let seconds: f64 = serde_json::from_str(claim.get()).ok()?;
    // A number that is too large for the type becomes its largest one.
    Some(((seconds * 1000.0) as i64).clamp(-LAST_TIME, LAST_TIME))
}

fn text(claim: &RawValue) -> Option<String> {
    serde_json::from_str(claim.get()).ok()
}

/// `aud` is text or a list of it.
fn names_audience(claim: &RawValue, audience: &str) -> bool {
    match serde_json::from_str::<Vec<String>>(claim.get()) {
        Ok(audiences) => audiences.iter().any(|given| given == audience),
        Err(_) => text(claim).is_some_and(|given| given == audience),
    }
}

fn rights(claim: &RawValue) -> Result<Rights, Refusal> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields, default)]
    #[derive(Default)]
    struct Claim {
        publish: Vec<String>,
        subscribe: Vec<String>,
        manage: Vec<String>,
        stats: bool,
    }
    const WRONG: Refusal = Refusal::BadClaims(
        "the token's claim of permissions must be an object with lists of patterns (`publish`, `subscribe`, `manage`) \
         and `stats` (true or false), and nothing else",
    );
    // serde would also take a list of the four values.
    let is_object = claim.get().starts_with('{');
    let claim: Claim = serde_json::from_str(claim.get()).ok().filter(|_| is_object).ok_or(WRONG)?;
    let patterns = |texts: Vec<String>| {
        let patterns = texts.iter().map(|text| Pattern::parse(text)).collect::<Result<_, _>>();
        patterns.map_err(|_| Refusal::BadClaims("the token's claim of permissions has a malformed pattern"))
    };
    Ok(Rights {
        publish: patterns(claim.publish)?,
        subscribe: patterns(claim.subscribe)?,
        manage: patterns(claim.manage)?,
        stats: claim.stats,
    })
}

/// The claims that are used, as they are. `serde_json` skips the others without recursion, however deep they are.
#[derive(Default)]
struct Claims<'a> {
    expires: Option<&'a RawValue>,
    not_before: Option<&'a RawValue>,
    issuer: Option<&'a RawValue>,
    audience: Option<&'a RawValue>,
    subject: Option<&'a RawValue>,
    rights: Option<&'a RawValue>,
}

impl<'a> Claims<'a> {
    /// Reads the claims, with the name of the one of permissions.
    fn read(text: &'a str, claim: &str) -> Result<Self, Refusal> {
        let mut deserializer = serde_json::Deserializer::from_str(text);
        serde::Deserializer::deserialize_map(&mut deserializer, OfMap { claim })
            .map_err(|_| Refusal::BadClaims("the token's claims must be a JSON object in which no claim repeats"))
    }
}

struct OfMap<'c> {
    claim: &'c str,
}

impl<'de> Visitor<'de> for OfMap<'_> {
    type Value = Claims<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut claims = Claims::default();
        while let Some(name) = map.next_key::<String>()? {
            let field = match name.as_str() {
                "exp" => &mut claims.expires,
                "nbf" => &mut claims.not_before,
                "iss" => &mut claims.issuer,
                "aud" => &mut claims.audience,
                "sub" => &mut claims.subject,
                name if name == self.claim => &mut claims.rights,
                _ => {
                    map.next_value::<IgnoredAny>()?;
                    continue;
                }
            };
            // Issuer and server could mean different ones of two.
            if field.replace(map.next_value()?).is_some() {
                return Err(A::Error::custom("a claim repeats"));
            }
        }
        Ok(claims)
    }
}
