"""Tests the websockets library with /ws."""

import asyncio
import json

import pytest
import websockets
from conftest import DEADLINE, Flow, Proxy, until, until_async
from websockets.sync.client import connect


def url(at):
    return f"ws://127.0.0.1:{at.port}/ws"


def ask(socket, **frame):
    socket.send(json.dumps(frame))
    return receive(socket)


def receive(socket):
    return json.loads(socket.recv(timeout=DEADLINE))


def test_publish_subscribe_unsubscribe(server):
    with connect(url(server)) as socket:
        assert ask(socket, type="publish", topic="news", data={"i": 1}, request_id="p")["offset"] == 1
        ack = ask(socket, type="subscribe", topic="news", last_n=10, request_id="s")
        assert (ack["type"], ack["status"], ack["request_id"]) == ("ack", "ok", "s")
        event = receive(socket)
        assert (event["type"], event["data"], event["offset"]) == ("event", {"i": 1}, 1)
        assert ask(socket, type="unsubscribe", topic="news")["type"] == "ack"
        assert ask(socket, type="ping")["type"] == "pong"


def test_error_leaves_the_socket_open(server):
    with connect(url(server)) as socket:
        assert ask(socket, type="subscribe", topic="$x", request_id="r")["error"]["code"] == "INVALID_TOPIC"
        socket.send("nonsense")
        assert receive(socket)["error"]["code"] == "BAD_REQUEST"
        assert ask(socket, type="ping")["type"] == "pong"


def test_orderly_stop(server):
    with connect(url(server)) as socket:
        ask(socket, type="subscribe", topic="news")
        socket.close()
        assert socket.protocol.close_rcvd.code == 1000
    server.subscribers("news", 0)


@pytest.mark.parametrize("mode", ["EXPLICIT", "AUTO", "cursor"])
def test_cut_at_random_points(server, mode):
    """Sends the subscription again on each connection."""
    flow = Flow(explicit=mode == "EXPLICIT")

    async def run():
        async with Proxy(server, cuts=10) as proxy:
            proxy.on_cut = flow.cut
            position = {"cursor": None}

            async def read():
                async for socket in connecting(proxy):
                    subscribe = {"type": "subscribe", "topic": "orders"}
                    if mode == "cursor":
                        subscribe |= {"after": position["cursor"]} if position["cursor"] else {"last_n": 1_000}
                    else:
                        subscribe |= {"consumer": "tab-1", "ack": mode}
                    try:
                        await socket.send(json.dumps(subscribe))
                        async for text in socket:
                            frame = json.loads(text)
                            assert frame["type"] in ("ack", "event"), frame
                            if frame.get("request_id"):
                                flow.acked = max(flow.acked, int(frame["request_id"]))
                            if frame["type"] != "event":
                                continue
                            flow.take(frame["offset"], frame["data"])
                            position["cursor"] = frame["cursor"]
                            if flow.explicit and frame["offset"] % 3 == 0:
                                ack = {"type": "ack", "topic": "orders", "consumer": "tab-1", "cursor": frame["cursor"]}
                                await socket.send(json.dumps(ack | {"request_id": str(frame["offset"])}))
                    except websockets.ConnectionClosed:
                        continue

            reading = asyncio.create_task(read())

            def check():
                if reading.done():
                    reading.result()
                return True

            try:
                known = server.topic if mode == "cursor" else server.consumers
                await asyncio.to_thread(until, "it is subscribed", lambda: known("orders"))
                sent = 0
                while sent < 60 or proxy.cuts_left > 0:
                    sent += 1
                    await asyncio.to_thread(server.publish, "orders", {"i": sent, "pad": "x" * 300})
                    await until_async(lambda: f"messages keep coming ({flow.newest} of {sent})", lambda: check() and flow.newest >= sent - 12, 20)
                await until_async(lambda: f"all come ({flow.newest} of {sent}, SEED={proxy.seed})", lambda: check() and flow.newest == sent, 20)
                if mode == "cursor":
                    assert flow.repeats == 0
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)

    asyncio.run(run())


async def connecting(at):
    """Reconnects at once; the library's own iterator waits for seconds first."""
    while True:
        try:
            async with websockets.connect(url(at)) as socket:
                yield socket
        except (OSError, EOFError, websockets.WebSocketException):
            await asyncio.sleep(0.02)


def test_killed_and_started_again(server):
    cursor = server.publish("news", 1)["cursor"]
    with connect(url(server)) as socket:
        assert ask(socket, type="subscribe", topic="jobs", consumer="tab-1")["consumer"]["resumed"] is False
        server.restart()
        with pytest.raises(websockets.ConnectionClosed):
            receive(socket)
    with connect(url(server)) as socket:
        assert ask(socket, type="subscribe", topic="jobs", consumer="tab-1")["consumer"]["resumed"] is False
        ask(socket, type="subscribe", topic="news", after=cursor)
        server.publish("news", 2)
        gap = receive(socket)
        assert (gap["type"], gap["reason"], gap["missed"]) == ("gap", "NEW_EPOCH", 0)
        assert receive(socket)["data"] == 2


def test_a_stopping_server_says_1001(server):
    with connect(url(server)) as socket:
        ask(socket, type="subscribe", topic="news")
        server.process.terminate()
        with pytest.raises(websockets.ConnectionClosed):
            receive(socket)
        assert socket.protocol.close_rcvd.code == 1001
    until("it is gone", lambda: server.process.poll() is not None)
