"""The wheel works from any directory, setup.py declares what is imported, make sets things up."""

import ast
import os
import pathlib
import re
import runpy
import shutil
import subprocess
import sys
import sysconfig
import zipfile

import pytest
import setuptools

# Names of imports where they differ from those of the packages.
IMPORTS = {
    "ale-py": "ale_py",
    "atari-py": "atari_py",
    "dm-control": "dm_control",
    "grpcio": "grpc",
    "opencv-python-headless": "cv2",
    "pillow": "PIL",
    "ruamel.yaml": "ruamel",
    "scikit-learn": "sklearn",
    "tensorflow-probability": "tensorflow_probability",
}
# Imported by others: imageio's plugin for MP4, and what TensorFlow Probability imports.
INDIRECT = {"av", "setuptools", "tf-keras"}


def run(command, cwd, timeout=300):
    """Runs a command without the import path and variables of this checkout."""
    env = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        list(map(str, command)), cwd=cwd, env=env, capture_output=True, text=True, timeout=timeout
    )


@pytest.fixture(scope="module")
def wheel(project, tmp_path_factory) -> pathlib.Path:
    """A wheel, built from a copy so that the checkout stays clean."""
    source = tmp_path_factory.mktemp("source")
    for name in ("common", "dreamerv2", "configs", "videos/agents"):
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(project / name, source / name, ignore=ignored)
    (source / "tests" / "golden").mkdir(parents=True)
    shutil.copy(project / "tests" / "golden" / "atari.npz", source / "tests" / "golden")
    for name in ("setup.py", "pyproject.toml", "README.md"):
        if (project / name).exists():
            shutil.copy(project / name, source)
    target = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation"]
    result = run([*pip, "--wheel-dir", target, source], target)
    assert result.returncode == 0, result.stderr
    (path,) = target.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory) -> pathlib.Path:
    """The interpreter of a fresh environment with the wheel and what it requires."""
    venv = tmp_path_factory.mktemp("venv")
    run([sys.executable, "-m", "venv", "--without-pip", venv], venv)
    python = venv / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps"]
    result = run([*pip, "--no-index", wheel], venv)
    assert result.returncode == 0, result.stderr
    # Requirements come from the environment of the tests. Path files there are not followed, so
    # that a checkout installed in it stays out of sight; only that of setuptools is needed: it
    # gives TensorFlow Probability the module distutils, which Python 3.12 no longer has.
    requirements = pathlib.Path(sysconfig.get_path("purelib"))
    (site,) = venv.glob("lib/python*/site-packages")
    (site / "1.pth").write_text(f"{requirements}\n")
    shutil.copy(requirements / "distutils-precedence.pth", site / "2.pth")
    return python


def test_the_wheel_holds_the_packages_and_every_block_and_nothing_else(project, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    wanted = {
        path.relative_to(project).as_posix()
        for package in ("common", "dreamerv2")
        for path in (project / package).rglob("*.py")
    }
    wanted |= {"common/py.typed", "dreamerv2/py.typed"}
    wanted |= {f"dreamerv2/configs/{path.name}" for path in project.glob("configs/*.yaml")}
    page = project / "dreamerv2" / "dream" / "page"
    wanted |= {f"dreamerv2/dream/page/{path.name}" for path in page.iterdir()}
    wanted |= {f"dreamerv2/agents/{path.name}" for path in project.glob("videos/agents/*.*")}
    wanted.add("dreamerv2/golden/atari.npz")
    assert wanted <= names
    assert not [name for name in names - wanted if ".dist-info/" not in name]


def test_the_installed_package_finds_its_blocks_from_any_directory(project, python, tmp_path):
    (tmp_path / "configs").mkdir()
    (tmp_path / "configs" / "defaults.yaml").write_text("a: 1\n")
    code = (
        "import dreamerv2, common; from dreamerv2.run import blocks\n"
        "print(dreamerv2.__file__, common.__file__, blocks.configs_dir(), sep='\\n')\n"
        "print(*blocks.block_names())\n"
        "print(blocks.make_config(['atari', 'small']).rssm.deter)"
    )
    result = run([python, "-c", code], tmp_path)
    assert result.returncode == 0, result.stderr
    *places, names, deter = result.stdout.splitlines()
    site = python.parent.parent / "lib"
    assert all(pathlib.Path(place).is_relative_to(site) for place in places), places
    assert all((pathlib.Path(place).parent / "py.typed").is_file() for place in places[:2])
    assert names.split() == sorted(path.stem for path in project.glob("configs/*.yaml"))
    assert deter == "256"


def test_a_run_from_the_wheel_writes_where_it_is_told(python, tmp_path):
    command = [python, "-m", "dreamerv2.train", "--logdir", "run", "--configs", "atari", "debug"]
    result = run([*command, "--steps", 170, "--eval_eps", 1], tmp_path)
    assert result.returncode == 0, result.stderr
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"config.yaml", "metrics.jsonl", "checkpoints", "train_episodes"} <= written
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def test_another_package_called_common_is_an_error_that_names_both(project, tmp_path):
    for place in ("common.py", "common/__init__.py", "common/only_a_namespace.txt"):
        root = tmp_path / place.replace("/", "_")
        path = root / place
        path.parent.mkdir(parents=True)
        path.write_text("")
        code = f"import sys; sys.path[:0] = [{str(root)!r}]; import common"
        code += f"; sys.path[:0] = [{str(project)!r}]; import dreamerv2"
        result = run([sys.executable, "-c", code], root)
        message = result.stderr.strip().splitlines()[-1]
        assert message.startswith("ImportError: dreamerv2 needs the package common at"), message
        assert str(project / "common") in message
        assert str(root / "common") in message


