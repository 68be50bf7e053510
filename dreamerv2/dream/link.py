"""A timeline as the text of a link: start, actions, and what was set at which moment."""

import base64
import json
import zlib
from typing import Any, NamedTuple

from common.config import Kind, boolean, choice, either, integer, number, sequence, string
from dreamerv2.dream.session import MAX_STEPS, PLACES, Played, Settings
from dreamerv2.dream.world import Start, World

LONGEST = 48_000  # characters
_LARGEST = 2_000_000  # bytes, unpacked
_VERSION = 1

# What JSON of any kind may raise that is taken for a link.
UNREADABLE = (ValueError, TypeError, LookupError, AttributeError, RecursionError, zlib.error)
SEED = integer(0, 2**31 - 1)
TEMPERATURE = number(0.1, 10)
NAME = string(r"\w[\w.-]{0,39}/\w[\w.-]{0,119}", "FOLDER/EPISODE")
ROW = integer(0, 10**7)


class Link(NamedTuple):
    """What a link asks for."""

    start: Start
    played: list[Played]
    note: str | None  # what is not as it was when the link was made


def action_kind(world: World) -> Kind:
    """What an action may be: an index, or the numbers of a continuous one."""
    size = world.controls.size
    return integer(0, size - 1) if world.controls.discrete else sequence(number(-1, 1), size)


def hold_kind(world: World) -> Kind:
    """A held class: [variable, class]."""
    engine = world.engine
    variables, classes = engine.stoch_shape if engine.discrete else (0, 0)
    kinds = integer(0, variables - 1), integer(0, classes - 1)

    def convert(value):
        if not isinstance(value, list | tuple) or len(value) != 2:
            raise TypeError
        return tuple(kind.convert(x) for kind, x in zip(kinds, value, strict=True))

    return Kind("[variable, class]", convert)


def encode(world: World, start: Start, played: list[Played]) -> str:
    """The text that `decode` reads: equal steps in a row are written once."""
    runs: list[list[Any]] = []
    before = None
    for step in played:
        action = None if step.action is None else world.controls.plain(step.action)
        changed = _changes(before, step)
        if runs and not changed and runs[-1][1] == action:
            runs[-1][0] += 1
        else:
            runs.append([1, action, changed])
        before = step.settings
    data = {"v": _VERSION, "at": world.saved.agent_steps, "start": start._asdict(), "steps": runs}
    packed = zlib.compress(json.dumps(data, separators=(",", ":")).encode(), 9)
    return base64.urlsafe_b64encode(packed).decode().rstrip("=")


def decode(world: World, text: str) -> Link:
    """What `encode` wrote; ValueError for anything else, in one line."""
    try:
        data = json.loads(_unpacked(text))
        if data["v"] != _VERSION:
            raise ValueError(f"version {data['v']!r}")
        start = _start(data["start"])
        played = _played(world, data["steps"])
        at = SEED.convert(data["at"])
    except UNREADABLE as error:
        why = f" ({error})" if str(error) else ""
        raise ValueError(f"this link is not one of this page's, or was cut off{why}") from None
    note = None
    if at != world.saved.agent_steps:
        note = f"this link was made with the agent of step {at:,}; here is {_steps(world)}"
    return Link(start, played, note)


def _steps(world: World) -> str:
    return f"that of step {world.saved.agent_steps:,}: its dream is another one"


def _changes(before: Settings | None, step: Played) -> dict[str, Any]:
    """The settings that differ from the step before, and whether the dream starts here."""
    now = step.settings._asdict()
    old = before._asdict() if before else {}
    changed = {key: value for key, value in now.items() if old.get(key, ...) != value}
    return changed | ({"synced": True} if step.synced else {})


def _unpacked(text: str) -> bytes:
    if len(text) > LONGEST:
        raise ValueError(f"{len(text)} characters")
    packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    decompressor = zlib.decompressobj()
    data = decompressor.decompress(packed, _LARGEST)
    if not decompressor.eof:
        raise ValueError("it is too long")
    return data


def _start(data: dict) -> Start:
    episode = data["episode"]
    return Start(
        SEED.convert(data["seed"]),
        None if episode is None else NAME.convert(episode),
        ROW.convert(data["row"]),
    )


def _played(world: World, runs: list) -> list[Played]:
    kinds = {
        "where": choice(*PLACES),
        "seed": SEED,
        "temperature": TEMPERATURE,
        "likely": boolean(),
        "hold": sequence(hold_kind(world)),
        "synced": boolean(),
    }
    action_of = either(choice(None), action_kind(world))
    settings = Settings()
    played: list[Played] = []
    for count, action, changed in runs:
        count = integer(1, MAX_STEPS + 1 - len(played)).convert(count)
        values = {key: kinds[key].convert(value) for key, value in changed.items()}
        synced = values.pop("synced", False)
        settings = settings._replace(**values)
        action = action_of.convert(action)
        vector = None if action is None else world.controls.vector(action)
        played.append(Played(settings, synced, vector))
        played += [Played(settings, False, vector)] * (count - 1)
    return played
