"""Runs the server until it is stopped."""

import socket

import uvicorn

from dreamerv2.dream import messages
from dreamerv2.dream.hub import Hub
from dreamerv2.dream.server import Visitors, make_app
from dreamerv2.dream.world import World


def make_server(world: World, host: str, sessions: int) -> tuple[uvicorn.Server, Visitors]:
    """The server for a socket that listens, and the pages that are open."""
    hub = Hub(world)
    visitors = Visitors(hub, sessions)
    config = uvicorn.Config(
        make_app(hub, visitors, {host, socket.gethostname()}),
        ws="websockets-sansio",
        ws_max_size=messages.LONGEST,
        ws_ping_interval=20,  # seconds; finds pages that are gone without a word
        timeout_graceful_shutdown=1,  # seconds
        log_level="warning",
    )
    return uvicorn.Server(config), visitors


def serve(world: World, listening: socket.socket, host: str, sessions: int) -> None:
    """Serves the page of `world` on a bound socket until the process is interrupted."""
    server, _ = make_server(world, host, sessions)
    server.run(sockets=[listening])
