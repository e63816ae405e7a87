//! What is particular to server-sent events.

use std::time::Duration;

use crate::{
    doors::{
        Door, Sse, Start, numbers,
        sse::{End, EventStream},
    },
    harness::TestServer,
};

fn request(server: &TestServer, path: &str, headers: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: {}\r\nAccept: text/event-stream\r\n{headers}\r\n", server.addr)
}

#[tokio::test]
async fn silence_is_filled_with_comments() {
    let server = TestServer::with(|config| config.socket.ping_interval = Duration::from_millis(50));
    server.create("news").await;
    let mut stream = EventStream::open(&server, &request(&server, "/topics/news/messages", "")).await.unwrap();
    for _ in 0..4 {
        stream.comment().await;
    }
    server.publish("news", 1.into()).await;
    assert_eq!(stream.next().await.unwrap().event, "message");
    stream.comment().await;
}

/// What a browser does by itself: the same address again, with the header.
#[tokio::test]
async fn the_header_goes_before_the_address() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=6).await;
    let cursor =
        |index: usize, page: &serde_json::Value| page["messages"][index]["cursor"].as_str().unwrap().to_owned();
    let page = server.get("/topics/news/messages").await.expect(200);
    for query in
        ["?last=6".to_owned(), format!("?after={}", cursor(0, &page)), "?since=2001-01-01T00:00:00Z".to_owned()]
    {
        let header = format!("Last-Event-ID: {}\r\n", cursor(3, &page));
        let path = format!("/topics/news/messages{query}");
        let mut stream = EventStream::open(&server, &request(&server, &path, &header)).await.unwrap();
        let sent = stream.next().await.unwrap();
        assert_eq!(sent.id.unwrap(), cursor(4, &page));
    }
}

#[tokio::test]
async fn accept_decides() {
    let server = TestServer::start();
    server.publish("news", 1.into()).await;
    for accept in [
        "text/event-stream",
        "text/event-stream;q=1.0",
        "text/html, text/event-stream",
        "application/json;q=0.1, text/event-stream",
    ] {
        let text = request(&server, "/topics/news/messages?last=1", "")
            .replace("Accept: text/event-stream", &format!("Accept: {accept}"));
        let mut stream = EventStream::open(&server, &text).await.unwrap();
        assert_eq!(stream.next().await.unwrap().event, "message", "{accept}");
    }
    for accept in ["application/json", "*/*", "text/plain"] {
        let response =
            server.send(server.request(reqwest::Method::GET, "/topics/news/messages").header("accept", accept)).await;
        assert!(response.expect(200)["messages"].is_array());
    }
}

#[tokio::test]
async fn a_deleted_topic_ends_its_stream() {
    let server = TestServer::start();
    server.create("news").await;
    let mut stream = EventStream::open(&server, &request(&server, "/topics/news/messages", "")).await.unwrap();
    server.delete("/topics/news").await.expect(200);
    let sent = stream.next().await.unwrap();
    assert_eq!(sent.event, "deleted");
    assert!(sent.data.contains("topic_deleted"));
    assert_eq!(stream.next().await, Err(End::Clean));
}

#[tokio::test]
async fn a_client_that_goes_is_no_subscriber() {
    let server = TestServer::start();
    server.create("news").await;
    let streams = [Sse::to(&server, "news", Start::Live).await, Sse::to(&server, "news", Start::Live).await];
    server.wait_for_subscribers("news", 2).await;
    drop(streams);
    server.wait_for_subscribers("news", 0).await;
}

/// The connection of a stream that has ended, or of a page, serves the next request.
#[tokio::test]
async fn pages_and_streams_of_the_same_address() {
    let server = TestServer::start();
    server.publish_numbers("news", 1..=3).await;
    let mut door = Sse::to(&server, "news", Start::Last(3)).await;
    let page = server.get("/topics/news/messages").await.expect(200);
    for (message, listed) in door.messages(3).await.iter().zip(page["messages"].as_array().unwrap()) {
        assert_eq!((&message.data, message.cursor.as_str()), (&listed["data"], listed["cursor"].as_str().unwrap()));
    }
    server.publish("news", 4.into()).await;
    assert_eq!(numbers(&door.messages(1).await), [4]);
}
