//! Fetching from a server on this machine, which misbehaves in every way that has a name.

use std::{net::SocketAddr, sync::Arc};

use base64::{Engine as _, prelude::BASE64_URL_SAFE_NO_PAD};
use parking_lot::Mutex;
use rustls::crypto::ring;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_util::task::{AbortOnDropHandle, TaskTracker};

use super::*;
use crate::access::{
    Refusal, Reload, Settings, Tokens,
    signer::{Signer, jwks},
};

const DEADLINE: Duration = Duration::from_secs(30);

/// What the server answers.
#[derive(Clone)]
enum Answer {
    Bytes(Vec<u8>),
    /// The beginning, and then nothing any more.
    Stuck(Vec<u8>),
    /// This piece without an end.
    Endless(Vec<u8>),
}

struct Server {
    address: SocketAddr,
    answer: Arc<Mutex<Answer>>,
    /// The first lines of the requests.
    requests: Arc<Mutex<Vec<String>>>,
    _task: AbortOnDropHandle<()>,
}

fn ok(body: &str) -> Answer {
    Answer::Bytes(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len()).into_bytes())
}

impl Server {
    async fn start(answer: Answer) -> Self {
        Self::over(TcpListener::bind("127.0.0.1:0").await.unwrap(), answer)
    }

    fn over(listener: TcpListener, answer: Answer) -> Self {
        let address = listener.local_addr().unwrap();
        let (answer, requests) = (Arc::new(Mutex::new(answer)), Arc::default());
        let (answers, log): (_, Arc<Mutex<Vec<String>>>) = (answer.clone(), Arc::clone(&requests));
        let task = async move {
            loop {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = vec![0; 4_096];
                let length = stream.read(&mut request).await.unwrap();
                let text = String::from_utf8_lossy(&request[..length]);
                log.lock().push(text.lines().next().unwrap_or_default().to_owned());
                let answer = answers.lock().clone();
                // The client may close the connection at any time.
                match answer {
                    Answer::Bytes(bytes) => drop(stream.write_all(&bytes).await),
                    Answer::Stuck(bytes) => {
                        let _ = stream.write_all(&bytes).await;
                        let _ = stream.read(&mut request).await;
                    }
                    Answer::Endless(bytes) => while stream.write_all(&bytes).await.is_ok() {},
                }
            }
        };
        Self { address, answer, requests, _task: AbortOnDropHandle::new(TaskTracker::new().spawn(task)) }
    }

    fn url(&self) -> String {
        format!("http://{}/jwks.json?set=1", self.address)
    }

    async fn fetch(&self) -> Result<KeySet, String> {
        Fetcher::new(&self.url()).unwrap().fetch().await
    }
}

#[tokio::test]
async fn keys_are_fetched() {
    let (a, b) = (Signer::rsa(), Signer::ed());
    let server = Server::start(ok(&jwks(&[a.jwk("a"), b.jwk("b")]))).await;
    assert_eq!(server.fetch().await.unwrap().len(), 2);
    assert_eq!(*server.requests.lock(), ["GET /jwks.json?set=1 HTTP/1.1"]);
    let set = jwks(&[a.jwk("a")]);
    let chunked = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{set}\r\n0\r\n\r\n", set.len());
    *server.answer.lock() = Answer::Bytes(chunked.into_bytes());
    assert_eq!(server.fetch().await.unwrap().len(), 1);
}

#[tokio::test]
async fn attack_redirect() {
    let target = Server::start(ok(&jwks(&[Signer::ed().jwk("a")]))).await;
    for status in
        ["301 Moved Permanently", "302 Found", "303 See Other", "307 Temporary Redirect", "308 Permanent Redirect"]
    {
        let answer = format!("HTTP/1.1 {status}\r\nlocation: {}\r\ncontent-length: 0\r\n\r\n", target.url());
        let server = Server::start(Answer::Bytes(answer.into_bytes())).await;
        let error = server.fetch().await.unwrap_err();
        assert!(error.contains(&status[..3]) && !error.contains('\n'), "{error}");
    }
    assert!(target.requests.lock().is_empty());
}

#[tokio::test]
async fn attack_ten_mebibytes() {
    let announced = "HTTP/1.1 200 OK\r\ncontent-length: 10485760\r\n\r\n{\"keys\":[";
    let chunked = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1000\r\n";
    let filler = " ".repeat(0x1000) + "\r\n1000\r\n";
    let server = Server::start(Answer::Stuck(announced.into())).await;
    for answer in
        [[announced.to_owned(), " ".repeat(10 << 20)].concat(), [chunked.to_owned(), filler.repeat(2_560)].concat()]
    {
        *server.answer.lock() = Answer::Bytes(answer.into_bytes());
        assert_eq!(server.fetch().await.unwrap_err(), "the answer is larger than 1 MiB");
    }
    // Nor is there an end to the headers.
    *server.answer.lock() = Answer::Endless(b"HTTP/1.1 200 OK\r\nx: y".to_vec());
    assert!(server.fetch().await.is_err());
}

