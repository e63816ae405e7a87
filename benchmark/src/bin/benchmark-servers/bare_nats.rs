//! The limit with NATS: an async-nats client that publishes to a stream, waits for each acknowledgement, and receives every message
//! through a consumer. It serves nobody. A run is asked for over a connection: `SECONDS`, answered with the number of messages.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use async_nats::jetstream::{self, consumer::push::OrderedConfig, context::PublishAckFuture, stream};
use benchmark::message;
use futures_util::StreamExt as _;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

/// Messages that are published and not yet received.
const WINDOW: u32 = 32;

const SUBJECT: &str = "bare.t0";

pub fn run(url: &str) -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async { serve(url).await.map_err(io::Error::other) })
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

async fn serve(url: &str) -> Result<(), Failure> {
    let client = async_nats::connect(url).await?;
    let context = jetstream::new(client.clone());
    let stream = context
        .create_stream(stream::Config {
            name: "bare".to_owned(),
            subjects: vec!["bare.>".to_owned()],
            max_messages: 1_000,
            ..Default::default()
        })
        .await?;
    let consumer =
        stream.create_consumer(OrderedConfig { deliver_subject: client.new_inbox(), ..Default::default() }).await?;
    let free = Arc::new(Semaphore::new(WINDOW as usize));
    let received = Arc::new(AtomicU64::new(0));
    tokio::spawn(receive(consumer.messages().await?, Arc::clone(&free), Arc::clone(&received)));
    let (to_wait, acknowledgements) = mpsc::channel(WINDOW as usize);
    tokio::spawn(wait(acknowledgements));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    crate::announce(listener.local_addr()?);
    let mut number = 0;
    loop {
        let (mut stream, _) = listener.accept().await?;
        let mut line = String::new();
        while BufReader::new(&mut stream).read_line(&mut line).await? > 0 {
            let time = Duration::from_secs_f64(line.trim().parse()?);
            line.clear();
            let (begun, before) = (Instant::now(), received.load(Ordering::Acquire));
            while begun.elapsed() < time {
                free.acquire().await?.forget();
                number += 1;
                to_wait.send(context.publish(SUBJECT, message::data(number).into()).await?).await?;
            }
            // When all may be published again, everything was received.
            drop(free.acquire_many(WINDOW).await?);
            let count = received.load(Ordering::Acquire) - before;
            stream.write_all(format!("{count}\n").as_bytes()).await?;
        }
    }
}

async fn receive(mut messages: jetstream::consumer::push::Ordered, free: Arc<Semaphore>, received: Arc<AtomicU64>) {
    let mut expected = 1;
    while let Some(Ok(message)) = messages.next().await {
        message::scan(&message.payload, |number| {
            assert_eq!(number, expected, "a message was lost");
            expected += 1;
        });
        received.fetch_add(1, Ordering::Release);
        free.add_permits(1);
    }
}

async fn wait(mut acknowledgements: mpsc::Receiver<PublishAckFuture>) {
    while let Some(acknowledgement) = acknowledgements.recv().await {
        acknowledgement.await.expect("the stream acknowledges");
    }
}
