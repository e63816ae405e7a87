//! Tokens, and the attacks on them by name.

mod keys;
mod properties;

use serde_json::{Value, json};

use super::*;
use crate::{
    access::signer::{Signer, encode, jwks},
    broker::{Pattern, Secret},
};

const SECRET: &str = "a secret of tests that is longer than 32 bytes";

fn secret() -> Signer {
    Signer::Secret(SECRET.into())
}

fn with_secret() -> Settings {
    Settings { jwt_secret: Secret::new(SECRET.to_owned()), ..Settings::default() }
}

fn open(settings: &Settings) -> Tokens {
    Tokens::open(settings).unwrap().unwrap()
}

/// Keys as they stand in a PEM file or in a set.
fn over(settings: &Settings, keys: KeySet) -> Tokens {
    let keys = watch::channel(Arc::new(keys)).0;
    Tokens(Arc::new(Shared { rules: Rules::new(settings), keys, source: Source::Fixed }))
}

fn of_pem(signer: &Signer) -> Tokens {
    over(&Settings::default(), jwks::parse_pem(signer.pem().as_bytes()).unwrap())
}

fn of_set(keys: &[Value]) -> Tokens {
    over(&Settings::default(), jwks::parse(jwks(keys).as_bytes()).unwrap())
}

fn now() -> i64 {
    Timestamp::now().0 / 1_000
}

/// Claims that are right, with others over them. `null` takes one away.
fn claims(others: &Value) -> Value {
    let mut claims = json!({ "sub": "alice", "exp": now() + 600 });
    for (name, value) in others.as_object().unwrap() {
        if value.is_null() {
            claims.as_object_mut().unwrap().remove(name);
        } else {
            claims[name] = value.clone();
        }
    }
    claims
}

fn verify(settings: &Settings, others: &Value) -> Result<Verified, Refusal> {
    open(settings).verify_now(&secret().token(&claims(others)))
}

#[test]
fn a_token_says_who_it_is_and_what_it_may_do() {
    let claim = json!({ "publish": ["a.*", "b"], "subscribe": [">"], "manage": [], "stats": true });
    let verified =
        verify(&with_secret(), &json!({ "pubsub": claim, "iat": now(), "jti": "x", "other": [1.5] })).unwrap();
    let pattern = |text| Pattern::parse(text).unwrap();
    assert_eq!(verified.name, "alice");
    assert_eq!(
        verified.rights,
        Rights {
            publish: vec![pattern("a.*"), pattern("b")],
            subscribe: vec![pattern(">")],
            manage: vec![],
            stats: true
        }
    );
    assert!(open(&with_secret()).keys().borrow().contains(verified.key_id));
}

#[test]
fn a_token_without_the_claim_may_do_nothing() {
    assert_eq!(verify(&with_secret(), &json!({})).unwrap().rights, Rights::default());
    assert_eq!(verify(&with_secret(), &json!({ "pubsub": {} })).unwrap().rights, Rights::default());
    let settings = Settings { jwt_claim: "https://example.com/x".to_owned(), ..with_secret() };
    let others = json!({ "pubsub": { "stats": true }, "https://example.com/x": { "publish": ["a"] } });
    let rights = verify(&settings, &others).unwrap().rights;
    assert_eq!((rights.stats, rights.publish.len()), (false, 1));
}

#[test]
fn a_malformed_claim_is_refused() {
    for claim in [
        json!("null"),
        json!([]),
        json!([[], [], [], true]),
        json!(true),
        json!({ "publish": "a" }),
        json!({ "publish": ["a.>.b"] }),
        json!({ "publish": [""] }),
        json!({ "publish": [1] }),
        json!({ "pubish": ["a"] }),
        json!({ "stats": "true" }),
        json!({ "stats": null }),
    ] {
        let refused = verify(&with_secret(), &json!({ "pubsub": claim })).unwrap_err();
        assert!(matches!(refused, Refusal::BadClaims(_)), "{claim}: {refused:?}");
    }
    let null =
        secret().sign_text("{\"alg\":\"HS256\"}", &format!("{{\"sub\":\"a\",\"exp\":{},\"pubsub\":null}}", now() + 60));
    assert!(matches!(open(&with_secret()).verify_now(&null), Err(Refusal::BadClaims(_))));
}

