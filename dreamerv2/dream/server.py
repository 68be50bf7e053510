"""Serves the page and what belongs to it, and a WebSocket to each who plays."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from dreamerv2.dream import episodes, pictures
from dreamerv2.dream.connection import Connection
from dreamerv2.dream.guard import Guard
from dreamerv2.dream.hub import Hub
from dreamerv2.dream.world import World

PAGE = Path(__file__).parent / "page"
FILES = ("style.css", "app.js", "controls.js", "draw.js")
CHECK_EVERY = 5  # seconds between two looks for a newer checkpoint
TRY_AGAIN_LATER = 1013  # a code of RFC 6455


class Visitors:
    """The open pages, of which there are at most `most`."""

    def __init__(self, hub: Hub, most: int):
        self._hub, self._most = hub, most
        self._connections: set[Connection] = set()
        self._newer: int | None = None  # agent steps of a checkpoint that came later

    def __len__(self) -> int:
        return len(self._connections)

    async def play(self, socket: WebSocket) -> None:
        """One visitor, from the first to the last message."""
        await socket.accept()
        if len(self._connections) >= self._most:
            reason = f"all {self._most} places are taken; more with --sessions"
            await socket.close(TRY_AGAIN_LATER, reason)
            return
        connection = Connection(self._hub, socket)
        self._connections.add(connection)
        try:
            await connection.run(self._notice())
        finally:
            self._connections.discard(connection)

    async def watch(self) -> None:
        """Tells everybody, once, when the run has a newer checkpoint."""
        while True:
            newer = await asyncio.to_thread(self._hub.world.newer_checkpoint)
            if newer != self._newer:
                self._newer = newer
                for connection in list(self._connections):
                    await connection.say(self._notice())
            await asyncio.sleep(CHECK_EVERY)

    def _notice(self) -> str | None:
        if self._newer is None:
            return None
        return (
            f"The run has a newer checkpoint (agent step {self._newer:,}). This page goes on with "
            f"that of step {self._hub.world.saved.agent_steps:,}; start the command again for it."
        )


def make_app(hub: Hub, visitors: Visitors, hosts: set[str]) -> Guard:
    """The application. hosts: names under which the page may be opened, IP addresses apart."""

    async def index(request: Request) -> Response:
        return FileResponse(PAGE / "index.html")

    async def file(request: Request) -> Response:
        name = request.path_params["name"]
        if name not in FILES:
            return PlainTextResponse("no such file", 404)
        return FileResponse(PAGE / name)

    async def listed(request: Request) -> Response:
        stored = await asyncio.to_thread(hub.world.episodes.listed)
        return JSONResponse([{"name": e.name, "rows": e.rows} for e in stored])

    async def thumbnails(request: Request) -> Response:
        name = "{folder}/{file}".format(**request.path_params)
        try:
            sheet = await asyncio.to_thread(_sheet, hub.world, name)
        except ValueError as error:
            return PlainTextResponse(str(error), 404)
        return Response(sheet, media_type="image/png")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        watching = asyncio.create_task(visitors.watch())
        yield
        watching.cancel()
        hub.close()

    routes = [
        Route("/", index),
        Route("/page/{name}", file),
        Route("/episodes", listed),
        Route("/thumbnails/{folder}/{file}.png", thumbnails),
        WebSocketRoute("/play", visitors.play),
    ]
    return Guard(Starlette(routes=routes, lifespan=lifespan), hosts)


def _sheet(world: World, name: str) -> bytes:
    """Thumbnails of a stored episode side by side."""
    observed = world.episodes.read(name)[world.engine.key]
    rows = episodes.thumbnail_rows(len(observed))
    return pictures.sheet([world.painter.observed(observed[row]) for row in rows])
