//! Consumers over kills.

use std::time::Duration;

use super::directory;
use crate::{
    doors::{Door, Options, RawWs, Start},
    harness::alone,
    process::Process,
};

/// Whether a consumer is in use counts, not when its position was written last: one that is connected and idle for longer
/// than its time outlives a kill, and one that was not connected does not.
#[tokio::test]
async fn a_consumer_that_is_connected_and_idle_outlives_a_kill() {
    const TTL: Duration = Duration::from_secs(3);
    let _alone = alone().await;
    let directory = directory();
    let path = directory.path().to_str().unwrap();
    let start = || Process::start(&[("ENGINE", "disk"), ("DATA_DIR", path), ("CONSUMER_TTL", "3s")]);
    let mut server = start();
    server.client.publish("news", 1.into()).await;
    let held = RawWs::with(&server.client, "news", Start::Live, &Options::consumer("held", "EXPLICIT")).await;
    RawWs::with(&server.client, "news", Start::Live, &Options::consumer("left", "EXPLICIT")).await.close().await;
    // The time itself is what this is about.
    tokio::time::sleep(TTL + Duration::from_millis(200)).await;
    server.signal("KILL");
    server.ended().await;
    drop(held);
    for _ in 0..2 {
        let mut server = start();
        let resumed = |name: &'static str| {
            let client = server.client.clone();
            async move {
                let options = Options::consumer(name, "EXPLICIT");
                let door = RawWs::with(&client, "news", Start::Live, &options).await;
                door.consumer().unwrap()["resumed"].clone()
            }
        };
        assert_eq!(resumed("held").await, true);
        server.signal("KILL");
        server.ended().await;
    }
    // Held by nobody, its time runs over starts.
    let mut server = start();
    let list = server.client.get("/topics/news/consumers").await.expect(200);
    let names: Vec<_> = list["consumers"].as_array().unwrap().iter().map(|consumer| &consumer["name"]).collect();
    assert_eq!(names, ["held"], "the one that had left has expired");
    server.signal("TERM");
    server.ended().await;
    tokio::time::sleep(TTL + Duration::from_millis(200)).await;
    let server = start();
    let list = server.client.get("/topics/news/consumers").await.expect(200);
    assert_eq!(list["consumers"].as_array().unwrap().len(), 0, "{list}");
}