#[test]
fn every_kind_of_key_verifies_its_algorithm() {
    for signer in [Signer::rsa(), Signer::ec(), Signer::ed()] {
        let token = signer.token(&claims(&json!({})));
        assert_eq!(of_pem(&signer).verify_now(&token).unwrap().name, "alice", "{}", signer.algorithm());
        let named = signer.sign(&json!({ "alg": signer.algorithm(), "kid": "x" }), &claims(&json!({})));
        let set = of_set(&[Signer::ed().jwk("other"), signer.jwk("x")]);
        assert_eq!(set.verify_now(&named).unwrap().name, "alice", "{}", signer.algorithm());
        // The same key is the same, from wherever it was read.
        let ids = [of_set(&[signer.jwk("x")]), of_set(&[signer.jwk("y")])];
        let ids = ids.map(|tokens| tokens.verify_now(&token).unwrap().key_id);
        assert_eq!(ids[0], ids[1]);
    }
}

#[test]
fn attack_alg_none() {
    for alg in ["none", "None", "NONE", "nOnE", ""] {
        let header = encode(json!({ "alg": alg }).to_string());
        let claims = encode(claims(&json!({})).to_string());
        for tokens in [open(&with_secret()), of_pem(&Signer::rsa()), of_pem(&Signer::ec())] {
            for token in [format!("{header}.{claims}."), format!("{header}.{claims}")] {
                assert_eq!(tokens.verify_now(&token), Err(Refusal::WrongAlgorithm), "{alg}");
            }
        }
    }
}

#[test]
fn attack_hs256_with_the_public_key() {
    let rsa = Signer::rsa();
    let jwk = rsa.jwk("x");
    let modulus = BASE64_URL_SAFE_NO_PAD.decode(jwk["n"].as_str().unwrap()).unwrap();
    let pem = rsa.pem();
    // Everything that could be taken for the secret.
    for secret in [pem.as_bytes(), pem.trim_end().as_bytes(), &modulus, jwk.to_string().as_bytes()] {
        let forger = Signer::Secret(secret.to_owned());
        for token in [
            forger.token(&claims(&json!({}))),
            forger.sign(&json!({ "alg": "HS256", "kid": "x" }), &claims(&json!({}))),
        ] {
            assert_eq!(of_pem(&rsa).verify_now(&token), Err(Refusal::WrongAlgorithm));
            assert_eq!(of_set(std::slice::from_ref(&jwk)).verify_now(&token), Err(Refusal::WrongAlgorithm));
        }
        let lying = forger.sign(&json!({ "alg": "RS256" }), &claims(&json!({})));
        assert_eq!(of_pem(&rsa).verify_now(&lying), Err(Refusal::BadSignature));
    }
}

#[test]
fn attack_another_algorithm_of_the_same_kind() {
    for (signer, others) in [
        (secret(), &["HS384", "HS512", "RS256", "hs256"][..]),
        (Signer::rsa(), &["RS384", "RS512", "PS256", "HS256"]),
        (Signer::ec(), &["ES384", "EdDSA", "ES256K"]),
        (Signer::ed(), &["Ed25519", "ES256", "eddsa"]),
    ] {
        let tokens = if signer.algorithm() == "HS256" { open(&with_secret()) } else { of_pem(&signer) };
        for alg in others {
            let token = signer.sign(&json!({ "alg": alg }), &claims(&json!({})));
            assert_eq!(tokens.verify_now(&token), Err(Refusal::WrongAlgorithm), "{alg}");
        }
    }
}

#[test]
fn attack_tampered_payload() {
    for signer in [secret(), Signer::rsa(), Signer::ec(), Signer::ed()] {
        let tokens = if signer.algorithm() == "HS256" { open(&with_secret()) } else { of_pem(&signer) };
        let token = signer.token(&claims(&json!({})));
        let parts: Vec<_> = token.split('.').collect();
        let forged = encode(claims(&json!({ "sub": "mallory" })).to_string());
        assert_eq!(tokens.verify_now(&format!("{}.{forged}.{}", parts[0], parts[2])), Err(Refusal::BadSignature));
        assert_eq!(tokens.verify_now(&format!("{}.{}.", parts[0], parts[1])), Err(Refusal::BadSignature));
        let zeros = encode([0; 64]);
        assert_eq!(tokens.verify_now(&format!("{}.{}.{zeros}", parts[0], parts[1])), Err(Refusal::BadSignature));
        // A header that says the same in another way was not signed.
        let header = encode(json!({ "typ": "JWT", "alg": signer.algorithm() }).to_string());
        assert_eq!(tokens.verify_now(&format!("{header}.{}.{}", parts[1], parts[2])), Err(Refusal::BadSignature));
        assert!(tokens.verify_now(&token).is_ok());
    }
    let other = Signer::Secret(b"another secret".to_vec()).token(&claims(&json!({})));
    assert_eq!(open(&with_secret()).verify_now(&other), Err(Refusal::BadSignature));
}

