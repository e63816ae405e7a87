//! The layers in which settings are given, each later one before the earlier ones: file, environment, command line.

use std::{
    collections::BTreeMap,
    env::{self, VarError},
    fs,
    path::Path,
};

use figment::{
    Figment,
    providers::{Format, Toml},
    value::{Dict, Value},
};

use super::{ConfigError, KEYS, Key, keys::EMPTY, one_line, suggest::did_you_mean};

/// A value, and how the user has spelt the setting's name.
pub(super) struct Given {
    spelling: String,
    /// ` (in FILE)`, for the key of a file.
    place: String,
    pub value: Value,
}

impl Given {
    /// What is wrong with it, under the name that the user has written.
    pub fn error(&self, wrong: &str) -> ConfigError {
        ConfigError(one_line(&format!("{}: {wrong}{}", self.spelling, self.place)))
    }
}

/// What is given, by the name of its key.
#[derive(Default)]
pub(super) struct Layers(BTreeMap<&'static str, Given>);

impl Layers {
    /// Reads all layers. `flags` are keys or their aliases in small letters.
    pub fn read(file: Option<&Path>, flags: &[(String, String)]) -> Result<Self, ConfigError> {
        let mut layers = Self::default();
        if let Some(file) = file {
            layers.add(of_file(file)?)?;
        }
        layers.add(of_environment()?)?;
        let flags = flags.iter().filter_map(|(name, value)| {
            let spelling = format!("--{}", name.replace('_', "-"));
            Some((find(name)?, Given { spelling, place: String::new(), value: Value::from(value.as_str()) }))
        });
        layers.add(flags.collect())?;
        Ok(layers)
    }

    /// What is given for a key.
    pub fn get(&self, key: &Key) -> Option<&Given> {
        self.0.get(key.name)
    }

    /// Puts a layer over those before it.
    fn add(&mut self, layer: Vec<(&'static Key, Given)>) -> Result<(), ConfigError> {
        let mut found = BTreeMap::new();
        for (key, given) in layer {
            if let Some(other) = found.insert(key.name, given)
                && let Some(given) = found.get(key.name)
            {
                return Err(given.error(&format!("is the same setting as {}; set only one of them", other.spelling)));
            }
        }
        self.0.extend(found);
        Ok(())
    }
}

/// The key of this name or alias.
fn find(name: &str) -> Option<&'static Key> {
    KEYS.iter().find(|key| key.names().any(|known| known == name))
}

fn of_file(path: &Path) -> Result<Vec<(&'static Key, Given)>, ConfigError> {
    let file = path.display();
    let text = fs::read_to_string(path).map_err(|error| ConfigError(format!("{file}: {error}")))?;
    let values = Figment::from(Toml::string(&text)).extract::<Dict>().map_err(|error| {
        // The parser also shows the line of the file, which may contain a secret.
        let message = error.kind.to_string();
        let lines: Vec<_> = message.lines().filter(|line| !line.contains('|')).collect();
        ConfigError(one_line(&format!("{file}: {}", lines.join(": "))))
    })?;
    let given = values.into_iter().map(|(name, value)| {
        let key = find(&name).ok_or_else(|| ConfigError(one_line(&unknown(&name, &value, path))))?;
        Ok((key, Given { spelling: name, place: format!(" (in {file})"), value }))
    });
    given.collect()
}

/// What is wrong with a key of a file that no setting has.
fn unknown(name: &str, value: &Value, path: &Path) -> String {
    let file = path.display();
    let usual = name.to_lowercase().replace('-', "_");
    if find(&usual).is_some() {
        return format!("{name}: keys in {file} have small letters and underscores; did you mean {usual}?");
    }
    if value.as_dict().is_some() {
        return format!("{name}: is a table; settings stand outside of tables in {file}");
    }
    let hint = did_you_mean(&usual, KEYS.iter().flat_map(Key::names));
    format!("{name}: there is no such setting in {file}{hint}; `pub-sub --help-all` lists them")
}

/// Variables of other programs are left alone: only known names are looked up. An empty variable is not set, or
/// refused.
fn of_environment() -> Result<Vec<(&'static Key, Given)>, ConfigError> {
    let mut given = Vec::new();
    for key in KEYS {
        let from_file = secret_in_file(key)?;
        // A secret in a file goes before the variable of the same setting.
        if let Some(secret) = from_file {
            given.push((key, secret));
            continue;
        }
        for name in key.names() {
            let spelling = name.to_uppercase();
            if let Some(text) = variable(key, &spelling)? {
                given.push((key, Given { spelling, place: String::new(), value: Value::from(text.as_str()) }));
            }
        }
    }
    Ok(given)
}

/// A secret may stand in a file instead, as container engines provide them.
fn secret_in_file(key: &Key) -> Result<Option<Given>, ConfigError> {
    if !key.secret {
        return Ok(None);
    }
    let spelling = format!("{}_FILE", key.name.to_uppercase());
    let Some(path) = variable(key, &spelling)? else { return Ok(None) };
    let text = fs::read_to_string(&path).map_err(|error| ConfigError(format!("{spelling}: {path}: {error}")))?;
    Ok(Some(Given { spelling, place: String::new(), value: Value::from(text.trim_end()) }))
}

fn variable(key: &Key, name: &str) -> Result<Option<String>, ConfigError> {
    match env::var(name) {
        Ok(text) if text.is_empty() && key.refuses_empty() => Err(ConfigError(format!("{name}: {EMPTY}"))),
        Ok(text) => Ok(Some(text).filter(|text| !text.is_empty())),
        Err(VarError::NotPresent) => Ok(None),
        Err(VarError::NotUnicode(_)) => Err(ConfigError(format!("{name}: is not UTF-8 text"))),
    }
}
