"""What a page may send: a JSON object with a `type` and the values of that type, all bounded."""

import json
from typing import Any

from common.config import Kind, boolean, choice, either, integer, number, sequence, string
from dreamerv2.dream import link
from dreamerv2.dream.session import ACTORS, MAX_STEPS, PLACES
from dreamerv2.dream.world import World

LONGEST = 64 * 1024  # bytes of a message
SPEEDS = (1, 30)  # steps per second
LONGEST_CLIP = 600  # steps


class MessageError(ValueError):
    """A message that no page of ours sends."""


class Messages:
    """Reads the messages of pages that show `world`."""

    def __init__(self, world: World):
        self._kinds: dict[str, dict[str, Kind]] = {
            "act": {"action": either(choice(None), link.action_kind(world))},
            "who": {"who": choice(*ACTORS)},
            "where": {"where": choice(*PLACES)},
            "temperature": {"temperature": link.TEMPERATURE},
            "likely": {"likely": boolean()},
            "luck": {"seed": link.SEED},
            "hold": {"hold": sequence(link.hold_kind(world))},
            "sync": {},
            "run": {"running": boolean()},
            "speed": {"speed": number(*SPEEDS)},
            "step": {},
            "rewind": {"to": integer(0, MAX_STEPS)},
            "reset": {"seed": link.SEED},
            "episode": {"episode": link.NAME, "row": link.ROW},
            "save": {"format": choice("gif", "mp4"), "steps": integer(1, LONGEST_CLIP)},
            "link": {},
            # Any: `link.decode` says what is wrong with one, and the session goes on. Ended by it,
            # the page would send it again with every new session.
            "follow": {"link": string()},
            "seen": {"number": integer(0, 2**53)},
        }

    def read(self, text: str) -> tuple[str, dict[str, Any]]:
        """(type, values); MessageError names what is wrong, in one line."""
        try:
            message = json.loads(text)
        except (ValueError, RecursionError):
            raise MessageError("a message is not JSON") from None
        if not isinstance(message, dict) or not isinstance(message.get("type"), str):
            raise MessageError("a message is not an object with a type")
        kind = message.pop("type")
        if kind not in self._kinds:
            raise MessageError(f"unknown type {kind[:40]!r}")
        kinds = self._kinds[kind]
        if set(message) != set(kinds):
            raise MessageError(f"{kind}: expected {', '.join(kinds) or 'nothing else'}")
        return kind, {key: _convert(kind, key, kinds[key], message[key]) for key in kinds}


def _convert(kind: str, key: str, accepted: Kind, value: Any) -> Any:
    try:
        return accepted.convert(value)
    except (ValueError, TypeError, OverflowError):
        shown = json.dumps(value)[:40]
        raise MessageError(f"{kind}: {key} is {shown}, expected {accepted.expected}") from None
