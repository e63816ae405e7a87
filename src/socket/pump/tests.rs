use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::{io::duplex, sync::oneshot};

use super::*;

/// Says the key of every turn; nothing else is asked of it.
struct Keys;

impl Protocol for Keys {
    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn binary(&mut self, _: &mut Outbox) -> Flow {
        Flow::Go
    }

    fn deliver(&mut self, key: u64, out: &mut Outbox) -> Flow {
        out.text(&[format!("{key:04}").as_bytes()]);
        Flow::Go
    }
}

/// Waits after the first message, until it is told to go on.
struct Waits {
    ready: bool,
    heard: Arc<AtomicUsize>,
    go_on: oneshot::Receiver<()>,
}

impl Protocol for Waits {
    fn is_ready(&self) -> bool {
        self.ready
    }

    fn text(&mut self, _: &str, _: &mut Outbox) -> Flow {
        self.ready = self.heard.fetch_add(1, Ordering::Relaxed) > 0;
        Flow::Go
    }

    fn binary(&mut self, _: &mut Outbox) -> Flow {
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

/// A client that goes while it waits for an answer is missed at once, unless it has said more: that is taken first.
#[tokio::test(start_paused = true)]
async fn a_client_that_goes_is_missed() {
    // An empty text.
    const FRAME: [u8; 6] = [0x81, 0x80, 0, 0, 0, 0];
    for (frames, heard_before, heard) in [(1, 1, 1), (2, 1, 2)] {
        let (mut client, server) = duplex(1 << 20);
        let (go, go_on) = oneshot::channel();
        let count = Arc::default();
        let protocol = Waits { ready: true, heard: Arc::clone(&count), go_on };
        client.write_all(&FRAME.repeat(frames)).await.unwrap();
        drop(client);
        let now = || count.load(Ordering::Relaxed);
        let settings = Settings::default();
        let talk = run(server, Box::new(protocol), Inbox::default(), &settings, CancellationToken::new());
        tokio::pin!(talk);
        let ended = timeout(Duration::from_secs(1), &mut talk).await.is_ok();
        assert_eq!((ended, now()), (frames == 1, heard_before));
        if !ended {
            go.send(()).unwrap();
            timeout(Duration::from_secs(1), talk).await.unwrap();
        }
        assert_eq!(now(), heard);
    }
}

/// More subscriptions have news at once than there are turns in a row: none is passed over.
#[tokio::test(start_paused = true)]
async fn everyone_in_the_inbox_has_a_turn() {
    for count in [1, MAX_TURNS, MAX_TURNS + 1, 10 * MAX_TURNS] {
        let (mut client, server) = duplex(1 << 20);
        let inbox = Inbox::default();
        (0..count).for_each(|key| inbox.wake(key as u64));
        let settings = Settings::default();
        let talk = run(server, Box::new(Keys), inbox, &settings, CancellationToken::new());
        let mut frames = vec![0; 6 * count];
        tokio::select! {
            () = talk => panic!("it goes on"),
            read = timeout(Duration::from_secs(5), client.read_exact(&mut frames)) => read.unwrap().unwrap(),
        };
        let mut turns = BTreeMap::new();
        for frame in frames.chunks(6) {
            *turns.entry(std::str::from_utf8(&frame[2..]).unwrap().parse::<usize>().unwrap()).or_insert(0) += 1;
        }
        assert_eq!(turns, (0..count).map(|key| (key, 1)).collect());
    }
}
