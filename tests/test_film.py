"""Every panel has a place of its own."""

import numpy as np
import pytest

from dreamerv2.film import PANELS
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
