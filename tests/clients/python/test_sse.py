"""Tests httpx-sse and requests with event streams."""

import json

import httpx
import pytest
import requests
from conftest import DEADLINE
from httpx_sse import connect_sse

doors = pytest.mark.parametrize("door", ["rest", "graphql"])


def url(server, door, topic="news", **arguments):
    if door == "rest":
        return str(httpx.URL(f"{server.origin}/topics/{topic}/messages", params=arguments))
    more = "".join(f", {name}: {json.dumps(value)}" for name, value in arguments.items())
    query = "subscription { messages(topic: %s%s) { data offset cursor } }" % (json.dumps(topic), more)
    return str(httpx.URL(f"{server.origin}/graphql", params={"query": query}))


def message(event, door):
    assert event.event == ("message" if door == "rest" else "next"), event
    return event.json() if door == "rest" else event.json()["data"]["messages"]


@doors
def test_history_live_orderly_stop_and_last_event_id(server, door):
    for i in range(1, 4):
        server.publish("news", i)
    with httpx.Client(timeout=DEADLINE) as client:
        with connect_sse(client, "GET", url(server, door, last=2)) as source:
            events = source.iter_sse()
            first = next(events)
            assert message(first, door)["data"] == 2
            assert first.id == message(first, door)["cursor"]
            assert message(next(events), door)["data"] == 3
            server.publish("news", 4)
            assert message(next(events), door)["data"] == 4
        server.subscribers("news", 0)
        with connect_sse(client, "GET", url(server, door, last=1), headers={"Last-Event-ID": first.id}) as source:
            events = source.iter_sse()
            assert [message(next(events), door)["data"] for _ in range(2)] == [3, 4]


@doors
def test_one_cursor_at_every_door(server, door):
    for i in range(1, 6):
        server.publish("news", i)
    with httpx.Client(timeout=DEADLINE) as client:
        with connect_sse(client, "GET", url(server, "graphql" if door == "rest" else "rest", last=4)) as source:
            cursor = next(source.iter_sse()).id
        with connect_sse(client, "GET", url(server, door, after=cursor)) as source:
            events = source.iter_sse()
            assert [message(next(events), door)["data"] for _ in range(3)] == [3, 4, 5]


@doors
def test_killed_and_started_again(server, door):
    server.publish("news", 1)
    with httpx.Client(timeout=DEADLINE) as client:
        with connect_sse(client, "GET", url(server, door, last=1)) as source:
            events = source.iter_sse()
            cursor = next(events).id
            server.restart()
            with pytest.raises(httpx.HTTPError):
                next(events)
        with connect_sse(client, "GET", url(server, door), headers={"Last-Event-ID": cursor}) as source:
            events = source.iter_sse()
            # The topic has no message yet, but the gap is delivered.
            first = next(events)
            if door == "rest":
                assert (first.event, first.json()["reason"]) == ("gap", "NEW_EPOCH")
            else:
                assert first.json()["extensions"]["gap"]["reason"] == "NEW_EPOCH"
                assert first.json()["data"] == {"messages": None}
            server.publish("news", 2)
            assert message(next(events), door)["data"] == 2


@doors
def test_a_pattern_resumes_in_every_topic(server, door):
    with httpx.Client(timeout=DEADLINE) as client:
        with connect_sse(client, "GET", url(server, door, topic="orders.*")) as source:
            server.publish("orders.eu", 1)
            position = next(source.iter_sse()).id
        for topic, number in [("orders.us", 2), ("orders.eu", 3), ("orders.new", 4)]:
            server.publish(topic, number)
        with connect_sse(client, "GET", url(server, door, topic="orders.*"), headers={"Last-Event-ID": position}) as source:
            events = source.iter_sse()
            assert [message(next(events), door)["data"] for _ in range(3)] == [2, 3, 4]
        for name in ["lastEventId", "Last-Event-ID", "evs_last_event_id"]:
            address = httpx.URL(url(server, door, topic="orders.*")).copy_merge_params({name: position})
            with connect_sse(client, "GET", str(address)) as source:
                assert message(next(source.iter_sse()), door)["data"] == 2


@doors
def test_errors(server, door):
    with httpx.Client(timeout=DEADLINE) as client:
        if door == "rest":
            answer = client.get(url(server, door, topic="$reserved"), headers={"Accept": "text/event-stream"})
            assert (answer.status_code, answer.json()["error"]["code"]) == (400, "INVALID_TOPIC")
            return
        with connect_sse(client, "GET", url(server, door, topic="$reserved")) as source:
            first, last = list(source.iter_sse())
            assert first.json()["errors"][0]["extensions"]["code"] == "INVALID_TOPIC"
            assert last.event == "complete"


def test_requests_reads_the_stream_line_by_line(server):
    server.publish("news", {"text": "é\nnew line"})
    headers = {"Accept": "text/event-stream"}
    with requests.get(url(server, "rest", last=1), headers=headers, stream=True, timeout=DEADLINE) as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        answer.encoding = "utf-8"
        lines = answer.iter_lines(decode_unicode=True)
        data = next(line for line in lines if line.startswith("data: "))
        assert json.loads(data.removeprefix("data: "))["data"] == {"text": "é\nnew line"}
        server.publish("news", 2)
        data = next(line for line in lines if line.startswith("data: "))
        assert json.loads(data.removeprefix("data: "))["data"] == 2
    server.subscribers("news", 0)
