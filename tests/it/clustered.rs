//! The NATS engine: two instances through the one suite, on a single server and on a cluster.

use std::sync::Arc;

use pub_sub::engine::{
    Nats,
    conformance::{Instance, restarts, suite},
    nats::Settings,
};

use crate::nats;

fn settings(servers: &nats::Nats) -> Settings {
    Settings { url: servers.urls().join(","), ..Settings::default() }
}

async fn instance(settings: &Settings) -> Result<Instance, String> {
    Instance::open(Arc::new(Nats::new(settings.clone()))).await
}

async fn two_instances(servers: nats::Nats) {
    let settings = settings(&servers);
    let (a, b) = (instance(&settings).await.unwrap(), instance(&settings).await.unwrap());
    if let Err(failure) = suite(&a, &b).await {
        panic!("{failure}");
    }
    b.engine.close().await;
    a.engine.close().await;
    if let Err(failure) = restarts(|| instance(&settings)).await {
        panic!("{failure}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_one_server() {
    two_instances(nats::Nats::single().await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_the_oldest_server() {
    two_instances(nats::Nats::start(nats::Options { version: nats::OLDEST, ..nats::Options::default() }).await).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn conformance_on_a_cluster() {
    two_instances(nats::Nats::cluster().await).await;
}