def _setup(project) -> dict:
    captured = {}
    original, setuptools.setup = setuptools.setup, captured.update
    try:
        runpy.run_path(str(project / "setup.py"))
    finally:
        setuptools.setup = original
    return captured


def _names(requirements) -> set[str]:
    return {re.match(r"[\w.-]+", requirement).group().lower() for requirement in requirements}


def test_what_is_imported_is_declared_and_what_is_declared_is_imported(project):
    imported = set()
    for path in [*project.glob("common/**/*.py"), *project.glob("dreamerv2/**/*.py")]:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add(node.module.partition(".")[0])
    imported -= {"common", "dreamerv2", *sys.stdlib_module_names}
    setup = _setup(project)
    extras = ("crafter", "dmc", "dream", "legacy", "minatar", "ray", "wandb")
    optional = [requirement for name in extras for requirement in setup["extras_require"][name]]
    required = _names(setup["install_requires"])
    declared = {IMPORTS.get(name, name) for name in required | _names(optional)}
    assert sorted(imported - declared) == []
    assert (
        sorted(name for name in required - INDIRECT if IMPORTS.get(name, name) not in imported)
        == []
    )


def test_every_requirement_has_both_bounds_and_an_exact_tested_version(project):
    setup = _setup(project)
    extras = setup["extras_require"]
    for requirement in setup["install_requires"] + extras["cuda"] + extras["dev"]:
        assert re.fullmatch(r"[\w.\[\]-]+>=[\d.]+,<[\d.]+", requirement), requirement
    pinned = re.findall(r"^([\w.-]+)==", (project / "constraints.txt").read_text(), re.M)
    wanted = setup["install_requires"] + [r for name in extras for r in extras[name]]
    assert _names(wanted) - {"pip"} <= set(pinned)


def _make(project, place, target="setup", **variables):
    """`make TARGET` in a directory of its own."""
    for name in ("Makefile", "setup.py", "pyproject.toml", "constraints.txt"):
        shutil.copy(project / name, place)
    settings = [f"{name}={value}" for name, value in variables.items()]
    return run(["make", target, "EXTRAS=test", *settings], place)


def _fake_python(place):
    """A Python that makes no environment and only notes its arguments in `place`/calls.

    Its `pip` fails while there is a file `broken`, its `dreamerv2.train` while there is `stopped`.
    """
    fake = place / "python"
    fake.write_text(
        "#!/bin/bash\n"
        'echo "$@" >> "$HOME/calls"\n'
        'if [ "$2" = venv ]; then mkdir -p .venv/bin && cp "$0" .venv/bin/python; fi\n'
        'if [ "$2" = pip ] && [ -e broken ]; then exit 1; fi\n'
        'if [ "$2" = dreamerv2.train ] && [ -e stopped ]; then exit 130; fi\n'
    )
    fake.chmod(0o755)
    return {"PYTHON": fake, "HOME": place}


def test_make_says_so_when_there_is_no_suitable_python(project, tmp_path):
    result = _make(project, tmp_path, PYTHON="/no/such/python")
    assert result.returncode == 2
    assert "No Python 3.10, 3.11 or 3.12" in result.stderr
    assert not (tmp_path / ".venv").exists()


def test_make_sets_up_once_and_takes_up_an_interrupted_setup(project, tmp_path):
    variables = _fake_python(tmp_path)
    (tmp_path / "broken").touch()
    assert _make(project, tmp_path, **variables).returncode == 2
    assert not (tmp_path / ".venv" / "ready").exists()
    (tmp_path / "broken").unlink()
    assert _make(project, tmp_path, **variables).returncode == 0
    assert (tmp_path / ".venv" / "ready").exists()
    text = (tmp_path / "calls").read_text()
    assert text.count("-m venv") == 1
    assert text.count("--constraint constraints.txt --editable .[test]") == 2


def test_make_play_films_what_it_has_trained_unless_training_was_stopped(project, tmp_path):
    variables = _fake_python(tmp_path)
    (tmp_path / "stopped").touch()
    assert _make(project, tmp_path, "play", ARGS="--seed 1", **variables).returncode == 2
    (tmp_path / "stopped").unlink()
    assert _make(project, tmp_path, "play", ARGS="--seed 1", **variables).returncode == 0
    train = "-m dreamerv2.train --logdir runs/minatar --configs minatar --seed 1"
    film = "-m dreamerv2.render --logdir runs/minatar --out runs/minatar/play.gif"
    calls = (tmp_path / "calls").read_text().splitlines()
    assert [call for call in calls if "dreamerv2" in call] == [train, train, film]


def test_the_images_have_a_python_that_setup_accepts_and_extras_that_exist(project):
    text = (project / "Dockerfile").read_text()
    setup = _setup(project)
    low, high = re.fullmatch(r">=3\.(\d+),<3\.(\d+)", setup["python_requires"]).groups()
    (minor,) = re.findall(r"^FROM python:3\.(\d+)-slim$", text, re.M)
    assert int(low) <= int(minor) < int(high)
    lists = re.findall(r"(?:--build-arg|ARG) EXTRAS=([\w,]+)", text)
    assert len(lists) == 2 and "cuda" in lists[0].split(",")
    for extras in lists:
        assert set(extras.split(",")) <= setup["extras_require"].keys()
