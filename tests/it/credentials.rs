//! `pub-sub key`, and which settings of access refuse the start.

use std::process::Output;

use pub_sub::access::{AccessRules, KeyHash};

use crate::process::command;

fn key(arguments: &[&str]) -> Output {
    command(&[]).arg("key").args(arguments).output().unwrap()
}

#[test]
fn a_new_key_fits_its_entry() {
    let mut keys = Vec::new();
    for name in ["billing", "a \"b\" \\ c"] {
        let output = key(&[name]);
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).unwrap();
        let (key, entry) = text.split_once("\n\n").unwrap();
        assert!(!entry.contains(key) && text.matches("sha256:").count() == 1, "{text}");
        let rules = AccessRules::parse(entry).unwrap();
        assert_eq!((rules.keys[0].name.as_str(), rules.keys[0].hash), (name, Some(KeyHash::of(key))));
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("ACCESS_FILE") && !told.contains(key) && !told.contains("sha256:"), "{told}");
        keys.push(key.to_owned());
    }
    assert_ne!(keys[0], keys[1]);
}

#[test]
fn the_name_of_a_key_keeps_the_rule() {
    let long = "x".repeat(256);
    for name in ["", "anonymous", "api_key", "a\nb", &long] {
        let output = key(&[name]);
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert!(String::from_utf8(output.stderr).unwrap().starts_with("pub-sub: NAME: must "), "{name:?}");
    }
    assert!(!key(&[]).status.success());
    let help = key(&["--help"]);
    assert!(help.status.success() && String::from_utf8(help.stdout).unwrap().contains("shown only this once"));
}

#[test]
fn settings_of_access_that_cannot_be_meant_refuse_the_start() {
    for (environment, line) in [
        (&[("API_KEY", "")][..], "API_KEY: must not be empty; leave it out if it is not to be set"),
        (&[("JWT_SECRET", "")], "JWT_SECRET: must not be empty; leave it out if it is not to be set"),
        (&[("API_KEY_FILE", "")], "API_KEY_FILE: must not be empty; leave it out if it is not to be set"),
        (
            &[("JWT_SECRET_FILE", "/dev/null")],
            "JWT_SECRET_FILE: must not be empty; leave it out if it is not to be set",
        ),
        (&[("ACCESS_FILE", "")], "ACCESS_FILE: must not be empty; leave it out if it is not to be set"),
        (
            &[("JWT_SECRET", "x"), ("JWT_JWKS_FILE", "x")],
            "JWT_JWKS_FILE: must not be set together with JWT_SECRET: tokens are checked with one of them",
        ),
        (
            &[("JWT_PUBLIC_KEY_FILE", "x"), ("JWT_JWKS_URL", "https://x")],
            "JWT_JWKS_URL: must not be set together with JWT_PUBLIC_KEY_FILE: tokens are checked with one of them",
        ),
        (
            &[("JWT_JWKS_URL", "http://example.com/")],
            "JWT_JWKS_URL: must be https; http is only for localhost, 127.0.0.1 and [::1]",
        ),
        (
            &[("JWT_AUDIENCE", "x")],
            "JWT_AUDIENCE: has no effect without JWT_SECRET, JWT_PUBLIC_KEY_FILE, JWT_JWKS_URL or JWT_JWKS_FILE",
        ),
    ] {
        let output = command(environment).output().unwrap();
        assert!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("pub-sub: {line}\n"));
    }
}
