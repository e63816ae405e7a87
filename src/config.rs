//! Settings: defaults, then `pub-sub.toml` (or `--config FILE`), then the environment, then flags; later ones win.
//!
//! Each part defines its own settings; this file gathers them under flat keys, and says in one line which key is wrong.
//! A key is the same word everywhere: `max_topics` in the file, `MAX_TOPICS` in the environment, `--max-topics` as flag.

mod keys;

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use figment::{
    Figment,
    providers::{Env, Format, Toml},
    value::{Dict, Value},
};

pub use keys::{KEYS, Key};

use crate::{broker, engine, graphql, listener, socket, ws};

/// The settings of every part.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Listening, stopping, logging.
    pub server: listener::Settings,
    /// What the broker may hold.
    pub broker: broker::Settings,
    /// Where it stores.
    pub engine: engine::Settings,
    /// Every WebSocket.
    pub socket: socket::Settings,
    /// The raw `/ws` protocol.
    pub ws: ws::Settings,
    /// The GraphQL door.
    pub graphql: graphql::Settings,
}

/// What is wrong with the settings, in one line that names the key.
#[derive(Debug, PartialEq, Eq)]
pub struct ConfigError(String);

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ConfigError {}

/// The file that is read when there is one and no other is named.
const DEFAULT_FILE: &str = "pub-sub.toml";

impl Config {
    /// Reads all layers. `flags` are keys in small letters with their values as text.
    ///
    /// # Errors
    /// One line that names the key and where it was set.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let path = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_owned);
        if file.is_some() && !path.is_file() {
            return Err(ConfigError(format!("--config: {} is not a file", path.display())));
        }
        let known: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
        let mut figment = Figment::from(Toml::string(&Self::default().to_toml()));
        if path.is_file() {
            figment = figment.merge(Toml::file_exact(&path));
        }
        // Only known names are read, because other variables belong to other programs.
        figment = figment.merge(Env::raw().only(&known));
        // A secret may be in a file instead, which is how container engines pass them.
        for key in KEYS.iter().filter(|key| key.secret) {
            let variable = format!("{}_FILE", key.name.to_uppercase());
            if let Some(path) = std::env::var_os(&variable) {
                let text = std::fs::read_to_string(&path)
                    .map_err(|error| ConfigError(format!("{variable}: {}: {error}", Path::new(&path).display())))?;
                figment = figment.merge((key.name, text.trim_end()));
            }
        }
        for (key, value) in flags {
            let Ok(value) = value.parse::<Value>();
            figment = figment.merge((key.as_str(), value));
        }
        Self::extract(&figment)
    }

    fn extract(figment: &Figment) -> Result<Self, ConfigError> {
        let values = figment.extract::<Dict>().map_err(|error| ConfigError(one_line(&error.to_string())))?;
        let mut config = Self::default();
        for (name, value) in &values {
            let origin =
                figment.find_metadata(name).map_or_else(String::new, |metadata| format!(" ({})", metadata.name));
            let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| {
                ConfigError(one_line(&format!("{name}: there is no such setting{origin}; `pub-sub config` lists them")))
            })?;
            (key.set)(&mut config, value)
                .map_err(|wrong| ConfigError(one_line(&format!("{}: {wrong}{origin}", name.to_uppercase()))))?;
        }
        config.validate()?;
        Ok(config)
    }

    /// Checks how the values go together.
    fn validate(&self) -> Result<(), ConfigError> {
        if self.broker.max_messages_per_topic > self.broker.max_messages_limit {
            return Err(ConfigError("MAX_MESSAGES_PER_TOPIC: must not exceed MAX_MESSAGES_LIMIT".to_owned()));
        }
        if self.broker.max_payload_bytes > self.broker.max_bytes_per_topic {
            return Err(ConfigError("MAX_PAYLOAD_BYTES: must not exceed MAX_BYTES_PER_TOPIC".to_owned()));
        }
        if self.broker.max_bytes_per_topic > self.broker.max_history_bytes {
            return Err(ConfigError("MAX_BYTES_PER_TOPIC: must not exceed MAX_HISTORY_BYTES".to_owned()));
        }
        self.engine.engine(self.broker.engine_bounds()).map(drop).map_err(ConfigError)
    }

    /// The effective settings as lines of TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let lines: Vec<_> = KEYS.iter().map(|key| format!("{} = {}", key.name, (key.get)(self))).collect();
        lines.join("\n") + "\n"
    }
}

