"""Every panel has a place of its own, and the palette is chosen from the whole film."""

from types import SimpleNamespace

import numpy as np
import pytest

from dreamerv2.film import PANELS, film, record
from dreamerv2.film.layout import Layout


@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("screen", [(210, 160), (10, 10), (400, 600)])
@pytest.mark.parametrize("names", [PANELS, ("screen",), ("input", "dream"), PANELS[1:]])
def test_panels_are_inside_the_picture_and_apart(scale, screen, names):
    plan = Layout(names, scale, screen, "one caption of a few words")
    used = np.zeros((plan.strip_top, plan.width), int)
    for place in plan.places.values():
        with_title = used[place.top - plan.title : place.top + place.height]
        with_title[:, place.left - scale : place.left + place.width + scale] += 1
        assert place.of(used).shape == (place.height, place.width)
    assert used.max() == 1 and set(plan.places) == set(names)
    if "screen" in names:
        place = plan.places["screen"]
        assert place.height % screen[0] == 0 and place.width % screen[1] == 0


def test_the_palette_is_chosen_all_over_the_part_that_is_shown(monkeypatch):
    """399 screens of an episode of 5,000 rows, as `--frames` asks for them."""
    unpack, unpacked, painted = record.unpack, [], []

    def count(data, size):
        unpacked.append(data)
        return unpack(data, size)

    def paint(row, screens):
        painted.append(row)
        yield np.full((4, 4, 3), (9, row % 256, 9), np.uint8)

    monkeypatch.setattr(record, "unpack", count)
    shown = range(4000, 4399)
    screens = [[None] for _ in range(5000)]
    for row in shown:
        screens[row] = [record.pack(np.full((2, 2, 3), (row % 100, 1, 2), np.uint8))]
    take = SimpleNamespace(screens=screens)
    palette = film._palette([take], [SimpleNamespace(pictures=paint)], (2, 2))
    assert film.SAMPLED_SCREENS // 2 < len(unpacked) <= film.SAMPLED_SCREENS
    assert film.SAMPLED_PICTURES // 2 < len(painted) <= film.SAMPLED_PICTURES
    assert painted[0] == shown[0] and shown[-1] - painted[-1] < len(shown) // 10
    colors = {tuple(map(int, color)) for color in palette}
    assert {(row % 100, 1, 2) for row in shown[::2]} <= colors
    assert {(9, row % 256, 9) for row in painted} <= colors


def test_a_return_in_the_caption_has_all_its_digits():
    args = SimpleNamespace(mode="eval", seed=0, best_of=None)
    saved = SimpleNamespace(config=SimpleNamespace(task="maze"), env_frames=1)
    take = SimpleNamespace(ended=True, score=12345.0)
    assert film.caption(args, saved, [take]).endswith("return 12,345")
