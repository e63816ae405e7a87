"""Stock Python clients sign in as their documentation says: gql, websockets, requests, httpx."""

import asyncio
import base64
import hashlib
import hmac
import json
import secrets
import time

import httpx
import pytest
import requests
from conftest import DEADLINE
from gql import Client, gql
from gql.transport.aiohttp import AIOHTTPTransport
from gql.transport.aiohttp_websockets import AIOHTTPWebsocketsTransport
from gql.transport.exceptions import TransportError, TransportQueryError
from gql.transport.requests import RequestsHTTPTransport
from gql.transport.websockets import WebsocketsTransport
from httpx_sse import connect_sse
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

API_KEY = "the-administrator-of-this-test"
JWT_SECRET = secrets.token_hex(32)
RIGHTS = {"publish": ["news"], "subscribe": ["news"]}


def token(seconds=3600):
    """Returns a token (HS256) for alice, which is valid for so many seconds."""

    def encode(data):
        return base64.urlsafe_b64encode(data).rstrip(b"=")

    claims = {"sub": "alice", "exp": int(time.time()) + seconds, "pubsub": RIGHTS}
    signed = b".".join(encode(json.dumps(part).encode()) for part in ({"alg": "HS256"}, claims))
    signature = hmac.new(JWT_SECRET.encode(), signed, hashlib.sha256).digest()
    return (signed + b"." + encode(signature)).decode()


@pytest.fixture
def guarded(start):
    return start(API_KEY=API_KEY, JWT_SECRET=JWT_SECRET, JWT_LEEWAY="0s")


def bearer(credential):
    return {"Authorization": f"Bearer {credential}"}


def http_url(at):
    return f"{at.origin}/graphql"


def ws_url(at, path="/graphql"):
    return f"ws://127.0.0.1:{at.port}{path}"


TRANSPORTS = {
    "websockets, init_payload": lambda at, credential: WebsocketsTransport(url=ws_url(at), init_payload=bearer(credential)),
    "websockets, init_payload, legacy graphql-ws": lambda at, credential: WebsocketsTransport(
        url=ws_url(at), init_payload=bearer(credential), subprotocols=[WebsocketsTransport.APOLLO_SUBPROTOCOL]
    ),
    "websockets, headers": lambda at, credential: WebsocketsTransport(url=ws_url(at), headers=bearer(credential)),
    "aiohttp websockets, init_payload": lambda at, credential: AIOHTTPWebsocketsTransport(url=ws_url(at), init_payload={"apiKey": credential}),
    "aiohttp, headers": lambda at, credential: AIOHTTPTransport(url=http_url(at), headers=bearer(credential), ssl=False),
    "requests, headers": lambda at, credential: RequestsHTTPTransport(url=http_url(at), headers=bearer(credential), timeout=DEADLINE),
}
every_transport = pytest.mark.parametrize("transport", TRANSPORTS.values(), ids=TRANSPORTS.keys())
PUBLISH = gql('mutation { publish(topic: "news", data: 1) { offset } }')
every_credential = pytest.mark.parametrize("credential", [lambda: API_KEY, token], ids=["API_KEY", "token"])


@every_transport
@every_credential
def test_gql_signs_in(guarded, transport, credential):
    client = Client(transport=transport(guarded, credential()), execute_timeout=DEADLINE)
    assert client.execute(PUBLISH) == {"publish": {"offset": 1}}


@every_transport
@pytest.mark.parametrize("credential", [lambda: "wrong", lambda: token(-1)], ids=["wrong", "expired"])
def test_gql_is_refused(guarded, transport, credential):
    client = Client(transport=transport(guarded, credential()), execute_timeout=DEADLINE)
    with pytest.raises((TransportError, InvalidStatus)) as refused:
        client.execute(PUBLISH)
    said = f"{refused.value} {refused.value.__cause__}"
    # aiohttp passes on the status alone.
    assert any(text in said for text in ("401", "4403", "the credential is not known here", "the token has expired")), said


