//! Subscribers of one server and a publisher, in one epoll loop.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use benchmark::{frame, message};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::process;

/// How long messages may take after the last publish before they count as lost.
const PATIENCE: Duration = Duration::from_secs(20);

/// Messages whose deliveries can be counted at the same time.
const SPAN: usize = 1 << 16;

/// How what servers send is cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Wire {
    /// WebSocket frames, with pings to respond to.
    WebSocket,
    /// Bytes in which only the numbers are looked at.
    Stream,
}

/// Makes the bytes with which message `number` is published to topic `topic`.
pub type Publish = Box<dyn Fn(&mut Vec<u8>, u64, usize)>;

struct Subscriber {
    stream: TcpStream,
    /// The end of what was read, where it may be the beginning of something.
    partial: Vec<u8>,
    /// The first topic that it subscribes to.
    first: usize,
    /// The next message of each of its topics, 0 before the first.
    next: Box<[u64]>,
    /// Bytes of the present frame that were handed to nobody, with WebSockets.
    wire: Wire,
}

/// What the subscribers saw that they should not have seen.
#[derive(Clone, Copy, Default, Debug, serde::Serialize, serde::Deserialize)]
pub struct Faults {
    pub lost: u64,
    pub doubled: u64,
}

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub published: u64,
    pub delivered: u64,
    pub elapsed: Duration,
    /// CPU time of this client.
    pub client: Duration,
    /// Microseconds from when a message was due to its arrival, if they were asked for.
    pub latencies: Vec<u32>,
}

/// The subscribers and the publisher.
pub struct Fleet {
    epoll: Epoll,
    subscribers: Vec<Subscriber>,
    publisher: Option<Publisher>,
    /// Topics that messages go to in turn. Message number n goes to topic n mod topics.
    topics: usize,
    /// Subscribers of each topic.
    each: u32,
    /// The next message's number.
    number: u64,
    /// Deliveries of each message that is under way, by its number modulo the span.
    counts: Vec<u32>,
    /// When it was due.
    due: Vec<Instant>,
    latencies: Option<Vec<u32>>,
    /// Messages that not all subscribers have yet.
    in_flight: usize,
    delivered: u64,
    /// Whether messages are counted: while the server is still making subscriptions, they are not.
    is_priming: bool,
    faults: Faults,
    buffer: Vec<u8>,
}

struct Publisher {
    stream: TcpStream,
    wire: Wire,
    publish: Publish,
    /// What the socket has not taken yet.
    pending: Vec<u8>,
    /// The end of what was read, if it is part of a frame.
    partial: Vec<u8>,
    sent: u64,
    acknowledged: u64,
    /// What each acknowledgement contains once; empty if there are none.
    mark: &'static [u8],
}

impl Publisher {
    /// Whether acknowledgements are still to come.
    fn is_waiting(&self) -> bool {
        !self.mark.is_empty() && self.acknowledged < self.sent
    }
}

const PUBLISHER: u64 = u64::MAX;

