//! Frames of the raw `/ws` protocol from strangers, one a line: each has a frame of the protocol as its reply, in order.

use std::{
    task::{Context, Poll, Waker},
    time::Duration,
};

use pub_sub::{
    access::{self, Access, SignIn},
    broker::{self, Broker, ClientInfo, Inbox, Principal},
    socket::{Flow, Outbox, Protocol},
    ws::{Settings, fuzz::Session},
};
use serde_json::Value;

/// Frames of one input: what is worth finding takes few.
const MAX_FRAMES: usize = 64;

/// Checks one input.
pub fn run(input: &[u8]) {
    let broker = Broker::in_memory(broker::Settings {
        max_publish_rate: 0,
        max_topics: 8,
        max_messages_per_topic: 4,
        ..broker::Settings::default()
    });
    let inbox = Inbox::default();
    let client = broker.client(Principal::anyone(), ClientInfo { door: "ws", address: None });
    let access = Access::open(&access::Settings::default(), 0).unwrap();
    let sign_in = SignIn::new(&access, client, &inbox, Duration::from_secs(10)).unwrap();
    let mut talk = Talk { session: Session::new(sign_in, &Settings { max_subscriptions: 4 }, inbox.clone()), inbox };
    for line in input.split(|byte| *byte == b'\n').take(MAX_FRAMES) {
        // The reader of frames lets nothing else through.
        talk.frame(&String::from_utf8_lossy(line));
    }
}

struct Talk {
    session: Session,
    inbox: Inbox,
}

impl Talk {
    fn frame(&mut self, text: &str) {
        let mut out = Outbox::default();
        assert!(self.session.is_ready());
        let mut flow = self.session.text(text, &mut out);
        // The memory engine is done at once: there is nothing to wait for.
        while let Poll::Ready(worked) = self.session.poll_work(&mut Context::from_waker(Waker::noop()), &mut out) {
            if flow == Flow::Go {
                flow = worked;
            }
        }
        assert!(!self.session.is_busy() && self.session.is_ready());
        let asked: Value = serde_json::from_str(text).unwrap_or_default();
        let answer = only(&texts(&out));
        let code = answer["error"]["code"].as_str();
        match answer["type"].as_str() {
            Some("ack") => assert_eq!(answer["status"], "ok"),
            Some("pong") => assert_eq!(asked["type"], "ping"),
            Some("error") => assert!(code.is_some_and(|code| !code.is_empty()), "{answer}"),
            _ => panic!("{answer} is no answer"),
        }
        assert_eq!(flow, if code == Some("BAD_REQUEST") { Flow::Malformed } else { Flow::Go }, "{answer}");
        if asked["request_id"].is_string() {
            assert_eq!(answer["request_id"], asked["request_id"]);
        }
        self.deliver();
    }

    /// What was subscribed comes, and ends.
    fn deliver(&mut self) {
        for _ in 0..MAX_FRAMES {
            let Some(key) = self.inbox.try_next() else { return };
            let mut out = Outbox::default();
            assert_eq!(self.session.deliver(key, &mut out), Flow::Go);
            for frame in texts(&out) {
                let kind = frame["type"].as_str().unwrap_or_default();
                assert!(["event", "gap", "deleted", "error"].contains(&kind), "{frame}");
                if kind == "event" {
                    assert!(frame["offset"].is_number() && frame["cursor"].is_string() && frame["topic"].is_string());
                }
            }
        }
        panic!("there is always more");
    }
}

fn only(frames: &[Value]) -> Value {
    let [frame] = frames else { panic!("{frames:?} instead of one answer") };
    frame.clone()
}

/// The texts that a client would read.
fn texts(out: &Outbox) -> Vec<Value> {
    let mut rest = out.pending();
    let mut frames = Vec::new();
    while let [0x81, length, behind @ ..] = rest {
        let (length, behind) = match (length, behind) {
            (126, [a, b, behind @ ..]) => (usize::from(u16::from_be_bytes([*a, *b])), behind),
            (127, behind) => {
                let (length, behind) = behind.split_first_chunk().expect("a long length");
                (usize::try_from(u64::from_be_bytes(*length)).expect("a length"), behind)
            }
            (short, behind) => (usize::from(*short), behind),
        };
        let (text, behind) = behind.split_at(length);
        frames.push(serde_json::from_slice(text).expect("one JSON value"));
        rest = behind;
    }
    assert!(rest.is_empty(), "{rest:?} is no text");
    frames
}