/// The README's table of settings.
#[must_use]
pub fn settings_table() -> String {
    let defaults = Config::default();
    let mut table = "| Variable | Default | Meaning |\n|---|---|---|\n".to_owned();
    for key in KEYS {
        let default = (key.get)(&defaults);
        let (variable, default) = (key.name.to_uppercase(), default.trim_matches('"'));
        table.push_str(&format!("| `{variable}` | {default} | {} |\n", key.meaning));
    }
    table
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A value that a setting can have.
trait Setting: Sized {
    /// Reads it from what a layer gave.
    fn read(value: &Value) -> Result<Self, String>;
    /// Writes it as TOML.
    fn write(&self) -> String;
}

impl Setting for bool {
    fn read(value: &Value) -> Result<Self, String> {
        value.to_bool().ok_or_else(|| format!("must be true or false, not {}", shown(value)))
    }

    fn write(&self) -> String {
        self.to_string()
    }
}

impl Setting for IpAddr {
    fn read(value: &Value) -> Result<Self, String> {
        let address = value.as_str().and_then(|text| text.parse().ok());
        address.ok_or_else(|| format!("must be an IP address, not {}", shown(value)))
    }

    fn write(&self) -> String {
        format!("\"{self}\"")
    }
}

impl Setting for engine::Secret {
    fn read(value: &Value) -> Result<Self, String> {
        // The secret must not be in an error, either, so every value is accepted.
        let text = value.as_str().map_or_else(|| shown(value), str::to_owned);
        Ok(Self::new(text))
    }

    fn write(&self) -> String {
        format!("\"{self:?}\"")
    }
}

impl Setting for crate::graphql::PersistedDocuments {
    fn read(value: &Value) -> Result<Self, String> {
        let path = value.as_str().ok_or_else(|| format!("must be a path, not {}", shown(value)))?;
        Self::read(path)
    }

    fn write(&self) -> String {
        format!("{:?}", self.path())
    }
}

impl Setting for String {
    fn read(value: &Value) -> Result<Self, String> {
        Ok(value.as_str().map_or_else(|| shown(value), str::to_owned))
    }

    fn write(&self) -> String {
        format!("{self:?}")
    }
}

macro_rules! whole_numbers {
    ($($kind:ty)*) => {$(
        impl Setting for $kind {
            fn read(value: &Value) -> Result<Self, String> {
                // Figment reads text that looks like a number as one; a number too big for it stays text.
                let number = whole(value).or_else(|| value.as_str().and_then(|text| text.parse().ok()));
                let number = number.and_then(|number| Self::try_from(number).ok());
                number.ok_or_else(|| format!("must be a whole number from 0 to {}, not {}", Self::MAX, shown(value)))
            }

            fn write(&self) -> String {
                self.to_string()
            }
        }
    )*};
}

whole_numbers!(u16 u32 u64 usize);

impl Setting for Duration {
    /// Seconds, or text with units like `90s`, `15m`, `24h`.
    fn read(value: &Value) -> Result<Self, String> {
        let wrong = || format!("must be a time like 30s, 15m or 24h, not {}", shown(value));
        if let Some(seconds) = whole(value) {
            return u64::try_from(seconds).map(Duration::from_secs).map_err(|_| wrong());
        }
        let span: jiff::SignedDuration = value.as_str().and_then(|text| text.parse().ok()).ok_or_else(wrong)?;
        Duration::try_from(span).map_err(|_| wrong())
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

/// A whole number from 0, as whatever kind the layer's format gave it.
fn whole(value: &Value) -> Option<u128> {
    value.to_u128().or_else(|| value.to_i128().and_then(|number| u128::try_from(number).ok()))
}

fn shown(value: &Value) -> String {
    match value {
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

#[cfg(test)]
mod tests {
    use figment::Jail;

    use super::*;

    fn flags(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own error in figment's own closure")]
    fn later_layers_win() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.create_file("pub-sub.toml", "port = 1\nmax_publish_rate = 2\nconsumer_ttl = \"15m\"")?;
            jail.set_env("MAX_PUBLISH_RATE", "3");
            jail.set_env("HOME_PAGE", "of another program");
            let config = Config::load(None, &flags(&[("ping_interval", "250ms")])).unwrap();
            assert_eq!((config.server.port, config.broker.max_publish_rate), (1, 3));
            assert_eq!(config.broker.consumer_ttl, Duration::from_secs(900));
            assert_eq!(config.socket.ping_interval, Duration::from_millis(250));
            let config = Config::load(None, &flags(&[("max_publish_rate", "4")])).unwrap();
            assert_eq!(config.broker.max_publish_rate, 4);
            assert_eq!(config.broker.max_topics, 100_000);
            Ok(())
        });
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own error in figment's own closure")]
    fn whatever_is_wrong_is_one_line_with_the_key() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            for (key, value) in [
                ("PORT", "eighty"),
                ("PORT", "65536"),
                ("PORT", "-1"),
                ("PORT", ""),
                ("HOST", "nowhere at all"),
                ("MAX_MESSAGES_PER_TOPIC", "0"),
                ("MAX_MESSAGES_PER_TOPIC", "1.5"),
                ("MAX_MESSAGES_PER_TOPIC", "99999999999999999999999999"),
                ("AUTO_CREATE_TOPICS", "perhaps"),
                ("CONSUMER_TTL", "a while"),
                ("MAX_PAYLOAD_BYTES", "99999999999"),
                ("LOG_FORMAT", "xml"),
            ] {
                jail.set_env(key, value);
                let error = Config::load(None, &[]).unwrap_err().to_string();
                assert!(error.starts_with(key) && !error.contains('\n'), "{key}={value}: {error}");
                jail.clear_env();
            }
            jail.create_file("pub-sub.toml", "prot = 80")?;
            let error = Config::load(None, &[]).unwrap_err().to_string();
            assert!(error.starts_with("prot:"), "{error}");
            jail.create_file("pub-sub.toml", "port = = 80")?;
            assert!(!Config::load(None, &[]).unwrap_err().to_string().contains('\n'));
            assert!(Config::load(Some(Path::new("missing.toml")), &[]).is_err());
            Ok(())
        });
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own error in figment's own closure")]
    fn what_is_printed_can_be_read() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.create_file("pub-sub.toml", &Config::default().to_toml())?;
            let config = Config::load(None, &[]).unwrap();
            assert_eq!(config.to_toml(), Config::default().to_toml());
            Ok(())
        });
    }
}
