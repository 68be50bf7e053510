"""Play inside an agent's world model, in the browser: `python -m dreamerv2.dream --logdir DIR`.

Exit codes: 0 when it is stopped (Ctrl+C), 2 for a mistake in what was asked for.
"""

import contextlib
import errno
import os
import socket
import sys
import webbrowser
from collections.abc import Sequence

from common.commands import MISTAKES, Parser, at_least, one_line_errors

# What takes seconds to import waits until the quick checks have passed.


def main(argv: Sequence[str] | None = None) -> int:
    """The command; returns its exit code."""
    with one_line_errors(*MISTAKES):
        args = _parser().parse_args(argv)
        _check_packages()
        from common.device import import_tensorflow

        listening = listen(args.host, args.port)
        from dreamerv2.run import restore

        saved = restore.read(args.logdir, args.checkpoint).with_env(args.env)
        import_tensorflow()
        from dreamerv2.dream import world

        loaded = world.load(saved, args.logdir, args.seed)
    from dreamerv2.dream.serve import serve

    host, port = listening.getsockname()[:2]
    shown = "127.0.0.1" if host == "0.0.0.0" else f"[{host}]" if ":" in host else host
    address = f"http://{shown}:{port}/"
    print(f"{saved.config.task}, trained for {saved.env_frames:,} frames: open {address}")
    print("Ctrl+C ends it.", flush=True)
    if not args.no_browser and _has_screen():
        webbrowser.open(address)
    with contextlib.suppress(KeyboardInterrupt):
        serve(loaded, listening, args.host, args.sessions)
    return 0


def _parser() -> Parser:
    parser = Parser("dream", "Play inside an agent's world model, in the browser.")
    parser.add_env()
    parser.add_argument("--port", type=at_least(0), default=8000, help="0: any free one")
    parser.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on; 0.0.0.0 lets other machines in, a phone for example",
    )
    parser.add_argument("--sessions", type=at_least(1), default=8, help="pages open at once")
    parser.add_argument("--no-browser", action="store_true", help="do not open the page")
    return parser


def _check_packages() -> None:
    try:
        import starlette  # noqa: F401
        import uvicorn  # noqa: F401
        import websockets  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"the page needs the package {error.name}: in a checkout, pip install -e '.[dream]'"
        ) from None


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; ValueError where the port is taken or the address is of another
    machine."""
    if port > 65535:
        raise ValueError(f"--port {port}: expected 0 to 65535")
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listening = socket.socket(family, socket.SOCK_STREAM)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen()  # so that no second one can be bound to it while the agent is loaded
    except socket.gaierror as error:
        raise ValueError(f"--host {host}: {error.strerror}") from None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ValueError(f"port {port} of {host} is in use; name another with --port") from None
        raise ValueError(f"--host {host} --port {port}: {error.strerror}") from None
    return listening


def _has_screen() -> bool:
    """Whether a browser would open in a window, and not in the terminal."""
    return sys.platform in ("darwin", "win32") or bool(
        os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    )


if __name__ == "__main__":
    sys.exit(main())
