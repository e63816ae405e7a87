//! Servers of key sets that misbehave. Who has a key that is known is served meanwhile.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering},
};

use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::{Innocent, claims, metric};
use crate::{
    harness::{TestServer, eventually},
    process::Process,
    signer::{Signer, jwks},
};

/// What a server of key sets does with a request.
#[derive(Clone)]
enum Answer {
    Bytes(Vec<u8>),
    /// Sends this and then nothing more.
    Stuck(&'static str),
    /// Never comes to an end.
    Endless,
}

struct KeyServer {
    url: String,
    answer: Arc<Mutex<Answer>>,
    asked: Arc<AtomicUsize>,
    /// Bytes that clients have taken.
    sent: Arc<AtomicUsize>,
}

fn ok(body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

impl KeyServer {
    async fn start(answer: Answer) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/keys.json", listener.local_addr().unwrap());
        let server = Self { url, answer: Arc::new(Mutex::new(answer)), asked: Arc::default(), sent: Arc::default() };
        let (answer, asked, sent) = (server.answer.clone(), server.asked.clone(), server.sent.clone());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let mut request = [0; 4096];
                let _ = stream.read(&mut request).await;
                asked.fetch_add(1, Ordering::Relaxed);
                let answer = answer.lock().unwrap().clone();
                let sent = sent.clone();
                tokio::spawn(async move {
                    match answer {
                        Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
                        Answer::Stuck(text) => {
                            let _ = stream.write_all(text.as_bytes()).await;
                            let _ = stream.read(&mut request).await;
                        }
                        Answer::Endless => {
                            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[").await;
                            while stream.write_all(&[b' '; 65_536]).await.is_ok() {
                                sent.fetch_add(65_536, Ordering::Relaxed);
                            }
                        }
                    }
                });
            }
        });
        server
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// Keys that were fetched count while the set cannot be fetched again, and tokens that name other keys are refused in time.
async fn a_bad_answer_hurts_nobody(bad: Answer) -> KeyServer {
    let signer = Signer::ec();
    let keys = KeyServer::start(ok(&jwks(&[signer.jwk("good")]))).await;
    let url = keys.url.clone();
    let server = TestServer::with(|config| config.access.jwt_jwks_url = url);
    let rights = json!({"pubsub": {"publish": [">"], "subscribe": [">"], "stats": true}});
    let with_kid = |kid: &str| signer.sign(&json!({"alg": "ES256", "kid": kid}), &claims("alice", &rights));
    let good = server.client.signed_in(&with_kid("good"));
    eventually("fetched keys", || async { (good.get("/topics").await.status == 200).then_some(()) }).await;
    let mut innocent = Innocent::of(&good).await;
    *keys.answer.lock().unwrap() = bad;
    // Each names another key, and all of them are answered. There is one fetch a minute, however many they are.
    let guesses = (0..50).map(|number| {
        let client = server.client.signed_in(&with_kid(&format!("unknown{number}")));
        async move { client.get("/topics").await.expect_error(401, "UNAUTHENTICATED") }
    });
    let (_, ()) = tokio::join!(futures_util::future::join_all(guesses), innocent.receives());
    assert_eq!(keys.asked(), 1, "there was one fetch less than a minute ago");
    assert_eq!(metric(&good, "pubsub_auth_refused_total{reason=\"unknown_key\"}").await, 50);
    // Another token of the same key needs no fetch.
    let fresh = signer.sign(&json!({"alg": "ES256", "kid": "good"}), &claims("bob", &rights));
    server.client.signed_in(&fresh).get("/topics").await.expect(200);
    innocent.receives().await;
    keys
}

#[tokio::test]
async fn an_unknown_key_asks_for_one_fetch_a_minute() {
    a_bad_answer_hurts_nobody(Answer::Stuck("HTTP/1.1 200 OK\r\n")).await;
}

/// The set is bad from the start: the server starts, refuses tokens in time, and serves those with keys.
#[tokio::test]
async fn a_bad_set_from_the_start() {
    let (signer, target) = (Signer::ec(), KeyServer::start(ok("{}")).await);
    *target.answer.lock().unwrap() = ok(&jwks(&[signer.jwk("good")]));
    let redirect = format!("HTTP/1.1 302 Found\r\nLocation: {}\r\nContent-Length: 0\r\n\r\n", target.url);
    let ten_mebibytes = " ".repeat(10 << 20);
    for (what, bad) in [
        ("nothing", Answer::Stuck("")),
        ("half a head", Answer::Stuck("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[")),
        ("10 MiB", ok(&format!("{}{ten_mebibytes}", jwks(&[signer.jwk("good")])))),
        ("no end", Answer::Endless),
        ("a redirect", Answer::Bytes(redirect.into_bytes())),
    ] {
        let keys = KeyServer::start(bad).await;
        let process = Process::start(&[("JWT_JWKS_URL", &keys.url), ("API_KEY", super::ADMIN_KEY)]);
        let admin = process.client.signed_in(super::ADMIN_KEY);
        let mut innocent = Innocent::of(&admin).await;
        let before = process.memory();
        let token = signer.sign(&json!({"alg": "ES256", "kid": "good"}), &claims("alice", &json!({})));
        let alice = process.client.signed_in(&token);
        let waiting: Vec<_> = (0..20).map(|_| alice.get("/topics")).collect();
        let (refused, ()) = tokio::join!(futures_util::future::join_all(waiting), innocent.receives());
        for response in refused {
            response.expect_error(401, "UNAUTHENTICATED");
        }
        eventually("a fetch that has failed", || async {
            (metric(&admin, "pubsub_access_reload_failures_total").await > 0).then_some(())
        })
        .await;
        innocent.receives().await;
        // What was read of it is not kept, and there was not much of it.
        assert!(keys.sent.load(Ordering::Relaxed) < 16 << 20, "{what}: {}", keys.sent.load(Ordering::Relaxed));
        assert!(process.memory() < before + (12 << 20), "{what}: {} -> {}", before, process.memory());
        let log = process.log();
        assert!(log.iter().any(|line| line.contains("could not be fetched")), "{what}: {log:?}");
        if what == "a redirect" {
            assert_eq!(target.asked(), 0, "a redirect was followed");
        }
        // Once the set is good, the same token is.
        *keys.answer.lock().unwrap() = ok(&jwks(&[signer.jwk("good")]));
        eventually("keys", || async { (alice.get("/topics").await.status == 200).then_some(()) }).await;
    }
}
