//! Clients that send requests and wait for the responses, without subscribers.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
    time::{Duration, Instant},
};

use benchmark::frame;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use super::{connection::Opening, fleet::Outcome};
use crate::process;

/// How long a response may take.
const PATIENCE: Duration = Duration::from_secs(20);

/// How long a given number of requests may take.
const LONGEST: Duration = Duration::from_secs(300);

/// How responses are cut.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Responses {
    /// A text frame each.
    WebSocket,
    /// HTTP with `Content-Length`.
    Http,
}

/// Makes the request with this number.
pub type Request = Box<dyn Fn(&mut Vec<u8>, u64)>;

struct Requester {
    stream: TcpStream,
    partial: Vec<u8>,
    outstanding: usize,
}

/// Connections that send requests.
pub struct Requesters {
    epoll: Epoll,
    connections: Vec<Requester>,
    responses: Responses,
    request: Request,
    /// What each response has to contain.
    mark: &'static [u8],
    number: u64,
    done: u64,
    buffer: Vec<u8>,
}

impl Requesters {
    pub fn new(responses: Responses, mark: &'static [u8], request: Request) -> io::Result<Self> {
        Ok(Self {
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::new(),
            responses,
            request,
            mark,
            number: 1,
            done: 0,
            buffer: vec![0; 256 << 10],
        })
    }

    pub fn add(&mut self, opening: Opening) -> io::Result<()> {
        let (stream, partial) = opening.finish()?;
        let key = self.connections.len() as u64;
        self.epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
        self.connections.push(Requester { stream, partial, outstanding: 0 });
        Ok(())
    }

    /// Keeps `window` requests under way on each connection for `time`, and waits for the last responses.
    pub fn run(&mut self, window: usize, time: Duration) -> io::Result<Outcome> {
        self.run_until(window, u64::MAX, Instant::now() + time)
    }

    /// Sends `count` requests with `window` under way, and waits for the last responses.
    pub fn run_count(&mut self, window: usize, count: usize) -> io::Result<Outcome> {
        self.run_until(window, self.number + count as u64, Instant::now() + LONGEST)
    }

    /// Up to the request with the number `limit` or the time `end`.
    fn run_until(&mut self, window: usize, limit: u64, end: Instant) -> io::Result<Outcome> {
        let (begun, client, done) = (Instant::now(), process::own_cpu(), self.done);
        for key in 0..self.connections.len() {
            self.fill(key, window, limit)?;
        }
        while self.connections.iter().any(|connection| connection.outstanding > 0) {
            let limit = if Instant::now() < end { limit } else { self.number };
            let mut events = [EpollEvent::empty(); 256];
            let timeout = EpollTimeout::try_from(PATIENCE).unwrap_or(EpollTimeout::MAX);
            let ready = self.epoll.wait(&mut events, timeout)?;
            if ready == 0 {
                return Err(io::Error::new(io::ErrorKind::TimedOut, "the server does not respond"));
            }
            for event in &events[..ready] {
                let key = event.data() as usize;
                self.receive(key)?;
                self.fill(key, window, limit)?;
            }
        }
        let published = self.done - done;
        let (elapsed, client) = (begun.elapsed(), process::own_cpu() - client);
        Ok(Outcome { published, delivered: 0, elapsed, client, latencies: Vec::new() })
    }

    /// Sends requests until `window` are under way. The window is small enough for the socket to take it.
    fn fill(&mut self, key: usize, window: usize, limit: u64) -> io::Result<()> {
        let connection = &mut self.connections[key];
        let mut out = Vec::new();
        while connection.outstanding < window && self.number < limit {
            (self.request)(&mut out, self.number);
            self.number += 1;
            connection.outstanding += 1;
        }
        if out.is_empty() { Ok(()) } else { connection.stream.write_all(&out) }
    }

    fn receive(&mut self, key: usize) -> io::Result<()> {
        let connection = &mut self.connections[key];
        let kept = connection.partial.len();
        self.buffer[..kept].copy_from_slice(&connection.partial);
        let read = match connection.stream.read(&mut self.buffer[kept..]) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the server has closed a connection")),
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            Err(error) => return Err(error),
        };
        let bytes = &self.buffer[..kept + read];
        let mut at = 0;
        while let Some((start, end)) = response(&bytes[at..], self.responses) {
            let body = &bytes[at + start..at + end];
            if memchr::memmem::find(body, self.mark).is_none() {
                return Err(io::Error::other(format!("the server responded: {}", String::from_utf8_lossy(body))));
            }
            connection.outstanding -= 1;
            self.done += 1;
            at += end;
        }
        connection.partial.clear();
        connection.partial.extend_from_slice(&bytes[at..]);
        Ok(())
    }
}

/// Where the body of the response at the beginning of `bytes` begins and ends, if all of it is there.
fn response(bytes: &[u8], responses: Responses) -> Option<(usize, usize)> {
    match responses {
        Responses::WebSocket => frame::parse(bytes).map(|frame| (frame.start, frame.end)),
        Responses::Http => {
            let head = frame::head_end(bytes)?;
            let length = content_length(&bytes[..head])?;
            (bytes.len() >= head + length).then_some((head, head + length))
        }
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    const NAME: &[u8] = b"content-length:";
    let line = head
        .split(|byte| *byte == b'\n')
        .find(|line| line.get(..NAME.len()).is_some_and(|name| name.eq_ignore_ascii_case(NAME)))?;
    std::str::from_utf8(&line[NAME.len()..]).ok()?.trim().parse().ok()
}
