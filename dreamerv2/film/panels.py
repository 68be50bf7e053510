"""Panels that show what an agent sees, thinks and does at every row of an episode.

Shape letters: T rows (one per agent step), K latent variables, C classes, A action, D vector.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from common.log import paint
from common.report.tables import score
from dreamerv2.agent.rssm import State
from dreamerv2.film.insight import Forecast, Insight, Opinion
from dreamerv2.film.vectors import Bars, board_shape, boards

# A dream sees so many rows, then goes on alone, and starts again [agent steps].
DREAM_CONTEXT, DREAM_STEPS = 5, 45
SMALLEST_FONT = 8  # that can be read


class Episode(NamedTuple):
    """What was kept of an episode, the first observation included."""

    observed: np.ndarray  # [T, ...]: images uint8 or vectors float32, of the key that is shown
    reward: np.ndarray  # float64 [T]
    action: np.ndarray  # float32 [T, A]; row t: what was done there
    latents: State  # posteriors, [T, ...]


class Panel:
    """Shows something for every row, in an area uint8 [height, width, 3] that comes empty."""

    def titles(self, row: int) -> tuple[str, ...]:
        """What to write above it, the longest first; the first that fits is taken."""
        raise NotImplementedError

    def signal(self, row: int) -> paint.Color | None:
        """The colour of title and border while the panel wants attention."""
        return None

    def draw(self, area: np.ndarray, row: int) -> None:
        raise NotImplementedError


class Picture(Panel):
    """Images [T, H, W, C] or vectors [T, D], the latter as `bars`, or many as cells between `low`
    and `high` [D]."""

    def __init__(
        self, name: Sequence[str], seen: np.ndarray, low=None, high=None, bars: Bars | None = None
    ):
        self._name, self._bars = tuple(name), bars
        self._seen, self._low = seen, low
        if low is not None:
            # A number that never changes would fill its bar with noise of the model.
            self._span = np.maximum(high - low, max(1e-6, 0.1 * float((high - low).max())))

    def titles(self, row: int) -> tuple[str, ...]:
        return self._name

    def draw(self, area: np.ndarray, row: int) -> None:
        if self._seen.ndim == 4:
            paint.centered(area, paint.zoomed(paint.rgb(self._seen[row]), *area.shape[:2]))
        elif self._bars:
            self._bars.draw(area, self._seen[row])
        else:
            paint.vector(area, (self._seen[row] - self._low) / self._span)


class Prediction(Picture):
    """What the model expected from `age` agent steps ago; `dream`: without real actions."""

    def __init__(self, forecast: Forecast, dream: bool, low=None, high=None, bars=None):
        super().__init__((), forecast.seen, low, high, bars)
        self._age, self._dream = forecast.age, dream

    def titles(self, row: int) -> tuple[str, ...]:
        age = self._age[row]
        if not self._dream:
            return (f"open loop, {age} steps", f"open loop {age}", f"open {age}")
        return (f"DREAM  t+{age}",) if age else ("dream: watching", "watching")

    def signal(self, row: int) -> paint.Color | None:
        return paint.MAGENTA if self._dream and self._age[row] else None


class Latent(Panel):
    """Every variable a line: probabilities of its classes, and in gold the class that was drawn.

    Gaussian latents: the values, as a square of cells.
    """

    def __init__(self, latents: State):
        stoch = np.asarray(latents["stoch"], np.float32)
        if "logit" not in latents:
            self._cells = paint.square(0.5 + stoch / 6)  # three standard deviations either way
            self._drawn = np.zeros(self._cells.shape, bool)
            self._size = f"{stoch.shape[-1]}"
            return
        logit = np.asarray(latents["logit"], np.float32)
        probs = np.exp(logit - logit.max(-1, keepdims=True))
        self._cells = probs / probs.sum(-1, keepdims=True)
        self._drawn = stoch > 0.5
        self._size = "{}x{}".format(*stoch.shape[1:])

    def titles(self, row: int) -> tuple[str, ...]:
        return (f"latent {self._size}", "latent")

    def draw(self, area: np.ndarray, row: int) -> None:
        image = paint.heat(self._cells[row])
        image[self._drawn[row]] = paint.GOLD
        area[:] = paint.FIELD
        paint.centered(area, paint.zoomed(image, *area.shape[:2]))


class Policy(Panel):
    """Probabilities of the actions, with the chosen one in green; continuous ones between -1 and 1,
    with the most likely value in gold."""

    def __init__(
        self, policy: np.ndarray, action: np.ndarray, names: Sequence[str] | None, font: int
    ):
        self._policy, self._action, self._font = policy, action, font
        self._discrete = names is not None
        self._names = names or [f"a{i}" for i in range(action.shape[1])]

    def titles(self, row: int) -> tuple[str, ...]:
        if not self._discrete:
            return ("policy",)
        name = self._names[self._action[row].argmax()]
        return (f"policy: {name}", name)

    def draw(self, area: np.ndarray, row: int) -> None:
        height, width, _ = area.shape
        line = height // len(self._names)
        if line < 2:
            self._cells(area, row)
            return
        # Capitals alone, as most names are, need less than a line of text.
        font = min(self._font, max(line + 1, SMALLEST_FONT))
        left = 0
        if line + 1 >= SMALLEST_FONT:
            left = min(width * 2 // 3, 6 + max(paint.text_width(n, font) for n in self._names))
        for index, name in enumerate(self._names):
            chosen = self._discrete and self._action[row, index] > 0.5
            top = index * line
            if left:
                color = paint.GREEN if chosen else paint.DIM
                paint.label(area[top : top + line, : left - 2], name, font, color)
            thickness = max(1, min(line - max(1, line // 6), 2 * self._font))
            start = top + (line - thickness) // 2
            self._bar(area[start : start + thickness, left:], row, index, chosen)

    def _cells(self, area: np.ndarray, row: int) -> None:
        """More actions than lines of pixels: a cell for each, the brighter the likelier."""
        values = self._policy[row]
        shares = values / values.max() if self._discrete else (values.clip(-1, 1) + 1) / 2
        image = paint.heat(paint.square(shares))
        if self._discrete:
            image.reshape(-1, 3)[self._action[row].argmax()] = paint.GREEN
        area[:] = paint.FIELD
        paint.centered(area, paint.zoomed(image, *area.shape[:2]))

    def _bar(self, area: np.ndarray, row: int, index: int, chosen: bool) -> None:
        width = area.shape[1]
        area[:] = paint.FIELD
        if self._discrete:
            end = round(float(self._policy[row, index]) * width)
            area[:, : max(1, end)] = paint.GREEN if chosen else paint.BLUE
            return
        middle, end, mode = (
            round((float(np.clip(x, -1, 1)) + 1) / 2 * (width - 1))
            for x in (0, self._action[row, index], self._policy[row, index])
        )
        area[:, min(middle, end) : max(middle, end) + 1] = paint.BLUE
        area[:, mode : mode + 2] = paint.GOLD


class Strip:
    """Numbers of the row, and the predicted value over the episode so far with rewards as ticks.

    Where an ensemble explores, its disagreement is a curve of its own below the value.
    """

    def __init__(self, episode: Episode, opinion: Opinion, width: int, scale: int, font: int):
        self._returns = np.cumsum(episode.reward)
        self._reward, self._opinion = episode.reward, opinion
        self._font, self._scale, self._width = font, scale, width
        self._slots = self._place(width)
        self._text_height = paint.line_height(font) + 2
        self._lines = 1 + max(line for line, _ in self._slots)
        rows = len(self._reward)
        self._ticks = np.flatnonzero(self._reward) * width // rows
        self._curves = [self._curve(opinion.value, 24 * scale, paint.BLUE)]
        if opinion.disagreement is not None:
            self._curves.append(self._curve(opinion.disagreement, 16 * scale, paint.GREEN))
        self.height = self._lines * self._text_height
        self.height += sum(height for height, *_ in self._curves) + (len(self._curves) - 1) * scale

    def _items(self, row: int) -> list[tuple[str, str, paint.Color, paint.Color | None]]:
        """Label, text, its colour, and the colour of a mark that ties it to the plot."""
        reward, opinion = self._reward[row], self._opinion
        got = f"{reward:+.3g}" if reward else "0"
        color = paint.GOLD if reward else paint.TEXT
        items = [
            ("step", f"{row}", paint.TEXT, None),
            # Without the comma 99,999 fits into its place at any scale.
            ("return", score(self._returns[row]).replace(",", ""), paint.TEXT, None),
            ("value", f"{opinion.value[row]:.2f}", paint.TEXT, paint.BLUE),
            ("reward", f"{got} (model {opinion.reward[row]:.2f})", color, paint.GOLD),
            ("discount", f"{opinion.discount[row]:.3f}", paint.TEXT, None),
        ]
        if opinion.disagreement is not None:
            text = f"{opinion.disagreement[row]:.3f}"
            items.append(("disagreement", text, paint.TEXT, paint.GREEN))
        return items

    def _place(self, width: int) -> list[tuple[int, int]]:
        """(line, x) of every item: fixed, so that numbers do not jump when others get longer."""
        widest = ["step 0000", "return -0000", "value -00.00 ", "reward +1.00 (model -0.00) "]
        last = "discount 0.000"
        if self._opinion.disagreement is not None:
            widest.append(last)
            last = "disagreement -0.000 "
        widths = [paint.text_width(s, self._font) + 7 * self._scale for s in widest]
        widths.append(paint.text_width(last, self._font))
        places, line, x = [], 0, 0
        for w in widths:
            if x and x + w > width:
                line, x = line + 1, 0
            places.append((line, x))
            x += w
        return places

    def _curve(self, values: np.ndarray, height: int, color: paint.Color):
        """Height of a plot, where its curve is in each of its columns, and the curve's colour."""
        at = np.arange(self._width) * len(values) // self._width
        low, high = min(0.0, float(values.min())), max(float(values.max()), 1e-3)
        drawn = (high - values[at]) / (high - low) * (height - 3 * self._scale)
        return height, drawn, color

    def draw(self, area: np.ndarray, row: int) -> None:
        """Paint into `area` uint8 [height, width, 3], which is empty."""
        mark = self._font // 2
        for (line, x), (label, value, color, tie) in zip(
            self._slots, self._items(row), strict=True
        ):
            y = line * self._text_height
            if tie:
                top = y + (self._text_height - mark) // 2
                area[top : top + mark, x : x + mark] = tie
                x += mark + 3
            paint.text(area, x, y, label, self._font, paint.DIM)
            x += paint.text_width(label + " ", self._font)
            paint.text(area, x, y, value, self._font, color)
        top = self._lines * self._text_height
        for index, (height, drawn, color) in enumerate(self._curves):
            ticks = self._ticks if index == 0 else self._ticks[:0]
            self._plot(area[top : top + height], row, drawn, color, ticks)
            top += height + self._scale

    def _plot(self, area: np.ndarray, row: int, drawn, color: paint.Color, ticks) -> None:
        area[:] = paint.FIELD
        now = max(1, (row + 1) * self._width // len(self._reward))
        for tick in ticks[ticks < now]:
            area[-5 * self._scale :, tick : tick + self._scale] = paint.GOLD
        inner = area[self._scale : -self._scale]
        paint.curve(inner, drawn[:now], self._scale, color)


def make_panels(
    names: Sequence[str],
    episode: Episode,
    insight: Insight,
    opinion: Opinion,
    action_names: Sequence[str] | None,
    ahead: int,
    font: int,
    numbers: Sequence[str] = (),
    task: str = "",
) -> dict[str, Panel]:
    """The panels of `names` but the screen, computed for the whole episode.

    ahead: agent steps that open loop looks ahead. numbers: what those of a vector are called. task:
      whether the vector is a board.
    """
    observed, latents = episode.observed, episode.latents
    size = "x".join(map(str, observed.shape[1:3])) if observed.ndim == 4 else observed.shape[1]
    shown, limits = _drawing(observed, numbers, task, font)
    makers = {
        "input": lambda: Picture((f"input {size}", "input"), shown(observed), *limits),
        "recon": lambda: Picture(
            ("reconstruction", "recon"), shown(calm(insight.reconstruct(latents))), *limits
        ),
        "openloop": lambda: Prediction(
            _seen_as(shown, insight.open_loop(latents, episode.action, ahead)), False, *limits
        ),
        "dream": lambda: Prediction(
            _seen_as(shown, insight.dream(latents, DREAM_CONTEXT, DREAM_STEPS)), True, *limits
        ),
        "latent": lambda: Latent(latents),
        "policy": lambda: Policy(opinion.policy, episode.action, action_names, font),
    }
    return {name: makers[name]() for name in names if name != "screen"}


def _drawing(
    observed: np.ndarray, numbers: Sequence[str], task: str, font: int
) -> tuple[Callable, tuple]:
    """How to turn what is seen into what `Picture` draws, and its further arguments."""
    if observed.ndim != 2:
        return lambda seen: seen, ()
    size = observed.shape[1]
    shape = board_shape(task, size)
    if shape:
        return lambda seen: boards(seen, shape), ()
    if size <= paint.MOST_BARS:
        return lambda seen: seen, (None, None, Bars(observed, numbers, font))
    return lambda seen: seen, vector_limits(observed)


def _seen_as(shown: Callable, forecast: Forecast) -> Forecast:
    return forecast._replace(seen=shown(calm(forecast.seen)))


def vector_limits(observed: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The lowest and highest value [D] that the drawing of vectors [T, D] is scaled to.

    Bars have their own, since their units differ. Many numbers are one picture with one scale: a
    cell that never changes is as bright as its value.
    """
    axis = 0 if observed.shape[1] <= paint.MOST_BARS else None
    shape = observed.shape[1:]
    low, high = np.min(observed, axis), np.max(observed, axis)
    return np.broadcast_to(low, shape), np.broadcast_to(high, shape)


def calm(seen: np.ndarray) -> np.ndarray:
    """Predicted images in steps of 8 gray levels: noise that no eye sees would be most of a GIF."""
    if seen.dtype != np.uint8:
        return seen
    return np.minimum((seen.astype(np.uint16) + 4) // 8 * 8, 255).astype(np.uint8)
