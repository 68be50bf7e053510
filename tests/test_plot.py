"""Curves: what is read from runs, how they are grouped and binned, and the figure."""

import json

import numpy as np
import pytest
from PIL import Image

from common import config as cfg
from common.report.figures import COLORS
from dreamerv2 import plot
from dreamerv2.measure import curves, explain
from dreamerv2.play.scores import KNOWN
from dreamerv2.run import blocks


def make_run(directory, rows=None, **settings):
    """A logdir with the two files that are read; by default the return is frames / 100."""
    if rows is None:
        rows = [{"step": step, "train_return": step / 100} for step in range(100, 1001, 100)]
    settings = {"task": "gym_Test-v0", "seed": 0, "logdir": str(directory), **settings}
    directory.mkdir(parents=True)
    (directory / "config.yaml").write_text(cfg.dump_yaml(settings))
    (directory / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return curves.read_run(directory)


def figure(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"), int)


def first_colour(path):
    """Rows and columns of the pixels in the first curve's colour, without the legend on top."""
    color = np.array([int(COLORS[0][i : i + 2], 16) for i in (1, 3, 5)])
    rows, columns = np.nonzero(np.abs(figure(path) - color).sum(-1) < 12)
    return rows[rows > 100], columns[rows > 100]


def test_a_row_that_a_killed_run_left_half_written_is_passed_over(tmp_path):
    run = make_run(tmp_path / "a")
    with (run.logdir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 1100, "train_re')
    assert len(curves.read_run(run.logdir).rows) == 10


def test_hours_and_updates_of_episodes_lie_between_those_that_are_logged(tmp_path):
    rows = [
        {"step": 100, "train_return": 1.0},
        {"step": 200, "updates": 10, "hours": 2.0},
        {"step": 300, "train_return": 3.0},
        {"step": 400, "updates": 30, "hours": 4.0},
        {"step": 450, "train_return": 4.0},
    ]
    run = make_run(tmp_path / "a", rows)
    np.testing.assert_allclose(curves.series(run, "train_return", "hours")[0], [1, 3, 4])
    np.testing.assert_allclose(curves.series(run, "train_return", "updates")[0], [5, 20, 30])
    np.testing.assert_allclose(curves.series(run, "train_return", "frames")[0], [100, 300, 450])


def test_a_missing_metric_is_named_with_the_nearest(tmp_path):
    run = make_run(tmp_path / "a")
    with pytest.raises(ValueError, match="--metric train_retrun: .*mean train_return"):
        curves.series(run, "train_retrun", "frames")
    with pytest.raises(ValueError, match="--x hours: not in .*metrics.jsonl"):
        curves.series(run, "train_return", "hours")


def test_bins_hold_means_and_are_interpolated_inside_the_run_only():
    edges = np.array([0, 10, 20, 30, 40, 50])
    values = curves.binned(np.array([12, 20, 31]), np.array([1.0, 3.0, 8.0]), edges)
    np.testing.assert_array_equal(values, [np.nan, 2, 5, 8, np.nan])


def test_the_mean_goes_as_far_as_every_seed():
    edges = np.array([0, 1, 2, 3])
    long = np.array([0.5, 1.5, 2.5]), np.array([1.0, 2.0, 3.0])
    short = np.array([0.5, 1.5]), np.array([3.0, 6.0])
    drawn = curves.curve("two", [long, short], edges)
    np.testing.assert_array_equal(drawn.mean, [2, 4, np.nan])
    np.testing.assert_array_equal(drawn.seeds[0], [1, 2, 3])
    assert drawn.low is None


def test_three_seeds_have_an_interval_that_holds_the_mean_and_stays_within_the_seeds():
    edges = np.array([0, 1])
    runs = [(np.array([0.5]), np.array([value])) for value in (1.0, 2.0, 6.0)]
    drawn = curves.curve("three", runs, edges)
    assert 1 <= drawn.low[0] < drawn.mean[0] == 3 < drawn.high[0] <= 6


def test_bins_of_a_log_axis_begin_with_the_runs():
    edges = curves.bin_edges([np.array([50.0, 400.0]), np.array([100.0, 800.0])], True)
    assert (edges[0], edges[-1]) == pytest.approx((50, 800))
    np.testing.assert_allclose(np.diff(np.log(edges)), np.log(16) / curves.BINS)
    assert curves.bin_edges([np.array([50.0, 400.0])], False)[0] == 0


def test_seeds_and_lengths_are_one_curve_and_settings_another(tmp_path):
    runs = [
        make_run(tmp_path / "a", kl={"free": 0.0}),
        make_run(tmp_path / "b", kl={"free": 0.0}, seed=1, steps=99, log_every=7),
        make_run(tmp_path / "c", kl={"free": 1.0}, seed=2),
        make_run(tmp_path / "d", task="gym_Other-v0"),
    ]
    groups = curves.grouped(runs)
    assert {task: list(labelled) for task, labelled in groups.items()} == {
        "gym_Test-v0": ["kl.free 0.0, 2 seeds", "kl.free 1.0"],
        "gym_Other-v0": ["d"],
    }
    assert groups["gym_Test-v0"]["kl.free 0.0, 2 seeds"] == runs[:2]


def test_a_key_that_an_older_run_lacks_counts_as_its_default(tmp_path):
    usual = blocks.defaults().nested()
    newer = [make_run(tmp_path / f"{seed}", **usual | {"seed": seed}) for seed in (0, 1)]
    del usual["kl"]["forward"], usual["xla"]
    older = make_run(tmp_path / "older", **usual | {"seed": 2})
    other = make_run(tmp_path / "other", **usual | {"discount": 0.5})
    (groups,) = curves.grouped([*newer, older, other]).values()
    assert groups == {"discount 0.99, 3 seeds": [*newer, older], "discount 0.5": [other]}


def test_seeds_of_one_configuration_are_counted(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1)]
    assert list(curves.grouped(runs)["gym_Test-v0"]) == ["2 seeds"]


def test_configurations_that_differ_in_much_are_called_after_their_directories(tmp_path):
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", p=1, q=1, r=1, s=1)]
    assert list(curves.grouped(runs)["gym_Test-v0"]) == ["a", "b"]


def test_directories_of_one_name_are_told_apart_by_those_above_them(tmp_path):
    runs = [
        make_run(tmp_path / name / f"seed{seed}", **dict.fromkeys("pqrs", index), seed=seed)
        for index, name in enumerate("abc")
        for seed in range(2)
    ]
    (groups,) = curves.grouped(runs).values()
    assert list(groups) == [f"{name}/seed0, 2 seeds" for name in "abc"]


def test_where_a_run_was_made_makes_no_other_configuration(tmp_path):
    settings = {"replay": {"memory_gib": 0.5}, "save_every": 60.0, "wandb": "x"}
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", seed=1, **settings)]
    assert list(curves.grouped(runs)["gym_Test-v0"]) == ["2 seeds"]


def test_the_command_draws_a_column_per_task_and_a_row_per_metric(tmp_path, capsys):
    rows = [{"step": s, "train_return": s, "train_length": 2 * s} for s in range(1, 9)]
    one = make_run(tmp_path / "one", rows).logdir
    two = make_run(tmp_path / "two", rows, task="gym_Other-v0").logdir
    sizes = []
    for logdirs, metrics in (([one], 1), ([one, two], 1), ([one, two], 2)):
        out = tmp_path / "new" / "figure.png"
        words = ["--metric", "train_return", "train_length"][: 1 + metrics]
        assert plot.main(["--logdirs", *map(str, logdirs), "--out", str(out), *words]) == 0
        sizes.append(figure(out).shape[:2])
    assert sizes[0][0] == sizes[1][0] < sizes[2][0]
    assert sizes[0][1] < sizes[1][1] == sizes[2][1]
    said = capsys.readouterr().out.splitlines()
    assert "gym_Other-v0 train_length two: 16 at 7.92 env frames" in said
    assert said[-1] == str(tmp_path / "new" / "figure.png")


def test_the_figure_shows_the_values(tmp_path):
    """A rising curve goes from the lower left to the upper right."""
    run = make_run(tmp_path / "a")
    out = tmp_path / "a.png"
    plot.main(["--logdirs", str(run.logdir), "--out", str(out)])
    assert np.corrcoef(*first_colour(out))[0, 1] < -0.99


def test_names_are_shown_as_they_are_and_are_no_formulas(tmp_path):
    run = make_run(tmp_path / "$x^{", task="gym_$y^{\0")
    curves.draw(tmp_path / "a.png", curves.grouped([run]), ["train_return"], "frames", False)
    assert (tmp_path / "a.png").exists()


def test_a_single_value_shows_as_a_dot(tmp_path):
    """An evaluation is often the only one of its run."""
    rows = [{"step": step, "train_return": step, "eval_return": 7.0} for step in (100, 200)]
    del rows[1]["eval_return"]
    make_run(tmp_path / "a", rows)
    out = tmp_path / "dot.png"
    words = ["--logdirs", str(tmp_path / "a"), "--out", str(out), "--metric", "eval_return"]
    assert plot.main(words) == 0
    rows, columns = first_colour(out)
    assert len(rows) > 10 and np.ptp(rows) < 10 and np.ptp(columns) < 10


def test_the_reference_adds_the_published_curve_to_each_panel(tmp_path):
    run = make_run(tmp_path / "a", task="atari_pong")
    pictures = []
    for flags in ([], ["--reference"], ["--reference", "--metric", "train_return", "train_return"]):
        out = tmp_path / f"{len(pictures)}.png"
        assert plot.main(["--logdirs", str(run.logdir), "--out", str(out), *flags]) == 0
        pictures.append(figure(out))
    band = [(np.abs(picture - round(0.88 * 255)).max(-1) <= 1).sum() for picture in pictures]
    assert 3 * band[0] < band[1] < band[2], band


def test_a_task_without_published_returns_is_said(tmp_path, capsys):
    run = make_run(tmp_path / "a")
    words = ["--logdirs", str(run.logdir), "--out", str(tmp_path / "a.png"), "--reference"]
    assert plot.main(words) == 0
    assert "nothing is published for gym_Test-v0" in capsys.readouterr().out


def test_runs_of_the_reference_can_be_read(project, tmp_path, capsys):
    run = project / "tests" / "golden" / "reference_run"
    words = ["--logdirs", str(run), "--out", str(tmp_path / "a.png"), "--reference"]
    assert plot.main([*words, "--metric", "train_return", "actor_loss"]) == 0
    assert "atari_breakout actor_loss reference_run: -0.0" in capsys.readouterr().out


def loss_rows(logged):
    """Rows of a run; with `logged` it has logged the terms of its loss itself."""
    rows = []
    for step in range(100, 1001, 100):
        advantage = 1 - step / 500
        row = {"step": step, "actor_ent": 0.5, "actor_ent_scale": 0.1, "actor_loss": 0.2}
        row["advantage_mean"] = advantage
        if logged:
            row |= {"actor_loss_advantage": 9.0, "actor_loss_covariance": 1.0}
            row["actor_loss_entropy"] = -9.8
        rows.append(row)
    return rows


def test_the_terms_of_a_loss_are_those_logged_or_what_follows_from_entropy_and_advantage():
    for row in explain.with_terms(loss_rows(True)):
        assert [row[name] for name in explain.TERMS] == [9, 1, -9.8]
    for row in explain.with_terms(loss_rows(False)):
        first, covariance, last = (row[name] for name in explain.TERMS)
        assert first == pytest.approx(0.5 * row["advantage_mean"])
        assert last == pytest.approx(-0.05)
        assert first + covariance + last == pytest.approx(row["actor_loss"])
    with pytest.raises(ValueError, match="has logged no actor_loss, actor_ent"):
        explain.with_terms([{"step": 1, "train_return": 2.0}])


def test_explain_draws_the_terms_beside_the_loss(tmp_path, capsys):
    run = make_run(tmp_path / "a", loss_rows(True))
    words = ["--logdirs", str(run.logdir), "--out", str(tmp_path / "a.png")]
    assert plot.main([*words, "--metric", "actor_loss", "--explain"]) == 0
    said = capsys.readouterr().out
    assert "-entropy bonus: a: -9.8 at " in said and "entropy x mean advantage: a: 9 at " in said
    pixels = figure(tmp_path / "a.png")
    for color in COLORS[:4]:
        distance = np.abs(pixels - [int(color[i : i + 2], 16) for i in (1, 3, 5)]).sum(-1)
        assert (distance < 30).sum() > 50, color


@pytest.mark.parametrize(
    "words, message",
    [
        (["--logdirs", "nothing", "--out", "a.png"], "nothing: expected a run"),
        (["--logdirs", "a", "--out", "a.txt"], "--out a.txt: expected a name that ends in .png"),
        (["--logdirs", "a", "--out", "a.png", "--explain"], "write --metric actor_loss"),
        (["--logdirs", "a"], "the following arguments are required: --out"),
        (["--logdirs", "a", "--out", "a.png", "--x", "days"], "invalid choice: 'days'"),
    ],
)
def test_mistakes_are_one_line_and_code_2(words, message, capsys):
    with pytest.raises(SystemExit) as error:
        plot.main(words)
    said = capsys.readouterr().err
    assert error.value.code == 2
    assert said.count("\n") == 1 and message in said


def test_the_published_curves_are_whole():
    for known in KNOWN.values():
        assert list(known.curve) == [1, 2, 5, 10, 20, 50, 100, 150, 199]
        for spread in known.curve.values():
            assert spread.low <= spread.mean <= spread.high and spread.seeds >= 4
