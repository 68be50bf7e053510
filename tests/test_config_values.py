"""Any value for any key is refused in one line, or an agent trains with it.

`--hypothesis-profile long` draws other values each time, and more of them (`tests/conftest.py`).
"""

import math

import numpy as np
import tiny
from hypothesis import given
from hypothesis import strategies as st

from common.data.spaces import OneHot
from dreamerv2.run import blocks, check

CONFIG = blocks.defaults()
# Larger numbers than these are accepted, and take too long here.
QUICK = 20

JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**400), 10**400),
    st.floats(allow_nan=True, allow_infinity=True),
    st.text(max_size=20),
    st.lists(st.integers(-3, 9), max_size=5),
    st.sampled_from(["linear(1,2,0)", "linear(nan,1,5)", "exp(1,2,3)", "while_loop", "[", "*a"]),
)


def accepted(key: str) -> st.SearchStrategy:
    """Values that the key's kind describes: words of its choices, and numbers within its bounds."""
    kind = CONFIG.kind(key)
    found = [st.sampled_from(kind.expected.split(" or ")), st.just(CONFIG[key])]
    for bounds in filter(None, kind.bounds.split(" or ")):
        low, high = map(float, bounds.split(" .. "))
        high = min(high, max(low, QUICK))
        number = st.floats(low, high) | st.integers(math.ceil(low), math.floor(high))
        found += [number, st.lists(number, min_size=4, max_size=4)]
    return st.one_of(found)


@st.composite
def changes(draw):
    """One key and a value for it."""
    key = draw(st.sampled_from(sorted(set(CONFIG.flat) - {"logdir", "jit", "xla"})))
    return key, draw(st.one_of(accepted(key), accepted(key), JUNK))


@given(changes())
def test_a_value_is_refused_in_one_line_or_an_agent_trains_with_it(change):
    key, value = change
    try:
        overrides = tiny.config().update({key: value}).flat
        check.check(tiny.config().update({key: value, "replay.minlen": 1}), OneHot(4), {})
        agent = tiny.agent(**{k.replace(".", "__"): v for k, v in overrides.items()})
    except ValueError as error:
        assert str(error) and "\n" not in str(error) and len(str(error)) < 400
        return
    agent.train(tiny.batch(agent))
    assert int(agent.updates) == 1
    assert all(np.isfinite(v).all() for v in agent.state_dict().values() if v.dtype.kind == "f")
