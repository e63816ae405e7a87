"""Tests gql: its WebSocket transports (websockets and aiohttp, both subprotocols), and its HTTP transports (aiohttp, requests)."""

import asyncio

import pytest
from conftest import DEADLINE, Flow, Proxy, until, until_async
from gql import Client, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
from gql.transport.exceptions import TransportError, TransportQueryError
from gql.transport.requests import RequestsHTTPTransport
from gql.transport.websockets import WebsocketsTransport

TOPIC = "query Topic($name: String!) { topic(name: $name) { name messageCount } }"
PUBLISH = "mutation Publish($topic: String!, $data: JSON!) { publish(topic: $topic, data: $data) { offset cursor duplicate } }"
CREATE = "mutation Create($name: String!) { createTopic(name: $name) { name } }"
ACKNOWLEDGE = """mutation Acknowledge($topic: String!, $consumer: String!, $cursor: Cursor!) {
  acknowledge(topic: $topic, consumer: $consumer, cursor: $cursor) }"""
MESSAGES = """subscription Messages($topic: String!, $last: Int, $after: Cursor, $consumer: String, $ack: AckMode) {
  messages(topic: $topic, last: $last, after: $after, consumer: $consumer, ack: $ack) {
    id data offset cursor gap { reason missed } } }"""


def http_url(at):
    return f"{at.origin}/graphql"


def ws_url(at):
    return f"ws://127.0.0.1:{at.port}/graphql"


SOCKETS = {
    "websockets": lambda at: WebsocketsTransport(url=ws_url(at)),
    "websockets, graphql-transport-ws": lambda at: WebsocketsTransport(
        url=ws_url(at), subprotocols=[WebsocketsTransport.GRAPHQLWS_SUBPROTOCOL]
    ),
    "websockets, legacy graphql-ws": lambda at: WebsocketsTransport(
        url=ws_url(at), subprotocols=[WebsocketsTransport.APOLLO_SUBPROTOCOL]
    ),
    "aiohttp websockets": lambda at: AIOHTTPWebsocketsTransport(url=ws_url(at)),
}
ALL = {
    **SOCKETS,
    "aiohttp": lambda at: AIOHTTPTransport(url=http_url(at), ssl=False),
    "requests": lambda at: RequestsHTTPTransport(url=http_url(at), timeout=DEADLINE),
}

every_transport = pytest.mark.parametrize("transport", ALL.values(), ids=ALL.keys())
every_socket = pytest.mark.parametrize("transport", SOCKETS.values(), ids=SOCKETS.keys())


def request(text, variables=None):
    made = gql(text)
    made.variable_values = variables
    return made


def ask(transport, at, text, variables=None):
    client = Client(transport=transport(at), execute_timeout=DEADLINE)
    return client.execute(request(text, variables))


def code(error):
    return [item["extensions"]["code"] for item in error.value.errors]


def stream(session, **variables):
    return session.subscribe(request(MESSAGES, variables), get_execution_result=True)


async def message(results):
    result = await asyncio.wait_for(anext(results), DEADLINE)
    assert not result.errors, result.errors
    return result.data["messages"], result.extensions or {}


@every_transport
def test_query(server, transport):
    server.publish("news", 1)
    assert ask(transport, server, TOPIC, {"name": "news"}) == {"topic": {"name": "news", "messageCount": 1}}
    assert ask(transport, server, TOPIC, {"name": "nowhere"}) == {"topic": None}


@every_transport
def test_mutation(server, transport):
    data = {"title": "Grüße 🌍", "list": [1, 2.5, None, True]}
    assert ask(transport, server, PUBLISH, {"topic": "news", "data": data})["publish"]["offset"] == 1
    page = server.session.get(f"{server.origin}/topics/news/messages", timeout=DEADLINE).json()
    assert [item["data"] for item in page["messages"]] == [data]


@every_transport
def test_schema_is_fetched_and_used(server, transport):
    client = Client(transport=transport(server), fetch_schema_from_transport=True, execute_timeout=DEADLINE)
    assert client.execute(gql("{ health { status } }")) == {"health": {"status": "ok"}}
    assert client.schema.get_type("Message") is not None


@every_transport
def test_error_of_a_resolver(server, transport):
    with pytest.raises(TransportQueryError) as error:
        ask(transport, server, CREATE, {"name": "a.*"})
    assert code(error) == ["INVALID_TOPIC"]


@every_transport
def test_error_of_the_request(server, transport):
    with pytest.raises(TransportQueryError) as error:
        ask(transport, server, "{ nothingOfThisName }")
    assert code(error) == ["BAD_REQUEST"]


@every_socket
def test_subscription_and_orderly_stop(server, transport):
    for i in range(1, 6):
        server.publish("news", {"i": i})

    async def run():
        async with Client(transport=transport(server), execute_timeout=DEADLINE) as session:
            results = stream(session, topic="news", last=3)
            for i in range(3, 6):
                assert (await message(results))[0]["data"] == {"i": i}
            for i in range(6, 30):
                await asyncio.to_thread(server.publish, "news", {"i": i})
            for i in range(6, 30):
                got, _ = await message(results)
                assert (got["data"], got["offset"], got["gap"]) == ({"i": i}, i, None)
            await results.aclose()
            await server.subscribers_async("news", 0)
            # The connection still works.
            assert (await session.execute(gql("{ health { status } }"))) == {"health": {"status": "ok"}}

    asyncio.run(run())


