"""A take of an episode holds every row, and the screens that were wanted."""

import numpy as np

from common.envs.scripted import Scripted
from dreamerv2.film.record import record, unpack


def recorded(keys=("counter",), **changes):
    settings = {"screens": True, "wanted": range(100), "whole": False, "max_steps": 50} | changes
    rows = iter(range(100))
    env = Scripted(6)

    def policy(obs, state):
        action = np.eye(3, dtype=np.float32)[next(rows) % 3]
        return action, ({"deter": Tensor(obs["counter"])}, action)

    return record(1, env, policy, keys, advance=lambda: None, **settings)


class Tensor:
    """One row of a batch, as a policy's state holds it."""

    def __init__(self, value):
        self._value = value

    def numpy(self):
        return self._value[None]


def test_a_take_holds_rows_and_the_screens_that_belong_to_them():
    take = recorded()
    assert take.episode.observed[:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert take.episode.reward.tolist() == [0, 1, 2, 3, 1, 2, 3]
    assert take.episode.action.argmax(-1).tolist() == [0, 1, 2, 0, 1, 2, 0]
    assert take.episode.latents["deter"][:, 0].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert [len(group) for group in take.screens] == [1] * 7
    assert [unpack(group[0], (64, 64))[0, 0, 0] for group in take.screens] == [*range(7)]
    assert take.ended and take.score == 12 and take.pictures == 7


def test_only_wanted_screens_are_kept_and_the_rest_is_not_played():
    take = recorded(wanted=range(1, 3))
    assert [group[0] is None for group in take.screens] == [True, False, False]
    assert not take.ended
    whole = recorded(wanted=range(1, 3), whole=True)
    assert [group[0] is None for group in whole.screens] == [True, False, False] + [True] * 4
    assert whole.ended


def test_several_observations_are_kept_side_by_side():
    once, twice = recorded().episode, recorded(keys=["counter", "counter"]).episode
    np.testing.assert_array_equal(twice.observed, np.hstack([once.observed, once.observed]))
