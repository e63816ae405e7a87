"""Each test has its own pub-sub server, and a connection to it that can be cut."""

import asyncio
import os
import random
import re
import signal
import subprocess
import threading
import time
from pathlib import Path

import pytest
import requests

DEADLINE = 10
TOP = Path(__file__).resolve().parents[3]


def binary() -> str:
    """Returns PUB_SUB_BIN, or the newer of the two builds."""
    if given := os.environ.get("PUB_SUB_BIN"):
        return os.path.abspath(given)
    built = [path for path in (TOP / "target" / profile / "pub-sub" for profile in ("release", "debug")) if path.exists()]
    assert built, "no pub-sub binary: set PUB_SUB_BIN or run `cargo build`"
    return str(max(built, key=lambda path: path.stat().st_mtime))


def until(what, check, deadline=DEADLINE):
    """Waits for a state, never for a fixed time."""
    end = time.monotonic() + deadline
    while not (answer := check()):
        assert time.monotonic() < end, f"not within {deadline} s: {what() if callable(what) else what}"
        time.sleep(0.005)
    return answer


async def until_async(what, check, deadline=DEADLINE):
    end = time.monotonic() + deadline
    while not (answer := check()):
        assert time.monotonic() < end, f"not within {deadline} s: {what() if callable(what) else what}"
        await asyncio.sleep(0.005)
    return answer


class Server:
    def __init__(self, **env):
        self.env = env
        self.session = requests.Session()
        if "API_KEY" in env:
            self.session.headers["Authorization"] = f"Bearer {env['API_KEY']}"
        self.start(0)

    def start(self, port):
        env = {"PATH": os.environ["PATH"], "HOST": "127.0.0.1", "MAX_PUBLISH_RATE": "0", "LOG": "info", **self.env, "PORT": str(port)}
        self.process = subprocess.Popen([binary()], env=env, stderr=subprocess.PIPE, text=True)
        self.log = []
        threading.Thread(target=lambda pipe: self.log.extend(pipe), args=(self.process.stderr,), daemon=True).start()

        def listening():
            said = "".join(self.log)
            assert self.process.poll() is None, f"pub-sub did not start: {said}"
            return re.search(r"listening addr=127\.0\.0\.1:(\d+)", said)

        self.port = int(until("pub-sub listens", listening)[1])

    def kill(self, how=signal.SIGKILL):
        if self.process.poll() is None:
            self.process.send_signal(how)
            self.process.wait(DEADLINE)
        self.session.close()

    def restart(self):
        self.kill()
        self.start(self.port)

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    def publish(self, topic, data):
        answer = self.session.post(f"{self.origin}/publish", json={"topic": topic, "data": data}, timeout=DEADLINE)
        assert answer.status_code == 200, answer.text
        return answer.json()

    def topic(self, name):
        answer = self.session.get(f"{self.origin}/topics/{name}", timeout=DEADLINE)
        return answer.json() if answer.status_code == 200 else None

    def consumers(self, topic):
        answer = self.session.get(f"{self.origin}/topics/{topic}/consumers", timeout=DEADLINE)
        return answer.json()["consumers"] if answer.status_code == 200 else []

    def subscribers(self, topic, count):
        until(f"{topic} has {count} subscriber(s)", lambda: (self.topic(topic) or {"subscribers": 0})["subscribers"] == count)

    async def subscribers_async(self, topic, count):
        """Does the same while the test's own clients continue."""
        await asyncio.to_thread(self.subscribers, topic, count)


class Proxy:
    """Cuts each of its first connections after a random number of bytes from the server. It runs in the test's event loop."""

    def __init__(self, target, cuts, seed=None):
        self.target = target
        self.cuts_left = cuts
        self.cuts = 0
        self.seed = int(os.environ.get("SEED", seed if seed is not None else time.time_ns() % 1_000_000))
        self.random = random.Random(self.seed)
        self.on_cut = lambda: None

    async def __aenter__(self):
        self.server = await asyncio.start_server(self.accept, "127.0.0.1", 0)
        self.port = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_):
        self.server.close()

    @property
    def origin(self):
        return f"http://127.0.0.1:{self.port}"

    async def accept(self, reader, writer):
        budget = self.random.randrange(100, 3_000) if self.cuts_left > 0 else None
        try:
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target.port)
        except OSError:
            writer.close()
            return
        upwards = asyncio.create_task(self.copy(reader, up_writer))
        try:
            while chunk := await up_reader.read(65_536):
                if budget is not None and len(chunk) >= budget:
                    writer.write(chunk[:budget])
                    await writer.drain()
                    self.cuts_left -= 1
                    self.cuts += 1
                    self.on_cut()
                    break
                budget = None if budget is None else budget - len(chunk)
                writer.write(chunk)
                await writer.drain()
        except OSError:
            pass
        finally:
            upwards.cancel()
            up_writer.transport.abort()
            writer.close()

    @staticmethod
    async def copy(reader, writer):
        try:
            while chunk := await reader.read(65_536):
                writer.write(chunk)
                await writer.drain()
            writer.close()
        except (OSError, asyncio.CancelledError):
            pass


class Flow:
    """Compares what arrives despite cuts with what was sent."""

    def __init__(self, explicit):
        self.explicit = explicit
        self.newest = self.acked = self.acked_at_cut = self.repeats = 0

    def cut(self):
        self.acked_at_cut = self.acked

    def take(self, offset, data):
        assert data["i"] == offset, f"message {data['i']} at offset {offset}"
        assert offset <= self.newest + 1, f"lost {self.newest + 1} to {offset - 1}"
        if self.explicit:
            assert offset > self.acked_at_cut, f"{offset} came again although {self.acked_at_cut} was acknowledged before the cut"
        self.repeats += offset <= self.newest
        self.newest = max(self.newest, offset)


@pytest.fixture
def start():
    """Starts servers, which end with the test."""
    servers = []

    def begin(**env):
        servers.append(Server(**env))
        return servers[-1]

    yield begin
    for server in servers:
        server.kill()


@pytest.fixture
def server(start):
    return start()
