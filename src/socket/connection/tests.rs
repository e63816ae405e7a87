//! Connections over pipes in memory: who is delivered to, and clients that go.

mod suite;

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
};

use tokio::{io::duplex, sync::oneshot};

use super::*;
use crate::broker::Notifier;

/// Sends the key of every delivery and does nothing else.
struct Keys;

impl Protocol for Keys {
    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn binary(&mut self, _: &[u8], _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        out.text(&[format!("{key:04}").as_bytes()]);
        Flow::Go
    }
}

fn connection<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    server: S,
    protocol: impl Protocol + 'static,
    inbox: Inbox,
) -> Connection<S> {
    Connection::new(server, Box::new(protocol), inbox, Arc::default(), None, CancellationToken::new())
}

/// Waits after the first message, until it is told to go on.
struct Waits {
    ready: bool,
    received: Arc<AtomicUsize>,
    go_on: oneshot::Receiver<()>,
}

impl Protocol for Waits {
    fn is_ready(&self) -> bool {
        self.ready
    }

    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        self.ready = self.received.fetch_add(1, Ordering::Relaxed) > 0;
        Flow::Go
    }

    fn binary(&mut self, _: &[u8], _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn deliver(&mut self, _: u64, _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn poll_work(&mut self, cx: &mut Context<'_>, _: &mut Outbox) -> Poll<Flow> {
        if self.ready {
            return Poll::Pending;
        }
        Pin::new(&mut self.go_on).poll(cx).map(|_| {
            self.ready = true;
            Flow::Go
        })
    }
}

/// The server notices at once that a client goes while it waits for a reply, unless the client has sent more: that is taken first.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_noticed() {
    // An empty text.
    const FRAME: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];
    for (frames, received_before, received) in [(1, 1, 1), (2, 1, 2)] {
        let (mut client, server) = duplex(1 << 20);
        let (go, go_on) = oneshot::channel();
        let count = Arc::default();
        let protocol = Waits { ready: true, received: Arc::clone(&count), go_on };
        client.write_all(&FRAME.repeat(frames)).await.unwrap();
        drop(client);
        let now = || count.load(Ordering::Relaxed);
        let running = connection(server, protocol, Inbox::default()).run();
        tokio::pin!(running);
        let ended = timeout(Duration::from_secs(1), &mut running).await.is_ok();
        assert_eq!((ended, now()), (frames == 1, received_before));
        if !ended {
            go.send(()).unwrap();
            timeout(Duration::from_secs(1), running).await.unwrap();
        }
        assert_eq!(now(), received);
    }
}

/// More subscriptions have news at once than are delivered in a row: none is passed over.
#[tokio::test(start_paused = true)]
async fn everyone_in_the_inbox_is_delivered_to() {
    for count in [1, MAX_BATCHES, MAX_BATCHES + 1, 10 * MAX_BATCHES] {
        let (mut client, server) = duplex(1 << 20);
        let inbox = Inbox::default();
        (0..count).for_each(|key| inbox.wake(key as u64));
        let running = connection(server, Keys, inbox).run();
        let mut frames = vec![0; 6 * count];
        tokio::select! {
            () = running => panic!("it goes on"),
            read = timeout(Duration::from_secs(5), client.read_exact(&mut frames)) => read.unwrap().unwrap(),
        };
        let mut deliveries = BTreeMap::new();
        for frame in frames.chunks(6) {
            *deliveries.entry(std::str::from_utf8(&frame[2..]).unwrap().parse::<usize>().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(deliveries, (0..count).map(|key| (key, 1)).collect());
    }
}

/// TLS and HTTP/2 keep what is written in buffers of their own until they are flushed.
#[tokio::test(start_paused = true)]
async fn what_is_written_is_flushed() {
    let (mut client, server) = duplex(1 << 20);
    let inbox = Inbox::default();
    inbox.wake(7);
    let running = connection(tokio::io::BufStream::new(server), Keys, inbox).run();
    let mut frame = [0; 6];
    tokio::select! {
        () = running => panic!("it goes on"),
        read = timeout(Duration::from_secs(5), client.read_exact(&mut frame)) => read.unwrap().unwrap(),
    };
    assert_eq!(&frame[2..], b"0007");
}

/// Sends the key of every delivery; the last key ends the connection.
struct EndsAt(u64);

impl Protocol for EndsAt {
    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn binary(&mut self, _: &[u8], _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        out.text(&[format!("{key:04}").as_bytes()]);
        if key == self.0 { Flow::Close(CloseCode(4000), "done".to_owned()) } else { Flow::Go }
    }
}

/// What is delivered from outside of the connection's task stands in the client's stream at once and in order, also where
/// the socket takes only a part, and so does the end.
#[tokio::test(start_paused = true)]
async fn news_are_delivered_without_the_connections_task() {
    let (mut client, server) = duplex(8);
    let inbox = Inbox::default();
    let deliver = |key| Notifier::new(inbox.clone(), key).deliver();
    // Nobody waits yet, so this stays in the inbox.
    deliver(0);
    let mut running = pin!(connection(server, EndsAt(9), inbox.clone()).run());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(running.as_mut().poll(&mut cx).is_pending());
    let mut frame = [0; 6];
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame[2..], b"0000");

    // The task is not polled from here on.
    deliver(1);
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame[2..], b"0001");
    deliver(2);
    // The pipe has room for two of these six bytes, and for none of what follows.
    deliver(3);
    deliver(4);
    assert_eq!(inbox.try_next(), Some(4), "the connection is busy, so its own task has to do it");
    inbox.wake(4);
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(&frame[2..], b"0002");

    let rest = async {
        let mut keys = Vec::new();
        for _ in 0..2 {
            client.read_exact(&mut frame).await.unwrap();
            keys.push(frame[2..].to_vec());
        }
        deliver(9);
        // The text of the last key, and the close frame.
        let mut rest = vec![0; 6 + 8];
        client.read_exact(&mut rest).await.unwrap();
        drop(client);
        (keys, rest)
    };
    let ((), (keys, rest)) = timeout(Duration::from_secs(60), async { tokio::join!(running, rest) }).await.unwrap();
    assert_eq!(keys, [b"0003".to_vec(), b"0004".to_vec()]);
    assert_eq!(rest, b"\x81\x040009\x88\x06\x0f\xa0done");
    // The connection has ended, so nobody is there to be delivered to.
    deliver(5);
    assert_eq!(inbox.try_next(), Some(5));
}
