"""What the server tells a page, as bytes: a JSON header, and after it arrays of bytes.

A binary message is the header's length (uint32, little-endian), the header, then the arrays of
`header["arrays"]`, a list of [name, shape], one after the other.
"""

import json
import math
import struct
from collections.abc import Mapping
from typing import Any

import numpy as np

from dreamerv2.dream import messages
from dreamerv2.dream.session import MAX_STEPS, Moment, Session, View
from dreamerv2.dream.world import World

POINTS = 240  # of the curves, at most, in one frame: what a page missed


def encode(header: Mapping[str, Any], arrays: Mapping[str, np.ndarray]) -> bytes:
    """One binary message; the arrays are uint8."""
    listed = [[name, array.shape] for name, array in arrays.items()]
    text = json.dumps({**header, "arrays": listed}, allow_nan=False).encode()
    parts = [struct.pack("<I", len(text)), text]
    return b"".join([*parts, *(np.ascontiguousarray(a).tobytes() for a in arrays.values())])


def hello(world: World) -> dict[str, Any]:
    """What stays the same while a page is open."""
    saved, engine, controls = world.saved, world.engine, world.controls
    return {
        "type": "hello",
        "task": saved.config.task,
        "agent_steps": saved.agent_steps,
        "env_frames": saved.env_frames,
        "controls": controls._asdict(),
        "latent": {"discrete": engine.discrete, "shape": engine.stoch_shape},
        "gamma": saved.config.discount,
        "game_problem": world.game_problem,
        "max_steps": MAX_STEPS,
        "longest_clip": messages.LONGEST_CLIP,
    }


def describe(session: Session) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Header and arrays of the current moment, and what changed since the call before."""
    now, cursor, latest = session.now, session.cursor, len(session.moments) - 1
    changed = session.fresh_from
    session.fresh_from = latest + 1
    settings = now.settings
    header = {
        "type": "frame",
        "step": cursor,
        "latest": latest,
        "who": session.who,
        "where": settings.where,
        "luck": settings.seed,
        "temperature": settings.temperature,
        "likely": settings.likely,
        "hold": settings.hold,
        "origin": session.origin._asdict(),
        "has_game": now.game is not None,
        "action": None if now.action is None else _numbers(now.action),
        "reward": _finite(now.reward),
        "score": _finite(now.score),
        "over": now.over,
        "replaying": len(session.replay),
        "parting": now.parting._asdict() if settings.where == "both" else None,
        "view": _heads(now.view),
        "game_value": None if now.game is None else _finite(now.game.glance.value),
        "changed": changed,  # the points from here on are no longer those of before
        "points": points(session.moments, max(changed, latest - POINTS), latest),
    }
    return header, _arrays(session, now)


def points(moments: list[Moment], first: int, last: int) -> list[list[float | None]]:
    """[step, value, expected reward, discount, true reward] of some moments."""
    found = []
    for step in range(first, last + 1):
        glance = moments[step].view.glance
        values = (glance.value, glance.reward, glance.discount, moments[step].reward)
        found.append([step, *map(_finite, values)])
    return found


def _heads(view: View) -> dict[str, Any]:
    glance = view.glance
    return {
        "value": _finite(glance.value),
        "reward": _finite(glance.reward),
        "discount": _finite(glance.discount),
        "policy": _numbers(glance.policy),
        "choice": _numbers(glance.choice),
    }


def _numbers(array: np.ndarray) -> list[float | None]:
    return [_finite(round(float(value), 4)) for value in array]


def _finite(value: float) -> float | None:
    """JSON has no word for NaN and infinity."""
    return value if math.isfinite(value) else None


def _arrays(session: Session, now: Moment) -> dict[str, np.ndarray]:
    arrays = shown(now)
    latent = now.view.latent
    if session.discrete:
        arrays["probs"] = _bytes(latent.stats)
        arrays["drawn"] = latent.drawn.astype(np.uint8)
    else:
        arrays["values"] = _bytes(0.5 + latent.drawn / 6)  # three standard deviations either way
    return arrays


def shown(moment: Moment) -> dict[str, np.ndarray]:
    """The pictures of a moment that the page shows, and that a clip has."""
    where, arrays = moment.settings.where, {}
    if where != "dream" and moment.screen is not None:
        arrays["screen"] = moment.screen.unpacked()
    arrays["game" if where == "game" else "dream"] = moment.view.picture
    return arrays


def clip(session: Session, steps: int) -> list[tuple[list[np.ndarray], str]]:
    """Pictures and caption of the last `steps` steps, the moment before the first included."""
    first = max(0, session.cursor - steps)
    moments = session.moments[first : session.cursor + 1]
    return [
        (list(shown(m).values()), _caption(session, i, m)) for i, m in enumerate(moments, first)
    ]


def _caption(session: Session, step: int, moment: Moment) -> str:
    parts = [f"{moment.settings.where} {step}"]
    if moment.action is not None:
        parts.append(session.action_name(moment.action))
    parts.append(f"value {moment.view.glance.value:.2f}")
    if moment.settings.hold:
        parts.append(f"{len(moment.settings.hold)} held")
    return "  ".join(parts)


def _bytes(shares: np.ndarray) -> np.ndarray:
    """Shares of one as uint8; a number that is none is 0."""
    return (np.nan_to_num(shares).clip(0, 1) * 255 + 0.5).astype(np.uint8)
