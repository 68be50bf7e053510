"""The front door: commands by name, help at once, mistakes in one line."""

import os
import re
import shlex
import subprocess
import sys

import pytest

import common
import dreamerv2
from common.commands import Parser, at_least, directory, one_line_errors
from dreamerv2 import __main__ as front


def test_every_command_is_known_by_name_and_says_what_it_does(project, capsys):
    expected = {p.stem for p in (project / "dreamerv2").glob("*.py")} - {"__init__", "__main__"}
    expected |= {p.parent.name for p in (project / "dreamerv2").glob("*/__main__.py")}
    assert set(front.names()) == expected - {"api"} and "dream" in expected
    assert front.main([]) == 0
    lines = capsys.readouterr().out.splitlines()[2:]
    assert [line.split()[0] for line in lines] == front.names()
    assert all(len(line.split()) > 2 for line in lines)


@pytest.mark.parametrize(
    "words, message", [(["trian"], "did you mean train?"), (["nothing"], "there are bench, ")]
)
def test_an_unknown_command_is_one_line_with_the_nearest_names(words, message, capsys):
    assert front.main(words) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: unknown command {words[0]}; ") and message in said
    assert said.count("\n") == 1


def test_a_command_gets_the_words_behind_its_name(capsys):
    with pytest.raises(SystemExit) as end:
        front.main(["plot", "--logdirs", "nowhere", "--out", "a.txt"])
    assert end.value.code == 2
    assert "--out a.txt" in capsys.readouterr().err


def test_a_command_by_name_finds_what_is_in_the_current_folder(tmp_path, project):
    """As `python -m` does; the script that pip installs begins with its own folder instead."""
    (tmp_path / "hover.py").write_text("raise ValueError('hover.py was found')\n")
    script = tmp_path / "bin" / "dreamerv2"
    script.parent.mkdir()
    script.write_text("import sys\nfrom dreamerv2.__main__ import main\nsys.exit(main())\n")
    words = ["train", "--logdir", "runs/a", "--configs", "custom", "--env", "hover:make"]
    done = subprocess.run(
        [sys.executable, str(script), *words],
        **{"cwd": tmp_path, "env": {**os.environ, "PYTHONPATH": str(project)}},
        **{"capture_output": True, "text": True},
    )
    assert "hover.py was found" in done.stderr


@pytest.mark.parametrize("closed", ["2>&-", ">&-", "<&- >&- 2>&-"])
def test_a_command_without_standard_streams_does_its_work(tmp_path, project, closed):
    code = (
        "import common.commands, common.quiet, common.log.progress, sys, os\n"
        "with common.quiet.quiet_stderr(): os.write(2, b'native')\n"
        "common.log.progress.Progress(1).show('shown')\n"
        "common.commands.settle_stdout()\n"
        "file = open(sys.argv[1], 'w'); assert file.fileno() > 2; file.write('done')\n"
    )
    out = tmp_path / "out"
    words = shlex.join([sys.executable, "-c", code, str(out)])
    assert subprocess.run(f"{words} {closed}", shell=True, cwd=project).returncode == 0
    assert out.read_text() == "done"


# In one process for all commands, as most of the time goes into its start.
HELP = """
import contextlib, importlib, io, sys
for module in sys.argv[1:]:
    main = importlib.import_module(module).main
    for flag, expected in (("--help", "usage: "), ("--version", "{version}")):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            try:
                main([flag])
            except SystemExit as end:
                assert not end.code, (module, flag)
        assert expected in said.getvalue(), (module, flag)
    for slow in ("tensorflow", "gymnasium"):
        assert slow not in sys.modules, (module, slow)
"""


def test_help_and_version_come_without_tensorflow(project):
    code = HELP.replace("{version}", front.VERSION)
    words = [sys.executable, "-c", code, *map(front.module, front.names())]
    result = subprocess.run(words, capture_output=True, text=True, cwd=project)
    assert result.returncode == 0, result.stderr


def test_there_is_one_version(project):
    assert dreamerv2.__version__ == common.__version__
    assert re.fullmatch(r"\d+\.\d+\.\d+", common.__version__)
    assert common.__version__ not in (project / "setup.py").read_text()


def test_a_mistake_of_the_user_is_one_line_and_other_errors_are_not_hidden(capsys):
    with pytest.raises(SystemExit) as end, one_line_errors(ValueError):
        raise ValueError("two\n  lines")
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: two lines\n"
    with pytest.raises(KeyError), one_line_errors(ValueError):
        raise KeyError


def test_the_home_of_nobody_is_refused():
    parser = Parser("name", "what it does", run=False)
    parser.add_argument("--logdir", type=directory)
    with pytest.raises(ValueError, match="got ~no-such-user/x, but there is no such user"):
        parser.parse_args(["--logdir", "~no-such-user/x"])


def test_bytes_that_are_no_utf_8_are_refused():
    parser = Parser("name", "what it does", run=False)
    parser.add_argument("--out")
    assert parser.parse_args(["--out", "ä.png"]).out == "ä.png"
    with pytest.raises(ValueError, match=r"got '\\udcff.png', expected UTF-8"):
        parser.parse_args(["--out", "\udcff.png"])


def test_a_parser_raises_what_it_finds_wrong():
    parser = Parser("name", "what it does", run=False)
    parser.add_argument("--count", type=at_least(1))
    assert parser.parse_args(["--count", "2"]).count == 2
    for words in (["--count", "0"], ["--cou", "2"], ["--logdir", "x"]):
        with pytest.raises(ValueError, match="--count: got 0|unrecognized arguments"):
            parser.parse_args(words)
