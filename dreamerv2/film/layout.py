"""Lays out panels and strip around the screen, and paints the pictures of an episode."""

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np

from common.log import paint
from dreamerv2.film.panels import Panel, Strip

SCREEN_HEIGHT = 210  # of most Atari games; other screens are enlarged to about this, times scale


class Place(NamedTuple):
    """Where the area of a panel is; its title is above."""

    top: int
    left: int
    height: int
    width: int

    def of(self, canvas: np.ndarray) -> np.ndarray:
        return canvas[self.top : self.top + self.height, self.left : self.left + self.width]


class Layout:
    """Sizes and places in pixels.

    names: of the panels, in order. scale: pixels per pixel. screen: its height and width.

    The screen is on the left in its own size times scale; the others are squares of 64 times scale
    in columns as high as the screen, or in rows of four without it.
    """

    def __init__(self, names: tuple[str, ...], scale: int, screen: tuple[int, int], caption: str):
        self.names, self.scale, self.font = names, scale, 7 + 2 * scale
        self.title = self.font + 4
        self.gap = 2 * scale
        self.margin = 4 * scale
        self.places: dict[str, Place] = {}
        others = [name for name in names if name != "screen"]
        cell = 64 * scale
        step = self.title + cell + self.gap
        left, bottom = self.margin, 0
        if "screen" in names:
            factor = max(1, round(SCREEN_HEIGHT * scale / screen[0]))
            height, width = screen[0] * factor, screen[1] * factor
            self.places["screen"] = Place(self.title, left, height, width)
            left += width + self.margin
            bottom = self.title + height
            lines = max(1, round(bottom / step))
        else:
            lines = -(-len(others) // 4)
        columns = -(-len(others) // lines)
        for index, name in enumerate(others):
            top = index // columns * step + self.title
            x = left + index % columns * (cell + self.margin)
            self.places[name] = Place(top, x, cell, cell)
        self.width = max(p.left + p.width for p in self.places.values()) + self.margin
        bottom = max(p.top + p.height for p in self.places.values())
        self.caption = self._wrapped(caption)
        header = self.margin + len(self.caption) * paint.line_height(self.font) + self.gap
        self.places = {n: p._replace(top=p.top + header) for n, p in self.places.items()}
        self.strip_top = header + bottom + self.margin

    @property
    def inner_width(self) -> int:
        return self.width - 2 * self.margin

    def _wrapped(self, caption: str) -> list[str]:
        """Lines of whole words that fit."""
        lines = [""]
        for word in caption.split():
            longer = f"{lines[-1]} {word}".strip()
            if lines[-1] and paint.text_width(longer, self.font) > self.inner_width:
                lines.append(word)
            else:
                lines[-1] = longer
        return lines


class Film:
    """Paints the pictures of one episode, uint8 [height, width, 3]."""

    def __init__(self, layout: Layout, panels: Mapping[str, Panel], strip: Strip):
        self._layout, self._panels, self._strip = layout, panels, strip
        height = layout.strip_top + strip.height + layout.margin
        self._base = np.empty((height, layout.width, 3), np.uint8)
        self._base[:] = paint.BACKGROUND
        for number, line in enumerate(layout.caption):
            y = layout.margin + number * paint.line_height(layout.font)
            paint.text(self._base, layout.margin, y, line, layout.font)
        if "screen" in layout.places:
            self._title(self._base, layout.places["screen"], ("screen",), None)

    def pictures(self, row: int, screens: Iterable[np.ndarray]) -> Iterator[np.ndarray]:
        """One picture for each of the screens [H, W, 3] during which `row` is the newest one.

        The same array every time, painted anew.
        """
        canvas, layout = self._base.copy(), self._layout
        for name, panel in self._panels.items():
            place, color = layout.places[name], panel.signal(row)
            self._title(canvas, place, panel.titles(row), color)
            panel.draw(place.of(canvas), row)
            if color:
                paint.border(place.of(canvas), layout.scale, color)
        area = canvas[layout.strip_top : -layout.margin, layout.margin : -layout.margin]
        self._strip.draw(area, row)
        for screen in screens:
            if "screen" in layout.places:
                area = layout.places["screen"].of(canvas)
                area[:] = paint.zoomed(screen, *area.shape[:2])
            yield canvas

    def _title(
        self, canvas: np.ndarray, place: Place, titles: tuple[str, ...], color: paint.Color | None
    ) -> None:
        font = self._layout.font
        string = paint.fitting(titles, font, place.width)
        y = place.top - self._layout.title
        paint.text(canvas, place.left, y, string, font, color or paint.DIM)
