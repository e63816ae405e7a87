//! Every engine through the one suite.

use std::{sync::Arc, time::Duration};

use pub_sub::{
    channel::{
        Age, NewMessage, Origin, Payload, Registry, RegistrySettings, Retention, Timestamp, TopicBounds, TopicConfig,
        TopicName,
    },
    engine::{
        Disk, Engine, Memory,
        conformance::{Instance, restarts, suite},
        disk::{Fsync, Settings},
    },
};

async fn alone(engine: Arc<dyn Engine>) {
    let instance = Instance::open(engine).await.unwrap();
    if let Err(failure) = suite(&instance, &instance).await {
        panic!("{failure}");
    }
    instance.engine.close().await;
}

/// An engine for one instance keeps the newest message of each key, so the suite has not passed by that.
async fn keeps_the_newest_of_each_key(instance: &Instance) {
    let config = TopicConfig { retention: Some(Retention::LatestPerKey), ..TopicConfig::default() };
    let channel = instance.engine.create(&TopicName::parse("keys").unwrap(), config, false).await.unwrap();
    assert_eq!(channel.config().retention, config.retention);
}

#[tokio::test]
async fn memory() {
    let engine: Arc<dyn Engine> = Arc::new(Memory::default());
    keeps_the_newest_of_each_key(&Instance::open(engine.clone()).await.unwrap()).await;
    alone(Arc::new(Memory::default())).await;
}

fn disk(directory: &std::path::Path, fsync: Fsync) -> Arc<dyn Engine> {
    Arc::new(Disk::new(Settings {
        directory: directory.to_owned(),
        fsync,
        max_payload_bytes: 1 << 20,
        dedup_window: std::time::Duration::from_mins(5),
        dedup_bytes: 1 << 20,
    }))
}

/// Opens a directory that was closed. A process that another test starts at the same time has the lock, too, from its fork
/// until it runs its program: so a directory that is in use is waited for.
async fn reopen(directory: &std::path::Path, fsync: Fsync) -> Result<Instance, String> {
    let mut last = String::new();
    for _ in 0..1_000 {
        match Instance::open(disk(directory, fsync)).await {
            Err(error) if error.contains("is in use by another process") => last = error,
            opened => return opened,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    Err(last)
}

async fn on_disk(fsync: Fsync) {
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    alone(disk(directory.path(), fsync)).await;
    // Over what the suite has left behind, and once more over what that leaves.
    for _ in 0..2 {
        let start = || reopen(directory.path(), fsync);
        if let Err(failure) = restarts(start).await {
            panic!("{failure}");
        }
    }
}

#[tokio::test]
async fn disk_always() {
    on_disk(Fsync::Always).await;
}

#[tokio::test]
async fn disk_interval() {
    on_disk(Fsync::Interval(Duration::from_millis(10))).await;
}

#[tokio::test]
async fn disk_never() {
    on_disk(Fsync::Never).await;
}

/// What was too old when the log was written stays gone, though the clock says at the next start that it is young.
#[tokio::test]
async fn a_clock_that_was_set_back_revives_nothing_at_a_start() {
    const MINUTE: i64 = 60_000;
    let directory = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let first = reopen(directory.path(), Fsync::Always).await.unwrap();
    let config = TopicConfig { max_age: Some(Age::from_millis(600_000)), ..TopicConfig::keeping(10) };
    for (name, minutes_ago) in [("old", 20), ("recent", 0)] {
        let channel = first.engine.create(&TopicName::parse(name).unwrap(), config, false).await.unwrap();
        let at = Timestamp(Timestamp::now().0 - minutes_ago * MINUTE);
        let origin = Some(Origin { at, made_up_id: None });
        let data = Payload::parse("1", 10).unwrap();
        let new_message = NewMessage { origin, ..NewMessage::of(data) };
        first.engine.append(&channel, new_message).await.unwrap();
    }
    first.engine.close().await;
    let registry = Registry::new(RegistrySettings {
        max_topics: 10,
        max_bytes_per_topic: 1 << 20,
        max_history_bytes: 1 << 20,
        max_patterns: 1,
        defaults: TopicBounds::new(10, 0),
        dedup_window: Duration::ZERO,
        dedup_bytes: 0,
    });
    registry.clock().set_by(-60 * MINUTE);
    let second = disk(directory.path(), Fsync::Always);
    second.open(registry.clone(), first.consumers.clone()).await.unwrap();
    let kept = registry.page("", None, 10, |_| true).0.into_iter().map(|info| (info.name.to_string(), info.messages));
    assert_eq!(kept.collect::<Vec<_>>(), [("old".to_owned(), 0), ("recent".to_owned(), 1)]);
    second.close().await;
}
