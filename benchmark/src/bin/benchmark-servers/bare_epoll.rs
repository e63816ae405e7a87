//! The limit with epoll: one thread, ready-made frames, and all messages that have come in together leave in one write for each
//! subscriber.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    os::fd::AsRawFd as _,
};

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::bare::{self, Request};

struct Connection {
    stream: TcpStream,
    inbound: bare::Inbound,
    is_subscriber: bool,
    /// What the socket has not taken yet.
    pending: Vec<u8>,
}

pub fn run() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    listener.set_nonblocking(true)?;
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
    epoll.add(&listener, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
    crate::announce(listener.local_addr()?);
    let mut connections: HashMap<u64, Connection> = HashMap::new();
    let mut events = vec![EpollEvent::empty(); 256];
    let mut frames = Vec::new();
    loop {
        let ready = epoll.wait(&mut events, EpollTimeout::NONE)?;
        for event in &events[..ready] {
            let key = event.data();
            if key == 0 {
                accept(&listener, &epoll, &mut connections)?;
                continue;
            }
            let Some(connection) = connections.get_mut(&key) else { continue };
            if event.events().contains(EpollFlags::EPOLLOUT) {
                let pending = std::mem::take(&mut connection.pending);
                epoll.modify(&connection.stream, &mut EpollEvent::new(EpollFlags::EPOLLIN, key))?;
                send(&epoll, key, connection, &pending)?;
            }
            if event.events().intersects(EpollFlags::EPOLLIN | EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR)
                && read(connection, &mut frames).is_err()
            {
                // Closing the socket also takes it out of the set.
                connections.remove(&key);
            }
        }
        if !frames.is_empty() {
            for (key, subscriber) in connections.iter_mut().filter(|(_, connection)| connection.is_subscriber) {
                send(&epoll, *key, subscriber, &frames)?;
            }
            frames.clear();
        }
    }
}

fn accept(listener: &TcpListener, epoll: &Epoll, connections: &mut HashMap<u64, Connection>) -> io::Result<()> {
    let (stream, _) = match listener.accept() {
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        accepted => accepted?,
    };
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let key = stream.as_raw_fd() as u64;
    epoll.add(&stream, EpollEvent::new(EpollFlags::EPOLLIN, key))?;
    let connection =
        Connection { stream, inbound: bare::Inbound::default(), is_subscriber: false, pending: Vec::new() };
    connections.insert(key, connection);
    Ok(())
}

/// Reads once, and appends the frames of the messages that were published.
fn read(connection: &mut Connection, frames: &mut Vec<u8>) -> io::Result<()> {
    match connection.stream.read(connection.inbound.room()) {
        Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
        Ok(read) => connection.inbound.filled(read),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
        Err(error) => return Err(error),
    }
    while let Some(request) = connection.inbound.next() {
        match request {
            Request::Respond(response) => connection.stream.write_all(&response)?,
            Request::Subscribe(response) => {
                connection.stream.write_all(&response)?;
                connection.is_subscriber = true;
            }
            Request::Publish(data) => bare::push_event(frames, data),
        }
    }
    Ok(())
}

/// Writes once. What the socket does not take waits until it does.
fn send(epoll: &Epoll, key: u64, connection: &mut Connection, bytes: &[u8]) -> io::Result<()> {
    if !connection.pending.is_empty() {
        connection.pending.extend_from_slice(bytes);
        return Ok(());
    }
    let written = match connection.stream.write(bytes) {
        Ok(written) => written,
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => 0,
        // The next read says that the client has gone.
        Err(_) => bytes.len(),
    };
    if written < bytes.len() {
        connection.pending.extend_from_slice(&bytes[written..]);
        let both = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT;
        epoll.modify(&connection.stream, &mut EpollEvent::new(both, key))?;
    }
    Ok(())
}
