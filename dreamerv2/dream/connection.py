"""One open page: its session, what it sends, and what it is sent."""

import asyncio
import contextlib
import json
import logging
from collections.abc import Awaitable, Callable
from typing import Any

import numpy as np
from starlette.websockets import WebSocket, WebSocketDisconnect

from common.data.driver import EnvLostError
from dreamerv2.dream import frame, link, pictures
from dreamerv2.dream.hub import Hub
from dreamerv2.dream.messages import MessageError
from dreamerv2.dream.session import Session, SessionError
from dreamerv2.dream.world import Start

# Frames that a page has not acknowledged yet: one is drawn while the next is on its way. A slow
# page gets fewer frames; they never queue up.
IN_FLIGHT = 2
DEFAULT_SPEED = 15.0  # steps per second: an Atari game's own
POLICY_VIOLATION, BROKEN = 1008, 1011  # codes of RFC 6455

_log = logging.getLogger(__name__)


class Connection:
    """Plays one session over one WebSocket."""

    _session: Session  # from the second line of `run` on

    def __init__(self, hub: Hub, socket: WebSocket):
        self._hub, self._socket = hub, socket
        self._speed = DEFAULT_SPEED
        self._running, self._changed, self._room = (asyncio.Event() for _ in range(3))
        self._room.set()
        self._sent = self._seen = 0
        self._clip: asyncio.Task[None] | None = None

    async def run(self, notice: str | None) -> None:
        """Until the page is closed, or sends what no page of ours sends."""
        try:
            await self._send_json(frame.hello(self._hub.world))
            self._session = await self._hub.work(Session, self._hub.world)
            self._changed.set()
            await self.say(notice)
            await _first_to_end(self._receive(), self._play(), self._show())
        except MessageError as error:
            await self._close(POLICY_VIOLATION, str(error))
        except EnvLostError as error:  # a ConnectionError, but not one of the page
            await self._close(BROKEN, f"the game is lost: {error}")
        except (WebSocketDisconnect, ConnectionError):
            pass
        except Exception as error:
            _log.exception("a session of the page ended")
            await self._close(BROKEN, f"{type(error).__name__}: {error}")
        finally:
            if self._clip:
                self._clip.cancel()
            if hasattr(self, "_session"):
                await self._hub.work(self._session.close)

    async def say(self, notice: str | None) -> None:
        """Shows a line of text on the page."""
        if notice:
            with contextlib.suppress(WebSocketDisconnect, ConnectionError, RuntimeError):
                await self._send_json({"type": "notice", "text": notice})

    # Three tasks

    async def _receive(self) -> None:
        while True:
            message = await self._socket.receive()
            if message["type"] == "websocket.disconnect":
                return
            if message.get("text") is None:
                raise MessageError("a message is not text")
            kind, values = self._hub.messages.read(message["text"])
            try:
                await getattr(self, f"_on_{kind}")(**values)
            except SessionError as error:
                await self.say(str(error))

    async def _play(self) -> None:
        clock = asyncio.get_running_loop().time
        due = clock()
        while True:
            if not self._running.is_set():
                await self._running.wait()
                due = clock()
            if not await self._hub.work(self._session.step):
                self._running.clear()
            self._changed.set()
            due = max(due + 1 / self._speed, clock())
            await asyncio.sleep(due - clock())

    async def _show(self) -> None:
        while True:
            await self._changed.wait()
            await self._room.wait()
            self._changed.clear()
            self._sent += 1
            if self._sent - self._seen >= IN_FLIGHT:
                self._room.clear()
            data = await self._hub.work(self._frame)
            await self._socket.send_bytes(data)

    def _frame(self) -> bytes:
        header, arrays = frame.describe(self._session)
        running = {"number": self._sent, "running": self._running.is_set(), "speed": self._speed}
        return frame.encode(header | running, arrays)

    # What a page may ask for, by the type of the message

    async def _on_act(self, action: Any) -> None:
        vector = None if action is None else self._hub.world.controls.vector(action)
        self._session.held_action = vector

    async def _on_who(self, who: str) -> None:
        await self._do(self._session.take_over, who)

    async def _on_where(self, where: str) -> None:
        await self._do(self._session.change, where=where)

    async def _on_temperature(self, temperature: float) -> None:
        await self._do(self._session.change, temperature=temperature)

    async def _on_likely(self, likely: bool) -> None:
        await self._do(self._session.change, likely=likely)

    async def _on_luck(self, seed: int) -> None:
        await self._do(self._session.change, seed=seed)

    async def _on_hold(self, hold: tuple[tuple[int, int], ...]) -> None:
        await self._do(self._session.change, hold=hold)

    async def _on_sync(self) -> None:
        await self._do(self._session.sync)

    async def _on_rewind(self, to: int) -> None:
        self._running.clear()
        await self._do(self._session.rewind, to)

    async def _on_reset(self, seed: int) -> None:
        await self._do(self._session.start, Start(seed))

    async def _on_episode(self, episode: str, row: int) -> None:
        await self._do(self._session.start, Start(0, episode, row))

    async def _on_step(self) -> None:
        self._running.clear()
        await self._do(self._session.step)

    async def _on_run(self, running: bool) -> None:
        (self._running.set if running else self._running.clear)()
        self._changed.set()

    async def _on_speed(self, speed: float) -> None:
        self._speed = speed
        self._changed.set()

    async def _on_seen(self, number: int) -> None:
        self._seen = min(max(self._seen, number), self._sent)
        if self._sent - self._seen < IN_FLIGHT:
            self._room.set()

    async def _on_link(self) -> None:
        session = self._session
        text = await self._hub.work(
            lambda: link.encode(self._hub.world, session.origin, session.played())
        )
        if len(text) > link.LONGEST:
            raise SessionError("this is too long for a link; start nearer to what you want to show")
        await self._send_json({"type": "link", "link": text})

    async def _on_follow(self, link: str) -> None:
        note = await self._do(self._follow, link)
        self._running.set()
        await self.say(note)

    def _follow(self, text: str) -> str | None:
        try:
            found = link.decode(self._hub.world, text)
        except ValueError as error:
            raise SessionError(str(error)) from None
        self._session.follow(found.start, found.played)
        return found.note

    async def _on_save(self, format: str, steps: int) -> None:
        if self._clip and not self._clip.done():
            raise SessionError("the clip before is still being made")
        moments = await self._hub.work(frame.clip, self._session, steps)
        self._clip = asyncio.create_task(self._save(moments, format))

    async def _save(self, moments: list, kind: str) -> None:
        try:
            data = await self._hub.encode(self._encoded, moments, kind)
            file = np.frombuffer(data, np.uint8)
            header = {"type": "clip", "format": kind, "frames": len(moments)}
            await self._socket.send_bytes(frame.encode(header, {"file": file}))
        except OSError as error:
            await self.say(f"the clip could not be made: {error}")

    def _encoded(self, moments: list, kind: str) -> bytes:
        frames = pictures.clip_frames(moments)
        comment = f"{self._hub.world.saved.config.task}, played in the world model"
        return pictures.encode_clip(frames, kind, self._speed, comment)

    # Helpers

    async def _do(self, function: Callable, *args: Any, **kwargs: Any) -> Any:
        """Something that changes the session; the page is shown what came of it, errors or not."""
        try:
            return await self._hub.work(function, *args, **kwargs)
        finally:
            self._changed.set()

    async def _send_json(self, message: dict[str, Any]) -> None:
        await self._socket.send_text(json.dumps(message))

    async def _close(self, code: int, reason: str) -> None:
        # A reason has at most 123 bytes.
        with contextlib.suppress(RuntimeError, WebSocketDisconnect, ConnectionError):
            await self._socket.close(code, reason.encode()[:120].decode(errors="ignore"))


async def _first_to_end(*awaitables: Awaitable) -> None:
    """Waits until one ends, cancels the others, and raises what it raised."""
    tasks = [asyncio.ensure_future(x) for x in awaitables]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
