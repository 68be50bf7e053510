"""Published returns to compare an agent with, and how they were measured."""

from typing import NamedTuple


class Score(NamedTuple):
    """Mean return per episode, with the protocol behind it."""

    name: str
    value: float
    protocol: str


class _Known(NamedTuple):
    random: float
    human: float
    dreamer: tuple[float, int]  # mean over the last 10M of 200M env frames, number of seeds
    # Million env frames -> mean over seeds of the returns in the million before.
    dreamer_at: dict[int, float]


# Random and human: Wang et al. 2016 (arXiv 1511.06581), Table 2. DreamerV2: scores of the author's
# release 2.2.0; Breakout has 8 seeds up to 2M frames and 5 after, Pong has 8.
_KNOWN = {
    "atari_breakout": _Known(
        *(1.7, 30.5, (447.8, 4)),
        {1: 1.5, 2: 2.4, 3: 3.1, 5: 3.2, 7: 7.5, 10: 9.2, 15: 12.7, 20: 20.0, 30: 40.5}
        | {50: 237.0, 70: 313.2, 100: 370.7, 150: 456.8},
    ),
    "atari_pong": _Known(
        *(-20.7, 14.6, (19.7, 8)),
        {1: -18.3, 2: -8.6, 3: -0.2, 5: 11.3, 7: 14.1, 10: 17.4, 15: 18.5, 20: 18.7, 30: 19.3}
        | {50: 19.6, 70: 19.5, 100: 19.8, 150: 19.7},
    ),
}
_NO_OPS = "up to 30 no-ops at the start, no sticky actions (Wang et al. 2016)"
_TRAINING = "training return, sampled and sticky actions (scores of the author's release 2.2.0)"


def published(task: str, env_frames: int) -> list[Score]:
    """What is known for a task, empty for most.

    DreamerV2 is given at the end of training and near `env_frames`: at the last point before it
    that is listed, or at the first.
    """
    if task not in _KNOWN:
        return []
    known = _KNOWN[task]
    points = list(known.dreamer_at)
    near = max((m for m in points if m * 1_000_000 <= env_frames), default=points[0])
    final, seeds = known.dreamer
    return [
        Score("random", known.random, f"uniform actions, {_NO_OPS}"),
        Score("human", known.human, f"professional tester, {_NO_OPS}"),
        Score(f"DreamerV2 at {near}M frames", known.dreamer_at[near], _TRAINING),
        Score("DreamerV2 at 200M frames", final, f"{_TRAINING}; last 10M frames, {seeds} seeds"),
    ]
