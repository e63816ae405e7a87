//! Tokens that are not what they say, at every way in.

use serde_json::json;

use super::{ADMIN_KEY, Innocent, Restricted, TOKEN_SECRET, claims, code, graphql_socket, now, token};
use crate::{
    doors::raw_ws::Socket,
    harness::{Client, TestServer},
    signer::{Signer, encode},
};

/// Tries a credential at every way in, and expects that each refuses it in its own way.
async fn is_refused(client: &Client, attack: &str, credential: &str) {
    let bearer = client.signed_in(credential);
    for path in ["/topics", "/stats", "/metrics", "/topics/news/messages", "/openapi.json"] {
        let response = bearer.get(path).await;
        assert_eq!((response.status, code(&response).as_str()), (401, "UNAUTHENTICATED"), "{attack} at {path}");
        assert!(response.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer"), "{response:?}");
    }
    for (path, body) in [
        ("/publish", json!({"topic": "news", "data": 1})),
        ("/graphql", json!({"query": "{ __typename }"})),
        ("/auth/cookie", json!({})),
    ] {
        let response = bearer.post(path, &body).await;
        assert_eq!((response.status, code(&response).as_str()), (401, "UNAUTHENTICATED"), "{attack} at {path}");
        assert!(!response.text.contains(credential), "{response:?}");
    }
    let by_key = client.request(reqwest::Method::GET, "/topics").header("x-api-key", credential);
    client.send(by_key).await.expect_error(401, "UNAUTHENTICATED");
    for (path, protocol) in [("/ws", None), ("/graphql", Some("graphql-transport-ws")), ("/graphql/ws", None)] {
        let refused = Socket::try_connect(&bearer, path, protocol).await.err();
        let Some(tokio_tungstenite::tungstenite::Error::Http(response)) = refused else {
            panic!("{attack} at the upgrade of {path}: {refused:?}")
        };
        assert_eq!(response.status(), 401, "{attack} at {path}");
    }
    for protocol in ["graphql-transport-ws", "graphql-ws"] {
        for payload in [json!({"Authorization": format!("Bearer {credential}")}), json!({"token": credential})] {
            let mut socket = graphql_socket(client, protocol, &payload).await;
            assert_eq!(socket.closed().await, Some(4403), "{attack} in connection_init of {protocol}");
        }
    }
    let mut socket = Socket::connect(client, "/ws", None).await;
    socket.send(json!({"type": "auth", "token": credential}).to_string()).await;
    let reply = socket.json().await;
    assert_eq!(reply["error"]["code"], "UNAUTHENTICATED", "{attack} in a frame: {reply}");
    // What is refused is not treated as if there was nothing.
    socket.send(json!({"type": "subscribe", "topic": "public.news"}).to_string()).await;
    assert_eq!(socket.json().await["type"], "ack", "anonymous has what it had");
}

/// What anonymous may do, so that "bad credentials are not anonymous" can be seen.
const ANONYMOUS: &str = "anonymous = { subscribe = [\"public.>\"] }\n";

#[tokio::test]
async fn tokens_of_a_secret_that_are_not_what_they_say() {
    let server = Restricted::with(ANONYMOUS, |config| {
        config.access.jwt_issuer = "https://issuer.example".to_owned();
        config.access.jwt_audience = "pub-sub".to_owned();
    });
    let right = json!({"iss": "https://issuer.example", "aud": "pub-sub"});
    let with = |name: &str, value: serde_json::Value| {
        let mut others = right.clone();
        others[name] = value;
        token("mallory", &others)
    };
    let good = token("alice", &right);
    let [header, payload, signature] = good.split('.').collect::<Vec<_>>()[..] else { panic!("{good}") };
    let mut innocent = Innocent::of(&server.admin).await;
    server.nobody().signed_in(&good).get("/topics").await.expect(200);
    let mallory = encode(claims("mallory", &right).to_string());
    let none = |algorithm: &str| encode(json!({"alg": algorithm, "typ": "JWT"}).to_string());
    let short = "a secret that somebody guesses";
    let attacks = [
        ("alg none", format!("{}.{mallory}.", none("none"))),
        ("alg NONE with a signature", format!("{}.{mallory}.{signature}", none("NONE"))),
        ("no alg", format!("{}.{mallory}.{signature}", encode("{}"))),
        ("tampered payload", format!("{header}.{mallory}.{signature}")),
        ("tampered header", format!("{}.{payload}.{signature}", none("HS512"))),
        ("no signature", format!("{header}.{payload}.")),
        ("half a signature", format!("{header}.{payload}.{}", &signature[..20])),
        ("two parts", format!("{header}.{payload}")),
        ("four parts", format!("{good}.{signature}")),
        ("padding", format!("{good}=")),
        ("another secret", Signer::Secret(short.into()).token(&claims("mallory", &right))),
        ("expired", with("exp", json!(now() - 3_600))),
        ("not yet valid", with("nbf", json!(now() + 3_600))),
        ("exp as text", with("exp", json!("2999-01-01"))),
        ("no exp", with("exp", json!(null))),
        ("wrong issuer", with("iss", json!("https://evil.example"))),
        ("wrong audience", with("aud", json!(["another", "service"]))),
        ("no subject", with("sub", json!(""))),
        ("a subject with a line break", with("sub", json!("alice\nadmin"))),
        ("the administrator's name", with("sub", json!("api_key"))),
        ("anonymous's name", with("sub", json!("anonymous"))),
        ("a malformed claim", with("pubsub", json!({"publish": ">"}))),
        ("a pattern that is none", with("pubsub", json!({"publish": ["a.>.b"]}))),
        ("the secret itself", TOKEN_SECRET.to_owned()),
        ("the beginning of a key", ADMIN_KEY[..ADMIN_KEY.len() - 1].to_owned()),
        ("a key and more", format!("{ADMIN_KEY}x")),
        ("a key in capitals", ADMIN_KEY.to_uppercase()),
        ("the hash of a key", pub_sub::access::KeyHash::of(ADMIN_KEY).to_string()),
    ];
    for (attack, credential) in attacks {
        is_refused(server.nobody(), attack, &credential).await;
    }
    innocent.receives().await;
    server.nobody().signed_in(&good).get("/topics").await.expect(200);
}

/// The key says the algorithm, so a public key is no secret of HS256, and a name of a key is no address.
#[tokio::test]
async fn tokens_of_a_public_key_that_are_not_what_they_say() {
    let (signer, other) = (Signer::rsa(), Signer::ed());
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let path = directory.path().join("keys.json");
    std::fs::write(&path, crate::signer::jwks(&[signer.jwk("known")])).unwrap();
    // Whoever could choose the address of keys would be found here.
    let lure = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let lure_url = format!("http://{}/keys.json", lure.local_addr().unwrap());
    let file = directory.path().join("own.pem");
    std::fs::write(&file, other.pem()).unwrap();
    let rules = directory.path().join("access.toml");
    std::fs::write(&rules, ANONYMOUS).unwrap();
    let server = TestServer::with(|config| {
        config.access.jwt_jwks_file = path.to_str().unwrap().to_owned();
        config.access.access_file = rules.to_str().unwrap().to_owned();
    });
    let admin = claims("admin", &json!({"pubsub": {"publish": [">"], "subscribe": [">"], "stats": true}}));
    let with_kid = |kid: &str| signer.sign(&json!({"alg": "RS256", "kid": kid}), &admin);
    let good = server.client.signed_in(&with_kid("known"));
    let mut innocent = Innocent::of(&good).await;
    let confused =
        |bytes: &[u8]| Signer::Secret(bytes.to_owned()).sign(&json!({"alg": "HS256", "kid": "known"}), &admin);
    let pem = signer.pem();
    let jwk = signer.jwk("known");
    let mut attacks = vec![
        ("HS256 with the public key in PEM".to_owned(), confused(pem.as_bytes())),
        ("HS256 with the public key in PEM without the last line break".to_owned(), confused(pem.trim().as_bytes())),
        ("HS256 with the public key as JWK".to_owned(), confused(jwk.to_string().as_bytes())),
        ("HS256 with the modulus".to_owned(), confused(jwk["n"].as_str().unwrap().as_bytes())),
        ("HS256 with nothing".to_owned(), confused(b"")),
        ("RS256 by another kind of key".to_owned(), other.sign(&json!({"alg": "RS256", "kid": "known"}), &admin)),
        ("the algorithm of another key".to_owned(), other.sign(&json!({"alg": "EdDSA", "kid": "known"}), &admin)),
    ];
    let own = json!({"alg": "EdDSA", "kid": "known", "jwk": other.jwk("known"), "jku": lure_url, "x5u": lure_url});
    attacks.push(("a key of its own in the header".to_owned(), other.sign(&own, &admin)));
    let file = file.to_str().unwrap();
    for kid in [
        lure_url.as_str(),
        file,
        &format!("file://{file}"),
        "../../../../../../dev/null",
        "/dev/null",
        "known' OR '1'='1",
        "known\u{0}",
        "",
    ] {
        let token = other.sign(&json!({"alg": "EdDSA", "kid": kid}), &admin);
        attacks.push((format!("kid {kid:?}"), token));
        // `/dev/null` as the secret is the empty one.
        attacks.push((
            format!("kid {kid:?} and an empty secret"),
            Signer::Secret(Vec::new()).sign(&json!({"alg": "HS256", "kid": kid}), &admin),
        ));
    }
    for (attack, credential) in attacks {
        is_refused(&server.client, &attack, &credential).await;
    }
    let nobody_came = tokio::time::timeout(std::time::Duration::from_millis(1), lure.accept()).await;
    assert!(nobody_came.is_err(), "the server has asked an address of a token");
    innocent.receives().await;
}
