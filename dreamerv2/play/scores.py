"""Published returns to compare an agent with, and how they were measured."""

from typing import NamedTuple


class Score(NamedTuple):
    """Mean return per episode, with the protocol behind it."""

    name: str
    value: float
    protocol: str


class Spread(NamedTuple):
    """Returns of several seeds at one point of training."""

    mean: float
    low: float  # the worst seed
    high: float  # the best seed
    seeds: int


class Known(NamedTuple):
    """What is published for one task."""

    random: float
    human: float
    dreamer: tuple[float, int]  # mean over the last 10M of 200M env frames, number of seeds
    # Million env frames -> training returns in the million before.
    curve: dict[int, Spread]


# Random and human: Wang et al. 2016 (arXiv 1511.06581), Table 2. DreamerV2: the file
# scores/atari-dreamerv2.json of the author's release 2.2.0, which has the mean training return per
# million frames of each seed. On Breakout three of eight seeds end at 2M frames and one at 181M.
KNOWN = {
    "atari_breakout": Known(
        random=1.7,
        human=30.5,
        dreamer=(447.8, 4),
        curve={
            1: Spread(1.5, 0.7, 3.2, 8),
            2: Spread(2.4, 1.1, 5.7, 8),
            5: Spread(3.2, 1.9, 4.3, 5),
            10: Spread(9.2, 8.6, 10.0, 5),
            20: Spread(20.0, 13.2, 25.8, 5),
            50: Spread(237.0, 146.7, 304.8, 5),
            100: Spread(370.7, 333.2, 445.3, 5),
            150: Spread(456.8, 428.6, 477.2, 5),
            199: Spread(490.3, 455.4, 526.4, 4),
        },
    ),
    "atari_pong": Known(
        random=-20.7,
        human=14.6,
        dreamer=(19.7, 8),
        curve={
            1: Spread(-18.3, -19.3, -15.7, 8),
            2: Spread(-8.6, -15.0, -3.2, 8),
            5: Spread(11.3, 7.0, 16.3, 8),
            10: Spread(17.4, 13.7, 19.7, 8),
            20: Spread(18.7, 16.9, 20.1, 8),
            50: Spread(19.6, 18.1, 20.8, 8),
            100: Spread(19.8, 17.1, 20.9, 8),
            150: Spread(19.7, 17.2, 20.7, 8),
            199: Spread(19.6, 16.7, 20.9, 8),
        },
    ),
}
_NO_OPS = "up to 30 no-ops at the start, no sticky actions (Wang et al. 2016)"
_TRAINING = "training return, sampled and sticky actions (scores of the author's release 2.2.0)"


def published(task: str, env_frames: int) -> list[Score]:
    """What is known for a task, empty for most.

    DreamerV2 is given at the end of training and near `env_frames`: at the last point before it
    that is listed, or at the first.
    """
    if task not in KNOWN:
        return []
    known = KNOWN[task]
    points = list(known.curve)
    near = max((m for m in points if m * 1_000_000 <= env_frames), default=points[0])
    final, seeds = known.dreamer
    return [
        Score("random", known.random, f"uniform actions, {_NO_OPS}"),
        Score("human", known.human, f"professional tester, {_NO_OPS}"),
        Score(f"DreamerV2 at {near}M frames", known.curve[near].mean, _TRAINING),
        Score("DreamerV2 at 200M frames", final, f"{_TRAINING}; last 10M frames, {seeds} seeds"),
    ]