impl Fleet {
    /// For `topics` topics with `each` subscribers.
    pub fn new(topics: usize, each: usize) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            subscribers: Vec::new(),
            publisher: None,
            topics,
            each: each as u32,
            number: topics as u64,
            counts: vec![0; SPAN],
            due: vec![Instant::now(); SPAN],
            latencies: None,
            in_flight: 0,
            delivered: 0,
            is_priming: true,
            faults: Faults::default(),
            buffer: vec![0; 256 << 10],
        })
    }

    /// Adds a subscriber of `lanes` topics from `first` on.
    pub fn add(
        &mut self,
        (stream, partial): (TcpStream, Vec<u8>),
        wire: Wire,
        first: usize,
        lanes: usize,
    ) -> io::Result<()> {
        let key = self.subscribers.len() as u64;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        self.subscribers.push(Subscriber { stream, partial, first, next: vec![0; lanes].into(), wire });
        Ok(())
    }

    /// Sets the connection that publishes. `mark` is what each acknowledgement contains once.
    pub fn publish_over(
        &mut self,
        (stream, partial): (TcpStream, Vec<u8>),
        wire: Wire,
        mark: &'static [u8],
        publish: Publish,
    ) -> io::Result<()> {
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, PUBLISHER))?;
        self.publisher =
            Some(Publisher { stream, wire, publish, pending: Vec::new(), partial, sent: 0, acknowledged: 0, mark });
        Ok(())
    }

    /// Publishes until every subscriber has a message of each of its topics and the last one: not every protocol says when a
    /// subscription has begun.
    pub fn prime(&mut self) -> io::Result<()> {
        let deadline = Instant::now() + PATIENCE;
        let mut again = Instant::now();
        let mut last = vec![0; self.topics];
        loop {
            let missing = |subscriber: &Subscriber| {
                subscriber.next.iter().enumerate().any(|(lane, next)| *next <= last[subscriber.first + lane])
            };
            let is_ready = self.number > self.topics as u64 && !self.subscribers.iter().any(missing);
            if is_ready {
                break;
            }
            if Instant::now() > deadline {
                let missing = self.subscribers.iter().filter(|subscriber| missing(subscriber)).count();
                return Err(io::Error::other(format!("{missing} subscribers got no message in time")));
            }
            // Those that have begun have to get everything before there is more.
            let has_begun_and_waits = |subscriber: &Subscriber| {
                let mut lanes = subscriber.next.iter().enumerate();
                lanes.any(|(lane, next)| *next > 0 && *next <= last[subscriber.first + lane])
            };
            if Instant::now() >= again && !self.subscribers.iter().any(has_begun_and_waits) {
                for last in &mut last {
                    *last = self.number;
                    self.queue(Instant::now());
                }
                self.flush()?;
                again = Instant::now() + Duration::from_millis(300);
            }
            self.turn(Duration::from_millis(10))?;
        }
        // Messages before the first that a subscriber got were not for it.
        self.faults = Faults::default();
        self.is_priming = false;
        self.in_flight = 0;
        self.delivered = 0;
        self.counts.fill(0);
        Ok(())
    }

    /// Publishes for `time`, with at most `window` messages in flight, and waits for the last to arrive.
    pub fn run(&mut self, window: usize, time: Duration) -> io::Result<Outcome> {
        let (begun, client, published) = (Instant::now(), process::own_cpu(), self.number);
        self.delivered = 0;
        loop {
            let now = Instant::now();
            if now >= begun + time {
                break;
            }
            while self.in_flight < window {
                self.queue(now);
            }
            self.flush()?;
            self.turn(PATIENCE)?;
            self.check_progress(now)?;
        }
        self.drain()?;
        Ok(self.outcome(begun, client, published, Vec::new()))
    }

    /// Publishes `rate` messages a second for `time`, whatever is in flight, and measures how long each takes.
    pub fn run_open(&mut self, rate: u32, time: Duration) -> io::Result<Outcome> {
        let (begun, client, published) = (Instant::now(), process::own_cpu(), self.number);
        self.delivered = 0;
        self.latencies = Some(Vec::new());
        let interval = Duration::from_secs(1) / rate;
        let mut due = begun;
        while due < begun + time {
            let now = Instant::now();
            while due <= now {
                self.queue(due);
                due += interval;
            }
            self.flush()?;
            self.turn(due.saturating_duration_since(Instant::now()))?;
        }
        self.drain()?;
        let latencies = self.latencies.take().unwrap_or_default();
        Ok(self.outcome(begun, client, published, latencies))
    }

    fn outcome(&self, begun: Instant, client: Duration, published: u64, latencies: Vec<u32>) -> Outcome {
        Outcome {
            published: self.number - published,
            delivered: self.delivered,
            elapsed: begun.elapsed(),
            client: process::own_cpu() - client,
            latencies,
        }
    }

    /// Whether something was lost or came twice, in all runs since priming.
    pub fn faults(&self) -> Faults {
        self.faults
    }

    /// Waits until no message is in flight. What is then still missing is lost.
    fn drain(&mut self) -> io::Result<()> {
        let mut progress = (Instant::now(), self.delivered);
        while self.in_flight > 0 || self.publisher.as_ref().is_some_and(Publisher::is_waiting) {
            self.turn(Duration::from_millis(100))?;
            if self.in_flight == 0 && progress.0.elapsed() > PATIENCE {
                return Err(io::Error::other("not every publish was acknowledged"));
            }
            if self.delivered > progress.1 {
                progress = (Instant::now(), self.delivered);
            } else if progress.0.elapsed() > PATIENCE {
                // Those that are followed by nothing are not found by their numbers.
                let last = self.number;
                for subscriber in &mut self.subscribers {
                    for (lane, next) in subscriber.next.iter_mut().enumerate() {
                        let topic = (subscriber.first + lane) as u64;
                        let topics = self.topics as u64;
                        let newest = last - 1 - (last - 1 + topics - topic) % topics;
                        self.faults.lost += (newest + topics).saturating_sub(*next) / topics;
                        *next = newest + topics;
                    }
                }
                self.counts.fill(0);
                self.in_flight = 0;
            }
        }
        Ok(())
    }

    fn check_progress(&self, turn_began: Instant) -> io::Result<()> {
        if turn_began.elapsed() >= PATIENCE {
            return Err(io::Error::other(format!("{} messages did not arrive in time", self.in_flight)));
        }
        Ok(())
    }

    fn queue(&mut self, due: Instant) {
        let number = self.number;
        self.number += 1;
        self.in_flight += 1;
        let slot = number as usize % SPAN;
        self.counts[slot] = 0;
        self.due[slot] = due;
        if let Some(publisher) = &mut self.publisher {
            publisher.sent += 1;
            (publisher.publish)(&mut publisher.pending, number, number as usize % self.topics);
        }
    }

    /// Writes what is to be published.
    fn flush(&mut self) -> io::Result<()> {
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        while !publisher.pending.is_empty() {
            match publisher.stream.write(&publisher.pending) {
                Ok(written) => drop(publisher.pending.drain(..written)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
                    self.epoll.modify(&publisher.stream, &mut EpollEvent::new(both, PUBLISHER))?;
                    return Ok(());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Waits for events, for at most `time`, and handles them.
    pub fn turn(&mut self, time: Duration) -> io::Result<()> {
        let mut events = [EpollEvent::empty(); 512];
        let timeout = EpollTimeout::try_from(time).unwrap_or(EpollTimeout::MAX);
        let ready = match self.epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            waited => waited?,
        };
        for event in &events[..ready] {
            match event.data() {
                PUBLISHER => self.publisher_event(event.events())?,
                key => self.receive(key as usize)?,
            }
        }
        Ok(())
    }

    fn publisher_event(&mut self, events: EpollFlags) -> io::Result<()> {
        if events.contains(EpollFlags::EPOLLOUT) {
            if let Some(publisher) = &self.publisher {
                self.epoll.modify(&publisher.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, PUBLISHER))?;
            }
            self.flush()?;
        }
        let Some(publisher) = &mut self.publisher else { return Ok(()) };
        if !events.intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP) {
            return Ok(());
        }
        let (read, bytes) = read(&mut publisher.stream, &mut publisher.partial, &mut self.buffer)?;
        if read == 0 {
            return Ok(());
        }
        let mut reply = Vec::new();
        let (mark, mut acknowledged) = (publisher.mark, 0);
        let mut count = |bytes: &[u8]| {
            if !mark.is_empty() {
                acknowledged += memchr::memmem::find_iter(bytes, mark).count() as u64;
            }
        };
        let left = match publisher.wire {
            Wire::WebSocket => frames(bytes, &mut reply, count)?,
            Wire::Stream => {
                count(bytes);
                0
            }
        };
        publisher.partial.extend_from_slice(&bytes[bytes.len() - left..]);
        publisher.acknowledged += acknowledged;
        if !reply.is_empty() {
            publisher.pending.extend_from_slice(&reply);
            self.flush()?;
        }
        Ok(())
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let Self { subscribers, buffer, counts, due, latencies, topics, each, .. } = self;
        let subscriber = &mut subscribers[key];
        let (read, bytes) = read(&mut subscriber.stream, &mut subscriber.partial, buffer)?;
        if read == 0 {
            return Ok(());
        }
        let (topics, span) = (*topics as u64, SPAN as u64);
        let (first, next) = (subscriber.first as u64, &mut subscriber.next);
        let (mut lost, mut doubled, mut delivered, mut complete) = (0, 0, 0, 0);
        let now = latencies.is_some().then(Instant::now);
        let mut each_number = |number: u64| {
            let Some(next) = next.get_mut((number % topics).wrapping_sub(first) as usize) else {
                doubled += 1;
                return;
            };
            if *next == 0 {
                *next = number;
            }
            if number < *next {
                doubled += 1;
                return;
            }
            lost += (number - *next) / topics;
            *next = number + topics;
            delivered += 1;
            let slot = (number % span) as usize;
            counts[slot] += 1;
            if counts[slot] == *each {
                complete += 1;
            }
            if let (Some(latencies), Some(now)) = (latencies.as_mut(), now) {
                latencies.push(now.saturating_duration_since(due[slot]).as_micros() as u32);
            }
        };
        let mut reply = Vec::new();
        let left = match subscriber.wire {
            Wire::WebSocket => frames(bytes, &mut reply, |payload| {
                // Frames are whole.
                let _ = message::scan(payload, &mut each_number);
            })?,
            Wire::Stream => message::scan(bytes, &mut each_number),
        };
        subscriber.partial.extend_from_slice(&bytes[bytes.len() - left..]);
        if !reply.is_empty() {
            subscriber.stream.write_all(&reply)?;
        }
        self.delivered += delivered;
        self.in_flight = self.in_flight.saturating_sub(complete);
        if !self.is_priming {
            self.faults.lost += lost;
            self.faults.doubled += doubled;
        }
        Ok(())
    }
}