#[test]
fn attack_kid_with_paths_and_urls() {
    let (a, b, forger) = (Signer::ed(), Signer::ed(), Signer::ed());
    let tokens = of_set(&[a.jwk("a"), b.jwk("b")]);
    for kid in [
        "../../../dev/null",
        "/etc/passwd",
        "file:///dev/null",
        "https://evil.example/jwks.json",
        "a' OR '1'='1",
        "",
        "A",
    ] {
        let header = json!({
            "alg": "EdDSA",
            "kid": kid,
            "jku": "https://evil.example/jwks.json",
            "x5u": "https://evil.example/cert.pem",
            "jwk": forger.jwk(kid),
        });
        assert_eq!(tokens.verify_now(&forger.sign(&header, &claims(&json!({})))), Err(Refusal::UnknownKey), "{kid}");
    }
    // A key in the header counts for nothing, also under a name that is known.
    let header = json!({ "alg": "EdDSA", "kid": "a", "jwk": forger.jwk("a") });
    assert_eq!(tokens.verify_now(&forger.sign(&header, &claims(&json!({})))), Err(Refusal::BadSignature));
    let swapped = b.sign(&json!({ "alg": "EdDSA", "kid": "a" }), &claims(&json!({})));
    assert_eq!(tokens.verify_now(&swapped), Err(Refusal::BadSignature));
}

#[test]
fn a_token_without_kid_means_the_only_key() {
    let (a, b) = (Signer::ed(), Signer::ec());
    let token = a.token(&claims(&json!({})));
    assert!(of_set(&[a.jwk("a")]).verify_now(&token).is_ok());
    assert_eq!(of_set(&[a.jwk("a"), b.jwk("b")]).verify_now(&token), Err(Refusal::UnknownKey));
    let two = of_set(&[a.jwk("x"), b.jwk("x")]);
    for signer in [a, b] {
        let token = signer.sign(&json!({ "alg": signer.algorithm(), "kid": "x" }), &claims(&json!({})));
        assert!(two.verify_now(&token).is_ok(), "keys of different kinds may have one name");
    }
}

#[test]
fn attack_critical_header() {
    let header = json!({ "alg": "HS256", "crit": ["b64"], "b64": false });
    assert_eq!(open(&with_secret()).verify_now(&secret().sign(&header, &claims(&json!({})))), Err(Refusal::Malformed));
}

#[test]
fn attack_wrong_issuer() {
    let settings = Settings { jwt_issuer: "https://issuer.example/".to_owned(), ..with_secret() };
    assert!(verify(&settings, &json!({ "iss": "https://issuer.example/" })).is_ok());
    for issuer in [
        json!(null),
        json!("https://issuer.example"),
        json!(""),
        json!(["https://issuer.example/"]),
        json!(1),
        json!({}),
    ] {
        assert_eq!(verify(&settings, &json!({ "iss": issuer })), Err(Refusal::WrongIssuer), "{issuer}");
    }
    assert!(verify(&with_secret(), &json!({ "iss": "anybody" })).is_ok());
}

#[test]
fn attack_wrong_audience() {
    let settings = Settings { jwt_audience: "pub-sub".to_owned(), ..with_secret() };
    for audience in [json!("pub-sub"), json!(["pub-sub"]), json!(["other", "pub-sub"])] {
        assert!(verify(&settings, &json!({ "aud": audience })).is_ok(), "{audience}");
    }
    for audience in [
        json!(null),
        json!("other"),
        json!("pub-sub "),
        json!([]),
        json!(["other"]),
        json!([["pub-sub"]]),
        json!([1, "pub-sub"]),
        json!({ "pub-sub": 1 }),
    ] {
        assert_eq!(verify(&settings, &json!({ "aud": audience })), Err(Refusal::WrongAudience), "{audience}");
    }
    assert!(verify(&with_secret(), &json!({ "aud": "other" })).is_ok());
}

