"""Which blocks a run's values come from, found again from the values alone."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from dreamerv2.run import blocks

OWN_KEYS = ("logdir", "seed")  # of one run, whatever its blocks
SCALES = "loss_scales."  # the only keys that the defaults do not list in full


class Origin(NamedTuple):
    """Blocks in their order, and the values that differ from what they give, by dotted key."""

    blocks: tuple[str, ...]
    changes: dict[str, Any]


def origin(settings: Mapping[str, Any]) -> Origin:
    """The shortest account of a configuration that adding blocks one by one comes to.

    settings: flat, as a run saved them. Keys that this version does not know are left out, and
      those that it knows and the run did not have the default's value.

    A block is added, at the place among the others where it explains most, as long as that leaves
    fewer changes than before.
    """
    usual = blocks.defaults()
    known = {name: blocks.load_block(name) for name in blocks.block_names() if name != "defaults"}
    wanted = {key: _plain(settings.get(key, value)) for key, value in usual.flat.items()}
    wanted |= {key: value for key, value in settings.items() if key.startswith(SCALES)}

    def account(names: Sequence[str]) -> Origin:
        given = usual
        for name in names:
            given = given.update(known[name])
        return Origin(tuple(names), _changes(wanted, given.flat))

    best = account(())
    while best.changes:
        chosen = best.blocks
        tried = [
            account((*chosen[:place], name, *chosen[place:]))
            for name in known.keys() - chosen
            for place in range(len(chosen) + 1)
        ]
        found = min(tried, key=lambda origin: (len(origin.changes), origin.blocks))
        if len(found.changes) >= len(best.changes):
            break
        best = found
    return best


def command(settings: Mapping[str, Any], found: Origin) -> str:
    """The line that starts the same run again."""
    words = ["python", "-m", "dreamerv2.train", "--logdir", str(settings.get("logdir", "DIR"))]
    words += ["--configs", *(found.blocks or ["defaults"])]
    changes = {"seed": settings.get("seed", 0)} | found.changes
    if changes.get("env"):
        changes.pop("task")  # which follows from it
    for key, value in changes.items():
        words += [
            f"--{key}",
            *(map(str, value) if value and isinstance(value, list) else [str(value)]),
        ]
    return shlex.join(words)


def _changes(wanted: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """A scale that one side lacks is 1."""
    return {
        key: wanted.get(key, 1.0)
        for key in {**wanted, **given}
        if key not in OWN_KEYS and wanted.get(key, 1.0) != _plain(given.get(key, 1.0))
    }


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, list | tuple) else value
