//! Settings: defaults, then `pub-sub.toml` (or `--config FILE`), then the environment, then flags; later ones win.
//!
//! Each part defines its own settings; this file gathers them under flat keys, and says in one line which key is wrong.
//! A key is the same word everywhere: `max_topics` in the file, `MAX_TOPICS` in the environment, `--max-topics` as flag.

mod keys;
mod layers;
mod log;
mod suggest;
mod values;

use std::{
    fmt,
    path::{Path, PathBuf},
};

pub use keys::{KEYS, Key};
use layers::Layers;

use crate::{access, broker, engine, graphql, listener, socket, traces, ws};

/// The settings of every part.
#[derive(Clone, Debug, Default)]
pub struct Config {
    /// Listening, stopping, logging.
    pub server: listener::Settings,
    /// Which credentials are accepted.
    pub access: access::Settings,
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
    /// Where traces go.
    pub traces: traces::Settings,
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
    /// Reads all layers. `flags` are keys or their aliases in small letters, with their values as text.
    ///
    /// # Errors
    /// One line that names the setting as the user has written it: `--max-topics`, `MAX_TOPICS`, or `max_topics` of a file.
    pub fn load(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let path = file.map_or_else(|| PathBuf::from(DEFAULT_FILE), Path::to_owned);
        if file.is_some() && !path.is_file() {
            return Err(ConfigError(format!("--config: {} is not a file", path.display())));
        }
        let layers = Layers::read(path.is_file().then_some(path.as_path()), flags)?;
        let mut config = Self::default();
        for (key, given) in KEYS.iter().filter_map(|key| Some((key, layers.get(key)?))) {
            (key.set)(&mut config, &given.value).map_err(|wrong| given.error(&wrong))?;
        }
        config.validate().map_err(|message| {
            // It begins with the name of the variable. The user may have set a flag or a key of the file.
            let named = message.split_once(": ").and_then(|(variable, wrong)| {
                let key = KEYS.iter().find(|key| key.name.to_uppercase() == variable)?;
                Some(layers.get(key)?.error(wrong))
            });
            named.unwrap_or(ConfigError(message))
        })?;
        Ok(config)
    }

    /// Checks how the values go together.
    fn validate(&self) -> Result<(), String> {
        if self.broker.max_messages_per_topic > self.broker.max_messages_limit {
            return Err("MAX_MESSAGES_PER_TOPIC: must not exceed MAX_MESSAGES_LIMIT".to_owned());
        }
        if self.broker.max_payload_bytes > self.broker.max_bytes_per_topic {
            return Err("MAX_PAYLOAD_BYTES: must not exceed MAX_BYTES_PER_TOPIC".to_owned());
        }
        if self.broker.max_bytes_per_topic > self.broker.max_history_bytes {
            return Err("MAX_BYTES_PER_TOPIC: must not exceed MAX_HISTORY_BYTES".to_owned());
        }
        self.access.check()?;
        self.server.tls.validate()?;
        self.traces.check()?;
        if self.server.tls.port.is_some_and(|port| port != 0 && port == self.server.port) {
            return Err("TLS_PORT: must not be PORT, where plain HTTP is spoken".to_owned());
        }
        self.engine.engine(self.broker.engine_bounds()).map(drop)
    }

    /// The effective settings as lines of TOML.
    #[must_use]
    pub fn to_toml(&self) -> String {
        let line = |key: &Key| match (key.get)(self) {
            // Given as empty it would be refused.
            value if key.refuses_empty() && value == "\"\"" => format!("# {} is not set", key.name),
            value => format!("{} = {value}", key.name),
        };
        KEYS.iter().map(line).collect::<Vec<_>>().join("\n") + "\n"
    }
}

