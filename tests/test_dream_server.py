"""The server of the page: whom it lets in, what it refuses, what it keeps."""

import contextlib
import gc
import json
import socket
import sys
import time
import urllib.error
import urllib.request

import psutil
import pytest
import saved

pytest.importorskip("starlette", reason="needs the extra dream")
pytest.importorskip("uvicorn", reason="needs the extra dream")
websockets = pytest.importorskip("websockets", reason="needs the extra dream")

from dream_server import PATIENCE, Page, serving  # noqa: E402
from websockets.sync.client import connect  # noqa: E402

from common.data.driver import EnvLostError  # noqa: E402
from dreamerv2.dream import __main__ as command  # noqa: E402
from dreamerv2.dream import messages  # noqa: E402
from dreamerv2.dream.connection import IN_FLIGHT  # noqa: E402
from dreamerv2.dream.guard import Guard  # noqa: E402
from dreamerv2.dream.session import Session  # noqa: E402

MOST = 3  # sessions


@pytest.fixture(scope="module")
def logdir(tmp_path_factory):
    logdir = tmp_path_factory.mktemp("run")
    saved.save(logdir)
    return logdir


@pytest.fixture(scope="module")
def served(logdir):
    with serving(logdir, MOST) as served:
        yield served


@pytest.fixture(autouse=True)
def left(request):
    """The places are free again: a busy machine notices late that a page was closed."""
    yield
    if "served" in request.fixturenames:
        visitors = request.getfixturevalue("served").visitors
        until = time.monotonic() + PATIENCE
        while len(visitors) and time.monotonic() < until:
            time.sleep(0.01)


def get(address, **headers):
    """Status, headers and body."""
    request = urllib.request.Request(address, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_it_serves_its_page_and_nothing_else(served):
    status, headers, body = get(f"{served.address}/")
    assert status == 200 and b"Play the dream" in body
    assert "default-src 'self'" in headers["content-security-policy"]
    assert b"http://" not in body and b"https://" not in body  # nothing from elsewhere
    assert get(f"{served.address}/page/app.js")[0] == 200
    for path in ("/page/server.py", "/page/..%2Fserver.py", "/page/", "/config.yaml", "/docs"):
        assert get(served.address + path)[0] == 404
    status, _, body = get(f"{served.address}/episodes")
    assert (status, json.loads(body)) == (200, [])
    assert get(f"{served.address}/thumbnails/eval_episodes/..%2F..%2Fx.png")[0] == 404


@pytest.mark.parametrize(
    ("origin", "host", "allowed"),
    [
        ("http://{own}", None, True),
        ("http://localhost:{port}", "localhost:{port}", True),
        ("http://evil.example", None, False),
        ("http://127.0.0.1:1", None, False),
        ("null", None, False),
        (None, None, False),
        # A stranger's name that leads to this machine: origin and host agree.
        ("http://evil.example:{port}", "evil.example:{port}", False),
    ],
)
def test_only_its_own_page_may_play(served, origin, host, allowed):
    own, port = served.host, served.host.rpartition(":")[2]
    origin = origin and origin.format(own=own, port=port)
    address = f"ws://{(host or own).format(port=port)}/play"
    with socket.create_connection(own.split(":")) as sock:
        if allowed:
            with connect(address, sock=sock, origin=origin, open_timeout=PATIENCE):
                return
        with (
            pytest.raises(websockets.exceptions.InvalidStatus) as refusal,
            connect(address, sock=sock, origin=origin, open_timeout=PATIENCE),
        ):
            pass
    assert refusal.value.response.status_code == 403


def test_under_a_stranger_s_name_there_is_no_page_either(served):
    assert get(f"{served.address}/", Host="evil.example")[0] == 421
    guard = Guard(None, {"box"})
    known = ("localhost:8000", "192.168.1.7:80", "[::1]:8000", "box")
    assert all(guard._known(host) for host in known)
    assert Guard(None, {"MyLaptop"})._known("mylaptop:8000")
    assert not any(guard._known(host) for host in ("", "evil.example", "[", "127.0.0.1.evil"))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("{", "a message is not JSON"),
        (b"bytes", "a message is not text"),
        ('{"type": "fly"}', "unknown type 'fly'"),
        ('{"type": "rewind", "to": -1}', "rewind: to is -1, expected a whole number"),
        ("x" * (messages.LONGEST + 1), ""),
    ],
)
def test_a_broken_message_ends_that_session_with_a_reason_and_no_other(served, data, reason):
    with Page(served) as good, Page(served) as bad:
        bad.until("frame")
        bad.socket.send(data)
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            while True:
                bad.receive()
        assert closed.value.rcvd.code == (1008 if reason else 1009)
        assert reason in closed.value.rcvd.reason
        good.send("step")
        good.until("frame", step=1)


