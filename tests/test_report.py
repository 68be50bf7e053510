"""The page about a run: all that it says is in the logdir, and it needs no other file."""

import base64
import json
import re
import types

import imageio.v3 as iio
import numpy as np
import pytest

from dreamerv2 import report
from dreamerv2.page.html import write_at_end
from dreamerv2.reference import verdict
from dreamerv2.run import starts
from dreamerv2.run.blocks import make_config

MEASURE = verdict.measure  # which the fixture below replaces


@pytest.fixture(autouse=True)
def comparisons(tmp_path_factory, monkeypatch):
    """Of this code with the author's numbers, by file; they are not made, and nothing is known."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
    made = []

    def measure(path):
        made.append(path.name)
        return f"agrees with the reference: {len(made)}e-05 at worst"

    monkeypatch.setattr(verdict, "measure", measure)
    return made


@pytest.fixture
def logdir(tmp_path):
    """Of a run with two evaluations of three episodes each."""
    make_config(["atari", "debug"], {"seed": 7, "imag_horizon": 4}).save(tmp_path / "config.yaml")
    rows = [{"step": step, "train_return": step / 100} for step in range(0, 1000, 100)]
    rows += [{"step": 1000, "model_loss": 2.0, "critic": None, "updates": 12, "cpu_seconds": 90}]
    rows += [{"step": step, "eval_return": float(i)} for step in (500, 1000) for i in (4, 5, 9)]
    rows += [{"step": 1000, "model_skipped": 3.0, "model_loss_scale": 4096.0}]
    lines = [json.dumps(row) for row in sorted(rows, key=lambda row: row["step"])]
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines) + "\n")
    (tmp_path / "videos").mkdir()
    for name in ("000000000500-eval_openl_image.gif", "000000001000-eval_openl_image.gif"):
        frames = np.random.default_rng(len(name)).integers(0, 255, (2, 8, 8, 3), np.uint8)
        iio.imwrite(tmp_path / "videos" / name, frames)
    return tmp_path


def test_the_page_says_what_was_run_and_what_came_of_it(logdir, capsys):
    assert report.main(["--logdir", str(logdir)]) == 0
    assert capsys.readouterr().out == f"{logdir}/report.html\n"
    page = (logdir / "report.html").read_text()
    assert (
        "Mean return 6 (95 % interval 4 to 9) over 3 episodes at 1,000 environment frames" in page
    )
    for fact in ("atari_breakout", "2^12", "3 updates", "1m30s"):
        assert fact in page, fact
    assert "<td>logdir" not in page and "<td>actor.min_std" not in page
    assert "blocks: atari debug</h2>" in page
    assert (
        f"<td>python -m dreamerv2.train --logdir {logdir} --configs atari debug --seed 7 --imag"
        in page
    )
    assert re.search(r"not finite<td>1\b", page)
    assert page.count("<svg") == 2  # return and loss: the others were never logged


def test_the_page_names_the_machines_of_the_run_and_where_they_changed(logdir):
    given = [(0, "A, 2 cores", "v1"), (40, "A, 2 cores", "v2"), (9000, "C, 1 core", "v2")]
    given += [(5000, "B, 8 cores", "v2")]  # what began at 9,000 came to nothing
    keys = ("agent_steps", "machine", "versions")
    lines = [json.dumps(dict(zip(keys, start, strict=True))) for start in given]
    lines[1:1] = ["{}", '{"agent_steps": 1e999, "machine": "C", "versions": ""}', "[1]", '{"agent']
    (logdir / "starts.jsonl").write_text("\n".join(lines) + "\n")
    report.main(["--logdir", str(logdir)])
    page = (logdir / "report.html").read_text()
    assert "<td>machine<td>A, 2 cores; from agent step 5,000 B, 8 cores<" in page
    assert "<td>versions<td>v1; from agent step 40 v2<" in page
    assert "made this page" not in page


def test_half_a_line_of_starts_costs_no_other(tmp_path):
    starts.note(tmp_path, 0)
    with (tmp_path / starts.FILE).open("a") as file:
        file.write('{"agent_steps": 500, "mach')
    starts.note(tmp_path, 900)
    assert [start.agent_steps for start in starts.read(tmp_path)] == [0, 900]
    assert len((tmp_path / starts.FILE).read_text().splitlines()) == 3


def test_the_page_of_an_older_run_names_its_own_machine(logdir):
    report.main(["--logdir", str(logdir)])
    page = (logdir / "report.html").read_text()
    assert f"<td>machine that made this page<td>{starts.machine()}<" in page


def test_numbers_that_no_run_logs_are_passed_over(logdir):
    metrics = logdir / "metrics.jsonl"
    with metrics.open("a") as file:
        file.write(f'{{"step": 1001, "hours": 1e308, "a_loss_scale": {10**90}}}\n')
        file.write('{"step": -1e300, "eval_return": 1}\n{"step": 1e308, "eval_return": 1}\n')
    assert report.main(["--logdir", str(logdir)]) == 0
    assert "2^298.9" in (logdir / "report.html").read_text()


def test_everything_is_in_the_file_and_pictures_are_the_newest(logdir):
    out = logdir / "elsewhere.html"
    assert report.main(["--logdir", str(logdir), "--out", str(out)]) == 0
    page = out.read_text()
    newest = (logdir / "videos" / "000000001000-eval_openl_image.gif").read_bytes()
    assert base64.b64encode(newest).decode() in page
    assert page.count("<img") == 1
    assert re.findall(r"(?:src|href)='(?!data:|#)", page) == []
    assert re.findall(r'(?:src|xlink:href)="(?!#)', page) == []
    assert "@import" not in page.split("<svg")[0] and "url(http" not in page


def test_a_page_by_hand_compares_this_code_once_and_that_of_a_runs_end_knows_it(
    logdir, comparisons, monkeypatch
):
    path = logdir / "report.html"
    write_at_end(logdir)
    assert "Not measured yet for this version" in path.read_text() and comparisons == []
    for _ in range(2):
        assert report.main(["--logdir", str(logdir)]) == 0
        assert "agrees with the reference: 1e-05" in path.read_text()
    path.unlink()
    write_at_end(logdir)
    assert "agrees with the reference: 1e-05" in path.read_text() and comparisons == ["atari.npz"]
    monkeypatch.setattr(verdict, "_version", lambda: "another version of the code")
    write_at_end(logdir)
    assert "Not measured yet" in path.read_text()
    assert report.main(["--logdir", str(logdir)]) == 0
    assert "agrees with the reference: 2e-05" in path.read_text()


def test_another_file_or_none_is_compared_where_that_is_asked_for(logdir, comparisons):
    other = logdir / "other.npz"
    other.touch()
    assert report.main(["--logdir", str(logdir), "--parity", str(other)]) == 0
    assert comparisons == ["other.npz"] and verdict.known() is None
    assert report.main(["--logdir", str(logdir), "--parity", "none"]) == 0
    assert comparisons == ["other.npz"]


def test_a_comparison_that_breaks_is_no_difference_and_is_not_kept(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    broken = types.SimpleNamespace(returncode=1, stdout="", stderr="Traceback\nMemoryError: 9 GiB")
    monkeypatch.setattr(verdict, "measure", MEASURE)
    monkeypatch.setattr(verdict.subprocess, "run", lambda *_, **__: broken)
    with pytest.raises(ValueError, match="^MemoryError: 9 GiB$"):
        verdict.measured()
    broken.stderr = ""
    with pytest.raises(ValueError, match="parity ended with code 1"):
        verdict.measured()
    assert verdict.known() is None


def test_a_cache_that_cannot_be_written_or_read_is_no_mistake(comparisons, monkeypatch, tmp_path):
    (tmp_path / "dreamerv2").touch()  # a file where the folder would be
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert [verdict.measured(), verdict.measured()][1].endswith("2e-05 at worst")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    verdict.measured()
    (tmp_path / "other" / "dreamerv2" / "parity.json").write_text("[]")
    assert verdict.known() is None


@pytest.mark.parametrize(
    "words, message",
    [
        (["--out", "page.pdf"], "--out page.pdf: expected a name that ends in .html"),
        (["--parity", "no.npz"], "--parity no.npz: there is no such file"),
        ([], "expected a run"),
    ],
)
def test_a_mistake_is_one_line_and_nothing_is_written(tmp_path, capsys, words, message):
    with pytest.raises(SystemExit) as stopped:
        report.main(["--logdir", str(tmp_path), *words])
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and message in error
    assert list(tmp_path.iterdir()) == []
