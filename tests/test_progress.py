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


def test_line_tells_phase_steps_frames_rates_returns_and_time_left(clock):
    progress = lib.Progress(10_000, 4, io.StringIO())
    progress.phase("train")
    train(progress, clock, 100)
    progress.episode("train", 2.5)
    assert progress.line() == (
        "train 1,000/10,000 steps (4,000 frames) 40 fps 1 updates/s | 15m 0s left"
        " | return: train 2.5"
    )


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


def test_without_a_terminal_lines_are_few(clock):
    stream = io.StringIO()
    progress = lib.Progress(10_000, 1, stream, interval=30)
    progress.phase("train")
    train(progress, clock, 95)
    progress.close()
    lines = stream.getvalue().splitlines()
    assert len(lines) == 5 and all(line.startswith("train ") for line in lines)


def test_on_a_terminal_one_line_is_drawn_over(clock):
    stream = Terminal()
    progress = lib.Progress(10_000, 1, stream)
    progress.phase("train")
    train(progress, clock, 3)
    progress.show("news")
    progress.close()
    text = stream.getvalue()
    assert text.count("\n") == 2 and "\r\x1b[Knews\n" in text
    assert max(len(part) for part in text.replace("\n", "\r").split("\r")) < 100


def test_stopwatch_gives_shares_since_the_last_call(clock):
    stopwatch = lib.Stopwatch(["env", "train"])
    with stopwatch("env"):
        clock[0] += 1
    clock[0] += 3
    assert stopwatch.fractions() == (4, {"env": 0.25, "train": 0.0})
    with stopwatch("train"):
        clock[0] += 2
    assert stopwatch.fractions() == (2, {"env": 0.0, "train": 1.0})


def test_a_long_run_fits_on_a_narrow_terminal(clock):
    progress = lib.Progress(50_000_000, 4, io.StringIO())
    progress.phase("train")
    train(progress, clock, 100, start=12_345_678, rate=78)
    progress.episode("train", 312)
    assert progress.line() == (
        "train 12.35M/50M steps (49.41M frames) 312 fps 1 updates/s | 5d 14h left"
        " | return: train 312"
    )


@pytest.mark.parametrize(
    "number, text",
    [
        *[(0, "0"), (7.834, "7.83"), (99.97, "100"), (311.4, "311"), (12345, "12,345")],
        *[(50e6, "50M"), (1.2345e8, "123.5M")],
    ],
)
def test_numbers_are_short(number, text):
    assert lib.short(number) == text


@pytest.mark.parametrize(
    "seconds, text", [(5, "5s"), (725, "12m 5s"), (11520, "3h 12m"), (183600, "2d 3h")]
)
def test_durations_are_short(seconds, text):
    assert lib.duration(seconds) == text
