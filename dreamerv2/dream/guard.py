"""Keeps strangers' pages away from a server that trusts whoever reaches it."""

import ipaddress
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

Application = Callable[[dict, Callable, Callable], Awaitable[None]]

# Nothing from elsewhere, and no page of others around this one.
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}


class Guard:
    """Passes on only what comes from this server's own page.

    A browser tells with a WebSocket from which page it comes (`Origin`): it must be the server that
    is asked (`Host`). That name must be an IP address, `localhost` or one of `hosts`: to another
    one a stranger could give this machine's address, and so pass for it.
    """

    def __init__(self, app: Application, hosts: set[str]):
        self._app = app
        self._hosts = {host.lower() for host in hosts} | {"localhost"}  # as `urlsplit` gives them

    async def __call__(self, scope: dict[str, Any], receive: Callable, send: Callable) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {name.decode("latin-1"): v.decode("latin-1") for name, v in scope["headers"]}
        host = headers.get("host", "")
        allowed = self._known(host)
        if scope["type"] == "websocket":
            if not allowed or urlsplit(headers.get("origin", "")).netloc != host:
                await send({"type": "websocket.close", "code": 1008})  # answers 403
                return
            await self._app(scope, receive, send)
            return
        if not allowed:
            await _refuse(send)
            return
        await self._app(scope, receive, _with_headers(send))

    def _known(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return name in self._hosts
        return True


def _with_headers(send: Callable) -> Callable:
    async def sending(message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            extra = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]
            message = {**message, "headers": [*message.get("headers", []), *extra]}
        await send(message)

    return sending


async def _refuse(send: Callable) -> None:
    headers = [(b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 421, "headers": headers})
    body = b"this page is not known under that name; use its IP address or localhost\n"
    await send({"type": "http.response.body", "body": body})
