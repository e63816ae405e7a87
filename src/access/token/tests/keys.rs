//! Where the keys of tokens come from, and what happens when they change.

use tokio_util::task::TaskTracker;

use super::*;
use crate::access::signer::pem;

#[test]
fn files_of_keys_are_checked_at_the_start() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("key");
    let text = path.display().to_string();
    let of_pem = Settings { jwt_public_key_file: text.clone(), ..Settings::default() };
    let of_set = Settings { jwt_jwks_file: text.clone(), ..Settings::default() };
    let error = |settings: &Settings| Tokens::open(settings).err().unwrap();
    assert!(error(&of_pem).starts_with(&format!("JWT_PUBLIC_KEY_FILE: {text}: ")));
    assert!(error(&of_set).starts_with(&format!("JWT_JWKS_FILE: {text}: ")));
    let key = Signer::ec();
    for (content, wanted) in [
        (String::new(), "contains no PEM block"),
        ("ssh-rsa AAAA".to_owned(), "contains no PEM block"),
        (pem("CERTIFICATE", b"x"), "is a certificate"),
        (pem("PRIVATE KEY", b"hunter2"), "is a private key"),
        (pem("EC PRIVATE KEY", b"hunter2"), "is a private key"),
        (pem("PUBLIC KEY", b"x"), "is no key of RSA, P-256 or Ed25519"),
        (key.pem() + &key.pem(), "contains several PEM blocks"),
    ] {
        std::fs::write(&path, content).unwrap();
        let error = error(&of_pem);
        assert!(error.starts_with(&format!("JWT_PUBLIC_KEY_FILE: {text}: {wanted}")), "{error}");
    }
    std::fs::write(&path, jwks(&[secret().jwk("x")])).unwrap();
    assert!(error(&of_set).ends_with("a key is symmetric"));
    std::fs::write(&path, jwks(&[key.jwk("x")])).unwrap();
    assert_eq!(open(&of_set).verify_now(&key.token(&claims(&json!({})))).unwrap().name, "alice");
    std::fs::write(&path, key.pem()).unwrap();
    assert_eq!(open(&of_pem).verify_now(&key.token(&claims(&json!({})))).unwrap().name, "alice");
    assert!(Tokens::open(&Settings::default()).unwrap().is_none());
}

/// A token that this key has signed under a name.
fn named(signer: &Signer, kid: &str) -> String {
    signer.sign(&json!({ "alg": signer.algorithm(), "kid": kid }), &claims(&json!({})))
}

#[tokio::test(start_paused = true)]
async fn a_changed_file_of_keys_counts_and_a_broken_one_does_not() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("jwks.json");
    let (old, new) = (Signer::ed(), Signer::ed());
    std::fs::write(&path, jwks(&[old.jwk("x")])).unwrap();
    let tokens = open(&Settings { jwt_jwks_file: path.display().to_string(), ..Settings::default() });
    let verified = tokens.verify_now(&named(&old, "x")).unwrap();
    let (reload, stop, mut keys) = (Reload::default(), CancellationToken::new(), tokens.keys());
    let tasks = TaskTracker::new();
    tasks.spawn({
        let (tokens, reload, stop) = (tokens.clone(), reload.clone(), stop.clone());
        async move { tokens.keep_up_to_date(&reload, stop).await }
    });
    for broken in ["", "{", "{\"keys\":[]}", "[]"] {
        let failures = reload.failures();
        std::fs::write(&path, broken).unwrap();
        timeout(Duration::from_secs(60), async {
            while reload.failures() == failures {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        })
        .await
        .unwrap();
        assert!(tokens.verify_now(&named(&old, "x")).is_ok(), "{broken:?} counts");
    }
    assert!(!keys.has_changed().unwrap());
    // The new key has the name of the old one, and tokens of the old one are withdrawn all the same.
    std::fs::write(&path, jwks(&[new.jwk("x")])).unwrap();
    timeout(Duration::from_secs(60), keys.changed()).await.unwrap().unwrap();
    assert!(!keys.borrow().contains(verified.key_id));
    assert!(tokens.verify_now(&named(&new, "x")).is_ok());
    assert_eq!(tokens.verify_now(&named(&old, "x")), Err(Refusal::BadSignature));
    stop.cancel();
    tasks.close();
    timeout(Duration::from_secs(60), tasks.wait()).await.unwrap();
}

/// Tokens over a URL whose fetches a test answers itself.
fn of_url() -> Tokens {
    open(&Settings { jwt_jwks_url: "http://localhost:9/".to_owned(), ..Settings::default() })
}

#[tokio::test(start_paused = true)]
async fn rotation_works_with_the_first_token() {
    let (old, new, forger) = (Signer::ed(), Signer::ed(), Signer::ed());
    let (tokens, reload) = (of_url(), Reload::default());
    let Source::Url { fetching, .. } = &tokens.0.source else { panic!("it has no URL") };
    let published = parking_lot::Mutex::new(vec![old.jwk("old")]);
    let fetches = std::cell::Cell::new(0);
    // An answer takes a second.
    let fetch = || async {
        fetches.set(fetches.get() + 1);
        tokio::time::sleep(Duration::from_secs(1)).await;
        jwks::parse(jwks(&published.lock()).as_bytes())
    };
    let test = async {
        // The first fetch is running: nobody is refused because of it.
        assert_eq!(tokens.verify_now(&named(&old, "old")), Err(Refusal::KeysUnavailable));
        let verified = tokens.verify(&named(&old, "old")).await.unwrap();
        *published.lock() = vec![old.jwk("old"), new.jwk("new")];
        // Within the first minute nothing is fetched, and nobody waits.
        let begun = tokio::time::Instant::now();
        assert_eq!(tokens.verify(&named(&new, "new")).await, Err(Refusal::UnknownKey));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        tokio::time::sleep(Duration::from_secs(600)).await;
        assert!(tokens.verify(&named(&new, "new")).await.is_ok());
        // The old key goes, and what it has verified goes with it.
        *published.lock() = vec![new.jwk("new")];
        tokio::time::sleep(Duration::from_secs(700)).await;
        assert!(!tokens.keys().borrow().contains(verified.key_id));
        tokio::time::sleep(Duration::from_secs(70)).await;
        let before = fetches.get();
        assert_eq!(tokens.verify(&named(&old, "old")).await, Err(Refusal::UnknownKey));
        assert_eq!(fetches.get(), before + 1, "an unknown key causes a fetch, which is awaited");
        // An issuer with one key may give the next one the same name.
        *published.lock() = vec![old.jwk("new")];
        tokio::time::sleep(Duration::from_secs(70)).await;
        assert!(tokens.verify(&named(&old, "new")).await.is_ok());
        assert_eq!(tokens.verify(&named(&forger, "new")).await, Err(Refusal::BadSignature));
    };
    tokio::select! {
        () = fetching.run(fetch, &reload, |keys| tokens.install("JWT_JWKS_URL", keys)) => panic!("it stopped"),
        () = test => {}
    }
}

#[tokio::test(start_paused = true)]
async fn attack_slow_keys_hold_nobody_for_long() {
    let (tokens, reload) = (of_url(), Reload::default());
    let Source::Url { fetching, .. } = &tokens.0.source else { panic!("it has no URL") };
    let test = async {
        let begun = tokio::time::Instant::now();
        assert_eq!(tokens.verify(&named(&Signer::ed(), "x")).await, Err(Refusal::KeysUnavailable));
        assert_eq!(begun.elapsed(), FETCH_WAIT);
    };
    tokio::select! {
        () = fetching.run(std::future::pending, &reload, |_| {}) => panic!("it stopped"),
        () = test => {}
    }
}
