"""Small networks that read game variables out of the model's state."""

import time
from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
from sklearn.linear_model import Ridge
from sklearn.neural_network import MLPRegressor
from threadpoolctl import threadpool_limits

# Addresses in the console's memory, in pixels of its 210 x 160 screen. The ball's y is 0 while
# there is no ball.
RAM = {
    "breakout": {"ball_x": 99, "ball_y": 101, "paddle_x": 72},
    "pong": {"ball_x": 49, "ball_y": 54, "own_y": 51, "opponent_y": 50},
}
# Faster is not the ball moving but a new ball: pixels per env frame.
FASTEST = 5
# Rows and episodes below which an error would say nothing.
MIN_ROWS, MIN_EPISODES = 100, 3
MAX_ROWS = 50_000  # of 64x64 pixels 0.8 GB, and scikit-learn makes copies
HIDDEN = (128,) * 5
ALPHAS = 10.0 ** np.arange(1, 7)  # of inputs with unit variance; less is singular in float32
PATIENCE, MAX_EPOCHS = 8, 100
SAY_EVERY = 10.0  # seconds

Show = Callable[[str], None]


class Split(NamedTuple):
    """bool [N] each; whole episodes, none in two of them."""

    train: np.ndarray
    valid: np.ndarray  # chooses the ridge penalty and when to stop
    test: np.ndarray


def game_variables(
    ram: np.ndarray, episode: np.ndarray, game: str, action_repeat: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Variables of the game, float [N] each, and where all of them mean something, bool [N].

    ram: uint8 `[N, 128]`. game: a key of `RAM`.

    Velocities are differences to the row before, in pixels per agent step. Left out are rows
    without a ball, and rows whose row before had none, another one, or lies in another episode.
    """
    variables = {name: ram[:, index].astype(float) for name, index in RAM[game].items()}
    present = variables["ball_y"] > 0
    same = np.diff(episode, prepend=-1) == 0
    valid = present & np.roll(present, 1) & same
    for axis in "xy":
        velocity = np.diff(variables[f"ball_{axis}"], prepend=0)
        variables[f"ball_v{axis}"] = velocity
        valid &= np.abs(velocity) <= FASTEST * action_repeat
    return variables, valid


def thinned(rows: np.ndarray) -> np.ndarray:
    """At most MAX_ROWS of `rows`, evenly spread."""
    if len(rows) <= MAX_ROWS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MAX_ROWS).astype(int)]


def split_by_episode(episode: np.ndarray, seed: int) -> Split | None:
    """About 3 in 10 episodes for the test and 2 in 10 for validation, at least one each.

    None where there are fewer than MIN_ROWS rows or MIN_EPISODES episodes.
    """
    names = np.random.default_rng(seed).permutation(np.unique(episode))
    if len(episode) < MIN_ROWS or len(names) < MIN_EPISODES:
        return None
    tests, valids = max(1, round(0.3 * len(names))), max(1, round(0.2 * len(names)))
    valid = np.isin(episode, names[tests : tests + valids])
    test = np.isin(episode, names[:tests])
    return Split(~valid & ~test, valid, test)


@threadpool_limits.wrap(limits=1)  # layers this small lose time to threads, up to 15-fold
def probe(
    inputs: Mapping[str, np.ndarray],
    targets: np.ndarray,
    split: Split,
    seed: int,
    show: Show,
) -> dict[str, dict[str, np.ndarray]]:
    """Mean absolute errors `[V]` in the test episodes, by input and kind of probe.

    inputs: `[N, ...]` each. targets: `[N, V]`.

    Returns:
        `{input: {"linear": errors, "mlp": errors}}`, and under `mean` what always predicting the
        mean of the training episodes gives.
    """
    mean, std = targets[split.train].mean(0), targets[split.train].std(0)
    y = (targets - mean) / np.maximum(std, 1e-6)

    def error(prediction, rows):
        return np.abs(prediction * np.maximum(std, 1e-6) + mean - targets[rows]).mean(0)

    none = np.zeros_like(y[split.test])
    errors = {"mean": {"mean": error(none, split.test)}}
    for name, values in inputs.items():
        x = standardized(values.reshape(len(values), -1), split.train)
        errors[name] = {}
        for kind, fit in (("linear", fit_linear), ("mlp", fit_mlp)):
            say = _prefixed(f"probe {name} {kind}: ", show)
            predict = fit(x, y, split, seed, say)
            errors[name][kind] = error(predict(x[split.test]), split.test)
            say("done")
    return errors


def _prefixed(prefix: str, show: Show) -> Show:
    return lambda line: show(prefix + line)


def standardized(x: np.ndarray, train: np.ndarray) -> np.ndarray:
    """`x` `[N, F]` with mean 0 per feature and one scale for all, both of the training rows.

    One scale for all, so that a pixel that is lit once does not become the largest input.
    """
    x = np.float32(x) - x[train].mean(0, dtype=np.float32)
    return x / max(1e-6, float(x[train].std()))


def fit_linear(x: np.ndarray, y: np.ndarray, split: Split, seed: int, show: Show) -> Callable:
    """Ridge regression, with the penalty that is best in the validation episodes."""
    models = [Ridge(alpha).fit(x[split.train], y[split.train]) for alpha in ALPHAS]
    return min(models, key=lambda model: _validation_error(model, x, y, split)).predict


def fit_mlp(x: np.ndarray, y: np.ndarray, split: Split, seed: int, show: Show) -> Callable:
    """Five hidden layers, as they were when they did best in the validation episodes."""
    model = MLPRegressor(hidden_layer_sizes=HIDDEN, random_state=seed)
    best, waited = np.inf, 0
    weights: tuple[list, list] = [], []
    said = time.monotonic()
    for epoch in range(1, MAX_EPOCHS + 1):
        model.partial_fit(x[split.train], y[split.train])
        error = _validation_error(model, x, y, split)
        if time.monotonic() - said > SAY_EVERY:
            said = time.monotonic()
            show(f"epoch {epoch} of at most {MAX_EPOCHS}, validation error {error:.3g}")
        waited += 1
        if error < best:
            best, waited = error, 0
            weights = [w.copy() for w in model.coefs_], [b.copy() for b in model.intercepts_]
        if waited > PATIENCE:
            break
    model.coefs_, model.intercepts_ = weights
    return model.predict


def _validation_error(model, x, y, split) -> float:
    return float(np.abs(model.predict(x[split.valid]) - y[split.valid]).mean())
