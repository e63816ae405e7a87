//! The limit with tokio: accepted sockets, ready-made frames, one write for each message and subscriber. No topics, no history,
//! no acknowledgement.

use std::{
    io,
    sync::{Arc, Mutex},
};

use tokio::{
    io::Interest,
    net::{TcpListener, TcpStream},
};

use crate::bare::{self, Request};

type Subscribers = Arc<Mutex<Vec<Arc<TcpStream>>>>;

pub fn run() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        crate::announce(listener.local_addr()?);
        let subscribers = Subscribers::default();
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(connection(Arc::new(stream), Arc::clone(&subscribers)));
        }
    })
}

async fn connection(stream: Arc<TcpStream>, subscribers: Subscribers) {
    // The client going away is the end of it.
    let _ = serve(&stream, &subscribers).await;
    subscribers.lock().unwrap().retain(|other| !Arc::ptr_eq(other, &stream));
}

async fn serve(stream: &Arc<TcpStream>, subscribers: &Subscribers) -> io::Result<()> {
    let mut inbound = bare::Inbound::default();
    let mut frame = Vec::new();
    loop {
        stream.readable().await?;
        match stream.try_read(inbound.room()) {
            Ok(0) => return Ok(()),
            Ok(read) => inbound.filled(read),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        while let Some(request) = inbound.next() {
            match request {
                Request::Respond(response) => write(stream, &response).await?,
                Request::Subscribe(response) => {
                    write(stream, &response).await?;
                    subscribers.lock().unwrap().push(Arc::clone(stream));
                }
                Request::Publish(data) => {
                    frame.clear();
                    bare::push_event(&mut frame, data);
                    let to: Vec<_> = subscribers.lock().unwrap().clone();
                    for subscriber in &to {
                        write(subscriber, &frame).await?;
                    }
                }
            }
        }
    }
}

async fn write(stream: &TcpStream, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.try_write(bytes) {
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                stream.ready(Interest::WRITABLE).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