@every_socket
def test_error_of_a_subscription(server, transport):
    async def run():
        async with Client(transport=transport(server), execute_timeout=DEADLINE) as session:
            with pytest.raises(TransportQueryError) as error:
                await message(stream(session, topic="$reserved"))
            assert code(error) == ["INVALID_TOPIC"]

    asyncio.run(run())


@every_socket
def test_a_deleted_topic(server, transport):
    server.publish("news", 1)

    async def run():
        async with Client(transport=transport(server), execute_timeout=DEADLINE) as session:
            results = stream(session, topic="news", last=1)
            await message(results)
            await asyncio.to_thread(server.session.delete, f"{server.origin}/topics/news", timeout=DEADLINE)
            with pytest.raises(TransportQueryError) as error:
                await message(results)
            assert code(error) == ["TOPIC_DELETED"]
            assert (await session.execute(gql("{ health { status } }"))) == {"health": {"status": "ok"}}

    asyncio.run(run())


async def forever(transport, at, each, **variables):
    """A program that stays subscribed: gql reports a lost connection, and the program subscribes again as before."""
    while True:
        try:
            async with Client(transport=transport(at), execute_timeout=DEADLINE) as session:
                async for result in stream(session, **variables):
                    assert not result.errors, result.errors
                    await each(result.data["messages"], result.extensions or {})
        except (TransportError, OSError, EOFError, asyncio.TimeoutError):
            pass
        except Exception as error:
            # The underlying libraries raise their own errors for a handshake that was cut.
            if type(error).__module__.split(".")[0] not in ("websockets", "aiohttp"):
                raise
        await asyncio.sleep(0.02)


async def beside(task, work):
    """Runs the work, and stops if the task fails first."""
    work = asyncio.create_task(work)
    done, _ = await asyncio.wait({task, work}, return_when=asyncio.FIRST_COMPLETED)
    if task in done:
        work.cancel()
        task.result()
    await work


@every_socket
@pytest.mark.parametrize("ack", ["EXPLICIT", "AUTO"])
def test_cut_at_random_points(server, transport, ack):
    flow = Flow(explicit=ack == "EXPLICIT")
    names = {"topic": "orders", "consumer": "tab-1"}

    async def run():
        async with Proxy(server, cuts=8) as proxy, Client(transport=transport(server), execute_timeout=DEADLINE) as control:
            proxy.on_cut = flow.cut

            async def each(got, _):
                flow.take(got["offset"], got["data"])
                if flow.explicit and got["offset"] % 3 == 0:
                    await control.execute(request(ACKNOWLEDGE, {**names, "cursor": got["cursor"]}))
                    flow.acked = got["offset"]

            async def publish():
                await asyncio.to_thread(until, "the consumer is known", lambda: server.consumers("orders"))
                sent = 0
                while sent < 50 or proxy.cuts_left > 0:
                    sent += 1
                    await asyncio.to_thread(server.publish, "orders", {"i": sent, "pad": "x" * 300})
                    await until_async(lambda: f"messages keep coming ({flow.newest} of {sent})", lambda: flow.newest >= sent - 12, 20)
                await until_async(lambda: f"all come ({flow.newest} of {sent}, SEED={proxy.seed})", lambda: flow.newest == sent, 20)

            reading = asyncio.create_task(forever(transport, proxy, each, ack=ack, **names))
            try:
                await beside(reading, publish())
            finally:
                reading.cancel()
                await asyncio.gather(reading, return_exceptions=True)
            assert proxy.cuts >= 8
            assert not flow.explicit or flow.acked > 0

    asyncio.run(run())


@every_socket
def test_killed_and_started_again(server, transport):
    """With a cursor the client receives NEW_EPOCH; with a consumer it receives resumed: false."""
    cursor = server.publish("news", 1)["cursor"]
    got = []

    async def each(message, extensions):
        # A gap that no message follows is a result of its own.
        got.append((message and message["data"], extensions))

    async def run():
        tasks = [
            asyncio.create_task(forever(transport, server, each, topic="news", after=cursor)),
            asyncio.create_task(forever(transport, server, each, topic="jobs", consumer="tab-1")),
        ]
        try:
            await server.subscribers_async("news", 1)
            await server.subscribers_async("jobs", 1)
            await asyncio.to_thread(server.publish, "jobs", "first")
            await until_async("the first", lambda: len(got) == 1)
            assert got[0][1]["consumer"]["resumed"] is False
            await asyncio.to_thread(server.restart)
            await server.subscribers_async("jobs", 1)
            await asyncio.to_thread(server.publish, "jobs", "second")
            await asyncio.to_thread(server.publish, "news", 2)
            await until_async(lambda: f"both: {got}", lambda: {"second", 2} <= {data for data, _ in got})
            assert dict(got[1:])["second"]["consumer"]["resumed"] is False
            assert "NEW_EPOCH" in [extensions["gap"]["reason"] for _, extensions in got if "gap" in extensions]
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(run())