#[tokio::test]
async fn attack_garbage() {
    let ed = Signer::ed();
    let mut private = ed.jwk("a");
    private["use"] = json!("enc");
    for (answer, wanted) in [
        (ok("<html>secret</html>"), "the answer is no JSON Web Key Set (line 1, column 1)"),
        (ok(""), "the answer is no JSON Web Key Set"),
        (ok("{}"), "the answer is no JSON Web Key Set"),
        (ok("[]"), "the answer is no JSON Web Key Set"),
        (ok("{\"keys\":{}}"), "the answer is no JSON Web Key Set"),
        (ok(&"[".repeat(100_000)), "the answer is no JSON Web Key Set"),
        (
            ok("{\"keys\":[]}"),
            "the answer has no key that tokens can be checked with (RS256, ES256, EdDSA): it is empty",
        ),
        (ok("{\"keys\":[1]}"), "the answer has no key"),
        (ok(&jwks(&[private])), "the answer has no key"),
        (ok(&jwks(&vec![ed.jwk("a"); 101])), "the answer has 101 keys; at most 100 are read"),
        (Answer::Bytes(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\n\r\n".to_vec()), "the answer has the status 500"),
        (Answer::Bytes(b"HTTP/1.1 204 No Content\r\n\r\n".to_vec()), "the answer has the status 204"),
        (Answer::Bytes(b"SSH-2.0-OpenSSH_9.6\r\n".to_vec()), ""),
        (Answer::Bytes(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"keys\"".to_vec()), ""),
        (Answer::Bytes(Vec::new()), ""),
    ] {
        let error = Server::start(answer).await.fetch().await.unwrap_err();
        assert!(error.starts_with(wanted) && !error.contains("secret") && !error.contains('\n'), "{error}");
    }
}

#[tokio::test]
async fn only_keys_that_are_for_this_are_taken() {
    let with = |field: &str, value: serde_json::Value| {
        let mut key = Signer::ec().jwk("a");
        key[field] = value;
        key
    };
    let good = Signer::ec().jwk("good");
    for bad in [
        with("use", json!("enc")),
        with("key_ops", json!(["sign"])),
        with("alg", json!("ES384")),
        with("alg", json!("HS256")),
        with("crv", json!("P-384")),
        with("crv", json!(null)),
        with("kty", json!("RSA")),
        with("kty", json!("OKP")),
        with("kty", json!("oct")),
        with("x", json!("AAAA")),
        with("x", json!("not base64!")),
        with("y", json!(null)),
        with("kid", json!(1)),
        with("kid", json!("x".repeat(1_025))),
        json!({ "kty": "RSA", "n": "AAAA", "e": "AQAB" }),
        json!({ "kty": "RSA", "n": "A".repeat(8_000), "e": "AQAB" }),
        json!({ "kty": "RSA", "n": "_".repeat(8_000), "e": "AQAB" }),
        Signer::Secret(b"hunter2".to_vec()).jwk("a"),
        json!("x"),
        json!(null),
    ] {
        let alone = jwks::parse(jwks(std::slice::from_ref(&bad)).as_bytes()).unwrap_err();
        assert!(!alone.contains("hunter2"), "{alone}");
        assert_eq!(jwks::parse(jwks(&[bad, good.clone()]).as_bytes()).unwrap().len(), 1);
    }
    for (field, value) in
        [("use", json!("sig")), ("key_ops", json!(["verify"])), ("alg", json!("ES256")), ("x5c", json!(["MIIB"]))]
    {
        assert_eq!(jwks::parse(jwks(&[with(field, value)]).as_bytes()).unwrap().len(), 1, "{field}");
    }
    // Some issuers write numbers with zeros before them.
    let mut padded = Signer::rsa().jwk("a");
    let modulus = [vec![0], BASE64_URL_SAFE_NO_PAD.decode(padded["n"].as_str().unwrap()).unwrap()].concat();
    padded["n"] = json!(BASE64_URL_SAFE_NO_PAD.encode(modulus));
    let same = |key: &serde_json::Value| jwks::parse(jwks(std::slice::from_ref(key)).as_bytes()).unwrap();
    assert!(same(&padded) == same(&Signer::rsa().jwk("a")));
}

/// The server answers, but not in time.
#[tokio::test]
async fn attack_slow_answers() {
    for answer in [
        Answer::Stuck(Vec::new()),
        Answer::Stuck(b"HTTP/1.1 200 OK\r\n".to_vec()),
        Answer::Stuck(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_vec()),
    ] {
        let server = Server::start(answer).await;
        let fetcher = Fetcher::new(&server.url()).unwrap();
        let fetch = fetcher.fetch();
        tokio::pin!(fetch);
        // The request has arrived before the clock is moved.
        let arrived = async {
            while server.requests.lock().is_empty() {
                tokio::task::yield_now().await;
            }
        };
        tokio::select! {
            early = &mut fetch => panic!("{early:?}"),
            arrived = timeout(DEADLINE, arrived) => arrived.unwrap(),
        }
        tokio::time::pause();
        tokio::time::advance(FETCH_TIMEOUT).await;
        assert_eq!(fetch.await.unwrap_err(), "no complete answer within 5 s");
        tokio::time::resume();
    }
}

#[tokio::test]
async fn a_server_that_is_down_and_then_up() {
    let signer = Signer::ed();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let url = format!("http://{address}/");
    let tokens = Tokens::open(&Settings { jwt_jwks_url: url, ..Settings::default() }).unwrap().unwrap();
    let token = signer.token(&json!({ "sub": "alice", "exp": 9_999_999_999_u64 }));
    assert_eq!(tokens.verify_now(&token), Err(Refusal::KeysUnavailable));
    let (reload, mut keys) = (Reload::default(), tokens.keys());
    let keep = tokens.keep_up_to_date(&reload, tokio_util::sync::CancellationToken::new());
    let check = async {
        // The first fetch fails, and is awaited.
        assert_eq!(tokens.verify(&token).await, Err(Refusal::KeysUnavailable));
        assert!(reload.failures() > 0);
        let server = Server::over(TcpListener::bind(address).await.unwrap(), ok(&jwks(&[signer.jwk("a")])));
        timeout(DEADLINE, keys.changed()).await.unwrap().unwrap();
        let verified = tokens.verify(&token).await.unwrap();
        assert_eq!(verified.name, "alice");
        // Down again, the keys stay.
        drop(server);
        let failures = reload.failures();
        reload.now();
        let failed = async {
            while reload.failures() == failures {
                tokio::task::yield_now().await;
            }
        };
        timeout(DEADLINE, failed).await.unwrap();
        assert_eq!(tokens.verify(&token).await, Ok(verified));
    };
    tokio::select! {
        () = keep => panic!("it stopped"),
        () = check => {}
    }
}

#[tokio::test]
async fn certificates_have_to_be_trusted() {
    let rcgen::CertifiedKey { cert, signing_key } =
        rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
    let key = rustls::pki_types::PrivateKeyDer::try_from(signing_key.serialize_der()).unwrap();
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![cert.der().clone()], key)
        .unwrap();
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(tls));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let requests = std::cell::Cell::new(0);
    let serve = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let Ok(1..) = stream.read(&mut [0; 4_096]).await else { continue };
            requests.set(requests.get() + 1);
            let Answer::Bytes(bytes) = ok(&jwks(&[Signer::ed().jwk("a")])) else { unreachable!() };
            stream.write_all(&bytes).await.unwrap();
            stream.shutdown().await.unwrap();
        }
    };
    let fetch = async |host: &str, trusted: &[&rcgen::Certificate]| {
        let mut roots = RootCertStore::empty();
        roots.add_parsable_certificates(trusted.iter().map(|cert| cert.der().clone()));
        let uri = format!("https://{host}:{port}/").parse().unwrap();
        Fetcher::trusting(uri, roots).unwrap().fetch().await
    };
    let other = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap().cert;
    let check = async {
        assert!(fetch("localhost", &[&other]).await.unwrap_err().contains("certificate"));
        assert!(fetch("127.0.0.1", &[&cert]).await.unwrap_err().contains("certificate"), "it has another name");
        assert_eq!(requests.get(), 0);
        assert_eq!(fetch("localhost", &[&cert]).await.unwrap().len(), 1);
    };
    tokio::select! {
        () = serve => unreachable!(),
        () = check => {}
    }
}

#[test]
fn only_urls_that_cannot_be_changed_on_the_way() {
    for good in [
        "https://issuer.example/.well-known/jwks.json",
        "https://10.0.0.1:8443/",
        "http://localhost:1/x",
        "http://127.0.0.1/",
        "http://127.9.9.9/",
        "http://[::1]:8080/x?y=z",
    ] {
        assert!(check_url(good).is_ok(), "{good}");
    }
    for bad in [
        "",
        "x",
        "/etc/passwd",
        "file:///etc/passwd",
        "ftp://issuer.example/",
        "http://issuer.example/",
        "http://10.0.0.1/",
        "http://localhost.example/",
        "http://127.0.0.1.example/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://user:hunter2@localhost/",
        "https://user:hunter2@issuer.example/",
        "https://",
        "https:///x",
        "//issuer.example/",
    ] {
        let error = check_url(bad).unwrap_err();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
