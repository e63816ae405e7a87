//! The command line over TLS: whom it trusts, and who it says that it is.

use super::Files;
use crate::{
    cli::{printed, refused, run_at},
    process::Process,
};

#[tokio::test(flavor = "multi_thread")]
async fn clients_of_the_command_line_speak_tls() {
    let files = Files::new();
    let [cert, key, ca] = ["cert.pem", "key.pem", "ca.pem"].map(|name| files.text_path(name));
    let server = Process::start(&[("TLS_CERT", &cert), ("TLS_KEY", &key)]);
    let url = format!("https://{}", server.addr);
    let trusting = |arguments: &[&'static str]| -> Vec<String> {
        arguments.iter().copied().chain(["--ca", &ca]).map(str::to_owned).collect()
    };
    let run = async |arguments: Vec<String>| {
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        run_at(&url, &arguments, "").await
    };
    printed(&run(trusting(&["pub", "news", "1"])).await);
    // An event stream, and a WebSocket.
    assert_eq!(printed(&run(trusting(&["sub", "news", "--last", "1", "--count", "1"])).await), "1\n");
    let consumer = ["sub", "news", "--last", "1", "--count", "1", "--consumer", "c"];
    assert_eq!(printed(&run(trusting(&consumer)).await), "1\n");
    let report = printed(&run(trusting(&["bench", "--messages", "10", "--json"])).await);
    assert!(report.contains("\"lost\":0"), "{report}");

    let stranger = refused(&run_at(&url, &["topics"], "").await, 1);
    assert!(stranger.contains("not trusted here; --ca FILE names one"), "{stranger}");
    let plain = refused(&run_at(&format!("http://{}", server.addr), &["topics"], "").await, 1);
    assert!(plain.contains("https://"), "{plain}");
    let missing = refused(&run_at(&url, &["topics", "--ca", "/none"], "").await, 2);
    assert!(missing.starts_with("pub-sub: /none: "), "{missing}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_signs_in() {
    let files = Files::new();
    let client = files.issue("client");
    files.write("client.pem", &client.cert);
    files.write("client-key.pem", &client.key);
    let [cert, key, ca, own, own_key] =
        ["cert.pem", "key.pem", "ca.pem", "client.pem", "client-key.pem"].map(|name| files.text_path(name));
    let server = Process::start(&[("TLS_CERT", &cert), ("TLS_KEY", &key), ("TLS_CLIENT_CA", &ca)]);
    let url = format!("https://{}", server.addr);
    printed(&run_at(&url, &["health", "--ca", &ca, "--cert", &own, "--cert-key", &own_key], "").await);
    refused(&run_at(&url, &["health", "--ca", &ca], "").await, 1);
    refused(&run_at(&url, &["health", "--ca", &ca, "--cert", &own], "").await, 2);
}
