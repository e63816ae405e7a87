//! A disk without room.

use std::{fs, time::Instant};

use serde_json::json;

use super::{directory, history};
use crate::{
    doors::{Door, RawWs, Start},
    harness::eventually,
    process::{Process, command},
};

/// A disk that is really full: publishing is refused as unavailable, reading goes on, and when there is room again so does
/// publishing, in the same process.
#[tokio::test]
async fn a_full_disk() {
    // A file system of four megabytes in a mount namespace of the server's own.
    let mut in_namespace = std::process::Command::new("unshare");
    in_namespace.args(["--mount", "--map-root-user"]).env_clear().env("PATH", std::env::var("PATH").unwrap());
    let directory = directory();
    let path = directory.path().to_str().unwrap();
    let script = format!(
        "mount -t tmpfs -o size=4m full {path} && head -c 2000000 /dev/zero > {path}/ballast && exec {} ",
        env!("CARGO_BIN_EXE_pub-sub")
    );
    in_namespace.args(["sh", "-c", &script]);
    in_namespace.envs([("HOST", "127.0.0.1"), ("PORT", "0"), ("ENGINE", "disk"), ("DATA_DIR", path)]);
    in_namespace.envs([("MAX_PUBLISH_RATE", "0"), ("MAX_MESSAGES_PER_TOPIC", "100000")]);
    in_namespace.current_dir(directory.path()).stdin(std::process::Stdio::null());
    in_namespace.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::piped());
    let server = Process::run(&mut in_namespace);
    let client = &server.client;
    client.create("news").await;
    let mut live = RawWs::to(client, "news", Start::Live).await;
    let body = json!({"topic": "news", "data": "x".repeat(10_000)});
    let mut stored = 0_u64;
    let refused = loop {
        let response = client.post("/publish", &body).await;
        if response.status != 200 {
            break response;
        }
        stored += 1;
        assert_eq!(live.event().await.message().offset, stored);
        assert!(stored < 1_000, "four megabytes hold no thousand messages of ten kilobytes");
    };
    refused.expect_error(503, "UNAVAILABLE");
    assert!(refused.headers.contains_key("retry-after"));
    client.post("/topics", &json!({"name": "x".repeat(200)})).await;
    assert_eq!(history(client, "news").await.len() as u64, stored, "reading goes on");
    live.assert_open().await;
    let healthy = || {
        let port = server.addr.port().to_string();
        command(&[]).args(["healthcheck", "--host", "127.0.0.1", "--port", &port]).output().unwrap().status.success()
    };
    let reason = client.get("/health/ready").await;
    reason.expect_error(503, "UNAVAILABLE");
    assert!(reason.text.contains("the disk is full"), "{reason:?}");
    assert_eq!(client.get("/health").await.expect(200)["status"], "read_only");
    client.get("/health/live").await.expect(200);
    assert!(!healthy(), "the health check says it, too");

    fs::remove_file(format!("/proc/{}/root{path}/ballast", server.id())).unwrap();
    // Without anybody trying to publish.
    let before = Instant::now();
    eventually("room", || async { (client.get("/health/ready").await.status == 200).then_some(()) }).await;
    println!("ready again after {:?}", before.elapsed());
    assert_eq!(client.get("/health").await.expect(200)["status"], "ok");
    assert!(healthy());
    client.create("made").await;
    client.delete("/topics/made").await.expect(200);
    let done = client.post("/publish", &body).await.expect(200);
    assert_eq!(done["offset"], stored + 1, "refused messages leave no gap in the offsets");
    assert_eq!(live.event().await.message().offset, stored + 1);
}