#[test]
fn attack_expired_within_and_after_the_leeway() {
    let settings = Settings { jwt_leeway: Duration::from_secs(30), ..with_secret() };
    let tokens = open(&settings);
    let token = secret().token(&json!({ "sub": "a", "exp": 1_000_000 }));
    let at = |milliseconds| tokens.verify_at(&token, Timestamp(milliseconds));
    assert_eq!(at(999_999_000).unwrap().expires, Timestamp(1_000_030_000));
    assert!(at(1_000_029_999).is_ok());
    assert_eq!(at(1_000_030_000), Err(Refusal::Expired));
    // Parts of a second count.
    let token = secret().token(&json!({ "sub": "a", "exp": 1_000_000.25 }));
    assert_eq!(tokens.verify_at(&token, Timestamp(0)).unwrap().expires, Timestamp(1_000_030_250));
    let token = secret().token(&json!({ "sub": "a", "exp": -1 }));
    assert_eq!(tokens.verify_at(&token, Timestamp(1_000_000)), Err(Refusal::Expired));
}

#[test]
fn attack_not_yet_valid() {
    let tokens = open(&with_secret());
    let token = secret().token(&json!({ "sub": "a", "exp": 2_000_000, "nbf": 1_000_000 }));
    assert_eq!(tokens.verify_at(&token, Timestamp(999_969_999)), Err(Refusal::NotYetValid));
    assert!(tokens.verify_at(&token, Timestamp(999_970_000)).is_ok());
}

#[test]
fn attack_times_that_are_none() {
    let tokens = open(&with_secret());
    for (exp, nbf) in [
        ("\"9999999999\"", "0"),
        ("true", "0"),
        ("null", "0"),
        ("[9999999999]", "0"),
        ("1e999", "0"),
        ("9999999999", "\"0\""),
        ("9999999999", "null"),
        ("9999999999", "-1e999"),
    ] {
        let token =
            secret().sign_text("{\"alg\":\"HS256\"}", &format!("{{\"sub\":\"a\",\"exp\":{exp},\"nbf\":{nbf}}}"));
        let refused = tokens.verify_now(&token).unwrap_err();
        assert!(matches!(refused, Refusal::BadClaims(_)), "{exp} {nbf}: {refused:?}");
    }
    // The furthest time has a bound, and sums with it do not overflow.
    let far = secret().sign_text("{\"alg\":\"HS256\"}", "{\"sub\":\"a\",\"exp\":1e300,\"nbf\":-1e300}");
    assert!(tokens.verify_now(&far).unwrap().expires.to_string().starts_with("9999-12-30"));
    let never = secret().sign_text("{\"alg\":\"HS256\"}", "{\"sub\":\"a\",\"exp\":1e300,\"nbf\":1e300}");
    assert_eq!(tokens.verify_now(&never), Err(Refusal::NotYetValid));
}

#[test]
fn attack_missing_claims() {
    for others in [json!({ "exp": null }), json!({ "sub": null }), json!({ "exp": null, "sub": null })] {
        assert!(matches!(verify(&with_secret(), &others), Err(Refusal::BadClaims(_))), "{others}");
    }
    for claims in ["[]", "1", "\"x\"", "null"] {
        let refused = open(&with_secret()).verify_now(&secret().sign_text("{\"alg\":\"HS256\"}", claims)).unwrap_err();
        assert!(matches!(refused, Refusal::BadClaims(_) | Refusal::Malformed), "{claims}: {refused:?}");
    }
}

#[test]
fn attack_names_that_are_none() {
    let long = "x".repeat(256);
    for sub in [
        json!(""),
        json!(" "),
        json!("a\nb"),
        json!("a\u{0}"),
        json!("a\u{9b}31m"),
        json!("anonymous"),
        json!("api_key"),
        json!(long),
        json!(1),
        json!(["alice"]),
        json!({}),
    ] {
        assert!(matches!(verify(&with_secret(), &json!({ "sub": sub })), Err(Refusal::BadClaims(_))), "{sub}");
    }
    assert_eq!(verify(&with_secret(), &json!({ "sub": "x".repeat(255) })).unwrap().name.len(), 255);
}

