"""A grid of settings: `precision=32,bfloat16 seed=0:5` is ten runs."""

import itertools
import math
import re
from collections.abc import Sequence

MOST_RUNS = 10_000
_RANGE = re.compile(r"(\d+):(\d+)")
# A comma inside brackets belongs to its value: linear(1,0,1e5), [64,64].
_COMMA = re.compile(r",(?![^(\[]*[)\]])")


def cells(text: str) -> list[dict[str, str]]:
    """The settings of each run, the last key of the grid varying fastest.

    text: words `KEY=VALUE,VALUE,...`; `A:B` among the values is A to B - 1.

    Raises:
        ValueError: a word that is none of these, a key twice, an empty range, or too many runs.
    """
    axes: dict[str, list[str]] = {}
    for word in text.split():
        key, equals, values = word.partition("=")
        if not (key and equals and values):
            raise ValueError(f"--grid: got {word}, expected KEY=VALUE,VALUE,... or KEY=A:B")
        if key in axes:
            raise ValueError(f"--grid: {key} is there twice; write all of its values in one word")
        axes[key] = list(dict.fromkeys(_values(key, values)))
    if not axes:
        raise ValueError("--grid: got nothing, expected KEY=VALUE,VALUE,... or KEY=A:B")
    count = math.prod(map(len, axes.values()))
    if count > MOST_RUNS:
        raise ValueError(f"--grid: that is {count:,} runs; expected {MOST_RUNS:,} at most")
    return [dict(zip(axes, row, strict=True)) for row in itertools.product(*axes.values())]


def _values(key: str, text: str) -> list[str]:
    found: list[str] = []
    for value in _COMMA.split(text):
        span = _RANGE.fullmatch(value)
        if not value:
            raise ValueError(f"--grid: {key}={text} has an empty value")
        if not span:
            found.append(value)
            continue
        first, end = int(span[1]), int(span[2])
        if not first < end <= first + MOST_RUNS:
            raise ValueError(
                f"--grid: {key}={value} is no range; A:B is A to B - 1, up to {MOST_RUNS:,} values"
            )
        found += map(str, range(first, end))
    return found


def names(settings: Sequence[dict[str, str]]) -> list[str]:
    """What each run is called, `precision=32,seed=0`: the name of its folder.

    Raises:
        ValueError: two would have the same name.
    """
    found = [
        re.sub(r"[^\w.=,+-]+", "_", ",".join(f"{k}={v}" for k, v in cell.items())).lstrip(".")
        for cell in settings
    ]
    twice = {name for name in found if found.count(name) > 1}
    if twice:
        raise ValueError(f"--grid: two runs would be called {min(twice)}")
    return found
