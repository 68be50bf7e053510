"""A bar that is drawn over on a terminal, and one line elsewhere."""

import io
import re

import pytest

from common.log import bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def terminal(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    return Terminal()


def seen(stream):
    """What was written, without colours and movements of the cursor, in lines."""
    return re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", stream.getvalue()))


def test_elsewhere_there_is_one_line_at_the_end():
    stream = io.StringIO()
    with bar.Bar("drawing", "pictures", 2000, stream) as progress:
        for _ in range(2000):
            progress.advance()
    assert re.fullmatch(r"drawing: 2,000 pictures in \d+\.\d s\n", stream.getvalue())


def test_on_a_terminal_the_line_is_drawn_over_and_cleared(terminal):
    with bar.Bar("drawing", "pictures", 4000, terminal) as progress:
        progress.advance(1000)
    lines = seen(terminal)
    assert any(line.startswith("drawing 1,000/4,000 pictures ━━━━━━━") for line in lines)
    assert lines[-2].startswith("drawing: 1,000 pictures in ")
    assert "\x1b[2K" in terminal.getvalue()  # the line is cleared
    assert max(map(len, lines)) <= 80


def test_without_a_total_there_is_a_count(terminal):
    with bar.Bar("playing", "steps", None, terminal) as progress:
        progress.advance(1500)
    assert any(line.strip() == "playing 1,500 steps" for line in seen(terminal))


def test_after_an_error_nothing_is_claimed(terminal):
    with pytest.raises(RuntimeError), bar.Bar("drawing", "pictures", 4, terminal):
        raise RuntimeError
    assert "drawing: " not in terminal.getvalue()
