//! Whatever comes is an answer, and never a panic.

use proptest::prelude::*;

use super::*;
use crate::access::{AccessRules, KeyHash, check_name};

/// A text with one byte replaced.
fn damaged(text: &str, at: prop::sample::Index, by: u8) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    let at = at.index(bytes.len());
    bytes[at] = by;
    bytes
}

proptest! {
    #[test]
    fn a_token_with_another_character_is_refused(at: prop::sample::Index, by in "[A-Za-z0-9_.=-]") {
        let signer = secret();
        let token = signer.token(&json!({ "sub": "a", "exp": 9_999_999_999_u64, "pubsub": { "publish": ["a.*"] } }));
        let changed = String::from_utf8(damaged(&token, at, by.as_bytes()[0])).unwrap();
        prop_assert_eq!(open(&with_secret()).verify_now(&changed).is_ok(), changed == token);
    }

    #[test]
    fn whatever_an_issuer_signs_is_an_answer(header in ".{0,80}", claims in ".{0,200}", at: prop::sample::Index, by: u8) {
        let tokens = open(&with_secret());
        prop_assert!(tokens.verify_now(&claims).is_err());
        prop_assert!(tokens.verify_now(&secret().sign_text(&header, &claims)).is_err());
        let token = secret().sign_text("{\"alg\":\"HS256\"}", &claims);
        prop_assert!(tokens.verify_now(&token).is_err());
        let good = "{\"sub\":\"a\",\"exp\":99999999999,\"nbf\":1,\"aud\":[\"x\"],\"pubsub\":{\"publish\":[\"a.*\"],\"stats\":true}}";
        let claims = String::from_utf8_lossy(&damaged(good, at, by)).into_owned();
        let verified = tokens.verify_now(&secret().sign_text("{\"alg\":\"HS256\"}", &claims));
        // What is accepted keeps the rule of names.
        prop_assert!(verified.is_err() || verified.is_ok_and(|verified| check_name(&verified.name).is_ok()));
    }

    #[test]
    fn damaged_files_are_errors_or_as_good_as_before(text in ".{0,200}", at: prop::sample::Index, by: u8) {
        let key = Signer::ec();
        for good in [key.pem(), jwks(&[key.jwk("a"), key.jwk("b")])] {
            let damaged = damaged(&good, at, by);
            for keys in [jwks::parse(&damaged), jwks::parse_pem(&damaged)] {
                prop_assert!(keys.is_err() || keys.is_ok_and(|keys| (1..=2).contains(&keys.len())));
            }
        }
        prop_assert!(jwks::parse(text.as_bytes()).is_err() && jwks::parse_pem(text.as_bytes()).is_err());
        let file = format!("anonymous = {{ subscribe = [\"a.>\"] }}\n[[key]]\nname = \"a\"\nhash = \"{}\"\n", KeyHash::of("hunter2"));
        for text in [text, String::from_utf8_lossy(&damaged(&file, at, by)).into_owned()] {
            if let Err(error) = AccessRules::parse(&text) {
                prop_assert!(error.starts_with("line ") && !error.contains('\n'), "{}", error);
                prop_assert!(!error.contains("f52fbd32"), "{}", error);
            }
        }
    }
}
