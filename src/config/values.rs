//! The kinds of values that settings have: how each is read from a layer and written as TOML.

use std::{sync::Arc, time::Duration};

use figment::value::Value;

use super::suggest::did_you_mean;
use crate::{
    browser::AllowedOrigins,
    engine::Secret,
    graphql::PersistedDocuments,
    listener::Host,
    proxies::{NotANetwork, TrustedProxies},
};

/// The longest duration that a setting takes, a hundred years: clocks can add it without an overflow.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 24 * 3600);

/// A value that a setting can have.
pub(super) trait Setting: Sized {
    /// What stands for the value in the help.
    const VALUE_NAME: &'static str;
    /// Reads it from what a layer gave. The environment and the command line give text, a file also gives other types.
    fn read(value: &Value) -> Result<Self, String>;
    /// Writes it as TOML.
    fn write(&self) -> String;
}

/// The name of a value's kind.
pub(super) fn value_name<T: Setting>(_: &T) -> &'static str {
    T::VALUE_NAME
}

impl Setting for bool {
    const VALUE_NAME: &'static str = "true|false";

    fn read(value: &Value) -> Result<Self, String> {
        let text = match value {
            Value::Bool(_, value) => return Ok(*value),
            Value::String(_, text) => text.trim().to_lowercase(),
            other => shown(other),
        };
        match text.as_str() {
            "true" => return Ok(true),
            "false" => return Ok(false),
            _ => {}
        }
        let hint = match text.as_str() {
            "1" | "yes" | "y" | "on" => "; did you mean true?".to_owned(),
            "0" | "no" | "n" | "off" => "; did you mean false?".to_owned(),
            other => did_you_mean(other, ["true", "false"]),
        };
        Err(format!("must be true or false, not {}{hint}", shown(value)))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for Host {
    const VALUE_NAME: &'static str = "ADDRESS";

    fn read(value: &Value) -> Result<Self, String> {
        let host = value.as_str().and_then(|text| text.trim().parse().ok());
        host.ok_or_else(|| format!("must be an IP address or the name of a host, not {}", shown(value)))
    }

    fn write(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for Arc<TrustedProxies> {
    const VALUE_NAME: &'static str = "NETWORKS";

    fn read(value: &Value) -> Result<Self, String> {
        let networks = value.as_str().ok_or_else(|| format!("must be addresses and networks, not {}", shown(value)))?;
        networks.parse().map(Self::new).map_err(|NotANetwork(part)| {
            format!("must be IP addresses and networks like 10.0.0.0/8, separated by commas, not {part:?}")
        })
    }

    fn write(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for Option<u16> {
    const VALUE_NAME: &'static str = "NUMBER";

    /// Empty text is no number.
    fn read(value: &Value) -> Result<Self, String> {
        if value.as_str() == Some("") { Ok(None) } else { u16::read(value).map(Some) }
    }

    fn write(&self) -> String {
        self.map_or_else(|| "\"\"".to_owned(), |number| number.to_string())
    }
}

impl Setting for Secret {
    const VALUE_NAME: &'static str = "SECRET";

    fn read(value: &Value) -> Result<Self, String> {
        // An error must not contain the value.
        text(value).map(Self::new).ok_or_else(|| "must be text".to_owned())
    }

    fn write(&self) -> String {
        format!("\"{self:?}\"")
    }
}

impl Setting for AllowedOrigins {
    const VALUE_NAME: &'static str = "ORIGINS";

    /// Text with commas, or a list of texts in a file.
    fn read(value: &Value) -> Result<Self, String> {
        let listed = value.as_array().map(|items| items.iter().map(Value::as_str).collect::<Option<Vec<_>>>());
        let text = listed.map_or_else(|| value.as_str().map(str::to_owned), |items| items.map(|items| items.join(",")));
        text.ok_or_else(|| format!("must be a list of origins, not {}", shown(value)))?.parse()
    }

    fn write(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for PersistedDocuments {
    const VALUE_NAME: &'static str = "FILE";

    fn read(value: &Value) -> Result<Self, String> {
        let path = value.as_str().ok_or_else(|| format!("must be a path, not {}", shown(value)))?;
        Self::read(path)
    }

    fn write(&self) -> String {
        format!("{:?}", self.path())
    }
}

impl Setting for String {
    const VALUE_NAME: &'static str = "TEXT";

    fn read(value: &Value) -> Result<Self, String> {
        text(value).ok_or_else(|| format!("must be text, not {}", shown(value)))
    }

    fn write(&self) -> String {
        format!("{self:?}")
    }
}

macro_rules! whole_numbers {
    ($($kind:ty)*) => {$(
        impl Setting for $kind {
            const VALUE_NAME: &'static str = "NUMBER";

            fn read(value: &Value) -> Result<Self, String> {
                let number = whole(value).and_then(|number| Self::try_from(number).ok());
                number.ok_or_else(|| {
                    let meant = value.as_str().and_then(meant_number).filter(|meant| Self::try_from(*meant).is_ok());
                    let hint = meant.map_or_else(String::new, |meant| format!("; did you mean {meant}?"));
                    // The bound of 64 bits helps nobody.
                    let range = if Self::BITS < 64 { format!(" from 0 to {}", Self::MAX) } else { String::new() };
                    format!("must be a whole number{range}, not {}{hint}", shown(value))
                })
            }

            fn write(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u16 u32 u64 usize);

impl Setting for Duration {
    const VALUE_NAME: &'static str = "DURATION";

    /// Seconds, or text with units like `90s`, `15m`, `24h`.
    fn read(value: &Value) -> Result<Self, String> {
        let wrong = || format!("must be a time like 30s, 15m or 24h, not {}", shown(value));
        let duration = match whole(value) {
            Some(seconds) => u64::try_from(seconds).map(Duration::from_secs).map_err(|_| wrong())?,
            None => {
                let span = value.as_str().and_then(|text| text.trim().parse::<jiff::SignedDuration>().ok());
                span.and_then(|span| Duration::try_from(span).ok()).ok_or_else(wrong)?
            }
        };
        if duration > LONGEST {
            return Err(format!("must be at most {}h, not {}", LONGEST.as_secs() / 3600, shown(value)));
        }
        Ok(duration)
    }

    fn write(&self) -> String {
        if self.subsec_nanos() > 0 {
            return format!("\"{}ms\"", self.as_millis());
        }
        match self.as_secs() {
            seconds if seconds % 3600 == 0 && seconds > 0 => format!("\"{}h\"", seconds / 3600),
            seconds => format!("\"{seconds}s\""),
        }
    }
}

/// The text of a value that is no list and no table. A password may consist of digits, and a file may have it unquoted.
fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(_, text) => Some(text.clone()),
        Value::Bool(..) | Value::Num(..) => Some(shown(value)),
        _ => None,
    }
}

/// A whole number from 0, as whatever type the layer's format gave it.
fn whole(value: &Value) -> Option<u128> {
    match value {
        Value::String(_, text) => text.trim().parse().ok(),
        Value::Num(..) => value.to_u128().or_else(|| value.to_i128().and_then(|number| u128::try_from(number).ok())),
        _ => None,
    }
}

/// The number that was meant by `10_000`, `10,000` or `64MiB`.
fn meant_number(text: &str) -> Option<u128> {
    let plain: String = text.chars().filter(|c| !matches!(c, '_' | ',' | '\'' | ' ')).collect();
    let digits = plain.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor = match plain[digits.len()..].to_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kb" => 1_000,
        "kib" => 1 << 10,
        "m" | "mb" => 1_000_000,
        "mib" => 1 << 20,
        "g" | "gb" => 1_000_000_000,
        "gib" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u128>().ok()?.checked_mul(factor)
}

/// A value as errors show it.
pub(super) fn shown(value: &Value) -> String {
    match value {
        // Somebody may have given a URL with a password to the wrong setting.
        Value::String(_, text) if text.contains("://") => format!("{:?}", mask_urls(text)),
        Value::String(_, text) => format!("{text:?}"),
        Value::Bool(_, value) => value.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|number| number.to_string())
            .or_else(|| number.to_u128().map(|number| number.to_string()))
            .or_else(|| number.to_f64().map(|number| number.to_string()))
            .unwrap_or_default(),
        _ => "a list or table".to_owned(),
    }
}

/// Replaces the passwords in URLs that commas separate. A user without a password is a token of NATS, and secret, too.
pub(super) fn mask_urls(urls: &str) -> String {
    let mask = |url: &str| {
        let (scheme, rest) = url.split_once("://").map_or(("", url), |(scheme, rest)| (scheme, rest));
        // The last `@`, because a password may contain one that is not escaped.
        let Some((login, host)) = rest.rsplit_once('@') else { return url.to_owned() };
        let separator = if scheme.is_empty() { "" } else { "://" };
        let user = login.split_once(':').map_or(String::new(), |(user, _)| format!("{user}:"));
        format!("{scheme}{separator}{user}***@{host}")
    };
    urls.split(',').map(mask).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        for (url, masked) in [
            ("nats://127.0.0.1:4222", "nats://127.0.0.1:4222"),
            ("nats://user:hunter2@host:4222", "nats://user:***@host:4222"),
            ("nats://user:hun@ter2@host", "nats://user:***@host"),
            ("nats://user:hun/ter2@host", "nats://user:***@host"),
            ("nats://hunter2@host", "nats://***@host"),
            ("user:hunter2@host:4222", "user:***@host:4222"),
            ("nats://a:hunter2@b, tls://c:hunter2@d:1,e", "nats://a:***@b, tls://c:***@d:1,e"),
        ] {
            assert_eq!(mask_urls(url), masked);
        }
        assert_eq!(shown(&Value::from("http://user:hunter2@host/")), "\"http://user:***@host/\"");
    }

    #[test]
    fn numbers_that_people_write() {
        for (text, number) in [("10_000", 10_000), ("10,000", 10_000), ("64MiB", 64 << 20), ("8k", 8_000)] {
            assert_eq!(meant_number(text), Some(number));
        }
        for text in ["eighty", "1.5", "-1", "1e3", ""] {
            assert_eq!(meant_number(text), None, "{text}");
        }
    }
}