#[test]
fn attack_repeated_claims() {
    let times = format!("\"exp\":{}", now() + 60);
    for claims in [
        format!("{{\"sub\":\"alice\",\"sub\":\"admin\",{times}}}"),
        format!("{{\"sub\":\"alice\",\"exp\":1,{times}}}"),
        format!("{{\"sub\":\"alice\",\"pubsub\":{{}},\"pubsub\":{{\"stats\":true}},{times}}}"),
        format!("{{\"sub\":\"alice\",\"pubsub\":{{\"stats\":false,\"stats\":true}},{times}}}"),
    ] {
        let token = secret().sign_text("{\"alg\":\"HS256\"}", &claims);
        let refused = open(&with_secret()).verify_now(&token).unwrap_err();
        assert!(matches!(refused, Refusal::BadClaims(_) | Refusal::Malformed), "{claims}: {refused:?}");
    }
    let token = secret().sign_text("{\"alg\":\"none\",\"alg\":\"HS256\"}", &claims(&json!({})).to_string());
    assert_eq!(open(&with_secret()).verify_now(&token), Err(Refusal::Malformed));
}

#[test]
fn attack_huge_token() {
    let tokens = open(&with_secret());
    let of_length = |length: usize| {
        let token = |filler: usize| secret().token(&claims(&json!({ "filler": "x".repeat(filler) })));
        let short = token(0).len();
        // Four characters for three bytes; the token may be some characters shorter.
        token((length - short) * 3 / 4)
    };
    let token = of_length(8 << 10);
    assert!(token.len() <= 8 << 10 && token.len() > (8 << 10) - 4, "{}", token.len());
    assert!(tokens.verify_now(&token).is_ok());
    assert_eq!(tokens.verify_now(&of_length((8 << 10) + 8)), Err(Refusal::Malformed));
    assert_eq!(tokens.verify_now(&of_length(1 << 20)), Err(Refusal::Malformed));
}

#[test]
fn attack_deeply_nested_claims() {
    let tokens = open(&with_secret());
    let times = format!("\"sub\":\"a\",\"exp\":{}", now() + 60);
    for (depth, open, close) in [(2_900, "[", "]"), (900, "{\"a\":", "}")] {
        let deep = format!("{}1{}", open.repeat(depth), close.repeat(depth));
        for claim in ["other", "pubsub", "aud", "iss", "sub", "exp"] {
            let claims = match claim {
                "sub" => format!("{{\"sub\":{deep},\"exp\":{}}}", now() + 60),
                "exp" => format!("{{\"sub\":\"a\",\"exp\":{deep}}}"),
                claim => format!("{{{times},\"{claim}\":{deep}}}"),
            };
            let token = secret().sign_text("{\"alg\":\"HS256\"}", &claims);
            assert!(token.len() < 8 << 10);
            assert_eq!(tokens.verify_now(&token).is_ok(), claim == "other", "{claim} {open}");
        }
        let header = format!("{{\"alg\":\"HS256\",\"x\":{deep}}}");
        assert!(tokens.verify_now(&secret().sign_text(&header, "{}")).is_err());
    }
}

#[test]
fn attack_garbage() {
    let tokens = open(&with_secret());
    let token = secret().token(&claims(&json!({})));
    let padded = format!("{token}=");
    let extended = format!("{token}.x");
    let header = encode("{\"alg\":\"HS256\"}");
    for garbage in [
        "",
        ".",
        "..",
        "...",
        "a.b.c",
        "🦀.🦀.🦀",
        "psk_0123",
        "\0",
        &padded,
        &extended,
        &token.replacen('.', "..", 1),
        &format!("{header}.{}.{}", encode([0xff, 0xfe]), encode("x")),
        &format!("{}.{header}.{header}", encode("{\"alg\":1}")),
        &format!("{}.{header}.{header}", encode("{\"alg\":\"HS256\",\"kid\":1}")),
    ] {
        let refused = tokens.verify_now(garbage).unwrap_err();
        assert!(matches!(refused, Refusal::Malformed | Refusal::BadSignature), "{garbage:?}: {refused:?}");
    }
    for length in 0..token.len() {
        assert!(tokens.verify_now(&token[..length]).is_err(), "{length}");
    }
}

#[test]
fn refusals_name_a_reason_and_no_token() {
    let all = [
        Refusal::Malformed,
        Refusal::WrongAlgorithm,
        Refusal::UnknownKey,
        Refusal::BadSignature,
        Refusal::Expired,
        Refusal::NotYetValid,
        Refusal::WrongIssuer,
        Refusal::WrongAudience,
        Refusal::BadClaims("x"),
        Refusal::KeysUnavailable,
    ];
    let reasons: std::collections::HashSet<_> = all.iter().map(|refusal| refusal.reason()).collect();
    assert_eq!(reasons.len(), all.len());
    assert!(reasons.iter().all(|reason| reason.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase())));
}
