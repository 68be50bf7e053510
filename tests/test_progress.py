import io
import re
import time

import pytest

from common.log import progress as lib


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


def train(progress, clock, seconds, start=0, rate=10):
    for second in range(seconds + 1):
        progress.update(start + second * rate, second)
        clock[0] += 1


def rate_of(progress):
    return float(re.search(r"([\d.]+) fps", progress.line())[1])


def test_line_tells_phase_steps_returns_rates_and_times(clock):
    progress = lib.Progress(10_000, 4, io.StringIO())
    progress.phase("train", next_eval=1_600)
    train(progress, clock, 100)
    for score in (2.5, 7.0, 3.0):
        progress.episode("train", score)
    progress.episode("eval", 5.0)
    assert progress.line() == (
        "train 1,000  of 10,000  return 3 best 7  eval 5 best 5  40 fps  1 updates/s"
        "  eval in 60s  end in 15m  ran 2m"
    )


def test_a_long_run_fits_on_80_columns_with_all_that_matters(clock):
    progress = lib.Progress(50_000_000, 4, io.StringIO())
    progress.begin(12_340_000, 700_000, 37 * 3600)
    progress.phase("train", next_eval=12_400_000)
    train(progress, clock, 100, start=12_345_678, rate=78)
    for score in (447.8, 312.4):
        progress.episode("train", score)
    progress.episode("eval", 400)
    whole = progress.line()
    assert whole == (
        "train 12.35M  of 50M  return 312 best 448  eval 400 best 400  312 fps  1 updates/s"
        "  eval in 10m  end in 5.6d  ran 37h"
    )
    line = progress.line(79)
    assert len(line) <= 79
    assert line == ("train 12.35M  return 312 best 448  312 fps  eval in 10m  end in 5.6d  ran 37h")
    assert progress.line(40) == "train 12.35M  return 312 best 448"


def test_rates_are_recent_and_leave_other_phases_out(clock):
    progress = lib.Progress(10_000, 1, io.StringIO())
    progress.phase("prefill")
    train(progress, clock, 5, rate=1000)
    progress.phase("train")
    train(progress, clock, 10, rate=10)
    progress.phase("eval")
    clock[0] += 500
    progress.phase("train")
    train(progress, clock, 10, start=100, rate=10)
    assert rate_of(progress) == pytest.approx(10, rel=0.1)
    train(progress, clock, 500, start=200, rate=2)
    assert rate_of(progress) == pytest.approx(2, rel=0.1)


def test_a_resumed_run_shows_where_it_is_from_the_first_line_on(clock):
    first = lib.Progress(10_000, 1, io.StringIO())
    for score in (9.0, 4.0):
        first.episode("train", score)
    stream = io.StringIO()
    resumed = lib.Progress(10_000, 1, stream)
    resumed.load_state(first.state())
    resumed.begin(4_321, 77, 3600)
    resumed.phase("train")
    assert stream.getvalue() == "train 4,321  of 10,000  return 4 best 9  ran 60m\n"


def test_without_a_terminal_lines_are_few(clock):
    stream = io.StringIO()
    progress = lib.Progress(10_000, 1, stream, interval=30)
    progress.phase("train")
    train(progress, clock, 95)
    progress.show("a [note] as it is")
    progress.close()
    lines = stream.getvalue().splitlines()
    assert lines.count("a [note] as it is") == 1
    assert len(lines) == 6 and sum(line.startswith("train ") for line in lines) == 5


def test_on_a_terminal_one_line_is_drawn_over(clock, monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    stream = Terminal()
    progress = lib.Progress(10_000, 1, stream)
    progress.phase("train")
    train(progress, clock, 50)
    progress.episode("train", 123.4)
    progress.show("news")
    progress.close()
    text = stream.getvalue()
    assert "\x1b[2K" in text and "news\n" in text
    lines = re.split(r"[\r\n]+", re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text))
    assert max(map(len, lines)) < 60
    assert sum(line.startswith("news") for line in lines) == 1
    assert [line for line in lines if line][-1].startswith("train 500")


def test_stopwatch_gives_shares_since_the_last_call(clock):
    stopwatch = lib.Stopwatch(["env", "train"])
    with stopwatch("env"):
        clock[0] += 1
    clock[0] += 3
    assert stopwatch.fractions() == (4, {"env": 0.25, "train": 0.0})
    with stopwatch("train"):
        clock[0] += 2
    assert stopwatch.fractions() == (2, {"env": 0.0, "train": 1.0})


@pytest.mark.parametrize(
    "number, text",
    [
        *[(0, "0"), (7.834, "7.83"), (99.97, "100"), (311.4, "311"), (12345, "12,345")],
        *[(50e6, "50M"), (1.2345e8, "123.5M"), (-7.834, "-7.83"), (-1234.5, "-1,234")],
    ],
)
def test_numbers_are_short(number, text):
    assert lib.short(number) == text


@pytest.mark.parametrize(
    "seconds, text", [(5, "5s"), (725, "12m5s"), (11520, "3h12m"), (183600, "2d3h")]
)
def test_durations_are_short(seconds, text):
    assert lib.duration(seconds) == text
