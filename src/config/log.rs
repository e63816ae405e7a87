//! Checks the directives of `LOG`. `tracing` takes a misspelt level for the name of a target and logs nothing.

use super::suggest::did_you_mean;
use crate::telemetry;

const LEVELS: [&str; 6] = ["trace", "debug", "info", "warn", "error", "off"];

/// Returns the directives if each of them has a level.
pub(super) fn directives(text: String) -> Result<String, String> {
    // Those with spans and fields are left to `tracing`: the values of fields may be anything.
    let plain = |directive: &&str| !directive.is_empty() && !directive.contains(['[', ']', '{', '}', '"']);
    for directive in text.split(',').map(str::trim).filter(plain) {
        let (target, level) = directive.rsplit_once('=').unwrap_or(("", directive));
        // `tracing` also takes 0 (off) to 5 (trace).
        if LEVELS.contains(&level.to_lowercase().as_str()) || level.parse::<u8>().is_ok_and(|level| level <= 5) {
            continue;
        }
        let mut hint = did_you_mean(level, LEVELS);
        if hint.is_empty() && target.is_empty() {
            hint = format!("; a target needs a level, as in {level}=debug");
        }
        return Err(format!("{level:?} is not a level ({}){hint}", LEVELS.join(", ")));
    }
    telemetry::check(&text)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_directive_has_a_level() {
        for good in
            ["info", "INFO", "off", "warn,pub_sub=debug", "info, pub_sub::engine=trace", "3", "info,[span{a=1}]=warn"]
        {
            assert_eq!(directives(good.to_owned()).as_deref(), Ok(good));
        }
        for (bad, hint) in [
            ("inof", "\"inof\" is not a level (trace, debug, info, warn, error, off); did you mean info?"),
            ("info,pub_sub=dbug", "did you mean debug?"),
            ("info,pub_sub", "as in pub_sub=debug"),
            ("[", ""),
        ] {
            let error = directives(bad.to_owned()).unwrap_err();
            assert!(error.contains(hint), "{bad}: {error}");
        }
    }
}
