"""The plan of the house (docs/architecture.md): which room may import which."""

import ast
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

# Lowest floor first. A room imports only rooms of lower floors; on one floor none knows another.
FLOORS = (
    {"common"},
    {"common.commands", "common.files", "common.interrupt", "common.seeds", "common.quiet"},
    {"common.device", "common.when"},
    {
        "common.checkpoint",
        "common.cluster",
        "common.config",
        "common.log",
        "common.nn",
        "common.report",
    },
    {"common.data"},
    {"common.envs"},
    {"dreamerv2.agent"},
    {"dreamerv2.run"},
    {"dreamerv2.jobs"},
    {"dreamerv2.play"},
    {"dreamerv2.dream", "dreamerv2.film", "dreamerv2.latent", "dreamerv2.measure"}
    | {"dreamerv2.precision", "dreamerv2.reference"},
    {"dreamerv2.page"},
    {"dreamerv2.api"},
    {"dreamerv2", "dreamerv2.__main__"},
)
COMMANDS = {
    "bench",
    "compare",
    "coverage",
    "evaluate",
    "export",
    "import_reference",
    "latents",
    "parity",
    "plot",
    "render",
    "report",
    "sweep",
    "train",
}


def modules(root: Path) -> dict[str, Path]:
    """Dotted name to file; a package has the name of its folder."""
    found = {}
    for package in ("common", "dreamerv2"):
        for path in (root / package).rglob("*.py"):
            name = ".".join(path.relative_to(root).with_suffix("").parts)
            found[name.removesuffix(".__init__")] = path
    return found


def imported(path: Path, known: set[str]) -> set[str]:
    """Our own modules that a file imports, wherever the statement stands."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative import"
            full = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in full]
        else:
            continue
        found |= {name for name in names if name in known}
    return found


def room(name: str, path: Path) -> str:
    """The folder below `common` or `dreamerv2`, or the module that stands alone there."""
    parts = name.split(".")
    return ".".join(parts[:2]) if len(parts) > 2 or path.name == "__init__.py" else name


def arrows(root: Path) -> dict[tuple[str, str], set[str]]:
    """(room, imported room) to the modules that import."""
    known, found = modules(root), defaultdict(set)
    for name, path in known.items():
        for target in imported(path, set(known)):
            pair = room(name, path), room(target, known[target])
            if pair[0] != pair[1]:
                found[pair].add(name)
    return found


def floors() -> dict[str, int]:
    numbered = {name: floor for floor, names in enumerate(FLOORS) for name in names}
    return numbered | {f"dreamerv2.{name}": len(FLOORS) for name in COMMANDS}


def violations(root: Path) -> list[str]:
    """What breaks the plan, a sentence each."""
    floor, found = floors(), []
    for (source, target), names in sorted(arrows(root).items()):
        where = f"{', '.join(sorted(names))} imports {target}"
        if source.startswith("common") and target.startswith("dreamerv2"):
            found.append(f"{where}: common knows nothing about dreamerv2")
        elif target.removeprefix("dreamerv2.") in COMMANDS:
            found.append(f"{where}: nobody imports a command")
        elif source not in floor or target not in floor:
            found.append(f"{where}: give both a floor in this test")
        elif floor[source] <= floor[target]:
            found.append(f"{where}: that points up")
    return found


def test_imports_point_down_and_nobody_imports_a_command():
    assert violations(ROOT) == []


def test_modules_of_one_room_do_not_import_each_other_in_a_circle():
    known = modules(ROOT)
    graph = {name: imported(path, set(known)) - {name} for name, path in known.items()}
    done: set[str] = set()

    def visit(name, above):
        assert name not in above, f"circle: {' -> '.join([*above, name])}"
        if name not in done:
            for target in graph[name]:
                visit(target, [*above, name])
            done.add(name)

    for name in graph:
        visit(name, [])


@pytest.mark.parametrize(
    "importer, line, problem",
    [
        ("common/nn/bias.py", "import dreamerv2.agent.rssm", "knows nothing about dreamerv2"),
        ("dreamerv2/play/episodes.py", "from dreamerv2 import train", "nobody imports a command"),
        ("dreamerv2/agent/rssm.py", "from dreamerv2.run.blocks import defaults", "points up"),
        ("dreamerv2/film/record.py", "import dreamerv2.latent.usage", "points up"),
        ("common/when.py", "def f():\n    import common.envs.atari", "points up"),
    ],
)
def test_each_kind_of_violation_is_found(tmp_path, importer, line, problem):
    for name in ("common", "dreamerv2"):
        for path in (ROOT / name).rglob("*.py"):
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            copy.write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
    file = tmp_path / importer
    file.write_text(file.read_text(encoding="utf-8") + f"\n{line}\n", encoding="utf-8")
    (found,) = violations(tmp_path)
    assert problem in found and importer.split("/")[0] in found
