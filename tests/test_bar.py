"""A bar that is drawn over on a terminal, and one line elsewhere."""

import io

import pytest

from common.log import bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_elsewhere_there_is_one_line_at_the_end():
    stream = io.StringIO()
    with bar.Bar("drawing", "pictures", 2000, stream) as progress:
        for _ in range(2000):
            progress.advance()
    assert stream.getvalue().startswith("drawing: 2,000 pictures in ")
    assert stream.getvalue().count("\n") == 1


def test_on_a_terminal_the_line_is_drawn_over_and_cleared(monkeypatch):
    monkeypatch.setattr(bar, "REDRAW_SECONDS", 0)
    stream = Terminal()
    with bar.Bar("drawing", "pictures", 4, stream) as progress:
        progress.advance()
        progress.advance()
    lines = stream.getvalue().split("\r")
    assert lines[1].startswith("drawing [########......................] 1/4 pictures, ")
    assert lines[2].startswith("drawing [###############...............] 2/4 pictures, ")
    assert lines[3].startswith("\x1b[Kdrawing: 2 pictures in ")


def test_without_a_total_there_is_a_count():
    progress = bar.Bar("playing", "steps", None, io.StringIO())
    progress.advance(1500)
    assert progress.line() == "playing 1,500 steps"


def test_after_an_error_nothing_is_claimed():
    stream = Terminal()
    with pytest.raises(RuntimeError), bar.Bar("drawing", "pictures", 4, stream):
        raise RuntimeError
    assert stream.getvalue() == "\r\x1b[K"
