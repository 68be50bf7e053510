import json

import pytest

from common.when import Every


def test_every_is_due_on_the_first_call_and_then_once_per_interval():
    every = Every(4)
    assert [step for step in range(3, 16) if every(step)] == [3, 7, 11, 15]


def test_a_clock_of_another_interval_begins_anew():
    slow, fast = Every(1000), Every(1)
    assert slow(10) and not slow(500)
    fast.load_state(slow.state())
    assert [fast(500), fast(500), fast(501)] == [True, False, True]
    older = Every(1000)
    older.load_state({"last": 10})  # as versions before wrote it
    assert not older(500) and older(1010)


def test_every_catches_up_one_at_a_time():
    every = Every(10)
    assert every(0)
    assert [every(35) for _ in range(5)] == [True, True, True, False, False]
    assert not every(39)
    assert every(40)


def test_every_zero_is_never_due():
    every = Every(0)
    assert not any(every(step) for step in range(5))


def test_a_restored_clock_ticks_when_the_saved_one_would():
    every = Every(4)
    for step in range(3, 9):
        every(step)
    fresh = Every(4)
    fresh.load_state(json.loads(json.dumps(every.state())))
    assert [fresh(step) for step in range(9, 16)] == [every(step) for step in range(9, 16)]
    untouched = Every(4)
    untouched.load_state(Every(4).state())
    assert untouched(2)


def test_a_negative_interval_is_refused():
    with pytest.raises(ValueError, match="-5"):
        Every(-5)