/// Reads once behind what is left of the last time. 0 bytes: there was nothing to read.
fn read<'a>(stream: &mut TcpStream, partial: &mut Vec<u8>, buffer: &'a mut Vec<u8>) -> io::Result<(usize, &'a [u8])> {
    let kept = partial.len();
    if buffer.len() < kept + (64 << 10) {
        buffer.resize(2 * kept + (64 << 10), 0);
    }
    buffer[..kept].copy_from_slice(partial);
    match stream.read(&mut buffer[kept..]) {
        Ok(0) => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed a connection")),
        Ok(read) => {
            partial.clear();
            Ok((read, &buffer[..kept + read]))
        }
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok((0, &[])),
        Err(error) => Err(error),
    }
}

/// Calls `each` with the payload of each whole text frame, and puts responses to pings into `reply`. Returns how many bytes at the end
/// are part of a frame.
fn frames(bytes: &[u8], reply: &mut Vec<u8>, mut each: impl FnMut(&[u8])) -> io::Result<usize> {
    let mut at = 0;
    while let Some(frame) = frame::parse(&bytes[at..]) {
        let payload = &bytes[at + frame.start..at + frame.end];
        match frame.opcode {
            frame::PING => frame::push_masked(reply, frame::PONG, payload),
            frame::CLOSE => {
                return Err(io::Error::other(format!("the server closes: {}", String::from_utf8_lossy(payload))));
            }
            _ => each(payload),
        }
        at += frame.end;
    }
    Ok(bytes.len() - at)
}