def test_gql_subscription_ends_with_its_token(guarded):
    """A consumer loses nothing when it comes back with a fresh token."""
    messages = gql('subscription { messages(topic: "news", consumer: "tab-1", ack: EXPLICIT) { data } }')

    async def run():
        async def results(seconds):
            transport = WebsocketsTransport(url=ws_url(guarded), init_payload=bearer(token(seconds)))
            async with Client(transport=transport) as session:
                async for result in session.subscribe(messages, get_execution_result=True):
                    yield result

        first = results(3)
        begun = asyncio.ensure_future(anext(first))
        await guarded.subscribers_async("news", 1)
        await asyncio.to_thread(guarded.publish, "news", 1)
        assert (await asyncio.wait_for(begun, DEADLINE)).data["messages"]["data"] == 1
        with pytest.raises(TransportQueryError) as ended:
            await asyncio.wait_for(anext(first), DEADLINE)
        assert ended.value.errors[0]["extensions"]["code"] == "UNAUTHENTICATED"
        await asyncio.to_thread(guarded.publish, "news", 2)
        second = results(3600)
        for data in (1, 2):
            assert (await asyncio.wait_for(anext(second), DEADLINE)).data["messages"]["data"] == data
        await second.aclose()

    asyncio.run(run())


def ask(socket, **frame):
    socket.send(json.dumps(frame))
    return json.loads(socket.recv(timeout=DEADLINE))


@every_credential
def test_websockets_with_a_header_and_with_a_first_frame(guarded, credential):
    with connect(ws_url(guarded, "/ws"), additional_headers=bearer(credential())) as socket:
        assert ask(socket, type="publish", topic="news", data=1)["offset"] == 1
    with connect(ws_url(guarded, "/ws")) as socket:
        assert ask(socket, type="publish", topic="news", data=2)["error"]["code"] == "UNAUTHENTICATED"
        assert ask(socket, type="auth", token=credential(), request_id="a")["request_id"] == "a"
        assert ask(socket, type="publish", topic="news", data=2)["offset"] == 2


def test_websockets_is_refused_at_the_upgrade(guarded):
    with pytest.raises(InvalidStatus) as refused:
        connect(ws_url(guarded, "/ws"), additional_headers=bearer("wrong"))
    assert refused.value.response.status_code == 401


@every_credential
def test_requests_sign_in(guarded, credential):
    body = {"topic": "news", "data": 1}
    for headers in (bearer(credential()), {"X-API-Key": credential()}):
        assert requests.post(f"{guarded.origin}/publish", json=body, headers=headers, timeout=DEADLINE).status_code == 200
    refused = requests.post(f"{guarded.origin}/publish", json=body, timeout=DEADLINE)
    assert refused.status_code == 401
    assert refused.headers["WWW-Authenticate"].startswith("Bearer")
    assert refused.json()["error"]["code"] == "UNAUTHENTICATED"
    with requests.Session() as session:
        answer = session.post(f"{guarded.origin}/auth/cookie", headers=bearer(credential()), timeout=DEADLINE)
        assert answer.status_code == 204
        # It keeps the cookie, which is marked for TLS, and therefore does not send it over plain HTTP.
        assert session.cookies["pubsub_auth"]
        assert session.post(f"{guarded.origin}/publish", json=body, timeout=DEADLINE).status_code == 401


def test_requests_may_not_do_everything_with_a_token(guarded):
    forbidden = requests.post(f"{guarded.origin}/publish", json={"topic": "other", "data": 1}, headers=bearer(token()), timeout=DEADLINE)
    assert forbidden.status_code == 403
    error = forbidden.json()["error"]
    assert (error["code"], error["message"]) == ("FORBIDDEN", '"alice" may not publish to topic "other"')


def test_httpx_sse_ends_with_its_token(guarded):
    """The stream says why it ends, and the next one goes on with the last id."""
    guarded.publish("news", 1)
    url = f"{guarded.origin}/topics/news/messages?last=1"
    with httpx.Client(timeout=DEADLINE) as client:
        with connect_sse(client, "GET", url, headers=bearer(token(3))) as source:
            first, ended = list(source.iter_sse())
            assert first.json()["data"] == 1
            assert (ended.event, ended.json()["error"]["code"]) == ("error", "UNAUTHENTICATED")
        guarded.publish("news", 2)
        with connect_sse(client, "GET", url, headers={**bearer(token()), "Last-Event-ID": first.id}) as source:
            assert next(source.iter_sse()).json()["data"] == 2
