//! One consumer or one message id that several clients want on two instances: exactly one of them gets it.

use std::time::Duration;

use serde_json::{Value, json};

use reqwest::Method;

use super::{OUTAGE_DEADLINE, instance};
use crate::{doors::raw_ws::Socket, harness::Client, nats::Nats};

/// What a client of `/ws` is told by a frame.
#[derive(Clone, Debug, PartialEq)]
enum Told {
    Accepted,
    Message(u64),
    Refused(String),
}

async fn told(socket: &mut Socket) -> Told {
    let frame = socket.json().await;
    match frame["type"].as_str().unwrap() {
        "ack" => Told::Accepted,
        "event" => Told::Message(frame["data"].as_u64().unwrap()),
        _ => Told::Refused(frame["error"]["code"].as_str().unwrap_or_else(|| panic!("{frame}")).to_owned()),
    }
}

/// Two that have asked for the same consumer: reads until one of them is told that it does not have it, and puts that one
/// behind the other.
async fn rivals(mut one: Socket, mut other: Socket) -> [(Vec<Told>, Socket); 2] {
    let (first, second) = tokio::join!(told(&mut one), told(&mut other));
    let mut said = [vec![first], vec![second]];
    let refused = |said: &[Told]| matches!(said.last(), Some(Told::Refused(_)));
    while !said.iter().any(|said| refused(said)) {
        tokio::select! {
            next = told(&mut one) => said[0].push(next),
            next = told(&mut other) => said[1].push(next),
        }
    }
    let [first, second] = said;
    if refused(&first) { [(second, other), (first, one)] } else { [(first, one), (second, other)] }
}

/// A first connection that is tried again elsewhere: the same new consumer at both at the same moment, many times.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_has_a_new_consumer() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    a.create("news").await;
    b.get("/topics/news").await.expect(200);
    for round in 0..60 {
        let name = format!("tab-{round}");
        let subscribe = json!({"type": "subscribe", "topic": "news", "consumer": name, "ack": "EXPLICIT"}).to_string();
        let (mut one, mut other) = tokio::join!(Socket::connect(&a, "/ws", None), Socket::connect(&b, "/ws", None));
        tokio::join!(one.send(subscribe.clone()), other.send(subscribe.clone()));
        let [(winner, mut holder), (loser, _)] = rivals(one, other).await;
        assert_eq!(winner.first(), Some(&Told::Accepted), "round {round}: {winner:?} {loser:?}");
        assert_eq!(loser.last(), Some(&Told::Refused("CONSUMER_TAKEN_OVER".to_owned())), "round {round}");
        // The one that was told so has it, and keeps it.
        a.publish("news", round.into()).await;
        assert_eq!(told(&mut holder).await, Told::Message(round), "round {round}: {winner:?} {loser:?}");
        let listed = b.get("/topics/news/consumers").await.expect(200);
        assert_eq!(listed["consumers"][0]["connected"], true, "round {round}: {listed}");
        // It is there afterwards, and goes on from its position.
        drop(holder);
        let mut back = Socket::connect(&b, "/ws", None).await;
        back.send(subscribe).await;
        let ack = back.json().await;
        assert_eq!(ack["consumer"]["resumed"], true, "round {round}: {ack}");
        assert_eq!(told(&mut back).await, Told::Message(round), "round {round}");
        b.delete(&format!("/topics/news/consumers/{name}")).await.expect(200);
    }
}

/// A subscription that is refused takes nothing away: neither what another one has by then, nor what was there before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_refused_subscription_takes_no_consumer_away() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    a.create("news").await;
    let told_cursor = a.publish("news", 0.into()).await["cursor"].as_str().unwrap().to_owned();
    let (epoch, _) = told_cursor.rsplit_once('-').unwrap();
    let base = json!({"type": "subscribe", "topic": "news", "consumer": "tab", "ack": "EXPLICIT"});
    let mut ahead = base.clone();
    ahead["after"] = format!("{epoch}-7fffffff").into();
    // Alone, it leaves none behind.
    let mut refused = Socket::connect(&a, "/ws", None).await;
    refused.send(ahead.to_string()).await;
    assert_eq!(told(&mut refused).await, Told::Refused("BAD_REQUEST".to_owned()));
    for client in [&a, &b] {
        let listed = client.get("/topics/news/consumers").await.expect(200);
        assert_eq!(listed["consumers"], json!([]));
    }
    // Beside one that is accepted, in whatever order.
    for round in 1..=40 {
        let (mut bad, mut good) = tokio::join!(Socket::connect(&a, "/ws", None), Socket::connect(&b, "/ws", None));
        tokio::join!(bad.send(ahead.to_string()), good.send(base.to_string()));
        let refusal = told(&mut bad).await;
        let codes = ["BAD_REQUEST", "CONSUMER_TAKEN_OVER"];
        assert!(codes.map(|code| Told::Refused(code.to_owned())).contains(&refusal), "round {round}: {refusal:?}");
        match told(&mut good).await {
            // It has it, unless the other one took it over before it was refused.
            Told::Accepted => {
                a.publish("news", round.into()).await;
                match told(&mut good).await {
                    Told::Message(number) => {
                        assert_eq!(number, round);
                        let listed = a.get("/topics/news/consumers").await.expect(200);
                        assert_eq!(listed["consumers"][0]["name"], "tab", "round {round}: {listed}");
                    }
                    end => assert_eq!(end, Told::Refused("CONSUMER_TAKEN_OVER".to_owned()), "round {round}"),
                }
            }
            end => assert_eq!(end, Told::Refused("CONSUMER_TAKEN_OVER".to_owned()), "round {round}"),
        }
        drop(good);
        let _ = b.delete("/topics/news/consumers/tab").await;
    }
}

/// Two instances publish one id while the NATS server stands still for longer than they wait for one reply. Both send their
/// message again, and the server then says of both that it has one with this id: exactly one of them is a duplicate.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_two_is_a_duplicate_although_no_reply_came() {
    let nats = Nats::single().await;
    let (a, b) = (instance(&nats), instance(&nats));
    a.create("news").await;
    b.get("/topics/news").await.expect(200);
    for (round, expected) in [Value::Null, 1.into()].into_iter().enumerate() {
        let mut body = json!({"topic": "news", "id": format!("same-{round}")});
        if !expected.is_null() {
            body["expectedOffset"] = expected;
        }
        let publish = async |client: &Client, from: u64| {
            let mut body = body.clone();
            body["data"] = from.into();
            client.send(client.request(Method::POST, "/publish").timeout(OUTAGE_DEADLINE).json(&body)).await
        };
        nats.nodes[0].pause().await;
        let resume = async {
            // An instance waits two seconds for a reply before it sends the message again.
            tokio::time::sleep(Duration::from_millis(2_500)).await;
            nats.nodes[0].resume();
        };
        let (one, other, ()) = tokio::join!(publish(&a, 1), publish(&b, 2), resume);
        let (one, other) = (one.expect(200), other.expect(200));
        assert_eq!(one["offset"], other["offset"], "{one} {other}");
        let page = a.get("/topics/news/messages?limit=10").await.expect(200);
        let kept = page["messages"].as_array().unwrap();
        assert_eq!(kept.len(), round + 1, "{page}");
        // The reply that is no duplicate is the stored message's.
        for (answer, from) in [(&one, 1), (&other, 2)] {
            assert_eq!(answer["duplicate"] == true, kept[round]["data"] != from, "{one} {other} {page}");
        }
    }
}
