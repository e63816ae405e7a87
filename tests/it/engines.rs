//! Every engine through the one suite.

use std::{sync::Arc, time::Duration};

use pub_sub::engine::{
    Disk, Engine, Memory,
    conformance::{Instance, restarts, suite},
    disk::{Fsync, Settings},
};

async fn alone(engine: Arc<dyn Engine>) {
    let instance = Instance::open(engine).await.unwrap();
    if let Err(failure) = suite(&instance, &instance).await {
        panic!("{failure}");
    }
    instance.engine.close().await;
}

#[tokio::test]
async fn memory() {
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
