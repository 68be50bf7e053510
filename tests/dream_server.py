"""The dream's page on a real server in this process, for tests."""

import contextlib
import json
import socket
import struct
import threading
from collections.abc import Iterator
from typing import NamedTuple

from websockets.sync.client import ClientConnection, connect

from dreamerv2.dream import server, world
from dreamerv2.dream.serve import make_server
from dreamerv2.dream.server import Visitors
from dreamerv2.run import restore

PATIENCE = 120  # seconds; a machine may be busy


class Serving(NamedTuple):
    """A server that runs."""

    address: str  # http://127.0.0.1:PORT
    visitors: Visitors

    @property
    def host(self) -> str:
        return self.address.removeprefix("http://")


@contextlib.contextmanager
def serving(logdir, sessions: int = 8) -> Iterator[Serving]:
    """The page of the newest checkpoint in `logdir`, looking for newer ones all the time."""
    page = world.load(restore.read(logdir), logdir)
    listening = socket.create_server(("127.0.0.1", 0))
    interval, server.CHECK_EVERY = server.CHECK_EVERY, 0.2
    running, visitors = make_server(page, "127.0.0.1", sessions)
    thread = threading.Thread(target=running.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield Serving(f"http://127.0.0.1:{listening.getsockname()[1]}", visitors)
    finally:
        running.should_exit = True
        thread.join(PATIENCE)
        server.CHECK_EVERY = interval
    assert not thread.is_alive()


class Page:
    """A page without a browser: it answers every frame, unless it is slow."""

    def __init__(self, serving: Serving, slow: bool = False):
        self.slow = slow
        self._open = contextlib.ExitStack()
        client = connect(f"ws://{serving.host}/play", origin=serving.address, open_timeout=PATIENCE)
        self.socket: ClientConnection = self._open.enter_context(client)

    def __enter__(self) -> "Page":
        return self

    def __exit__(self, *error) -> None:
        self._open.close()

    def send(self, kind: str, **values) -> None:
        self.socket.send(json.dumps({"type": kind, **values}))

    def receive(self, timeout: float = PATIENCE) -> dict:
        """The next message; a frame's arrays under their names."""
        data = self.socket.recv(timeout)
        if isinstance(data, str):
            return json.loads(data)
        (length,) = struct.unpack_from("<I", data)
        message, at = json.loads(data[4 : 4 + length]), 4 + length
        for name, shape in message.pop("arrays"):
            size = 1
            for side in shape:
                size *= side
            message[name], at = data[at : at + size], at + size
        if message["type"] == "frame" and not self.slow:
            self.send("seen", number=message["number"])
        return message

    def until(self, kind: str, **values) -> dict:
        """The first message of a type with these values."""
        while True:
            message = self.receive()
            if message["type"] == kind and all(message[k] == v for k, v in values.items()):
                return message