def test_what_cannot_be_done_is_said_and_the_session_goes_on(served):
    with Page(served) as page:
        page.send("rewind", to=7)
        assert page.until("notice")["text"] == "rewind to 7: the timeline has 1 moments"
        for text in ("nonsense", "eJw%20 ."):  # mistyped, or with what a mail put around it
            page.send("follow", link=text)
            assert "not one of this page's" in page.until("notice")["text"]
        page.send("step")
        page.until("frame", step=1)


def test_a_session_whose_game_is_lost_ends_with_that_reason(served, monkeypatch):
    def lost(session):
        raise EnvLostError("the environment's process died")

    monkeypatch.setattr(Session, "step", lost)
    with Page(served) as page:
        page.until("frame")
        page.send("step")
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            while True:
                page.receive()
    assert closed.value.rcvd.code == 1011
    assert closed.value.rcvd.reason == "the game is lost: the environment's process died"


def test_there_are_so_many_sessions_and_no_more(served):
    with contextlib.ExitStack() as stack:
        for _ in range(MOST):
            stack.enter_context(Page(served)).until("frame")
        late = stack.enter_context(Page(served))
        with pytest.raises(websockets.exceptions.ConnectionClosedError) as closed:
            late.receive()
    assert closed.value.rcvd.code == 1013
    assert closed.value.rcvd.reason == f"all {MOST} places are taken; more with --sessions"


def test_a_slow_page_gets_fewer_frames_and_then_the_newest(served):
    with Page(served, slow=True) as page:
        page.send("speed", speed=30)
        page.send("run", running=True)
        frames = []
        with pytest.raises(TimeoutError):
            while True:
                message = page.receive(timeout=3)
                frames += [message] if message["type"] == "frame" else []
        assert len(frames) == IN_FLIGHT
        page.send("run", running=False)
        page.slow = False
        page.send("seen", number=frames[-1]["number"])
        newest = page.until("frame", running=False)
        assert newest["step"] > frames[-1]["step"] + IN_FLIGHT
        assert newest["number"] <= IN_FLIGHT + 2  # what came between was never put in a queue


def test_a_newer_checkpoint_is_said_and_the_old_one_goes_on(logdir, served):
    with Page(served) as page:
        hello = page.until("hello")
        saved.save(logdir, agent_steps=200)
        text = page.until("notice")["text"]
        assert "newer checkpoint (agent step 200)" in text and "that of step 100" in text
        page.send("step")
        page.until("frame", step=1)
        assert hello["agent_steps"] == 100
    with Page(served) as page:
        assert "newer checkpoint" in page.until("notice")["text"]
    (logdir / "checkpoints" / "000000000200.npz").unlink()


def test_many_visits_leave_the_process_as_it_was(served):
    def visit():
        with Page(served) as page:
            page.send("step")
            page.until("frame", step=1)

    def sessions():
        gc.collect()
        # Not isinstance: it asks a weak proxy for its class, an error where what it meant is gone.
        return sum(type(x) is Session for x in gc.get_objects())

    def settled():
        """Bytes, once all sessions but those of other tests are gone."""
        for _ in range(PATIENCE):
            if not len(served.visitors) and sessions() <= others:
                return psutil.Process().memory_info().rss
            time.sleep(0.1)
        raise AssertionError(f"{len(served.visitors)} open, {sessions()} in memory")

    others = sessions()
    for _ in range(10):
        visit()
    before, threads = settled(), psutil.Process().num_threads()
    for _ in range(40):
        visit()
    assert settled() - before < 8e6  # bytes; a session with its emulator takes about one million
    assert psutil.Process().num_threads() <= threads + 1


# The command


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--port", "70000"], "--port 70000: expected 0 to 65535"),
        (["--host", "192.0.2.1"], "--host 192.0.2.1 --port 8000: "),
        (["--sessions", "0"], "--sessions: got 0, expected a whole number from 1 on"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, capsys, flags, message):
    with pytest.raises(SystemExit) as stop:
        command.main(["--logdir", str(tmp_path), *flags])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and message in error and error.count("\n") == 1


def test_a_port_in_use_and_a_logdir_without_a_checkpoint_are_named(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        with pytest.raises(SystemExit):
            command.main(["--logdir", str(tmp_path), "--port", port])
    expected = f"error: port {port} of 127.0.0.1 is in use; name another with --port\n"
    assert capsys.readouterr().err == expected
    with pytest.raises(SystemExit):
        command.main(["--logdir", str(tmp_path), "--port", "0"])
    assert "no checkpoint here" in capsys.readouterr().err


def test_without_the_extra_the_command_says_what_to_install(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(SystemExit):
        command.main(["--logdir", str(tmp_path)])
    assert "pip install -e '.[dream]'" in capsys.readouterr().err