/// The README's table of settings.
#[must_use]
pub fn settings_table() -> String {
    let mut table = "| Variable | Default | Meaning |\n|---|---|---|\n".to_owned();
    for key in KEYS {
        let (variable, default) = (key.name.to_uppercase(), key.default_text());
        table.push_str(&format!("| `{variable}` | {default} | {} |\n", key.meaning));
    }
    table
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
                ("HOST", "nowhere at all"),
                ("MAX_MESSAGES_PER_TOPIC", "0"),
                ("MAX_MESSAGES_PER_TOPIC", "1.5"),
                ("MAX_MESSAGES_PER_TOPIC", "99999999999999999999999999"),
                ("AUTO_CREATE_TOPICS", "perhaps"),
                ("CONSUMER_TTL", "a while"),
                ("MAX_PAYLOAD_BYTES", "99999999999"),
                ("LOG_FORMAT", "xml"),
                ("LOG", "inof"),
                ("KEEP_ALIVE_TIMEOUT", "0"),
                ("WORKER_THREADS", "1025"),
                ("DRAIN_TIMEOUT", "99999999999999999"),
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
    fn an_empty_access_setting_does_not_open_the_server() {
        Jail::expect_with(|jail| {
            for key in KEYS.iter().filter(|key| key.refuses_empty()) {
                jail.clear_env();
                let name = key.name.to_uppercase();
                let error = |flags: &[(&str, &str)]| {
                    let flags: Vec<_> = flags.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
                    Config::load(None, &flags).unwrap_err().to_string()
                };
                jail.set_env(&name, "");
                assert!(error(&[]).starts_with(&format!("{name}: must not be empty")), "{}", error(&[]));
                jail.clear_env();
                assert!(error(&[(key.name, "")]).starts_with(&format!("--{}: must ", key.name.replace('_', "-"))));
                jail.create_file("pub-sub.toml", &format!("{} = \"\"", key.name))?;
                assert!(error(&[]).starts_with(&format!("{}: must ", key.name)), "{}", error(&[]));
                jail.create_file("pub-sub.toml", "")?;
                if key.secret {
                    let name = format!("{name}_FILE");
                    jail.set_env(&name, "");
                    assert!(error(&[]).starts_with(&format!("{name}: must not be empty")), "{}", error(&[]));
                    jail.create_file("secret", "\n")?;
                    jail.set_env(&name, "secret");
                    assert!(error(&[]).starts_with(&format!("{name}: must not be empty")), "{}", error(&[]));
                    jail.set_env(&name, "no-such-file");
                    assert!(error(&[]).starts_with(&format!("{name}: no-such-file: ")), "{}", error(&[]));
                }
            }
            Ok(())
        });
    }

    #[test]
    #[expect(clippy::result_large_err, reason = "figment's own error in figment's own closure")]
    fn keys_and_secrets_are_masked() {
        Jail::expect_with(|jail| {
            jail.clear_env();
            jail.create_file("key", "hunter2\n")?;
            jail.set_env("API_KEY_FILE", "key");
            jail.set_env("JWT_SECRET", "hunter2");
            let config = Config::load(None, &[]).unwrap();
            assert_eq!(config.access.api_key.reveal(), "hunter2");
            let printed = config.to_toml();
            assert!(printed.contains("api_key = \"***\"") && printed.contains("jwt_secret = \"***\""), "{printed}");
            assert!(!printed.contains("hunter2") && !format!("{config:?}").contains("hunter2"));
            // Whoever uses what is printed as a file does not get a key that everybody knows.
            jail.clear_env();
            jail.create_file("pub-sub.toml", &printed)?;
            let error = Config::load(None, &[]).unwrap_err().to_string();
            assert!(error.starts_with("api_key: is what `pub-sub config` prints"), "{error}");
            for bad in [" hunter2", "hunter2 ", "hun\nter2"] {
                let error = Config::load(None, &flags(&[("api_key", bad)])).unwrap_err().to_string();
                assert!(error.starts_with("--api-key: must not") && !error.contains("ter2"), "{error}");
            }
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
